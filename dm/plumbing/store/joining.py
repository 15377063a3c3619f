"""Equal files of several working copies, in one store or more, are found and become one physical copy.

What is found is proven twice: by its id when it is looked for, and by reading object and file once more right before
one takes the place of the other (`dm.plumbing.store.sharing`). A file that changes meanwhile stays as it is.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dm.plumbing.fs.extents import is_inline, share_blocks
from dm.plumbing.fs.link import LinkMode, find_link_fault, find_working_modes
from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.store.markers import MARKER_NAME
from dm.plumbing.store.measure import measure_copy
from dm.progress import SILENT, Progress
from dm.values import Digest

if TYPE_CHECKING:
    from dm.plumbing.store.disk import DiskStore
    from dm.plumbing.store.statcache import StatCache

#: Files below this size, in bytes, are left: a link to one frees less than a block.
SIZE_MIN = 1


class Twin(NamedTuple):
    """A file of a working copy. ``copy`` is the copy that it belongs to, ``store`` the one that owns that copy."""

    path: Path
    copy: Path
    store: DiskStore
    size: int
    device: int
    inode: int
    nlink: int
    is_executable: bool


class Group(NamedTuple):
    """Files of equal content on one file system that do not all share their bytes.

    ``freed_bytes`` is what joining them gives back.
    """

    digest: Digest
    twins: tuple[Twin, ...]
    freed_bytes: int


def list_files(store: DiskStore, copies: Iterable[Path]) -> Iterator[Twin]:
    """The regular files of copies that are in a store's folder, without markers. Raises `MachineFailed`."""
    for copy in copies:
        with machine_errors("look through", copy):
            for path in _walk(copy):
                status = os.lstat(path)
                if stat.S_ISREG(status.st_mode) and status.st_size >= SIZE_MIN:
                    executable = bool(status.st_mode & stat.S_IXUSR)
                    yield Twin(
                        path, copy, store, status.st_size, status.st_dev, status.st_ino, status.st_nlink, executable
                    )


def _walk(copy: Path) -> Iterator[Path]:
    if copy.is_symlink():
        return
    if not copy.is_dir():
        yield copy
        return
    for folder, names, files in os.walk(copy):
        names[:] = sorted(name for name in names if name != ".dm")
        for name in sorted(files):
            if name != MARKER_NAME:
                yield Path(folder, name)


def find_groups(
    twins: Sequence[Twin], *, stat_cache: StatCache | None = None, progress: Progress = SILENT
) -> list[Group]:
    """Files of equal content among ``twins`` that could share their bytes and do not, the largest gain first.

    Only files whose size another one on the same file system has too are read, and of these only what the stat cache
    does not vouch for. Executable files are apart: they are never hard-linked. What no link that works here could join
    is left out.
    """
    joining = _Joining()
    alike: dict[tuple[int, int, bool], list[Twin]] = {}
    for twin in twins:
        if set(twin.store.options.link) == {"copy"}:
            continue  # nothing that joins is allowed there
        if twin.is_executable and not joining.can_clone(twin.store):
            continue
        alike.setdefault((twin.device, twin.size, twin.is_executable), []).append(twin)
    candidates = [some for some in alike.values() if len({twin.inode for twin in some}) > 1]
    total = sum(twin.size for some in candidates for twin in {twin.inode: twin for twin in some}.values())
    groups = []
    with progress.start("comparing", total=total) as task:
        for some in candidates:
            by_digest: dict[Digest, list[Twin]] = {}
            known: dict[int, Digest] = {}
            for twin in some:
                if twin.inode not in known:
                    measured = measure_copy(twin.path, stat_cache=stat_cache, quick=True, ref_root=twin.store.root)
                    known[twin.inode] = measured.digest
                    task.advance(twin.size)
                by_digest.setdefault(known[twin.inode], []).append(twin)
            for digest, alike_there in by_digest.items():
                equal = [twin for twin in alike_there if joining.can_link(twin.store, digest)]
                if len({twin.inode for twin in equal}) < 2:
                    continue
                freed_bytes = _count_freed(digest, equal, joining)
                if freed_bytes > 0:
                    groups.append(Group(digest, tuple(equal), freed_bytes))
    return sorted(groups, key=lambda group: (-group.freed_bytes, str(group.digest)))


