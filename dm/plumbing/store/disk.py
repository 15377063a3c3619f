"""The store on disk: objects, refs, aliases and working copies below one root. The face of this folder.

Nothing is made before the first write. What takes several steps has a class of its own (`Publisher`, `Ingest`,
`Delivery`, `Custody` …), imported when it is first asked for, and is done in a piece of work that `Workshop` opens: in
a private `Workspace`, with prune held off, which never takes an object away before the ref that names it is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from dm.environment import format_time, read_clock_ns
from dm.errors import DmError
from dm.plumbing.fs.link import LinkMode
from dm.plumbing.fs.machine import display_path, machine_errors
from dm.plumbing.fs.publish import ensure_folder
from dm.plumbing.hashing import blake3_of, tree_id_of
from dm.plumbing.store.layout import Layout
from dm.plumbing.store.markers import CopyState, read_copy_state
from dm.plumbing.store.objects import TreeEntry, encode_tree, refuse_unsafe_names
from dm.plumbing.store.ref_files import RefFiles
from dm.plumbing.store.refs import Ref
from dm.progress import SILENT, Progress
from dm.values import Digest

if TYPE_CHECKING:
    from dm.plumbing.fs.lock import CopyLock, DocumentLock
    from dm.plumbing.store.checkout import Built
    from dm.plumbing.store.delivery import Delivery
    from dm.plumbing.store.examine import Examiner
    from dm.plumbing.store.ground import Ground
    from dm.plumbing.store.ingest import Ingest, Ingested
    from dm.plumbing.store.loose import LooseObjects
    from dm.plumbing.store.measure import Measured
    from dm.plumbing.store.prune import Pruned, Pruner, Unreached
    from dm.plumbing.store.publication import Publication, Published
    from dm.plumbing.store.sharing import Sharer
    from dm.plumbing.store.statcache import StatCache
    from dm.plumbing.store.unlocking import Unlocker
    from dm.plumbing.store.workshop import Workshop
    from dm.plumbing.store.workspace import Workspace
    from dm.plumbing.store.writing import ObjectWriter


class StoreOptions(NamedTuple):
    """``link``: how copies share bytes with objects, in order. ``durable``: flush before anything becomes visible.
    ``stale_age_s``: the age, in seconds, at which another tool's untouched lock is stale.
    """

    link: tuple[LinkMode, ...] = ("reflink", "hardlink")
    durable: bool = True
    stale_age_s: float = 30


class DiskStore:
    """The store below ``root`` (`dm.plumbing.store.protocol.Store`); threads may share one.

    Raises `Malformed` when the store has a newer format, `MachineFailed` for faults of the machine.
    """

    def __init__(
        self,
        root: Path,
        *,
        options: StoreOptions = StoreOptions(),  # noqa: B008 - frozen
        stat_cache: StatCache | None = None,
        host_name: str = "localhost",
        process_id: int | None = None,
        progress: Progress = SILENT,
    ) -> None:
        self.root = root
        self.meta = root / ".dm"
        self.options = options
        self.stat_cache = stat_cache
        self._host_name = host_name
        self._process_id = os.getpid() if process_id is None else process_id
        self._progress = progress
        self._layout = Layout(root)
        self._refs = RefFiles(self._layout)
        self._told = False
        self._writable: bool | None = None

    def prepare(self) -> None:
        """Make ``.dm`` unless it is there; every write does so by itself."""
        self._layout.prepare()

    def exists(self) -> bool:
        """Whether there is a store here that can be read."""
        return self._layout.is_there()

    def may_write(self) -> bool:
        """Whether this user may write here; a store that may only be read serves as a pool. Looked at once."""
        if self._writable is None:
            folder = next((each for each in (self.meta / "partial", self.meta, self.root) if each.is_dir()), None)
            self._writable = folder is None or os.access(folder, os.W_OK | os.X_OK)
        return self._writable

    # Objects

    def has(self, digest: Digest) -> bool:
        """Whether the object is there. Its bytes are not looked at."""
        return self._objects.has(digest)

    def size(self, digest: Digest) -> int:
        """The content's bytes: a blob's length, for a tree the sum below it. Raises `NotFound`."""
        return self._objects.size(digest)

    def open_blob(self, digest: Digest) -> BinaryIO:
        """The blob's bytes, verified first unless the stat cache vouches for them.

        Raises `NotFound` and `ContentMismatch`.
        """
        return self._objects.open_blob(digest)

    def read_tree(self, digest: Digest) -> list[TreeEntry]:
        """The folder's entries, verified. Raises `NotFound`, `ContentMismatch` and `Malformed`."""
        return self._objects.read_tree(digest)

    def find_object(self, raw: bytes) -> Digest | None:
        """The id of the object that these 32 bytes name, blob or tree as its content tells; None when none is here."""
        return self._objects.find_object(raw)

    def list_objects(self) -> Iterator[tuple[Digest, int]]:
        """Every object, in the order of the ids' hex, with the bytes of its file."""
        return self._objects.list_objects()

    def object_path(self, digest: Digest) -> Path:
        """Where the object lies, or would lie."""
        return Path(self._layout.object_path(digest.raw))

    def put_blob(self, content: bytes | BinaryIO) -> Digest:
        """Store bytes, or what is left in a stream; return the blob's id."""
        with self._ingest() as ingest:
            return ingest.store_bytes(content) if isinstance(content, bytes) else ingest.store_stream(content)

    def put_tree(self, entries: Iterable[TreeEntry]) -> Digest:
        """Store a folder's entries; return the tree's id. Raises `Malformed` and `Refused`."""
        listed = list(entries)
        data = encode_tree(listed)
        self._layout.prepare()
        refuse_unsafe_names([entry.name for entry in listed], folds_case=self._layout.folds_case())
        digest = Digest.of_tree(tree_id_of(data))
        with self._ingest() as ingest:
            ingest.store_tree(data, digest.raw)
        return digest

    def ingest(
        self, path: Path, *, write: bool = True, owned: bool = False, progress: Progress | None = None
    ) -> Ingested:
        """The id of the file or folder at ``path``; with ``write`` it is stored too.

        The files are read and left as they are (a store never takes them: ``owned`` is for `publish`). Raises
        `Refused` for devices, names that may not be written and a ``.complete`` with content.
        """
        from dm.plumbing.store.ingest import Ingested

        if owned:
            raise ValueError("what dm staged itself is published, not ingested")
        if not write:
            from dm.plumbing.store.measure import measure_copy

            measured = measure_copy(path, progress=progress or self._progress)
            return Ingested(measured.digest, measured.size_bytes, measured.files)
        with self._ingest(progress) as ingest:
            return ingest.store_path(path)

    def find_by_digest(self, digest: Digest) -> Digest | None:
        """The id of an object with this digest, directly or through an alias; None when none is here.

        An alias is a hint: who has a contract in another algorithm than blake3 checks the bytes against it.
        """
        if digest.algorithm in ("blake3", "blake3-tree"):
            return digest if self.has(digest) else None
        if not self._layout.is_there():
            return None
        from dm.plumbing.store.aliases import read_alias

        blob = read_alias(self._layout.alias_path(digest))
        return blob if blob is not None and self.has(blob) else None

    # Refs

    def ref_name(self, copy: Path) -> str:
        """The name of a copy's ref: its ``/``-joined path below the root.

        Raises `Refused` when it is not below the root, is unsafe, or belongs to a store further in.
        """
        return self._layout.ref_name(copy)

    def read_ref(self, name: str | Path) -> Ref | None:
        """What was last seen of a copy, given by its path or its ref's name; None: nothing known.

        Raises `Malformed` for a ref that cannot be read.
        """
        return self._refs.read(self._refs.name(name))

    def write_ref(self, name: str | Path, ref: Ref) -> None:
        """Record what was seen of a copy. Raises `Refused` where one copy would lie inside another."""
        self._refs.write(self._refs.name(name), ref, durable=self.options.durable)

    def remove_ref(self, name: str | Path) -> None:
        """Forget what was seen of a copy; nothing there is fine."""
        self._refs.remove(self._refs.name(name))

    def refuse_copies_below(self, copy: Path) -> None:
        """Raise `Refused` where other copies that are there lie below a copy's place."""
        self._refs.refuse_copies_below(self._layout.ref_name(copy))

    def list_refs(self) -> Iterator[tuple[str, Ref]]:
        """Every ref, in the order of the names' parts. Raises `Malformed` for one that cannot be read."""
        return self._refs.list_refs()

    def list_ref_names(self) -> list[str]:
        """The names of all refs, in the order of their parts, also of those that cannot be read."""
        return self._refs.list_names()

    # Working copies

    def lock_copy(
        self, copy: Path, *, timeout_s: float | None = None, should_stop: Callable[[], bool] | None = None
    ) -> CopyLock:
        """The lock of a working copy, against other `dm` and the other tools. Makes ``.dm`` where it is missing.

        Waiting for it ends after ``timeout_s``, or when ``should_stop`` says so.
        """
        from dm.plumbing.fs.lock import CopyLock

        name = self.ref_name(copy)
        self._layout.prepare()
        return CopyLock(
            root=self.root,
            copy=copy,
            name=blake3_of(os.fsencode(name)).hex(),
            host_name=self._host_name,
            process_id=self._process_id,
            stale_age_s=self.options.stale_age_s,
            progress=self._progress,
            timeout_s=timeout_s,
            should_stop=should_stop,
        )

    def lock_repair(self) -> DocumentLock:
        """Held by who mends objects and copies here: what another repair has in hand is not judged meanwhile. It is
        taken before the locks of copies.
        """
        from dm.plumbing.fs.lock import DocumentLock

        self._layout.prepare()
        return DocumentLock(
            self.meta / "locks" / "repair",
            progress=self._progress,
            describe=f"the repair of '{display_path(self.root)}'",
            holder=f"{self._process_id} {self._host_name}",
            stale_age_s=self.options.stale_age_s,
        )

    def state_of(self, copy: Path) -> CopyState:
        """``absent``, ``unmarked`` (something lies there that nothing vouches for) or ``complete`` (marked)."""
        return read_copy_state(copy)

    def has_partials(self) -> bool:
        """Whether anything is under way, or was left by a killed process."""
        partial = self._layout.partial
        return partial.is_dir() and any(partial.iterdir())

    def clear_abandoned(self) -> None:
        """Remove the workspaces of killed processes; those of living ones, and downloads under way, stay."""
        with self._workshop.open():
            return

    def partials(self) -> Path:
        """The folder of what is under way, on this store's file system: files there survive a kill. Whoever puts one
        there takes a name that nobody else takes, and removes it in the end.
        """
        self._layout.prepare()
        return self._layout.partial

    def partial_folder(self, identity: str) -> Path:
        """A private folder for work on what ``identity`` names, the same for every run: it survives a kill, so that
        a download is gone on from. Made when it is missing; whoever asked for it removes it in the end.
        """
        self._layout.prepare()
        folder = self._layout.partial_folder(identity)
        ensure_folder(folder, root=self.root)
        return folder

    def publish(
        self, publications: Sequence[Publication], *, progress: Progress | None = None
    ) -> list[Published]:
        """Publish a batch: objects, refs, copies, markers, one flush. The caller holds the copies' locks.

        An equal copy that lies there already is ``unchanged``. What fails leaves its place as it was and does not stop
        the others; then the first fault is raised after all. `publish_each` returns the faults instead.
        """
        results = self.publish_each(publications, progress=progress)
        published = []
        for result in results:
            if isinstance(result, DmError):
                raise result
            published.append(result)
        return published

    def publish_each(
        self, publications: Sequence[Publication], *, progress: Progress | None = None
    ) -> list[Published | DmError]:
        """As `publish`; the answer has, in order, what became of each: published, or its fault."""
        from dm.plumbing.store.publishing import Publisher

        progress = progress or self._progress
        if not publications:
            return []
        with self._workshop.open() as workspace:
            publisher = Publisher(
                self._layout,
                workspace,
                writer=self._writer(workspace, progress),
                durable=self.options.durable,
                progress=progress,
            )
            results = publisher.publish(publications)
        for result in results:
            if not isinstance(result, DmError):
                self._tell_alone(result)
                if not result.unchanged:
                    self.forget_unlocked(result.copy)
        return results

    def adopt(
        self,
        copy: Path,
        digest: Digest,
        source_id: str | None = None,
        *,
        size_bytes: int | None = None,
        files: int | None = None,
    ) -> Ref:
        """Mark a copy whose bytes were just proven to be ``digest``, and write its ref (returned).

        The copy may be another tool's: it is neither linked nor chmoded. Its bytes become objects only where a reflink
        makes that free; else the copy stands alone. Sizes that are not given are looked up. The caller holds the lock.
        """
        from dm.plumbing.store.custody import Custody

        return Custody(self._layout, self._workshop).adopt(
            copy,
            digest,
            known=Ref(None, size_bytes, files, None, source_id),
            objects=self._objects,
            ingest=self.ingest,
            durable=self.options.durable,
        )

    def checkout(
        self,
        digest: Digest,
        destination: Path,
        *,
        modes: Sequence[LinkMode] | None = None,
        progress: Progress | None = None,
    ) -> LinkMode:
        """Make the blob or tree ``digest`` appear at ``destination``, where nothing lies; no ref, no marker.

        ``modes`` are the link modes allowed (an error when none works); by default those of the store's options, and
        where none works a copy. Objects are verified first unless the stat cache vouches for them. Returns the most
        expensive mode that was needed. It is built beside the destination, or in ``.dm`` where that is in this store,
        and shown by one rename. Raises `NotFound`, `ContentMismatch`, `MachineFailed`, and `Refused` when something
        lies there.
        """
        built, _ = self._delivery(progress).check_out(digest, destination, modes=modes)
        self._tell_fallback(built, destination)
        return built.mode

    def replace(
        self, digest: Digest, path: Path, note: str, *, modes: Sequence[LinkMode] | None = None
    ) -> Path | None:
        """As `checkout`, where something may lie: right before the new is shown that is put aside, as `quarantine` does
        it. Returns where it is kept. What fails leaves it in its place.
        """
        built, kept = self._delivery(None).check_out(digest, path, modes=modes, aside=note)
        self._tell_fallback(built, path)
        return kept

    def publish_object(
        self,
        digest: Digest,
        copy: Path,
        source_id: str | None = None,
        *,
        progress: Progress | None = None,
    ) -> Published:
        """A working copy of an object that is here: linked, its ref written, placed by one rename, marked.

        The caller holds the copy's lock. Raises as `checkout` does.
        """
        delivery = self._delivery(progress)
        published, built = delivery.publish(digest, copy, source_id, durable=self.options.durable)
        self._tell_fallback(built, copy)
        return published

    def quarantine(self, path: Path, note: str) -> Path:
        """Move what lies at ``path``, with its marker, to ``.dm/quarantine/<time>-<n>/`` beside a note; return where it
        is now. Nothing is ever lost by it. Raises `NotFound` when nothing lies there.
        """
        from dm.plumbing.store.quarantine import set_aside

        return set_aside(self._layout, path, note)

    def find_unreached(
        self, *, before_ns: int, quarantine: bool = False, gone: bool = False
    ) -> list[Unreached]:
        """What may be removed: objects that no ref reaches, and leftovers, untouched since ``before_ns`` (by ctime).

        With ``quarantine`` also what was put aside, with ``gone`` also refs whose copies are gone. Changes nothing.
        Raises `Malformed` and `ContentMismatch` where refs or trees cannot be read: then nothing can be said.
        """
        return self._pruner().find(before_ns=before_ns, quarantine=quarantine, gone=gone)

    def remove_unreached(self, items: Sequence[Unreached]) -> list[Pruned]:
        """Remove what `find_unreached` found and what is still so, with nobody writing meanwhile; return what went."""
        return self._pruner().remove(items)

    def share_object(self, digest: Digest, source: Path) -> Path:
        """Make sure that the blob is an object here; return where it is. With ``source``, another store's object on the
        same file system, it shares bytes; any other file is read, and cloned or copied.

        ``source`` is left as it is. Raises `ContentMismatch` when it is not (or not any more) what its digest says.
        """
        with self._sharing() as sharer:
            if sharer.share(digest, source):
                return self.object_path(digest)
        if self.ingest(source).digest != digest:
            from dm.plumbing.store.sharing import damaged_source

            raise damaged_source(source, digest)
        return self.object_path(digest)

    def replace_by_object(self, digest: Digest, path: Path, *, executable: bool) -> LinkMode | None:
        """Put a link to the blob in the place of a file below this root that has its bytes; None where it stays: its
        bytes are others, it changed meanwhile, or no link works. The caller holds the copy's lock.
        """
        with self._sharing() as sharer:
            return sharer.replace(digest, path, executable=executable)

    # Unlocked copies

    def is_unlocked(self, copy: Path) -> bool:
        """Whether a copy is private and writable, its bytes its user's to change."""
        # Asked for each of thousands: most stores have no such copy.
        if not os.path.isdir(self._layout.unlocked):
            return False
        from dm.plumbing.store.unlocked import is_unlocked

        return is_unlocked(self._layout, self.ref_name(copy))

    def forget_unlocked(self, copy: Path) -> None:
        """What lies at a copy's place is not unlocked; nothing noted is fine."""
        if not os.path.isdir(self._layout.unlocked):
            return
        from dm.plumbing.store.unlocked import forget_unlocked

        forget_unlocked(self._layout, self.ref_name(copy))

    def place_unlocked(
        self, source: Path, copy: Path, *, expected: Digest | None, source_id: str | None, like: Ref | None = None
    ) -> Ref:
        """A private, writable copy of ``source`` at ``copy``, where nothing lies; as `Unlocker.place`."""
        with self._unlocking() as unlocker:
            return unlocker.place(source, copy, expected=expected, source_id=source_id, like=like)

    def unlock(self, copy: Path, measured: Measured | None) -> None:
        """Make the files of a copy private and writable where they lie; as `Unlocker.open`."""
        with self._unlocking() as unlocker:
            unlocker.open(copy, self.ref_name(copy), measured)

    def lock(self, copy: Path, measured: Measured | None, source_id: str | None = None) -> None:
        """Make the files of a copy read-only, and let them share the bytes of objects again where that works here.

        ``measured`` is what they are, just read, and becomes their ref; None leaves objects and ref alone
        (``skip_checksum``). Raises `Refused` for what changes meanwhile; then the copy is still unlocked.
        """
        from dm.plumbing.store.sharing import Sharer
        from dm.plumbing.store.unlocking import Unlocker

        name = self.ref_name(copy)
        with self._workshop.open() as workspace:
            ground = self._workshop.survey(workspace)
            sharer = None
            if measured is not None:
                if ground.rungs:
                    sharer = Sharer(self._layout, self._objects, workspace, rungs=ground.rungs)
                    with self._ingest() as ingest:
                        ingest.store_path(copy)
                now = format_time(read_clock_ns())
                self.write_ref(name, Ref(measured.digest, measured.size_bytes, measured.files, now, source_id))
            unlocker = Unlocker(self._layout, workspace, ground, durable=self.options.durable)
            unlocker.close(copy, name, measured, sharer)

    def discard(self, copy: Path) -> None:
        """Remove a copy with its marker and its ref; objects stay. It goes by one rename: a kill leaves it whole, or
        nothing. The caller holds its lock.
        """
        from dm.plumbing.store.custody import Custody

        Custody(self._layout, self._workshop).discard(copy)

    @contextmanager
    def _unlocking(self) -> Iterator[Unlocker]:
        from dm.plumbing.store.unlocking import Unlocker

        with self._workshop.open() as workspace:
            yield Unlocker(self._layout, workspace, self._workshop.survey(workspace), durable=self.options.durable)

    @contextmanager
    def _sharing(self) -> Iterator[Sharer]:
        from dm.plumbing.store.sharing import Sharer

        with self._workshop.open() as workspace:
            yield Sharer(self._layout, self._objects, workspace, rungs=self._workshop.survey(workspace).rungs)

    def examiner(self, *, progress: Progress | None = None) -> Examiner:
        """Looks through the whole store: objects, refs, markers, leftovers. Changes nothing."""
        from dm.plumbing.store.examine import Examiner

        return Examiner(self._layout, progress=progress or self._progress)

    def ground(self) -> Ground:
        """What the file system under this store can do; tried out once."""
        return self._workshop.ground()

    # Inside

    # Made when they are needed: `dm status` reads refs, and pays for no more. Two threads may each make one; no matter.

    @cached_property
    def _objects(self) -> LooseObjects:
        from dm.plumbing.store.loose import LooseObjects

        return LooseObjects(self._layout, self.stat_cache)

    @cached_property
    def _workshop(self) -> Workshop:
        from dm.plumbing.store.workshop import Workshop

        return Workshop(self._layout, link=self.options.link, progress=self._progress)

    @contextmanager
    def _ingest(self, progress: Progress | None = None) -> Iterator[Ingest]:
        from dm.plumbing.store.ingest import Ingest

        progress = progress or self._progress
        with self._workshop.open() as workspace:
            with machine_errors("write to the store", self.root):
                yield Ingest(
                    self._layout,
                    workspace,
                    writer=self._writer(workspace, progress),
                    durable=self.options.durable,
                    progress=progress,
                )

    def _writer(self, workspace: Workspace, progress: Progress) -> ObjectWriter:
        from dm.plumbing.store.writing import ObjectWriter

        return ObjectWriter(
            self._layout,
            workspace,
            objects=self._objects,
            ground=self._workshop.survey(workspace),
            stat_cache=self.stat_cache,
            progress=progress,
        )

    def _pruner(self) -> Pruner:
        from dm.plumbing.store.prune import Pruner

        return Pruner(self, self._layout, self._objects, progress=self._progress)

    def _delivery(self, progress: Progress | None) -> Delivery:
        from dm.plumbing.store.checkout import Checkout
        from dm.plumbing.store.delivery import Delivery

        checkout = Checkout(self._layout, self._objects, progress=progress or self._progress)
        return Delivery(self._layout, self._workshop, checkout)

    def _tell_fallback(self, built: Built, copy: Path) -> None:
        if built.fallback is not None and not self._told:
            self._told = True
            self._progress.note(f"'{display_path(copy)}' stands alone: {built.fallback}")

    def _tell_alone(self, published: Published) -> None:
        if published.digest is not None and published.mode is None and not published.unchanged and not self._told:
            self._told = True
            modes = ", ".join(self.options.link)
            self._progress.note(
                f"copies in '{display_path(self.root)}' stand alone, without objects: none of {modes} works there"
            )
