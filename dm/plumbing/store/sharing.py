"""Objects and files below a store's root share their bytes: a link takes the place of one of them, by one rename.

What is replaced, and what takes its place, were both read right before and have the bytes of the digest: stat data say
nothing of a disk that rots. A file that changes meanwhile stays.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from dm.errors import ContentMismatch, MachineFailed
from dm.plumbing.fs.extents import share_blocks
from dm.plumbing.fs.flush import flush_file
from dm.plumbing.fs.link import LinkMode, link_file
from dm.plumbing.fs.machine import display_path, machine_errors
from dm.plumbing.hashing import hash_blob
from dm.plumbing.store.layout import Layout
from dm.plumbing.store.loose import LooseObjects
from dm.plumbing.store.workspace import Workspace
from dm.values import Digest


class Sharer:
    """Links between a store's objects and files below its root, in a workspace of it."""

    def __init__(
        self, layout: Layout, objects: LooseObjects, workspace: Workspace, *, rungs: Sequence[LinkMode]
    ) -> None:
        self._layout = layout
        self._objects = objects
        self._work = workspace
        self._rungs = rungs

    def share(self, digest: Digest, source: Path) -> bool:
        """Let the blob be here, sharing the bytes of ``source`` where that is another store's object; False where it is
        still to be stored. Raises `ContentMismatch`.
        """
        path = self._layout.object_path(digest.raw)
        is_object = source.parts[-4:-2] == (".dm", "objects")
        if self._objects.has(digest):
            self._objects.require([(digest.raw, None)])
            if is_object and not share_blocks(source, path):
                self._replace(os.fspath(source), path, digest, executable=False)
            return True
        if not is_object:
            return False
        private = self._work.new_path()
        with machine_errors("link to", path):
            if link_file(source, private, modes=(*self._rungs, "copy")) == "copy":
                flush_file(private)
            if hash_blob(private) != digest.raw:
                raise damaged_source(source, digest)
            self._layout.ensure_folder_once(os.path.dirname(path))
            os.rename(private, path)
        return True

    def replace(self, digest: Digest, path: Path, *, executable: bool) -> LinkMode | None:
        """Put a link to the object in the place of a file with its bytes; None where it stays."""
        if self._objects.protect(self._objects.require([(digest.raw, None)])) and "reflink" not in self._rungs:
            return None
        with machine_errors("replace", path):
            if os.lstat(path).st_dev != os.lstat(self._work.folder).st_dev:
                return None
        return self._replace(self._layout.object_path(digest.raw), os.fspath(path), digest, executable=executable)

    def _replace(self, source: str, path: str, digest: Digest, *, executable: bool) -> LinkMode | None:
        """``path`` is read once more, and stays when it changes; so is what takes its place. A reflink keeps the file's
        own mode and times. Raises `ContentMismatch` for a damaged ``source``.
        """
        rungs = [mode for mode in self._rungs if mode != "copy"]  # a copy joins nothing
        private = self._work.new_path()
        with machine_errors("replace", path):
            before = os.lstat(path)
            if hash_blob(path) != digest.raw:
                return None
            try:
                mode = link_file(source, private, modes=rungs, executable=executable)
            except MachineFailed as error:
                if error.code != "link-failed":
                    raise
                return None
            if hash_blob(private) != digest.raw:
                os.unlink(private)
                raise damaged_source(Path(source), digest)
            if mode == "reflink":
                os.chmod(private, stat.S_IMODE(before.st_mode))
                os.utime(private, ns=(before.st_atime_ns, before.st_mtime_ns))
            if _stamp(os.lstat(path)) != _stamp(before):
                os.unlink(private)
                return None
            os.rename(private, path)
            return mode


def damaged_source(source: Path, digest: Digest) -> ContentMismatch:
    """The error for a file that is not what it was found to be."""
    return ContentMismatch(
        f"'{display_path(source)}' is not {digest.short}: it changed, or is damaged",
        hint="dm verify names what is wrong",
        code="object-damaged",
    )


def _stamp(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
