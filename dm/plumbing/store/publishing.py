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

from dm.environment import format_time, read_clock_ns
from dm.errors import DmError, MachineFailed, Refused
from dm.plumbing.fs.link import LinkMode
from dm.plumbing.fs.machine import display_path, machine_errors
from dm.plumbing.fs.publish import flush_file_systems, remove_tree, replace, write_private
from dm.plumbing.fs.walk import Entry
from dm.plumbing.hashing import blake3_of
from dm.plumbing.store.aliases import format_alias, read_alias
from dm.plumbing.store.ground import Ground
from dm.plumbing.store.layout import Layout
from dm.plumbing.store.markers import MARKER_NAME, put_marker, refuse_foreign_marker, remove_marker
from dm.plumbing.store.measure import measure_copy
from dm.plumbing.store.objects import encode_tree
from dm.plumbing.store.placing import Placer
from dm.plumbing.store.publication import Publication, Published
from dm.plumbing.store.ref_files import RefFiles, stage_ref
from dm.plumbing.store.refs import Ref
from dm.plumbing.store.staged import Staged, StagedReader
from dm.plumbing.store.stamps import NLINK_UNKNOWN, FolderIndex, Stamp
from dm.plumbing.store.workspace import Workspace
from dm.plumbing.store.writing import ObjectWriter
from dm.progress import SILENT, Progress

_MARKER = MARKER_NAME.encode()


