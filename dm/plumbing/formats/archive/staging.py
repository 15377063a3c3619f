"""The folder that an archive is unpacked into: every member goes through here.

Nothing can be written outside of it: all paths are relative to one open folder and cleaned; files are made with
``O_CREAT | O_EXCL | O_NOFOLLOW``; links are made last, when every file is there and all links are known, so that no
file is ever written through one. What two members make of one name is refused, whatever their order.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import NamedTuple, Self

from dm.plumbing.formats.archive.faults import BrokenArchive, UnsafeMember
from dm.plumbing.formats.archive.limits import Meter
from dm.plumbing.formats.archive.links import leads_outside
from dm.plumbing.formats.archive.names import DEPTH_MAX, PATH_BYTES_MAX, clean_member_name, fold_name

_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_COPY_BYTES = 1 << 20
#: The completion marker of a working copy: not data (SCHEMA.md, "Working copies").
_MARKER = b".complete"

# What stands at a path.
_FOLDER = 1
_FILE = 2
_LINK = 3
_DROPPED = 4


class Unpacked(NamedTuple):
    """What an archive became: files (links are files, too) and the bytes they hold (a link's are its target)."""

    files: int
    size_bytes: int


class Staging:
    """An empty folder being filled, a context manager. ``root`` must exist and be nobody else's.

    Methods take names as the archive has them and raise `UnsafeMember`, `OverLimit` or OSError. Nothing is removed
    here: who made the folder removes it. Whether the file system ignores letter case is found out, unless it is said.
    """

    def __init__(self, root: os.PathLike[str], meter: Meter, *, ignores_case: bool | None = None) -> None:
        self._meter = meter
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._ignores_case = self._find_whether_case_is_ignored() if ignores_case is None else ignores_case
        self._kinds: dict[bytes, int] = {}  # by folded path
        self._folders: set[bytes] = set()
        self._links: list[tuple[bytes, bytes, bytes]] = []  # name as the archive has it, path, target
        self._count = 0
        self._files = 0
        self._size_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._root)

    @property
    def count(self) -> int:
        """How many members have been seen, implied folders included."""
        return self._count

    def add_folder(self, name: bytes) -> None:
        """Make a folder; one that is there already, or is the whole folder itself, is fine."""
        path = clean_member_name(name)
        if path and path not in self._folders:
            self._ensure_folder(name, path)
        else:
            self._count_one()

    def add_file(self, name: bytes, pieces: Iterable[bytes | memoryview], *, executable: bool) -> None:
        """Write a file from its pieces, 0644 or 0755 but for the umask.

        An empty ``.complete`` at the top is dropped, since the store makes its own; one with bytes in it is refused.
        """
        path = self._claim(name, _FILE)
        if self._is_marker(path):
            for piece in pieces:
                if len(piece):
                    raise UnsafeMember(name, "is not empty, but '.complete' is the name of an empty marker")
            self._kinds[self._fold(path)] = _DROPPED
            return
        try:
            target = os.open(path, _FILE_FLAGS, 0o755 if executable else 0o644, dir_fd=self._root)
        except FileExistsError:
            raise UnsafeMember(name, "is another member's name on this file system") from None
        try:
            written = self._size_bytes
            for piece in pieces:
                written += len(piece)
                self._meter.check_bytes(written)
                done = os.write(target, piece)
                while done < len(piece):
                    done += os.write(target, memoryview(piece)[done:])
        finally:
            os.close(target)
        self._size_bytes = written
        self._files += 1

    def add_link(self, name: bytes, target: bytes) -> None:
        """Take note of a symbolic link; `finish` makes it."""
        path = self._claim(name, _LINK)
        if self._is_marker(path):
            raise UnsafeMember(name, "is a link, but '.complete' is the name of an empty marker")
        if not target or b"\0" in target:
            raise UnsafeMember(name, "is a link to nothing")
        if target.startswith(b"/"):
            raise UnsafeMember(name, "is a link to an absolute path")
        if len(target) > PATH_BYTES_MAX or target.count(b"/") > DEPTH_MAX:
            raise UnsafeMember(name, f"is a link to a path of more than {PATH_BYTES_MAX} bytes or {DEPTH_MAX} folders")
        self._links.append((name, path, target))

    def add_copy(self, name: bytes, original: bytes) -> None:
        """Write a file with the bytes and the mode of one that is there: a hard link of the archive.

        It is a copy, so that a change to one name never shows under another; the store holds equal bytes once.
        """
        source_path = clean_member_name(original)
        if self._kinds.get(self._fold(source_path)) != _FILE:
            raise UnsafeMember(name, "is a hard link to something that is not a file before it in the archive")
        try:
            source = os.open(source_path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._root)
        except FileNotFoundError:
            raise UnsafeMember(name, "is a hard link to a name that is spelled in another way") from None
        try:
            executable = bool(os.fstat(source).st_mode & 0o100)
            self.add_file(name, _read_pieces(source), executable=executable)
        finally:
            os.close(source)

    def finish(self) -> Unpacked:
        """Check all links together and make them. Raises `BrokenArchive` when no member has been added."""
        if self._count == 0:
            raise BrokenArchive("it holds nothing")
        targets = {self._fold(path): target for _, path, target in self._links}
        for name, path, target in self._links:
            if leads_outside(path, targets, self._fold):
                raise UnsafeMember(name, "is a link that leads outside the folder")
            try:
                os.symlink(target, path, dir_fd=self._root)
            except FileExistsError:
                raise UnsafeMember(name, "is another member's name on this file system") from None
            self._size_bytes += len(target)
        return Unpacked(self._files + len(self._links), self._size_bytes)

    def _claim(self, name: bytes, kind: int) -> bytes:
        """The path of a new file or link, its folders made."""
        path = clean_member_name(name)
        self._count_one()
        if not path:
            raise UnsafeMember(name, "has no name")
        parent = path.rpartition(b"/")[0]
        if parent not in self._folders and parent:
            self._ensure_folder(name, parent)
        folded = self._fold(path)
        there = self._kinds.get(folded)
        if there is not None:
            raise UnsafeMember(name, "comes twice, as a folder too" if there == _FOLDER else self._say_twice(name))
        self._kinds[folded] = kind
        return path

    def _ensure_folder(self, name: bytes, path: bytes) -> None:
        parts = path.split(b"/")
        if self._is_marker(parts[0]):
            raise UnsafeMember(name, "lies in a folder '.complete', but that is the name of an empty marker")
        for depth in range(1, len(parts) + 1):
            folder = b"/".join(parts[:depth])
            if folder in self._folders:
                continue
            folded = self._fold(folder)
            there = self._kinds.get(folded)
            if there == _LINK:
                raise UnsafeMember(name, "has a link of the archive in its path")
            if there is not None and there != _FOLDER:
                raise UnsafeMember(name, "has a file of the archive in its path")
            if there == _FOLDER:  # the same but for its spelling, or its exact spelling would have been found
                raise UnsafeMember(name, self._say_twice(name))
            self._count_one()
            try:
                os.mkdir(folder, 0o755, dir_fd=self._root)
            except FileExistsError:
                raise UnsafeMember(name, "is another member's name on this file system") from None
            self._kinds[folded] = _FOLDER
            self._folders.add(folder)

    def _say_twice(self, name: bytes) -> str:
        also = " or upper and lower case" if self._ignores_case else ""
        return "comes twice" if name.isascii() and not also else f"comes twice, but for Unicode's forms{also}"

    def _count_one(self) -> None:
        self._count += 1
        self._meter.check_count(self._count)

    def _is_marker(self, path: bytes) -> bool:
        return path == _MARKER or (self._ignores_case and path.lower() == _MARKER)

    def _fold(self, path: bytes) -> bytes:
        return fold_name(path, ignore_case=self._ignores_case)

    def _find_whether_case_is_ignored(self) -> bool:
        os.close(os.open("dm-probe", _FILE_FLAGS, 0o600, dir_fd=self._root))
        try:
            os.stat("DM-PROBE", dir_fd=self._root)
        except FileNotFoundError:
            return False
        else:
            return True
        finally:
            os.unlink("dm-probe", dir_fd=self._root)


def _read_pieces(source: int) -> Iterator[bytes]:
    while piece := os.read(source, _COPY_BYTES):
        yield piece
