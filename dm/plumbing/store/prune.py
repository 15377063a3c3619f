"""Removing what no ref reaches: objects first of all, and with them aliases that lead to nothing and old leftovers.

The order keeps what somebody is about to name. From ingest to ref every writer holds a shared `flock` on
``.dm/format``; here it is held alone while refs are read once more and objects go, so that none goes that a writer has
met as being there. What was unlinked, linked or written lately is left by its ctime. Where there is no `flock` nothing
is removed at once: objects are moved to the quarantine and removed by a prune after the grace time.

Whoever works on something partial holds the lock of the copy that it becomes. So partial work goes only while every
copy's lock is held here; where one is not to be had, all of it stays.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from dm.plumbing.fs.flock import open_lock_file, try_flock, unlock
from dm.plumbing.fs.lock import ExclusiveLock
from dm.plumbing.fs.machine import display_path, machine_errors
from dm.plumbing.fs.remove import remove_tree
from dm.plumbing.store.aliases import read_alias
from dm.plumbing.store.layout import Layout
from dm.plumbing.store.loose import LooseObjects
from dm.plumbing.store.protocol import Store
from dm.plumbing.store.quarantine import set_aside
from dm.plumbing.store.reachability import find_reached
from dm.plumbing.store.unlocked import forget_unlocked
from dm.progress import SILENT, Progress
from dm.values import Digest

#: object: no ref reaches it. alias: its object is gone. partial: a download that nobody went on with. aside: what was
#: put into the quarantine. ref: its copy is gone.
Kind = Literal["object", "alias", "partial", "aside", "ref"]
#: Below `.dm/partial`: workspaces, which `Workspace` clears by their locks.
_WORK_PREFIX = "work-"
#: Below `.dm/locks`: the locks of copies are named by a BLAKE3 in hex.
_COPY_LOCK_LENGTH = 64


class Unreached(NamedTuple):
    """Something that may go. ``freed_bytes`` is what its removal gives back: 0 where hard links keep the bytes.

    ``name`` is an object's digest, else the path below ``.dm``.
    """

    kind: Kind
    name: str
    path: Path
    freed_bytes: int
    ctime_ns: int


class Pruned(NamedTuple):
    """What became of one: removed, or ``aside``, moved to the quarantine where no lock could be taken."""

    item: Unreached
    aside: Path | None = None


class Pruner:
    """Finds and removes what is not needed below one store root. Two steps, so that the first can be shown."""

    def __init__(self, store: Store, layout: Layout, objects: LooseObjects, *, progress: Progress = SILENT) -> None:
        self._store = store
        self._layout = layout
        self._objects = objects
        self._progress = progress

    def find(self, *, before_ns: int, quarantine: bool = False, gone: bool = False) -> list[Unreached]:
        """Everything that was not touched since ``before_ns`` (ctime, nanoseconds since the epoch) and may go.

        With ``quarantine`` also what was put aside before then, with ``gone`` also the refs whose copies are gone and
        what only they reach. Changes nothing. Raises `Malformed` for a ref that cannot be read and `ContentMismatch`
        for a tree that cannot: then nothing can be said; `Malformed` also where folders of objects are links.
        """
        if not self._layout.is_there():
            return []
        with machine_errors("look through", self._layout.meta):
            self._layout.refuse_inner_links()
            dead = {item.name: item for item in self._list_dead_refs(before_ns)} if gone else {}
            refs = [(name, ref) for name, ref in self._store.list_refs() if f"refs/{name}" not in dead]
            reached = find_reached(self._store, refs)
            found = list(dead.values())
            objects = list(self._list_objects(before_ns, reached))
            found += objects
            if objects:
                found += self._list_dead_aliases({item.name for item in objects})
            partials = list(self._list_partials(before_ns))
            if partials:
                with self._hold_copies() as idle:
                    found += partials if idle else []
            if quarantine:
                found += self._list_aside(before_ns)
        return found

    def remove(self, items: Sequence[Unreached]) -> list[Pruned]:
        """Remove what `find` found, unless it was touched or reached since; return what went.

        Waits for whoever is writing. Aliases that lead to nothing any more go with it.
        """
        if not items:
            return []
        with ExclusiveLock(self._layout.format, progress=self._progress, describe=f"'{self._layout.root}'") as lock:
            with machine_errors("prune", self._layout.meta):
                gone = [each for each in map(self._remove_ref, items) if each is not None]
                # Once more, now that nobody is between an object and its ref.
                reached = find_reached(self._store, self._store.list_refs())
                with self._progress.start("pruning", total=len(items), unit="files") as task:
                    for item in items:
                        if item.kind in ("ref", "alias", "partial"):
                            continue
                        pruned = self._remove(item, reached, locked=lock.works)
                        task.advance(1)
                        if pruned is not None:
                            gone.append(pruned)
                partials = [item for item in items if item.kind == "partial"]
                if partials:
                    with self._hold_copies() as idle:
                        went = [self._remove(item, reached, locked=lock.works) for item in partials if idle]
                        gone += [each for each in went if each is not None]
                if any(each.item.kind == "object" for each in gone):
                    for alias in self._list_dead_aliases():
                        alias.path.unlink(missing_ok=True)
                        gone.append(Pruned(alias))
        return gone

    # Finding

    def _list_objects(self, before_ns: int, reached: set[bytes]) -> Iterator[Unreached]:
        for raw, status in self._list(before_ns):
            if raw in reached:
                continue
            digest = self._objects.find_object(raw)
            if digest is None:
                continue  # another prune was quicker
            freed_bytes = status.st_size if status.st_nlink == 1 else 0
            path = Path(self._layout.object_path(raw))
            yield Unreached("object", str(digest), path, freed_bytes, status.st_ctime_ns)

    def _list(self, before_ns: int) -> Iterator[tuple[bytes, os.stat_result]]:
        top = os.fspath(self._layout.objects)
        for folder in sorted(_list_names(top, 2)):
            for name in sorted(_list_names(f"{top}/{folder}", 62)):
                try:
                    status = os.lstat(f"{top}/{folder}/{name}")
                except FileNotFoundError:
                    continue  # another prune was quicker
                if stat.S_ISREG(status.st_mode) and status.st_ctime_ns < before_ns:
                    yield bytes.fromhex(folder + name), status

    def _list_dead_aliases(self, gone: Container[str] = ()) -> Iterator[Unreached]:
        """The aliases that lead to nothing, or to an object of these digests, which are to go."""
        for path in sorted(self._layout.aliases.glob("*/??/*")):
            blob = read_alias(os.fspath(path))
            if blob is not None and (str(blob) in gone or not self._store.has(blob)):
                try:
                    status = path.lstat()
                except FileNotFoundError:
                    continue  # another prune was quicker
                name = path.relative_to(self._layout.meta).as_posix()
                yield Unreached("alias", name, path, status.st_size, status.st_ctime_ns)

    def _list_dead_refs(self, before_ns: int) -> Iterator[Unreached]:
        for name, _ref in self._store.list_refs():
            path = Path(self._layout.ref_path(name))
            if not os.path.lexists(self._layout.root / name):
                yield from self._list_old("ref", path, before_ns)

    def _remove_ref(self, item: Unreached) -> Pruned | None:
        if item.kind != "ref" or os.path.lexists(self._layout.root / item.name.removeprefix("refs/")):
            return None
        try:
            if os.lstat(item.path).st_ctime_ns != item.ctime_ns:
                return None
            item.path.unlink()
        except FileNotFoundError:
            return None
        forget_unlocked(self._layout, item.name.removeprefix("refs/"))
        return Pruned(item)

    @contextmanager
    def _hold_copies(self) -> Iterator[bool]:
        """Hold the lock of every copy, so that nobody begins or goes on with partial work; whether they were to be had.

        A copy that was never locked has no partial work either.
        """
        held: list[int] = []
        try:
            yield self._take_copies(held)
        finally:
            for descriptor in held:
                unlock(descriptor)

    def _take_copies(self, held: list[int]) -> bool:
        for path in _list_folder(self._layout.locks):
            if len(path.name) != _COPY_LOCK_LENGTH:
                continue  # another kind of lock
            try:
                held.append(open_lock_file(path, make=False)[0])
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.EACCES):
                    raise
                taken = False
            else:
                taken = try_flock(held[-1]) is not False
            if not taken:
                self._progress.note(f"somebody works in '{display_path(self._layout.root)}': partial work there stays")
                return False
        return True

    def _list_partials(self, before_ns: int) -> Iterator[Unreached]:
        for path in _list_folder(self._layout.partial):
            if not path.name.startswith(_WORK_PREFIX):
                yield from self._list_old("partial", path, before_ns)

    def _list_aside(self, before_ns: int) -> Iterator[Unreached]:
        for path in _list_folder(self._layout.quarantine):
            yield from self._list_old("aside", path, before_ns)

    def _list_old(self, kind: Kind, path: Path, before_ns: int) -> Iterator[Unreached]:
        try:
            touched_ns, freed_bytes = _survey(path)
        except FileNotFoundError:
            return  # somebody was done with it
        if touched_ns < before_ns:
            yield Unreached(kind, path.relative_to(self._layout.meta).as_posix(), path, freed_bytes, touched_ns)

    # Removing

    def _remove(self, item: Unreached, reached: set[bytes], *, locked: bool) -> Pruned | None:
        try:
            touched_ns = _survey(item.path)[0]
        except FileNotFoundError:
            return None
        if touched_ns != item.ctime_ns:
            return None
        if item.kind != "object":
            remove_tree(item.path)
            return Pruned(item)
        if Digest.parse(item.name).raw in reached:
            return None
        if not locked:
            return Pruned(item, set_aside(self._layout, item.path, "no ref reached this object"))
        item.path.unlink()
        return Pruned(item)


def _survey(path: Path) -> tuple[int, int]:
    """When a file, or anything in a folder, was touched last (ctime), and the bytes that its removal frees."""
    status = os.lstat(path)
    touched_ns, freed_bytes = status.st_ctime_ns, 0
    if not stat.S_ISDIR(status.st_mode):
        return touched_ns, status.st_size if status.st_nlink == 1 else 0
    for folder, names, files in os.walk(path, onerror=_raise):
        for name in (*names, *files):
            try:
                below = os.lstat(f"{folder}/{name}")
            except FileNotFoundError:
                continue
            touched_ns = max(touched_ns, below.st_ctime_ns)
            if stat.S_ISREG(below.st_mode) and below.st_nlink == 1:
                freed_bytes += below.st_size
    return touched_ns, freed_bytes


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _list_folder(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _list_names(folder: str, length: int) -> list[str]:
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [name for name in names if len(name) == length and not name.strip("0123456789abcdef")]


