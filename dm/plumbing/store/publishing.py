"""Staged files and folders become objects and working copies, in batches.

The order is Git's batch mode. Everything is measured and written under private names first; one flush of the file
system makes it durable; then come the names, for each publication in this order: its objects, its ref, its copy (one
rename), its marker. So at whatever point a process or a machine dies there is never a marked copy with other bytes than
its ref says, and what is half-done lies in the private folder of `Workspace`, which the next work clears.

What was staged is moved into that folder before it is linked to an object: a staging folder that outlives a kill, and
from which somebody resumes a download, never shares bytes with an object.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from dm.environment import format_time, read_clock_ns
from dm.errors import DmError, MachineFailed, Refused
from dm.plumbing.fs.link import LinkMode, link_file
from dm.plumbing.fs.machine import display_path, machine_errors
from dm.plumbing.fs.publish import flush_file_systems, place, remove_tree, replace, write_private
from dm.plumbing.fs.walk import Entry
from dm.plumbing.hashing import blake3_of, hash_blob
from dm.plumbing.store.aliases import format_alias, read_alias
from dm.plumbing.store.copying import copy_privately
from dm.plumbing.store.ground import Ground
from dm.plumbing.store.ingest import marker_in_source
from dm.plumbing.store.layout import Layout
from dm.plumbing.store.markers import MARKER_NAME, put_marker, refuse_foreign_marker, remove_marker
from dm.plumbing.store.measure import BuiltTree, Measured, build_trees, measure_copy, scan_copy
from dm.plumbing.store.objects import encode_tree, refuse_unsafe_names
from dm.plumbing.store.quarantine import set_aside
from dm.plumbing.store.ref_files import RefFiles, stage_ref
from dm.plumbing.store.refs import Ref
from dm.plumbing.store.stamps import NLINK_UNKNOWN, NO_ID, FolderIndex, Stamp
from dm.plumbing.store.workspace import Workspace
from dm.plumbing.store.writing import ObjectWriter
from dm.progress import SILENT, Progress
from dm.values import Digest

_MARKER = MARKER_NAME.encode()


class Publication(NamedTuple):
    """One file or folder to be published.

    ``staged`` lies in a private folder and is used up; with ``owned`` False it is somebody's own file or folder, which
    is reflinked or copied and left as it is. ``copy`` is where it will be seen. ``source_id`` goes into the ref.

    ``blob_id`` are the 32 bytes of a file's id, where it was hashed while it arrived; ``measured`` is what
    `measure_copy` said of a folder (asked again only when something in it has changed since); ``aliases`` are other
    digests that were measured of the same bytes. ``stand_alone``: no digest is computed and no object made.
    ``replace``: other content at ``copy`` gives way. ``executables``: for a file system that keeps no modes,
    the relative names of the files that are executable in the source (``b""`` for a file itself).
    """

    staged: Path
    copy: Path
    source_id: str | None = None
    blob_id: bytes | None = None
    aliases: tuple[Digest, ...] = ()
    stand_alone: bool = False
    replace: bool = False
    owned: bool = True
    measured: Measured | None = None
    executables: frozenset[bytes] | None = None


class Published(NamedTuple):
    """A copy that is in place, with its ref and marker.

    ``digest`` is its id (None: it stands alone, unmeasured). ``mode`` says how object and copy share their bytes; None
    when there is no object. ``unchanged``: an equal copy lay there already and stayed.
    """

    copy: Path
    digest: Digest | None
    size_bytes: int
    files: int
    mode: LinkMode | None
    unchanged: bool = False


class _Item:
    """One publication under way."""

    __slots__ = (
        "aliases", "copy", "digest", "entries", "fault", "files", "ids", "is_folder", "marked", "met_objects", "mode",
        "name", "occupied", "publication", "ref", "size_bytes", "staged", "trees", "unchanged",
    )  # fmt: skip

    def __init__(self, publication: Publication) -> None:
        self.publication = publication
        self.staged = os.fspath(publication.staged)
        self.copy = os.fspath(publication.copy)
        self.fault: DmError | None = None
        self.name = ""
        self.is_folder = self.occupied = self.marked = self.unchanged = self.met_objects = False
        self.entries: Sequence[Entry] = ()
        self.ids: Sequence[bytes] = ()
        self.trees: dict[bytes, BuiltTree] = {}
        self.digest: Digest | None = None
        self.size_bytes = self.files = 0
        self.mode: LinkMode | None = None
        self.ref = ""
        self.aliases: list[tuple[str, str]] = []

    @property
    def has_objects(self) -> bool:
        return self.mode is not None


class Publisher:
    """One batch in a workspace of the store. The caller holds the copies' locks and the shared lock on the format."""

    def __init__(
        self,
        layout: Layout,
        workspace: Workspace,
        *,
        writer: ObjectWriter,
        durable: bool,
        progress: Progress = SILENT,
    ) -> None:
        self._layout = layout
        self._work = workspace
        self._writer = writer
        self._ground: Ground = writer.ground
        self._cache = writer.stat_cache
        self._durable = durable
        self._progress = progress
        self._refs = RefFiles(layout)
        self._device = os.stat(layout.meta).st_dev
        self._devices: dict[str, int] = {}
        self._clock_ns = 0
        self._time = ""

    def publish(self, publications: Sequence[Publication]) -> list[Published | DmError]:
        """Publish them all; the answer has for each what became of it, in order.

        One that fails leaves the others alone: its copy is as it was. A failed flush fails the batch (raised).
        """
        items = [_Item(publication) for publication in publications]
        if self._cache is not None:
            self._clock_ns = self._cache.read_clock_ns(self._layout.meta, self._device)
        self._each(items, self._examine)
        self._find_existing(items)
        self._each(items, self._prepare)
        if self._durable and any(item.fault is None for item in items):
            places = [item.staged for item in items if item.fault is None]
            flush_file_systems([self._work.folder, *places])
        with self._progress.start("publishing", total=len(items), unit="files") as task:
            for item in items:
                self._each([item], self._commit)
                task.advance(1)
        if self._cache is not None:
            with self._cache.batch():
                for item in items:
                    self._record(item)
        return [item.fault or self._result(item) for item in items]

    def _each(self, items: Iterable[_Item], step: Callable[[_Item], None]) -> None:
        for item in items:
            if item.fault is None:
                try:
                    with machine_errors("publish", item.copy):
                        step(item)
                except DmError as fault:
                    item.fault = fault

    # What is it, and what lies at its place?

    def _examine(self, item: _Item) -> None:
        publication = item.publication
        item.name = self._layout.ref_name(publication.copy)
        status = os.lstat(item.staged)
        if not publication.owned or status.st_dev != self._device:
            private = self._work.new_path()
            copy_privately(os.path.realpath(item.staged), private)
            item.staged = private
            status = os.lstat(private)
        item.is_folder = stat.S_ISDIR(status.st_mode)
        if item.is_folder:
            self._examine_folder(item)
        elif stat.S_ISREG(status.st_mode):
            self._examine_file(item, status)
        else:
            raise Refused(
                f"cannot publish '{display_path(publication.staged)}': it is neither a file nor a folder",
                code="special-file",
            )
        if not publication.stand_alone and self._ground.rungs:
            item.mode = self._ground.rungs[0]
        self._look_at_place(item)

    def _examine_file(self, item: _Item, status: os.stat_result) -> None:
        publication = item.publication
        executables = None if self._ground.keeps_modes else publication.executables or frozenset()
        entry = _entry_of(status, executables=executables)
        item.entries = (entry,)
        item.size_bytes, item.files = status.st_size, 1
        if publication.stand_alone:
            return
        blob_id = publication.blob_id
        if blob_id is None:
            with self._progress.start(publication.copy.name, total=status.st_size) as task:
                blob_id = hash_blob(item.staged, task)
        item.ids = (blob_id,)
        item.digest = Digest.of_blob(blob_id)

    def _examine_folder(self, item: _Item) -> None:
        publication = item.publication
        measured = publication.measured
        folder = Path(item.staged)
        if publication.stand_alone:
            item.entries = scan_copy(folder)
            item.ids = (NO_ID,) * len(item.entries)
        elif measured is not None and measured.digest.is_tree and scan_copy(folder) == list(measured.entries):
            item.entries, item.ids = measured.entries, measured.ids
        else:
            measured = measure_copy(folder, progress=self._progress)
            item.entries, item.ids = measured.entries, measured.ids
        if not self._ground.keeps_modes:
            item.entries = _with_modes(item.entries, publication.executables or frozenset())
        if any(entry.name == _MARKER for entry in item.entries):
            raise marker_in_source(publication.staged)
        item.trees = build_trees(item.entries, item.ids)
        for name, tree in item.trees.items():
            refuse_unsafe_names(
                [entry.name for entry in tree.entries], folds_case=self._layout.folds_case(), folder=name
            )
        root = item.trees[b""]
        item.size_bytes, item.files = root.size_bytes, root.files
        if not publication.stand_alone:
            item.digest = Digest.of_tree(root.id)

    def _look_at_place(self, item: _Item) -> None:
        publication = item.publication
        copy = item.copy
        if not os.path.lexists(copy):
            if not item.is_folder:
                item.marked = refuse_foreign_marker(copy, is_folder=False)
            return
        item.occupied = True
        is_folder = os.path.isdir(copy)
        if item.digest is not None and is_folder == item.is_folder and os.path.exists(copy):
            item.unchanged = measure_copy(publication.copy, progress=self._progress).digest == item.digest
        if not item.unchanged and not publication.replace:
            raise Refused(
                f"cannot publish to '{display_path(copy)}': other content lies there",
                hint="look at it, then move it away; dm fetch --force keeps it in .dm/quarantine",
                code="occupied",
            )
        if item.unchanged:
            item.marked = refuse_foreign_marker(copy, is_folder=item.is_folder)
        elif not item.is_folder or not is_folder:
            # The old file's, the new one's, or both.
            item.marked = refuse_foreign_marker(copy, is_folder=False)
        if item.unchanged:
            item.mode = None

    def _find_existing(self, items: Iterable[_Item]) -> None:
        """Which objects are there already? Single files are asked about together, a folder's too."""
        singles: list[tuple[bytes, int]] = []
        for item in items:
            if item.fault is not None or not item.has_objects:
                continue
            wanted = [
                (raw, entry.size)
                for entry, raw in zip(item.entries, item.ids, strict=True)
                if entry.kind != "folder"
            ]
            if item.is_folder and item.digest is not None:
                item.met_objects = self._writer.find_existing(wanted, tree=item.digest.raw)
            else:
                singles += wanted
        self._writer.find_existing(singles)

    # Everything is written under private names

    def _prepare(self, item: _Item) -> None:
        publication = item.publication
        if item.has_objects:
            self._prepare_objects(item)
        ref = Ref(item.digest, item.size_bytes, item.files, self._now() if item.digest else None, publication.source_id)
        item.ref = self._work.new_path()
        stage_ref(ref, item.ref)
        if item.digest is not None and not item.is_folder:
            for alias in publication.aliases:
                path = self._layout.alias_path(alias)
                if alias.algorithm in ("blake3", "blake3-tree"):
                    continue
                self._layout.ensure_folder_once(os.path.dirname(path))
                text = format_alias(item.digest)
                try:
                    # A new one is written in its place: it is a hint that counts for nothing until its object is
                    # there, and half of one is read as none.
                    write_private(path, text)
                except FileExistsError:
                    if read_alias(path) != item.digest:
                        private = self._work.new_path()
                        write_private(private, text)
                        item.aliases.append((private, path))

    def _prepare_objects(self, item: _Item) -> None:
        writer = self._writer
        hardlink = item.mode == "hardlink"
        for entry, raw in zip(item.entries, item.ids, strict=True):
            if entry.kind == "folder" or (hardlink and entry.kind == "file" and not entry.mode & 0o100):
                continue
            if writer.is_known(raw):
                continue
            path = self._path_of(item, item.staged, entry)
            if entry.kind == "link":
                target = os.readlink(path)
                if blake3_of(target) != raw:
                    raise MachineFailed(f"'{display_path(path)}' was changed meanwhile", code="changed-while-read")
                writer.stage_bytes(raw, target)
            else:
                writer.stage_file(raw, path)
        for tree in item.trees.values():
            writer.stage_tree(tree.id, encode_tree(tree.entries))

    # The names appear

    def _commit(self, item: _Item) -> None:
        copy = item.copy
        if item.unchanged:
            self._put_ref(item)
            if not item.marked:
                put_marker(copy, is_folder=item.is_folder)
            remove_tree(Path(item.staged))
            return
        self._layout.ensure_folder_once(os.path.dirname(copy))
        becomes_object = self._becomes_object(item)
        if becomes_object:
            self._make_object(item)
        else:
            if not item.staged.startswith(f"{self._work.folder}/"):
                private = self._work.new_path()
                os.rename(item.staged, private)
                item.staged = private
            if item.is_folder:
                self._open_folders(item)
            if item.has_objects:
                self._put_objects(item)
        for private, path in item.aliases:
            replace(private, path)
        # Away before the ref speaks of other bytes: a marked copy is what its ref says at every moment.
        if item.marked:
            remove_marker(copy, is_folder=False)
        if item.occupied and os.path.isdir(copy) and not os.path.islink(copy):
            remove_marker(copy, is_folder=True)
        self._put_ref(item)
        if becomes_object:
            self._link_copy(item)
        else:
            self._put_copy(item)
        put_marker(copy, is_folder=item.is_folder)

    def _becomes_object(self, item: _Item) -> bool:
        """Whether a staged file can be its own new object, of which the copy is then a link: the usual case of a fetch.

        A rename and a link give it its two names, where it would take two links, a rename and an unlink to move it to
        the workspace first: a tenth of the time of fetching many small files.
        """
        return (
            item.mode == "hardlink"
            and not item.is_folder
            and not item.occupied
            and not item.entries[0].mode & 0o100
            and not self._writer.is_known(item.ids[0])
            and self._device_of(os.path.dirname(item.copy)) == self._device
        )

    def _make_object(self, item: _Item) -> None:
        [entry], [raw] = item.entries, item.ids
        self._fix_mode(item.staged, entry)
        self._writer.adopt_private(raw, item.staged)
        self._writer.place_staged(raw)
        item.staged = self._layout.object_path(raw)

    def _link_copy(self, item: _Item) -> None:
        copy = item.copy
        try:
            os.link(item.staged, copy, follow_symlinks=False)
        except FileExistsError:
            raise _appeared(copy) from None
        except OSError:
            # It worked when it was tried out, and not for this file: it stands alone.
            private = self._work.new_path()
            link_file(item.staged, private, modes=("copy",))
            item.mode = "copy"
            if not place(private, copy):
                raise _appeared(copy) from None

    def _open_folders(self, item: _Item) -> None:
        """Folders of a copy can be written by their owner (users may delete their copies), and by a shared group."""
        bits = 0o700 | self._layout.group_bits()
        top = os.fsencode(item.staged)
        _add_mode(top, os.stat(top).st_mode, bits)
        for entry in item.entries:
            if entry.kind == "folder":
                _add_mode(top + b"/" + entry.name, entry.mode, bits)
        try:
            os.unlink(top + b"/" + _MARKER)  # the marker comes last, and is ours
        except FileNotFoundError:
            return

    def _put_objects(self, item: _Item) -> None:
        ground, writer = self._ground, self._writer
        hardlink = item.mode == "hardlink"
        for entry, raw in zip(item.entries, item.ids, strict=True):
            if entry.kind == "folder":
                continue
            if entry.kind == "link":
                writer.place_staged(raw)
                continue
            path = self._path_of(item, item.staged, entry)
            executable = bool(entry.mode & 0o100)
            self._fix_mode(path, entry)
            if hardlink and not executable:
                writer.link_staged(raw, path)
            elif not writer.place_staged(raw) and "reflink" in ground.rungs:
                writer.share(raw, path, executable=executable)
        for tree in item.trees.values():
            writer.place_staged(tree.id)

    def _fix_mode(self, path: str | bytes, entry: Entry) -> None:
        """Objects and the files of copies are read-only."""
        ground = self._ground
        mode = ground.executable_mode if entry.mode & 0o100 else ground.file_mode
        if entry.mode & 0o7777 != mode and ground.keeps_modes:
            os.chmod(path, mode)

    def _put_ref(self, item: _Item) -> None:
        self._refs.put(item.name, item.ref)

    def _put_copy(self, item: _Item) -> None:
        copy, target, staged = item.copy, item.publication.copy, Path(item.staged)
        if self._device_of(os.path.dirname(copy)) != self._device:
            staged = self._bring_beside(item)
        if not item.occupied:
            if not place(staged, target):
                raise _appeared(copy)
            return
        if not item.is_folder and (os.path.islink(copy) or not os.path.isdir(copy)):
            replace(staged, target)
            return
        # A folder cannot be renamed over one that holds something: the old one goes first, after its marker.
        aside = Path(self._work.new_path())
        if self._device_of(os.path.dirname(copy)) != self._device:
            aside = name_beside(target, b"old")
            remove_tree(aside)
        os.rename(copy, aside)
        if not place(staged, target):
            kept = set_aside(self._layout, aside, f"lay at '{display_path(copy)}' until something else appeared there")
            raise Refused(
                f"cannot publish to '{display_path(copy)}': something appeared there meanwhile",
                hint=f"look at it; what lay there before is kept at '{display_path(kept)}'",
                code="occupied",
            )
        remove_tree(aside)

    def _bring_beside(self, item: _Item) -> Path:
        """The copy's place is on another file system: its bytes are written beside it, under a name that the next
        publication of the same copy clears.
        """
        beside = name_beside(item.publication.copy, b"new")
        remove_tree(beside)
        copy_privately(item.staged, os.fspath(beside))
        if self._durable:
            flush_file_systems([beside])
        if item.mode is not None:
            item.mode = "copy"
        return beside

    def _device_of(self, folder: str) -> int:
        device = self._devices.get(folder)
        if device is None:
            device = self._devices[folder] = os.stat(folder).st_dev
        return device

    # Afterwards

    def _record(self, item: _Item) -> None:
        cache = self._cache
        if cache is None or item.fault is not None or item.digest is None or item.unchanged or item.mode == "copy":
            return
        copy = item.publication.copy
        if item.is_folder:
            # Linked and chmoded since they were looked at, which moves their ctime.
            entries = [entry._replace(nlink=NLINK_UNKNOWN) for entry in item.entries]
            index = FolderIndex.pack(entries, item.ids, clock_ns=self._clock_ns, id=item.digest.raw)
            cache.record_folder(copy, index)
            if item.mode == "hardlink" and not item.met_objects:
                self._writer.objects.record_linked(item.digest.raw, item.entries, item.ids, clock_ns=self._clock_ns)
            return
        raw = item.ids[0]
        aliases = [alias for alias in item.publication.aliases if not alias.algorithm.startswith("blake3")]
        try:
            # Anyone who wrote to it since it was placed gave it an mtime after the clock was read: then not recorded.
            stamp = Stamp.of_stat(os.lstat(copy))
            cache.record_file(copy, stamp, raw, clock_ns=self._clock_ns, checksums=aliases)
            path = Path(self._layout.object_path(raw))
            seen = Stamp.of_stat(os.lstat(path))
        except OSError:
            return  # removed meanwhile, or standing alone: nothing to remember
        if (seen.device, seen.inode) == (stamp.device, stamp.inode):
            cache.record_file(path, seen, raw, clock_ns=self._clock_ns, checksums=aliases)

    def _result(self, item: _Item) -> Published:
        return Published(
            item.publication.copy, item.digest, item.size_bytes, item.files, item.mode, item.unchanged
        )

    def _path_of(self, item: _Item, top: str, entry: Entry) -> bytes:
        return os.fsencode(f"{top}/") + entry.name if item.is_folder else os.fsencode(top)

    def _now(self) -> str:
        if not self._time:
            self._time = format_time(read_clock_ns())
        return self._time


