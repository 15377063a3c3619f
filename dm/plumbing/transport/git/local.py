"""The objects of a repository on this machine, read where they are: nothing of it is copied but the files.

dulwich opens it: plain, bare, a linked working tree, with packs, loose objects and alternates. Its configuration is
read for where things lie, never for something to run. A file is held in memory as a whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dm.plumbing.transport.git.faults import MALFORMED_BYTES, GitFault, corrupt
from dm.plumbing.transport.git.objects import Kind, missing, wrong_kind

if TYPE_CHECKING:
    from dulwich.repo import Repo

_KINDS: dict[int, Kind] = {1: "commit", 2: "tree", 3: "blob", 4: "tag"}


class LocalRepository:
    """A repository on this machine. Made by `open`; used by one thread; closed by `close`."""

    def __init__(self, repository: Repo) -> None:
        self._repository = repository
        self._algorithm = getattr(getattr(repository, "object_format", None), "name", "sha1")
        self.name_bytes = hashlib.new(self._algorithm, usedforsecurity=False).digest_size

    @classmethod
    def open(cls, path: Path) -> LocalRepository:
        """Open a repository. Raises `GitFault` when there is none, or one that cannot be read."""
        from dulwich.errors import NotGitRepository
        from dulwich.repo import Repo

        hint = "check the 'uri'; is the disk mounted?"
        try:
            return cls(Repo(str(path)))
        except (NotGitRepository, NotADirectoryError, FileNotFoundError) as error:
            raise GitFault("there is no repository", hint=hint, code="git-not-found") from error
        except PermissionError as error:
            hint = "check the owner and mode of its folder"
            raise GitFault("it may not be read: permission denied", hint=hint, code="source-permission") from error
        except (*MALFORMED_BYTES, OSError) as error:
            raise corrupt("it cannot be read") from error

    def read_references(self) -> dict[bytes, bytes]:
        """The hex names of objects by branch, tag and ``HEAD``. Raises `GitFault`."""
        try:
            return {bytes(name): bytes(value) for name, value in self._repository.get_refs().items()}
        except (*MALFORMED_BYTES, OSError) as error:
            raise corrupt("its branches cannot be read") from error

    def close(self) -> None:
        """Let go of its files."""
        self._repository.close()

    def __contains__(self, name: bytes) -> bool:
        try:
            self.read_kind(name)
        except GitFault:
            return False
        return True

    def read_kind(self, name: bytes) -> Kind:
        """What an object is (see `objects.Objects`)."""
        return self._read(name)[0]

    def read(self, name: bytes, kind: Kind) -> bytes:
        """An object's content (see `objects.Objects`)."""
        found, content = self._read(name)
        if found != kind:
            raise wrong_kind(name, kind)
        return content

    def read_size_bytes(self, name: bytes) -> int:
        """The size of an object's content (see `objects.Objects`)."""
        return len(self._read(name)[1])

    def send_blob(self, name: bytes, take: Callable[[bytes], object]) -> None:
        """Give a file's content (see `objects.Objects`)."""
        take(self.read(name, "blob"))

    def _read(self, name: bytes) -> tuple[Kind, bytes]:
        from dulwich.errors import FileFormatException, NotTreeError, ObjectFormatException

        try:
            number, content = self._repository.object_store.get_raw(name.hex().encode())  # type: ignore[arg-type]
        except KeyError as error:
            raise missing(name) from error
        except (*MALFORMED_BYTES, OSError, FileFormatException, ObjectFormatException, NotTreeError) as error:
            raise corrupt(f"the object {name.hex()} cannot be read") from error
        kind = _KINDS[number]
        head = b"%s %d\0" % (kind.encode(), len(content))
        hasher = hashlib.new(self._algorithm, head, usedforsecurity=False)
        hasher.update(content)
        if hasher.digest() != name:
            raise corrupt(f"the object {name.hex()} is damaged")
        return kind, content
