"""A file system whose calls wait for their answer, around one of fsspec that could also be awaited.

zarr makes a second instance of a file system that can be awaited, in a loop of its own, and nobody closes that one's
connections: every script ends with warnings about them. One that only waits it takes as it is and calls from threads.
"""

from __future__ import annotations

from typing import Any

from fsspec import AbstractFileSystem  # type: ignore[import-untyped]


class BlockingFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """What reading needs of another file system, passed on to it."""

    cachable = False
    async_impl = False

    def __init__(self, system: Any) -> None:
        super().__init__()
        self._system = system
        self.protocol = system.protocol

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> Any:
        """The bytes of a file, or of a part of it."""
        return self._system.cat_file(path, start=start, end=end, **options)

    def info(self, path: str, **options: Any) -> Any:
        """What is known of a file or folder."""
        return self._system.info(path, **options)

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        """What lies in a folder."""
        return self._system.ls(path, detail=detail, **options)

    def find(self, path: str, **options: Any) -> Any:
        """All files below a folder."""
        return self._system.find(path, **options)

    def exists(self, path: str, **options: Any) -> Any:
        """Whether something is there."""
        return self._system.exists(path, **options)