def _appeared(copy: str) -> Refused:
    return Refused(
        f"cannot publish to '{display_path(copy)}': something appeared there meanwhile",
        hint="look at it, then run the command again",
        code="occupied",
    )


def name_beside(copy: Path, purpose: bytes) -> Path:
    """A private name beside a copy that is on another file system than its store, the same for every run."""
    name = blake3_of(purpose + b"\0" + os.fsencode(copy.name)).hex()[:32]
    return copy.parent / f".dm-{name}.tmp"


def _add_mode(path: bytes, mode: int, bits: int) -> None:
    if bits & ~mode:
        os.chmod(path, stat.S_IMODE(mode) | bits)


def _entry_of(status: os.stat_result, *, executables: frozenset[bytes] | None) -> Entry:
    mode = status.st_mode
    if executables is not None:
        mode = mode | 0o111 if b"" in executables else mode & ~0o111
    return Entry(
        b"", "file", mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev,
        status.st_nlink,
    )  # fmt: skip


def _with_modes(entries: Sequence[Entry], executables: frozenset[bytes]) -> list[Entry]:
    return [
        entry
        if entry.kind != "file"
        else entry._replace(mode=entry.mode | 0o111 if entry.name in executables else entry.mode & ~0o111)
        for entry in entries
    ]

