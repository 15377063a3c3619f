"""Does a copy hold the bytes that its digest says? If not, which paths differ, and how.

The bytes on disk are measured first (`dm.plumbing.store.measure`); only when the ids differ are the expected tree
objects read, and only below the folders whose ids differ.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dm.errors import DmError
from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.store.measure import (
    BuiltTree,
    Checksummed,
    Measured,
    SeenFiles,
    build_trees,
    measure_checksum,
    measure_copy,
)
from dm.plumbing.store.objects import FOLDER_MODE, LINK_MODE, TreeEntry
from dm.plumbing.store.statcache import StatCache
from dm.progress import SILENT, Progress
from dm.values import Difference, Digest

if TYPE_CHECKING:
    from dm.plumbing.store.protocol import TreeReader

__all__ = [
    "Checksummed",
    "Comparison",
    "Measured",
    "compare_checksum",
    "compare_copy",
    "measure_checksum",
    "measure_copy",
]

# Linux file systems that have no execute bit of their own, by the names that /proc/self/mountinfo gives them.
_MODELESS = frozenset({"vfat", "msdos", "exfat", "ntfs", "ntfs3", "fuseblk", "cifs", "smb3", "hfs"})


class Comparison(NamedTuple):
    """A copy held against a digest.

    ``differences`` is empty when the copy is as it should be, else every path that differs, in the order of its bytes.
    ``digest`` is what is on disk (None where nothing of the expected kind is); ``read_bytes`` was read,
    ``trusted_bytes`` in ``trusted_files`` was vouched for by the stat cache.
    """

    differences: tuple[Difference, ...]
    digest: Digest | None = None
    size_bytes: int = 0
    files: int = 0
    read_bytes: int = 0
    trusted_bytes: int = 0
    trusted_files: int = 0

    @property
    def equal(self) -> bool:
        """Whether the copy is as its digest says."""
        return not self.differences


def compare_copy(
    path: Path,
    expected: Digest,
    reader: TreeReader | None = None,
    *,
    stat_cache: StatCache | None = None,
    quick: bool = False,
    ref_root: Path | None = None,
    seen: SeenFiles | None = None,
    progress: Progress = SILENT,
) -> Comparison:
    """Compare the file or folder at ``path`` with an id, ``blake3`` for a file and ``blake3-tree`` for a folder.

    A folder's differences are named path by path when ``reader`` has the expected tree objects: ``changed``, ``lost``,
    ``added``, ``mode`` (the execute bit alone; not asked on a file system without one), ``type`` (a file for a folder,
    a link for a file …; what is below it is not listed). Lost and added folders are named by what they hold, empty ones
    themselves. A folder whose own tree object cannot be read is one ``changed`` path, "." for the copy itself; so is a
    file copy.

    A digest in another algorithm is compared as `compare_checksum` does. ``quick``, ``ref_root``, ``seen`` and
    errors as in `measure_copy`; a copy that is not there is one difference, "." ``lost``.
    """
    options = _Options(stat_cache, quick, ref_root, progress)
    if expected.algorithm not in ("blake3", "blake3-tree"):
        return _compare_checksum(path, expected, options)
    is_folder = _find_kind(path)
    if is_folder is None:
        return Comparison((Difference(".", "lost"),))
    if is_folder != expected.is_tree:
        return Comparison((Difference(".", "type"),))
    measured = measure_copy(path, stat_cache=stat_cache, quick=quick, ref_root=ref_root, seen=seen, progress=progress)
    if measured.digest == expected:
        return _comparison(measured, measured.digest, ())
    if not is_folder or reader is None:
        return _comparison(measured, measured.digest, (Difference(".", "changed"),))
    differences = _find_differences(reader, expected, build_trees(measured.entries, measured.ids))
    if any(each.how == "mode" for each in differences) and not _has_modes(path):
        differences = [each for each in differences if each.how != "mode"]
        if not differences:
            return _comparison(measured, expected, ())
    return _comparison(measured, measured.digest, differences or (Difference(".", "changed"),))


def compare_checksum(
    path: Path,
    expected: Digest,
    *,
    stat_cache: StatCache | None = None,
    quick: bool = False,
    ref_root: Path | None = None,
    progress: Progress = SILENT,
) -> Comparison:
    """Compare the file or folder at ``path`` with a contract in a plain algorithm (`measure_checksum`).

    Such a digest names no paths: a copy that differs is one difference, "." ``changed``, one that is not there "."
    ``lost``. ``digest`` of the answer is in the contract's algorithm.
    """
    return _compare_checksum(path, expected, _Options(stat_cache, quick, ref_root, progress))


class _Options(NamedTuple):
    stat_cache: StatCache | None
    quick: bool
    ref_root: Path | None
    progress: Progress


def _compare_checksum(path: Path, expected: Digest, options: _Options) -> Comparison:
    if _find_kind(path) is None:
        return Comparison((Difference(".", "lost"),))
    measured = measure_checksum(path, expected.algorithm, **options._asdict())
    differs = measured.checksum != expected
    return _comparison(measured, measured.checksum, (Difference(".", "changed"),) if differs else ())


def _comparison(
    measured: Measured | Checksummed, digest: Digest | None, differences: Iterable[Difference]
) -> Comparison:
    return Comparison(
        tuple(differences),
        digest,
        measured.size_bytes,
        measured.files,
        measured.read_bytes,
        measured.trusted_bytes,
        measured.trusted_files,
    )


def _find_kind(path: Path) -> bool | None:
    """Whether a folder lies at ``path`` (a link is followed); None for nothing, or a link to nothing."""
    with machine_errors("read", path):
        try:
            return stat.S_ISDIR(os.stat(path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return None


def _find_differences(reader: TreeReader, expected: Digest, found: dict[bytes, BuiltTree]) -> list[Difference]:
    """Walk the expected tree against the disk, into the folders whose ids differ."""
    differences: list[tuple[bytes, str]] = []
    waiting = [(b"", expected)]
    while waiting:
        folder, digest = waiting.pop()
        listed = _read_tree(reader, digest)
        if listed is None:
            differences.append((folder or b".", "changed"))
            continue
        prefix = folder + b"/" if folder else b""
        wanted = {entry.name: entry for entry in listed}
        present = {entry.name: entry for entry in found[folder].entries}
        for name, entry in wanted.items():
            path, seen = prefix + name, present.get(name)
            if seen is None:
                differences.extend([(lost, "lost") for lost in _list_lost(reader, path, entry)])
            elif entry.mode != seen.mode and not _are_files(entry, seen):
                differences.append((path, "type"))
            elif entry.id == seen.id:
                if entry.mode != seen.mode:
                    differences.append((path, "mode"))
            elif entry.mode == FOLDER_MODE:
                waiting.append((path, Digest.of_tree(entry.id)))
            else:
                differences.append((path, "changed"))
        for name, entry in present.items():
            if name not in wanted:
                differences.extend([(added, "added") for added in _list_added(found, prefix + name, entry)])
    differences.sort()
    return [Difference(os.fsdecode(path), how) for path, how in differences]


def _are_files(entry: TreeEntry, other: TreeEntry) -> bool:
    return not {entry.mode, other.mode} & {FOLDER_MODE, LINK_MODE}


def _list_lost(reader: TreeReader, path: bytes, entry: TreeEntry) -> Iterator[bytes]:
    waiting = [(path, entry)]
    while waiting:
        path, entry = waiting.pop()
        listed = _read_tree(reader, Digest.of_tree(entry.id)) if entry.mode == FOLDER_MODE else None
        if not listed:
            yield path
            continue
        waiting.extend([(path + b"/" + each.name, each) for each in listed])


def _list_added(found: dict[bytes, BuiltTree], path: bytes, entry: TreeEntry) -> Iterator[bytes]:
    waiting = [(path, entry)]
    while waiting:
        path, entry = waiting.pop()
        listed = found[path].entries if entry.mode == FOLDER_MODE else None
        if not listed:
            yield path
            continue
        waiting.extend([(path + b"/" + each.name, each) for each in listed])


def _read_tree(reader: TreeReader, digest: Digest) -> list[TreeEntry] | None:
    # Whatever keeps a tree object from being read (gone, damaged, not permitted), the copy is still compared.
    try:
        return reader.read_tree(digest)
    except DmError:
        return None


def _has_modes(path: Path) -> bool:
    """Whether the file system at ``path`` keeps an execute bit. Assumed where it cannot be told (not on Linux)."""
    if not sys.platform.startswith("linux"):
        return True
    try:
        device = os.stat(path).st_dev
        with open("/proc/self/mountinfo", "rb") as file:
            mounts = file.read()
    except OSError:
        return True
    return _find_file_system(mounts, device) not in _MODELESS


def _find_file_system(mounts: bytes, device: int) -> str | None:
    """The type of the file system ``device`` in the text of ``/proc/self/mountinfo`` (proc_pid_mountinfo(5))."""
    wanted = f"{os.major(device)}:{os.minor(device)}".encode()
    for line in mounts.splitlines():
        fields, _, rest = line.partition(b" - ")
        if fields.split()[2:3] == [wanted]:
            return os.fsdecode(rest.split(b" ")[0])
    return None