class _Item:
    """One publication under way."""

    __slots__ = (
        "aliases", "content", "copy", "fault", "kept", "marked", "met_objects", "mode", "name", "occupied",
        "publication", "ref", "unchanged",
    )  # fmt: skip

    content: Staged

    def __init__(self, publication: Publication) -> None:
        self.publication = publication
        self.copy = os.fspath(publication.copy)
        self.fault: DmError | None = None
        self.name = ""
        self.occupied = self.marked = self.unchanged = self.met_objects = False
        self.mode: LinkMode | None = None
        self.kept: Path | None = None
        self.ref = ""
        self.aliases: list[tuple[str, str]] = []

    @property
    def has_objects(self) -> bool:
        return self.mode is not None

    def move(self, path: str) -> None:
        """What was staged lies at another path from now on."""
        self.content = self.content._replace(path=path)


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
        self._reader = StagedReader(layout, workspace, writer.ground, progress=progress)
        self._placer = Placer(layout, workspace, durable=durable)
        self._clock_ns = 0
        self._time = ""

    def publish(self, publications: Sequence[Publication]) -> list[Published | DmError]:
        """Publish them all; the answer has for each what became of it, in order.

        One that fails leaves the others alone: its copy is as it was. A failed flush fails the batch (raised).
        """
        items = [_Item(publication) for publication in publications]
        if self._cache is not None:
            self._clock_ns = self._cache.read_clock_ns(self._layout.meta, os.stat(self._layout.meta).st_dev)
        self._each(items, self._examine)
        self._find_existing(items)
        self._each(items, self._prepare)
        if self._durable and any(item.fault is None for item in items):
            places = [item.content.path for item in items if item.fault is None]
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
        item.content = self._reader.read(publication)
        if not publication.stand_alone and self._ground.rungs:
            item.mode = self._ground.rungs[0]
        self._look_at_place(item)

    def _look_at_place(self, item: _Item) -> None:
        publication, content, copy = item.publication, item.content, item.copy
        if not os.path.lexists(copy):
            if not content.is_folder:
                item.marked = refuse_foreign_marker(copy, is_folder=False)
            return
        item.occupied = True
        if publication.aside is not None:
            self._refs.refuse_copies_below(item.name)
            item.marked = not content.is_folder and refuse_foreign_marker(copy, is_folder=False)
            return
        is_folder = os.path.isdir(copy)
        if content.digest is not None and is_folder == content.is_folder and os.path.exists(copy):
            item.unchanged = measure_copy(publication.copy, progress=self._progress).digest == content.digest
        if not item.unchanged and not publication.replace:
            raise Refused(
                f"cannot publish to '{display_path(copy)}': other content lies there",
                hint="look at it, then move it away; dm fetch --force keeps it in .dm/quarantine",
                code="occupied",
            )
        if item.unchanged:
            item.marked = refuse_foreign_marker(copy, is_folder=content.is_folder)
        elif not content.is_folder or not is_folder:
            # The old file's, the new one's, or both.
            item.marked = refuse_foreign_marker(copy, is_folder=False)
        if item.unchanged:
            item.mode = None

    def _find_existing(self, items: Iterable[_Item]) -> None:
        """Which objects are there already? Single files are asked about together, a folder's too; first of all those
        that are read whatever is known of them.
        """
        singles: dict[bool, list[tuple[bytes, int]]] = {True: [], False: []}
        for item in sorted(items, key=lambda item: not item.publication.anew):
            anew = item.publication.anew
            if item.fault is not None or not item.has_objects:
                continue
            content = item.content
            wanted = [(raw, entry.size) for entry, raw in content.list_contents()]
            if content.is_folder and content.digest is not None:
                item.met_objects = self._writer.find_existing(wanted, tree=content.digest.raw, anew=anew)
            else:
                singles[anew] += wanted
        for anew, wanted in singles.items():
            self._writer.find_existing(wanted, anew=anew)

    # Everything is written under private names

    def _prepare(self, item: _Item) -> None:
        publication, content = item.publication, item.content
        digest = content.digest
        if item.has_objects:
            self._prepare_objects(item)
        verified = self._now() if digest else None
        ref = Ref(digest, content.size_bytes, content.files, verified, publication.source_id)
        item.ref = self._work.new_path()
        stage_ref(ref, item.ref)
        if digest is not None and not content.is_folder:
            for alias in publication.aliases:
                path = self._layout.alias_path(alias)
                if alias.algorithm in ("blake3", "blake3-tree"):
                    continue
                self._layout.ensure_folder_once(os.path.dirname(path))
                text = format_alias(digest)
                try:
                    # A new one is written in its place: it is a hint that counts for nothing until its object is
                    # there, and half of one is read as none.
                    write_private(path, text)
                except FileExistsError:
                    if read_alias(path) != digest:
                        private = self._work.new_path()
                        write_private(private, text)
                        item.aliases.append((private, path))

    def _prepare_objects(self, item: _Item) -> None:
        writer, content = self._writer, item.content
        hardlink = item.mode == "hardlink"
        for entry, raw in content.list_contents():
            if hardlink and entry.kind == "file" and not entry.mode & 0o100:
                continue
            if writer.is_known(raw):
                continue
            path = content.path_of(entry)
            if entry.kind == "link":
                target = os.readlink(path)
                if blake3_of(target) != raw:
                    raise MachineFailed(f"'{display_path(path)}' was changed meanwhile", code="changed-while-read")
                writer.stage_bytes(raw, target)
            else:
                writer.stage_file(raw, path)
        for tree in content.trees.values():
            writer.stage_tree(tree.id, encode_tree(tree.entries))

    # The names appear

    def _commit(self, item: _Item) -> None:
        copy = item.copy
        if item.unchanged:
            self._put_ref(item)
            if not item.marked:
                put_marker(copy, is_folder=item.content.is_folder)
            remove_tree(Path(item.content.path))
            return
        self._layout.ensure_folder_once(os.path.dirname(copy))
        becomes_object = self._becomes_object(item)
        if becomes_object:
            self._make_object(item)
        else:
            if not item.content.path.startswith(f"{self._work.folder}/"):
                private = self._work.new_path()
                os.rename(item.content.path, private)
                item.move(private)
            if item.content.is_folder:
                self._open_folders(item)
            if item.has_objects:
                self._put_objects(item)
        for private, path in item.aliases:
            replace(private, path)
        if item.occupied and item.publication.aside is not None:
            self._take_place(item, item.publication.aside)
            return
        # Away before the ref speaks of other bytes: a marked copy is what its ref says at every moment.
        if item.marked:
            remove_marker(copy, is_folder=False)
        if item.occupied and os.path.isdir(copy) and not os.path.islink(copy):
            remove_marker(copy, is_folder=True)
        self._put_ref(item)
        if becomes_object:
            item.mode = self._placer.link(item.content.path, copy)
        else:
            self._put_copy(item)
        put_marker(copy, is_folder=item.content.is_folder)

    def _take_place(self, item: _Item, note: str) -> None:
        """The copy appears where something lay, which is kept. Everything else is in place by now: a kill, or a disk
        that is full, leaves what lay there where it is, or the new, whole and without a marker.
        """
        copy = item.publication.copy
        if item.marked and copy.is_dir() and not copy.is_symlink():
            remove_marker(copy, is_folder=False)  # nobody's: it would be the new file's
        item.kept, rewritten = self._placer.put_in_place_of(Path(item.content.path), copy, note=note)
        self._note_rewritten(item, rewritten)
        self._put_ref(item)
        put_marker(copy, is_folder=item.content.is_folder)

    def _becomes_object(self, item: _Item) -> bool:
        """Whether a staged file can be its own new object, of which the copy is then a link: the usual case of a fetch.

        A rename and a link give it its two names, where it would take two links, a rename and an unlink to move it to
        the workspace first: a tenth of the time of fetching many small files.
        """
        content = item.content
        return (
            item.mode == "hardlink"
            and not content.is_folder
            and not item.occupied
            and not content.entries[0].mode & 0o100
            and not self._writer.is_known(content.ids[0])
            and self._placer.reaches(item.copy)
        )

    def _make_object(self, item: _Item) -> None:
        content = item.content
        [entry], [raw] = content.entries, content.ids
        self._fix_mode(content.path, entry)
        self._writer.adopt_private(raw, content.path)
        self._writer.place_staged(raw)
        item.move(self._layout.object_path(raw))

    def _open_folders(self, item: _Item) -> None:
        """Folders of a copy can be written by their owner (users may delete their copies), and by a shared group."""
        bits = 0o700 | self._layout.group_bits()
        top = os.fsencode(item.content.path)
        _add_mode(top, os.stat(top).st_mode, bits)
        for entry in item.content.entries:
            if entry.kind == "folder":
                _add_mode(top + b"/" + entry.name, entry.mode, bits)
        try:
            os.unlink(top + b"/" + _MARKER)  # the marker comes last, and is ours
        except FileNotFoundError:
            return

    def _put_objects(self, item: _Item) -> None:
        ground, writer, content = self._ground, self._writer, item.content
        hardlink = item.mode == "hardlink"
        for entry, raw in content.list_contents():
            if entry.kind == "link":
                writer.place_staged(raw)
                continue
            path = content.path_of(entry)
            executable = bool(entry.mode & 0o100)
            self._fix_mode(path, entry)
            if hardlink and not executable:
                writer.link_staged(raw, path)
            elif not writer.place_staged(raw) and "reflink" in ground.rungs:
                writer.share(raw, path, executable=executable)
        for tree in content.trees.values():
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
        content, copy = item.content, item.publication.copy
        rewritten = self._placer.put(
            Path(content.path), copy, is_folder=content.is_folder, replaces=item.occupied
        )
        self._note_rewritten(item, rewritten)

    def _note_rewritten(self, item: _Item, rewritten: bool) -> None:
        if rewritten and item.mode is not None:
            item.mode = "copy"

    # Afterwards

    def _record(self, item: _Item) -> None:
        cache = self._cache
        if cache is None or item.fault is not None or item.unchanged or item.mode == "copy":
            return
        copy, content = item.publication.copy, item.content
        if content.digest is None:
            return
        if content.is_folder:
            # Linked and chmoded since they were looked at, which moves their ctime.
            entries = [entry._replace(nlink=NLINK_UNKNOWN) for entry in content.entries]
            index = FolderIndex.pack(entries, content.ids, clock_ns=self._clock_ns, id=content.digest.raw)
            cache.record_folder(copy, index)
            if item.mode == "hardlink" and not item.met_objects:
                objects, tree = self._writer.objects, content.digest.raw
                objects.record_linked(tree, content.entries, content.ids, clock_ns=self._clock_ns)
            return
        raw = content.ids[0]
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
        content = item.content
        return Published(
            item.publication.copy,
            content.digest,
            content.size_bytes,
            content.files,
            item.mode,
            item.unchanged,
            item.kept,
        )

    def _now(self) -> str:
        if not self._time:
            self._time = format_time(read_clock_ns())
        return self._time


def _add_mode(path: bytes, mode: int, bits: int) -> None:
    if bits & ~mode:
        os.chmod(path, stat.S_IMODE(mode) | bits)
