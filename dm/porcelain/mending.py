"""Mend what is broken, and only that: each bad file or object gives way to sound bytes of the same digest.

Where sound bytes come from is `dm.porcelain.sound_bytes`; the bad ones are kept in the quarantine. A folder's marker is
away while it is mended, so that a kill leaves a copy that nobody takes for complete; the next run goes on.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dm.environment import format_time, read_clock_ns
from dm.errors import ContentMismatch, DmError, NotFound
from dm.plumbing.fs.machine import display_path, machine_errors
from dm.plumbing.fs.publish import ensure_folder
from dm.plumbing.hashing import blake3_of
from dm.plumbing.store.markers import has_marker, put_marker, refuse_foreign_marker, remove_marker
from dm.plumbing.store.objects import EXECUTABLE_MODE, FOLDER_MODE, LINK_MODE, TreeEntry
from dm.plumbing.store.sharing import damaged_source
from dm.plumbing.store.verify import compare_copy
from dm.porcelain.broken_paths import Inode, find_inode, is_among, is_artifact, list_broken
from dm.porcelain.sound_bytes import SoundBytes, is_sound, not_in_reach
from dm.progress import SILENT, Progress
from dm.values import Difference, Digest

if TYPE_CHECKING:
    from dm.plumbing.fs.link import LinkMode
    from dm.plumbing.store.disk import DiskStore
    from dm.plumbing.store.refs import Ref


class Mended(NamedTuple):
    """What mending came to: how many paths are right again, where the bad bytes are kept, what could not be mended."""

    paths: int
    kept: tuple[Path, ...]
    left: tuple[Difference, ...]


class Mender:
    """Looks for sound bytes in ``stores`` and elsewhere, and puts them in the place of bad ones.

    Only what is mended is written to. ``pools`` are stores of others, whose objects are read; ``find_others`` says at
    which paths a copy of ``stores``, given by its ref's name, may lie too. It is asked when nothing nearer was found.
    """

    def __init__(
        self,
        stores: Sequence[DiskStore],
        *,
        pools: Sequence[DiskStore] = (),
        find_others: Callable[[str], Iterable[Path]] | None = None,
        progress: Progress = SILENT,
    ) -> None:
        self.sound = SoundBytes(stores, pools=pools)
        self._find_others = find_others
        self._progress = progress
        self._held: set[Path] = set()
        self._replaced: list[tuple[Digest, Path]] = []  # objects, and where the bad ones are kept
        self._aside: Counter[Inode | None] = Counter()  # names of what was put aside of copies

    def add_copies(self, find: Callable[[], Iterable[Path]]) -> None:
        """Look for sound bytes in these files and folders too, of whomever they are; what is not there is fine.

        ``find`` is asked when nothing was found in the objects of the stores.
        """
        self.sound.others.add(find)

    def mend_object(
        self,
        store: DiskStore,
        digest: Digest,
        *,
        size_bytes: int | None = None,
        name: bytes = b"",
        copies: Sequence[str] = (),
    ) -> Path | None:
        """Put sound bytes in the place of a damaged or missing object; return where the damaged one is kept.

        The object's size, the ``name`` of a file that has its bytes and the names of ``copies`` that need it help to
        find them. Raises `NotFound` when no sound bytes are in reach; then the damaged object is left. The copies that
        are hard links to it still have its bytes: they are mended as copies.
        """
        with self.repairing(store):
            if is_sound(store.object_path(digest), digest):
                return None  # another repair was quicker
            for each in copies:
                self.look_beside(store, each)
            return self._replace_object(store, digest, size_bytes, name)

    def look_beside(self, store: DiskStore, name: str) -> None:
        """Look for sound bytes also where the copy that has this ref may lie too."""
        find = self._find_others
        if find is not None:
            own = store.root / name
            self.add_copies(lambda: (path for path in find(name) if path != own))

    def _replace_object(self, store: DiskStore, digest: Digest, size_bytes: int | None, name: bytes) -> Path | None:
        path = store.object_path(digest)
        entries = self.sound.find_tree(digest) if digest.is_tree else None
        source = None
        if not digest.is_tree:
            source = self.sound.find_bytes(digest, but=path, size_bytes=size_bytes, name=name)
        target = None if digest.is_tree or source is not None else self.sound.find_link(digest)
        if entries is None and source is None and target is None:
            raise not_in_reach(digest)
        kept = None
        if os.path.lexists(path):
            kept = store.quarantine(path, "a damaged object: its bytes were not those of its name")
            self._replaced.append((digest, kept))
        if entries is not None:
            store.put_tree(entries)
        elif source is not None and not self.sound.is_in_pool(source):
            store.share_object(digest, source)
        elif source is not None:
            # A hard link to an object of somebody else would write to it, and share its fate.
            if store.ingest(source).digest != digest:
                raise damaged_source(source, digest)
        elif target is not None:
            store.put_blob(target)
        return kept

    def mend_copy(
        self,
        store: DiskStore,
        name: str,
        ref: Ref,
        expected: Digest,
        *,
        inodes: frozenset[Inode] | None = None,
        keep_siblings: bool = False,
    ) -> Mended:
        """Make a copy of ``store`` be ``expected`` again, path by path. What cannot be mended stays as it was.

        With ``keep_siblings`` what lies beside what it should hold stays there. With ``inodes`` only files that are, or
        were, links to these are mended: the rest is not known to be damage.

        ``ref`` is what was last seen when it was judged. Raises `NotFound` when what the copy should be cannot be told,
        its tree is nowhere in reach, and `ContentMismatch` when other bytes were put there since.
        """
        copy = store.root / name
        self.look_beside(store, name)
        with self.repairing(store), store.lock_copy(copy):
            now = store.read_ref(name)
            if now is not None and now.digest not in (ref.digest, expected):
                raise ContentMismatch(
                    f"'{display_path(copy)}' was replaced meanwhile",
                    hint="run the command again",
                    code="changed-meanwhile",
                )
            ref = now or ref
            if expected.is_tree:
                mended = self._mend_folder(store, copy, ref, expected, inodes, keep_siblings)
            elif inodes is not None and not is_among(copy, inodes):
                return Mended(0, (), (Difference(".", "changed"),))
            else:
                mended = self._mend_file(store, copy, ref, expected)
        self._aside.update(map(find_inode, mended.kept))
        return mended

    def restore_copy(self, store: DiskStore, name: str, ref: Ref, expected: Digest) -> bool:
        """Bring back a copy of ``store`` that is gone, whole and by one rename; False where something lies there again,
        or ``ref``, which was last seen of it, is not there any more.

        Raises `NotFound` when not all of it is in reach; then nothing is there.
        """
        copy = store.root / name
        self.look_beside(store, name)
        with self.repairing(store), store.lock_copy(copy):
            if os.path.lexists(copy) or store.read_ref(name) != ref:
                return False
            self._ensure_object(store, expected, ref.size_bytes if ref.digest == expected else None, os.fsencode(name))
            if expected.is_tree:
                for path, entry in self.sound.list_entries(expected):
                    if entry.mode == FOLDER_MODE:
                        self._ensure_object(store, Digest.of_tree(entry.id))
                    elif entry.mode == LINK_MODE:
                        self._read_link(store, entry)
                    else:
                        self._ensure_object(store, Digest.of_blob(entry.id), entry.size, path)
            store.publish_object(expected, copy, ref.source_id)
        return True

    def mend_linked(self) -> list[Path]:
        """Mend what of other copies is a hard link to an object that was replaced so far; return these copies.

        One that cannot be mended is told. Looked for only where the bad bytes have names that are not accounted for.
        """
        found = []
        while self._replaced:
            digest, kept = self._replaced.pop()
            with machine_errors("look at", kept):
                status = os.lstat(kept)
            inode = (status.st_dev, status.st_ino)
            inodes = frozenset((inode,))
            if status.st_nlink <= 1 + self._aside[inode]:
                continue
            for place in self.sound.list_places(digest):
                if place.ref.digest is None or not is_among(place.path, inodes):
                    continue
                keep = is_artifact(place.name)
                try:
                    self.mend_copy(
                        place.store, place.name, place.ref, place.ref.digest, inodes=inodes, keep_siblings=keep
                    )
                except DmError as error:
                    self._progress.warn(f"'{place.path}' shares the bad bytes and is not mended: {error.message}")
                    continue
                found.append(place.store.root / place.name)
        return found

    def mend_marker(self, store: DiskStore, name: str, expected: Digest) -> bool:
        """Mark a copy as complete when its bytes, read now, are what its ref says; False when they are not."""
        copy = store.root / name
        with self.repairing(store), store.lock_copy(copy):
            if not compare_copy(copy, expected, store, stat_cache=store.stat_cache, ref_root=store.root).equal:
                return False
            self._mark(copy, expected)
        return True

    @contextmanager
    def repairing(self, store: DiskStore) -> Iterator[None]:
        """Held while anything in a store is mended, by one process at a time; blocks of this mender may be nested.

        Who waits does so before the locks of copies, in that order everywhere. Raises `MachineFailed` for a store that
        cannot be written to.
        """
        if store.root in self._held:
            yield
            return
        with store.lock_repair():
            self._held.add(store.root)
            try:
                yield
            finally:
                self._held.discard(store.root)

    # Inside

    def _mend_file(self, store: DiskStore, copy: Path, ref: Ref, expected: Digest) -> Mended:
        self._ensure_object(store, expected, ref.size_bytes if ref.digest == expected else None, os.fsencode(copy.name))
        count, kept = 0, None
        if not is_sound(copy, expected):  # another repair, or a fetch, was not quicker
            kept = store.replace(expected, copy, "its bytes were not what they should be")
            count = 1
        self._finish(store, copy, ref, expected)
        return Mended(count, () if kept is None else (kept,), ())

    def _mend_folder(
        self,
        store: DiskStore,
        copy: Path,
        ref: Ref,
        expected: Digest,
        inodes: frozenset[Inode] | None,
        keep_siblings: bool,
    ) -> Mended:
        self._ensure_object(store, expected)
        wanted = dict(self.sound.list_entries(expected))
        for entry in wanted.values():
            if entry.mode == FOLDER_MODE and self.sound.find_tree(Digest.of_tree(entry.id)) is not None:
                self._ensure_object(store, Digest.of_tree(entry.id))
        comparison = compare_copy(copy, expected, store, stat_cache=store.stat_cache, quick=True, ref_root=store.root)
        if comparison.equal:
            self._finish(store, copy, ref, expected)
            return Mended(0, (), ())
        kept: list[Path] = []
        broken = list_broken(copy, comparison.differences, wanted, inodes, keep_siblings=keep_siblings)
        left = list(broken.left)
        if not broken.todo and not broken.whole:
            return Mended(0, (), tuple(left))
        if broken.whole and os.path.lexists(copy):
            kept.append(store.quarantine(copy, "it was not the folder that it should be"))
        with machine_errors("mend", copy):
            marked = not broken.whole and has_marker(copy, is_folder=True)
            remove_marker(copy, is_folder=True)
            ensure_folder(copy, root=store.root)
        count = 0
        for difference in broken.todo:
            try:
                aside = self._mend_path(store, copy, difference, wanted)
            except NotFound:
                left.append(difference)
                continue
            count += 1
            if aside is not None:
                kept.append(aside)
        if not left:
            self._finish(store, copy, ref, expected)
        elif marked:
            self._mark(copy, expected)  # it differs from its ref as it did before
        return Mended(count, tuple(kept), tuple(left))

    def _mend_path(
        self, store: DiskStore, copy: Path, difference: Difference, wanted: dict[bytes, TreeEntry]
    ) -> Path | None:
        """Mend one path of a folder; return where what lay there is kept."""
        name = os.fsencode(difference.path)
        path = copy / difference.path
        entry = wanted.get(name)
        if entry is None:
            path = copy / os.fsdecode(_find_added(name, wanted))  # the files in an added folder are named, not itself
        if difference.how == "mode" and entry is not None and self._mend_mode(store, path, entry):
            return None
        if entry is not None and entry.mode not in (FOLDER_MODE, LINK_MODE):
            self._ensure_object(store, Digest.of_blob(entry.id), entry.size, name)
        if entry is not None and entry.mode == FOLDER_MODE and self.sound.find_tree(Digest.of_tree(entry.id)) is None:
            raise NotFound(f"what '{difference.path}' should hold is nowhere in reach", code="no-source")
        target = self._read_link(store, entry) if entry is not None and entry.mode == LINK_MODE else b""
        note = f"it was {difference.how} in '{copy.name}'"
        if entry is None or entry.mode in (FOLDER_MODE, LINK_MODE):
            aside = store.quarantine(path, note) if os.path.lexists(path) else None
            with machine_errors("mend", path):
                if entry is not None and entry.mode == FOLDER_MODE:
                    ensure_folder(path, root=store.root)
                elif entry is not None:
                    ensure_folder(path.parent, root=store.root)
                    os.symlink(target, os.fsencode(path))
            return aside
        with machine_errors("mend", path):
            ensure_folder(path.parent, root=store.root)
        executable = entry.mode == EXECUTABLE_MODE
        modes: tuple[LinkMode, ...] | None = ("reflink", "copy") if executable else None
        aside = store.replace(Digest.of_blob(entry.id), path, note, modes=modes)
        if executable:
            with machine_errors("mend", path):
                os.chmod(path, store.ground().executable_mode)
        return aside

    def _mend_mode(self, store: DiskStore, path: Path, entry: TreeEntry) -> bool:
        """Set the mode that a file should have; False where that would make an object executable, or is not allowed."""
        executable = entry.mode == EXECUTABLE_MODE
        try:
            if executable and os.lstat(path).st_nlink > 1:
                return False
            os.chmod(path, store.ground().executable_mode if executable else store.ground().file_mode)
        except OSError:
            return False  # another file then takes its place
        return True

    def _ensure_object(
        self, store: DiskStore, digest: Digest, size_bytes: int | None = None, name: bytes = b""
    ) -> None:
        """The object is in the store and sound, mended where it was not. Raises `NotFound`."""
        path = store.object_path(digest)
        if not is_sound(path, digest):
            self.mend_object(store, digest, size_bytes=size_bytes, name=name)
        elif os.lstat(path).st_mode & 0o111:
            with suppress(OSError):  # what is hard-linked to it would be executable; another user's stays as it is
                os.chmod(path, store.ground().file_mode)

    def _read_link(self, store: DiskStore, entry: TreeEntry) -> bytes:
        digest = Digest.of_blob(entry.id)
        self._ensure_object(store, digest)
        with store.open_blob(digest) as file:
            data = file.read()
        assert blake3_of(data) == entry.id
        return data

    def _finish(self, store: DiskStore, copy: Path, ref: Ref, expected: Digest) -> None:
        """The copy was read and is what it should be."""
        self._mark(copy, expected)
        store.write_ref(copy, ref._replace(digest=expected, verified=format_time(read_clock_ns())))

    def _mark(self, copy: Path, expected: Digest) -> None:
        with machine_errors("mark", copy):
            if not refuse_foreign_marker(copy, is_folder=expected.is_tree):
                put_marker(copy, is_folder=expected.is_tree)


def _find_added(name: bytes, wanted: dict[bytes, TreeEntry]) -> bytes:
    """The outermost folder of an added path that should not be there either; else the path."""
    parts = name.split(b"/")
    for count in range(1, len(parts)):
        above = b"/".join(parts[:count])
        if above not in wanted:
            return above
    return name