def _count_freed(digest: Digest, equal: Sequence[Twin], joining: _Joining) -> int:
    """What is given back when these files share one object: each file but one, unless it has other names, which keep
    its bytes, or shares them already, or is so small that a clone of it shares nothing.
    """
    names: dict[int, list[str]] = {}
    links: dict[int, int] = {}
    for path in [*_list_objects(digest, equal), *(os.fspath(twin.path) for twin in equal)]:
        status = os.lstat(path)
        if status.st_dev == equal[0].device:
            names.setdefault(status.st_ino, []).append(path)
            links[status.st_ino] = status.st_nlink
    first, *others = names
    freed = [
        inode
        for inode in others
        if links[inode] <= len(names[inode]) and not share_blocks(names[first][0], names[inode][0])
    ]
    if any(is_inline(names[inode][0]) for inode in freed) and joining.can_clone(equal[0].store):
        return 0
    freed_bytes = len(freed) * equal[0].size
    if links[first] > len(names[first]) and not any(twin.store.has(digest) for twin in equal):
        # Without an object and without clones the bytes are written once more, and the first file's stay.
        return freed_bytes if joining.can_clone(equal[0].store) else freed_bytes - equal[0].size
    return freed_bytes


class _Joining:
    """What joins files in the folders of stores; each is tried out once."""

    def __init__(self) -> None:
        self._clones: dict[Path, bool] = {}

    def can_clone(self, store: DiskStore) -> bool:
        """Whether files can be cloned in a store's folder. What is not there yet is not made for the answer."""
        if store.root not in self._clones:
            rungs = store.ground().rungs if store.exists() else _find_rungs(store)
            self._clones[store.root] = "reflink" in rungs
        return self._clones[store.root]

    def can_link(self, store: DiskStore, digest: Digest) -> bool:
        """Whether a file can share the bytes of a store's object: one of another user may not be hard-linked."""
        if not store.has(digest):
            return True
        path = store.object_path(digest)
        if os.lstat(path).st_uid == os.geteuid() or self.can_clone(store):
            return True
        return find_link_fault(path, store.meta / "partial") is None


def _find_rungs(store: DiskStore) -> Sequence[LinkMode]:
    return [mode for mode, verdict in find_working_modes(store.root).items() if verdict == "works"]


def _list_objects(digest: Digest, equal: Sequence[Twin]) -> Iterator[str]:
    for store in {twin.store.root: twin.store for twin in equal}.values():
        if store.has(digest):
            yield os.fspath(store.object_path(digest))


def list_apart(group: Group) -> Iterator[Twin]:
    """The files of a group that do not share the bytes of their store's object (all where there is none yet)."""
    for twin in group.twins:
        if not twin.store.has(group.digest) or not share_blocks(twin.store.object_path(group.digest), twin.path):
            yield twin


def join(group: Group) -> Iterator[tuple[Twin, LinkMode | None]]:
    """Let the files of a group share one object; yield each file that was replaced and how, None where it stayed (it
    changed, or no link works for it). The caller holds the locks of the copies.

    Each store of the group has the object afterwards. Raises `ContentMismatch` for a damaged object and
    `MachineFailed` for faults of the machine; then every file is as it was or a link to the object, whole.
    """
    stores = list({twin.store.root: twin.store for twin in group.twins}.values())
    stores.sort(key=lambda store: not store.has(group.digest))
    source = group.twins[0].path
    for store in stores:
        source = store.share_object(group.digest, source)
    for twin in list_apart(group):
        yield twin, twin.store.replace_by_object(group.digest, twin.path, executable=twin.is_executable)
