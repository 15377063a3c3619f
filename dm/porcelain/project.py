"""A project: one manifest with its places, stores and state, wired once.

This is where the wings of plumbing meet. A `Project` is opened once per command (or per `dm.Manifest`) and keeps what
it read then: the manifest, the storage ladder, the environment. Only the state and the stores move under it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from dm.environment import Environment
from dm.errors import DmError, MachineFailed, NotFound
from dm.plumbing.records.dataset import Dataset
from dm.plumbing.records.location import Location
from dm.plumbing.records.manifest import Manifest, discover
from dm.plumbing.records.opening import open_places
from dm.plumbing.records.places import Places
from dm.porcelain.copies import Copy, Notes
from dm.progress import SILENT, Progress

if TYPE_CHECKING:
    from dm.plumbing.records.edit import Change, TableChanges
    from dm.plumbing.records.state import Recipe, Record, State
    from dm.plumbing.records.trust import Trust
    from dm.plumbing.store.disk import DiskStore
    from dm.plumbing.store.statcache import StatCache
    from dm.plumbing.transport.connections import HttpOptions
    from dm.plumbing.transport.registry import Fetchers
    from dm.values import Digest, Permission


#: Sources asked at once by default: enough to hide latency, few enough not to bother a server.
JOBS = 8
#: More at once than anybody's machine or server wants.
JOBS_MAX = 256


class Project:
    """A manifest, its places, its stores and its state.

    ``places`` is frozen as it was opened; ``manifest`` is replaced by its newer reading after an edit.
    """

    def __init__(
        self,
        manifest: Manifest,
        places: Places,
        environment: Environment,
        *,
        progress: Progress = SILENT,
        trust: bool = False,
    ) -> None:
        self.manifest = manifest
        self.places = places
        self.environment = environment
        self.progress = progress
        self.notes = Notes(manifest.project_root, progress)
        self._state: State | None = None
        self._stat_cache: StatCache | None = None
        self._fetchers: Fetchers | None = None
        self._stores: dict[Path, DiskStore] = {}
        self._folders: dict[str, bool] = {}
        self._passed_over: set[Path] = set()
        self._trust_given = trust
        self._trust: Trust | None = None

    @classmethod
    def open(
        cls,
        environment: Environment,
        *,
        manifest_path: Path | None = None,
        progress: Progress = SILENT,
        trust: bool = False,
    ) -> Project:
        """Open the project of a manifest: the given one, the environment's, or the nearest above the working folder.

        ``trust`` says that the manifest may run its code in this session, whatever the user allowed before
        (SCHEMA.md, "Trust"). Raises `NotFound` when there is none, `Malformed` for a manifest or config file that
        cannot be read.
        """
        path = discover(environment.working_folder, environment, manifest_path)
        if path is None:
            raise NotFound(
                f"no manifest in '{environment.working_folder}' or above it",
                hint="dm init starts one here; --manifest FILE or -C DIR names another place",
                code="manifest-missing",
            )
        return cls.of(Manifest.read(path), environment, progress=progress, trust=trust)

    @classmethod
    def open_anywhere(
        cls, environment: Environment, *, manifest_path: Path | None = None, progress: Progress = SILENT
    ) -> Project:
        """The same for what is done to stores: without a manifest in reach one that declares nothing, with the places
        of the user alone. Raises `NotFound` for a manifest that was named and is not there.
        """
        path = discover(environment.working_folder, environment, manifest_path)
        if path is not None:
            return cls.of(Manifest.read(path), environment, progress=progress)
        nothing = Manifest.of_tables({}, project_root=environment.working_folder)
        return cls(nothing, open_places(None, environment), environment, progress=progress)

    @classmethod
    def of(
        cls, manifest: Manifest, environment: Environment, *, progress: Progress = SILENT, trust: bool = False
    ) -> Project:
        """A project around a manifest that was read or made in memory; ``trust`` as in `open`."""
        return cls(manifest, open_places(manifest, environment), environment, progress=progress, trust=trust)

    def with_manifest(self, manifest: Manifest) -> Project:
        """A project around a manifest that is still to be written, like an entry that is being added.

        What it adds are the words of the user who gives them; places outside are those that were allowed before.
        """
        other = Project.of(manifest, self.environment, progress=self.progress, trust=self._trust_given)
        other._trust = self.trust
        return other

    @property
    def root(self) -> Path:
        """The project root: the manifest's folder."""
        return self.manifest.project_root

    @property
    def stat_cache(self) -> StatCache:
        """The user's stat cache."""
        if self._stat_cache is None:
            from dm.plumbing.store.statcache import StatCache

            self._stat_cache = StatCache(self.environment.user_cache_dir / "datamanifest" / "stat-v1.db")
        return self._stat_cache

    @property
    def fetchers(self) -> Fetchers:
        """The transports of this session."""
        if self._fetchers is None:
            self._fetchers = make_fetchers(self.places)
        return self._fetchers

    @property
    def jobs(self) -> int:
        """How many sources are asked at once, unless a call says otherwise."""
        return self.places.jobs() or JOBS

    def close(self) -> None:
        """Let go of connections; write what the stat cache and the notes learned. It can be used again afterwards."""
        self.close_fetchers()
        self.notes.write()
        if self._stat_cache is not None:
            self._stat_cache.close()
            self._stat_cache = None

    def close_fetchers(self) -> None:
        """Close every connection; what is being fetched in other threads ends soon."""
        if self._fetchers is not None:
            self._fetchers.close()
            self._fetchers = None

    # Trust

    @property
    def trust(self) -> Trust:
        """The user's trust in this manifest, made on first use: most manifests run nothing."""
        trust = self._trust
        if trust is None:
            trust = self._trust = self._make_trust(self.manifest, None)
        return trust

    def demand_trust(self, action: str, runs: str) -> Permission:
        """The user's permission to run code of the manifest, asked for at each use: what changed since is not run.

        ``action`` is what needs it (``fetch 'sst'``), ``runs`` what would run (``shell: python get.py``). Raises
        `Refused` (exit 6, code ``untrusted``) with both and the way out.
        """
        return self.trust.demand(action, runs)

    def demand_trust_in_others(self, action: str, runs: str) -> Permission:
        """As `demand_trust`, for data of others that runs code: that the user began the manifest is not enough."""
        return self.trust.demand_of_others(action, runs)

    def is_trusted(self) -> bool:
        """Whether all that the manifest would run, and every place outside that it names, is allowed now."""
        return self.trust.covers()

    # Places and stores

    def find_distrust(self, dataset: Dataset, copy: Copy) -> str | None:
        """Why nothing may be written beside a dataset's copy before the user trusts the project; None when it may."""
        return self.find_place_distrust(self.locate(dataset)._replace(path=copy.path))

    def find_place_distrust(self, location: Location) -> str | None:
        """Why nothing may be written at a location before the user trusts the project; None when it may."""
        reason = self.places.untrusted_place(location)
        return None if reason is None or self.trust.allows_place(location) else reason

    def locate(self, dataset: Dataset) -> Location:
        """Where the manifest and the ladder say that a dataset belongs (the directive)."""
        return self.places.locate(dataset)

    def locate_in_own_scope(self, dataset: Dataset) -> Location | None:
        """The same in the project's own scope; None where the layout has no scopes."""
        location = self.places.locate(dataset)
        if location.user_managed or dataset.storage_path or dataset.local_path:
            return None
        return self.places.locate(dataset, scope=self.places.project_id())

    def open_store(self, root: Path) -> DiskStore:
        """The store at a root, one object per root and session. Nothing is created."""
        store = self._stores.get(root)
        if store is None:
            from dm.plumbing.store.disk import DiskStore, StoreOptions

            options = StoreOptions(
                link=self.places.link_modes(), durable=self.places.durable(), stale_age_s=self.places.stale_age_s()
            )
            store = self._stores[root] = DiskStore(
                root,
                options=options,
                stat_cache=self.stat_cache,
                host_name=self.environment.host_name,
                process_id=self.environment.process_id,
                progress=self.progress,
            )
        return store

    def list_store_roots(self) -> list[Path]:
        """The store roots that this session knows: the ladder's, then those that datasets led to."""
        return list(dict.fromkeys([*self.places.store_roots(), *self._stores]))

    def list_readable_stores(self) -> Iterator[DiskStore]:
        """The stores at `list_store_roots`, for a look at what else holds some bytes. One that cannot be read, of a
        newer format for instance, is told once and passed over.
        """
        for root in self.list_store_roots():
            store = self.open_store(root)
            try:
                store.exists()
            except DmError as error:
                if root not in self._passed_over:
                    self._passed_over.add(root)
                    self.progress.warn(f"passing over '{root}': {error.message}")
                continue
            yield store

    def copy_at(self, location: Location) -> Copy:
        """The working copy that lies, or will lie, at a location."""
        store = None if location.store_root is None else self.open_store(location.store_root)
        return Copy(location.path, store, user_managed=location.user_managed, notes=self.notes)

    def has_folder(self, path: str) -> bool:
        """Whether a folder that may hold copies was there when this run first looked (see `look_anew`)."""
        there = self._folders.get(path)
        if there is None:
            there = self._folders[path] = os.path.lexists(path)
        return there

    def has_unlocked(self) -> bool:
        """Whether a store of this session may hold unlocked copies, as of when this run first looked."""
        return any(self.has_folder(f"{root}/.dm/unlocked") for root in self.places.store_roots())

    def recall(self, datasets: Sequence[Dataset]) -> None:
        """Read at once what the stat cache knows of these datasets' places: one question instead of one for each."""
        if len(datasets) < 2:
            return
        paths = []
        for dataset in datasets:
            try:
                paths.append(self.locate(dataset).path)
            except DmError:
                continue  # whoever looks at it says why
        self.stat_cache.load_files(paths)

    def look_anew(self) -> None:
        """A run begins: folders that were not there at the last one may be there now."""
        self._folders.clear()

    def copy_of_path(self, path: Path) -> Copy:
        """The working copy at a path that the state names: in the innermost of the project's stores when that knows it,
        else in none. (A file of the user's that was once recorded lies below a store root too, when that is `$repo`; so
        does a store that was used before another place was configured.)
        """
        from dm.plumbing.store.layout import find_store_root

        owners = [root for root in self.places.store_roots() if path.is_relative_to(root)]
        owner = max(owners, key=lambda root: len(root.parts), default=None)
        if owner is not None and find_store_root(path, above=owner) in (None, owner):
            store = self.open_store(owner)
            copy = Copy(path, store, user_managed=False, notes=self.notes)
            if copy.is_marked() or copy.read_ref() is not None:
                return copy
        return Copy(path, None, user_managed=False, notes=self.notes)

    def lock_copy(
        self, copy: Copy, *, should_stop: Callable[[], bool] | None = None
    ) -> AbstractContextManager[object]:
        """The lock of a copy, towards `dm` and the peers; waiting for it ends when ``should_stop`` says so.

        Nothing is put beside what the user manages: there it is `dm`'s alone, in the project's private folder.
        """
        if copy.store is not None:
            return copy.store.lock_copy(copy.path, should_stop=should_stop)
        from dm.plumbing import hashing
        from dm.plumbing.fs.lock import CopyLock, DocumentLock

        name, private = hashing.blake3_of(os.fsencode(copy.path)).hex(), self.ensure_private_folder()
        if copy.user_managed:
            return DocumentLock(
                private / ".dm" / "locks" / name,
                progress=self.progress,
                describe=f"'{copy.path}'",
                holder=self._holder,
                should_stop=should_stop,
            )
        return CopyLock(
            root=private,
            copy=copy.path,
            name=name,
            host_name=self.environment.host_name,
            process_id=self.environment.process_id,
            stale_age_s=self.places.stale_age_s(),
            progress=self.progress,
            should_stop=should_stop,
        )

    def ensure_private_folder(self) -> Path:
        """``.datamanifest/`` beside the manifest, which Git ignores; made when it is not there."""
        from dm.plumbing.records.private import ensure_private_folder

        return ensure_private_folder(self.root)

    def find_blob_id(self, checksum: Digest) -> Digest | None:
        """The id of the blob that has this checksum, where a known store measured and holds it; else None."""
        for store in self.list_readable_stores():
            known = store.find_by_digest(checksum)
            if known is not None:
                return known
        return None

    def find_reader(self, tree: Digest, *, first: DiskStore | None = None) -> DiskStore | None:
        """A store that holds a tree's object; ``first`` is asked first. None when none does."""
        if first is not None and first.has(tree):
            return first
        return next((store for store in self.list_readable_stores() if store.has(tree)), None)

    # Records

    @property
    def state(self) -> State:
        """The state file's records, read on first use."""
        if self._state is None:
            from dm.plumbing.records.state import read_state

            self._state = read_state(self.root)
        return self._state

    def forget_state(self) -> None:
        """Read the state anew at its next use."""
        self._state = None

    def merge_state(self, updates: Mapping[str, Record], deletes: Iterable[str] = ()) -> None:
        """Write records into the state in one go."""
        from dm.plumbing.records.state import merge_state

        self._state = merge_state(
            self.root, updates, deletes, durable=self.places.durable(), holder=self._holder, progress=self.progress
        )

    def merge_state_if_allowed(self, updates: Mapping[str, Record], deletes: Iterable[str] = ()) -> None:
        """As `merge_state`; where this user may not write to the project the state stays, with a warning: it only finds
        what is found by its place too.
        """
        try:
            self.merge_state(updates, deletes)
        except MachineFailed as error:
            if error.code not in ("permission", "read-only"):
                raise
            self.progress.warn(f"{error.message}; what was fetched is found by its place")

    def merge_recipes(
        self, recipes: Mapping[str, Recipe], instance_deletes: Iterable[tuple[str, str]] = ()
    ) -> State:
        """Write records of produced artifacts into the state in one go; return what it says then."""
        from dm.plumbing.records.state import merge_state

        self._state = merge_state(
            self.root,
            {},
            recipes=recipes,
            instance_deletes=instance_deletes,
            durable=self.places.durable(),
            holder=self._holder,
            progress=self.progress,
        )
        return self._state

    def in_child(self, process_id: int) -> Project:
        """The same project in a process that was forked off: nothing that is open is shared with its parent."""
        environment = self.environment._replace(process_id=process_id)
        other = Project(self.manifest, self.places, environment, progress=self.progress, trust=self._trust_given)
        other._trust = self._trust
        return other

    def edit_manifest(self, change: Change, *, replace: bool = False) -> None:
        """Apply a change to the manifest's file under its lock, and go on with what it then says.

        With ``replace`` an entry loses the fields that are not named. A manifest in memory is changed in memory.
        """
        from dm.plumbing.records.edit import EditOptions, edit_manifest

        path, opened, trust = self.manifest.path, self.manifest, self._trust
        if path is None:
            self.manifest = self._change_in_memory(change)
            self._trust = None
            return
        before: list[Manifest] = []

        def note(manifest: Manifest) -> TableChanges:
            before[:] = [manifest]
            return dict(cast("TableChanges", change(manifest)))

        options = EditOptions(self.places.canonical(), replace, self._holder, self.progress)
        manifest = edit_manifest(path, note, options)
        if manifest.text != before[0].text:
            self._keep_trust(before[0], manifest)
        # Somebody else may have changed the file while this session works with what it read first.
        earlier = None if trust is None or before[0].text == opened.text else trust
        self.manifest, self._trust = manifest, None if earlier is None else self._make_trust(manifest, earlier)

    def _keep_trust(self, before: Manifest, after: Manifest) -> None:
        """Record what an edit of `dm`'s own added, where the manifest was trusted before."""
        from dm.plumbing.records.trust import TrustStore, keep_trust

        try:
            keep_trust(TrustStore(self.environment, progress=self.progress), before, after, self.places)
        except DmError as error:
            self.progress.warn(f"{error.message}; dm trust will ask again")

    def _make_trust(self, manifest: Manifest, earlier: Trust | None) -> Trust:
        from dm.plumbing.records.trust import Trust, TrustStore, is_given

        store = TrustStore(self.environment, progress=self.progress)
        given = self._trust_given or is_given(self.environment)
        return Trust(manifest, self.places, store=store, given=given, earlier=earlier)

    def _change_in_memory(self, change: Change) -> Manifest:
        document = dict(self.manifest.document)
        for name, fields in change(self.manifest).items():
            assert isinstance(name, str)  # nested tables are a file's
            table = {**document.pop(name, {}), **(fields or {})}
            if fields is not None:
                document[name] = {field: value for field, value in table.items() if value is not None}
        return Manifest.of_tables(document, project_root=self.root)

    @property
    def _holder(self) -> str:
        return f"{self.environment.process_id} {self.environment.host_name}"


def read_http_options(places: Places) -> HttpOptions:
    """The limits of http that the environment or the user's config sets."""
    from dm.plumbing.transport.connections import HttpOptions

    timeout_s, retries = places.number("http_timeout"), places.number("http_retries")
    options = HttpOptions()
    if timeout_s is not None:
        options = options._replace(read_timeout_s=float(timeout_s))
    if retries is not None:
        options = options._replace(retries=int(retries))
    return options


def make_fetchers(places: Places) -> Fetchers:
    """The transports, with the limits that the environment or the user's config sets."""
    from dm.plumbing.transport.registry import Fetchers

    http, ssh_command = read_http_options(places), places.text("ssh_command")
    return Fetchers(places.environment, http=http, ssh_command=ssh_command)
