"""Produce or load: the artifacts of an open project (SCHEMA.md, "Produced datasets").

`Artifacts.begin` answers with a value that was found, or with a `Pending`: then the caller computes it, alone of all
processes that ask for the same. What is found is proven (`dm.porcelain.artifacts.looking`); what is not as it should be
is set aside, told, and computed again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from dm.errors import DmError, MachineFailed, Refused, SourceFailed, UsageError
from dm.plumbing.fs.machine import display_path
from dm.plumbing.records.artifact_places import list_other_places
from dm.plumbing.records.sidecars import METADATA_NAME, decode_metadata
from dm.porcelain.artifacts.calls import Call, Calls, Kind
from dm.porcelain.artifacts.looking import Fault, Found, Looker, Place, read_file
from dm.porcelain.artifacts.opening import find_project_root, open_project
from dm.porcelain.artifacts.pending import (
    Held,
    Pending,
    Work,
    blames_data,
    held_folders,
    list_other_formats,
    make_staging,
)
from dm.porcelain.artifacts.recipe import Recipe
from dm.porcelain.artifacts.registering import Register
from dm.porcelain.artifacts.taking_over import take_over
from dm.progress import SILENT, Progress

if TYPE_CHECKING:
    from dm.environment import Environment
    from dm.porcelain.project import Project
    from dm.values import Permission


__all__ = ["Artifacts", "Loaded", "Pending", "find_project_root"]

class Loaded:
    """A result that was found, and its ``value``."""

    __slots__ = ("_path", "value")

    def __init__(self, value: object, path: str | Path) -> None:
        self.value = value
        self._path = os.fspath(path)

    @property
    def path(self) -> Path:
        """Where the data lies."""
        return Path(self._path)  # made when it is asked for: it would be a tenth of the cost of a hit

    @property
    def code_digest(self) -> str | None:
        """The digest of the source that made it, as its ``metadata.toml`` says; None when that does not say. Read when
        it is asked for.
        """
        file = f"{os.path.dirname(self._path)}/{METADATA_NAME}"
        try:
            data = read_file(file)
            if b"code" not in data:
                return None
            # As `dm` writes it: whoever loads thousands of results asks for this of each.
            _, found, rest = data.partition(b'\n[code]\ndigest = "')
            digest, end, _ = rest.partition(b'"\n')
            if found and end and digest.isascii() and b"\\" not in digest and b"earlier" not in data:
                return digest.decode()
            return decode_metadata(data).find_of(os.path.basename(self._path)).code_digest or None
        except (OSError, DmError):
            return None


class Artifacts:
    """The produced datasets of one project. Threads share one; it may be carried into forked processes.

    ``record`` False: no state is written (there is no manifest beside which it could lie). ``progress`` is where
    warnings go; by default the project's.
    """

    def __init__(self, project: Project, *, record: bool = True, progress: Progress | None = None) -> None:
        self.progress = project.progress if progress is None else progress
        self._project = project
        self._record = record
        self._process_id = os.getpid()
        self._looker = Looker()
        self._register = Register(project, self.progress) if record else None
        self._calls = Calls(project)
        self._passed: set[str] = set()
        self._not_adopted: set[str] = set()
        self._told: set[str] = set()

    @classmethod
    def open(cls, environment: Environment, *, progress: Progress = SILENT, trust: bool = False) -> Artifacts:
        """The artifacts of the project that the working folder lies in.

        Without a manifest in reach they are known by place alone and no state is written: the project is the nearest
        folder upwards with a ``pyproject.toml``, ``Project.toml`` or ``.git``, else the working folder. Raises
        `Malformed` for a manifest or config file that cannot be read.
        """
        project = open_project(environment, progress=progress, trust=trust)
        return cls(project, record=project.manifest.path is not None)

    def begin(
        self,
        recipe: Recipe,
        table: Mapping[str, object],
        *,
        fresh: bool = False,
        should_stop: Callable[[], bool] | None = None,
    ) -> Loaded | Pending:
        """The result of a recipe for a key table: found and loaded, or to be computed now by the caller.

        A `Pending` holds the artifact's lock until it is committed or left: waiting for another process that computes
        the same takes as long as that does, or until ``should_stop`` says so (`MachineFailed`, code ``interrupted``).
        ``fresh``: it is computed whatever lies there.

        Raises `UsageError` for a table that is not plain, and (code ``recursion``) for a computation that asks for its
        own result; `Refused` for unsafe names and for a place that needs trust; `SourceFailed` for a format that cannot
        be written or whose library is not installed.
        """
        call = self._prepare(recipe, table)
        if not fresh:
            loaded = self._find(call)
            if loaded is not None:
                return loaded
        if call.folder in held_folders.get() and self._is_locked(call):
            raise UsageError(
                f"'{recipe.ref or recipe.cachetype}' asks for the result that it is computing",
                hint="call it with other parameters, or without the cache",
                code="recursion",
            )
        return self._compute(call, fresh=fresh, should_stop=should_stop)

    def _is_locked(self, call: Call) -> bool:
        """Whether a result that was being computed around the code that runs still is. Tasks and forked processes that
        the computation began may outlive it.
        """
        try:
            with self._project.open_store(call.kind.store_root).lock_copy(Path(call.folder), timeout_s=0):
                return False
        except DmError:
            return True

    def find(self, recipe: Recipe, table: Mapping[str, object]) -> Path | None:
        """Where the data of a result lies that `begin` would load; None when it would be computed. Nothing is loaded,
        made or told; its bytes are read as the recipe's ``check`` says. Raises as `begin` does.
        """
        call = self._prepare(recipe, table)
        for place in self._list_places(call):
            found = self._looker.look(place, call.wanted, in_memory=False)
            if isinstance(found, Found) and not isinstance(self._permit(call.kind, found), str):
                return Path(found.path)
        return None

    def path(self, recipe: Recipe, table: Mapping[str, object]) -> Path:
        """Where the data of a result lies, or will lie; its bytes are not looked at. Raises as `begin` does."""
        call = self._prepare(recipe, table)
        wanted = call.wanted._replace(check="never")
        for place in self._list_places(call):
            found = self._looker.look(place, wanted, in_memory=False)
            if isinstance(found, Found):
                return Path(found.path)
        return Path(call.folder, call.kind.name)

    def forget(self, recipe: Recipe, table: Mapping[str, object]) -> bool:
        """Remove a result, in all its formats, from its place and from where only the state knows it (as far as
        `find_reason_to_stay` lets it), and its record; whether there was one. Objects stay until they are pruned; what
        lies in pools stays. Raises as `begin` does, and `MachineFailed` where nothing can be removed.
        """
        call = self._prepare(recipe, table)
        folder = Path(call.folder)
        self._demand_place(call)
        store = self._project.open_store(call.kind.store_root)
        is_there = os.path.lexists(folder)
        if is_there:
            with store.lock_copy(folder):
                is_there = os.path.lexists(folder)
                if is_there:
                    store.discard(folder)
        self._looker.forget(call.folder)
        recorded = None if self._register is None else self._register.find(call.kind.key, call.hash)
        if self._register is not None and recorded is not None:
            is_there |= self._forget_elsewhere(call, recorded)
            self._register.remove(call.kind.key, call.hash)
        return is_there

    def _forget_elsewhere(self, call: Call, recorded: Path) -> bool:
        """Remove a result from another folder that the state names, where it is this project's to remove."""
        from dm.porcelain.artifacts.catalogue import Spot
        from dm.porcelain.artifacts.removal import find_reason_to_stay, remove_artifact

        recipe = call.kind.recipe
        others = list_other_places(self._project.places, recipe.cachetype, recipe.version, call.hash)
        if recorded.name != call.hash or recorded in (Path(call.folder), *others):
            return False
        spot = Spot(recipe.cachetype, recipe.version, call.hash, recorded, None, recorded.is_dir(), True)
        if not spot.is_there or find_reason_to_stay(self._project, spot) is not None:
            return False
        return remove_artifact(self._project, spot)

    def close(self) -> None:
        """Write the records that were gathered. It can be used again afterwards."""
        if self._register is not None:
            self._register.write()

    # What is asked for

    def _prepare(self, recipe: Recipe, table: Mapping[str, object]) -> Call:
        if os.getpid() != self._process_id:
            self._enter_process()
        return self._calls.prepare(recipe, table)

    def _enter_process(self) -> None:
        """This is a forked child: it has its own number, connections and locks."""
        self._process_id = os.getpid()
        self._project = self._project.in_child(self._process_id)
        self._register = Register(self._project, self.progress) if self._record else None
        self._looker = Looker()
        self._calls = Calls(self._project)

    def _list_places(self, call: Call) -> Iterator[Place]:
        return self._calls.list_places(call, None if self._register is None else self._register.find)

    # Finding

    def _find(self, call: Call) -> Loaded | None:
        """Look in every place; what cannot be used is left for who holds the lock, or passed over."""
        for place in self._list_places(call):
            found = self._look(call, place)
            if isinstance(found, Loaded):
                return found
            if isinstance(found, Fault) and not place.own:
                self._tell_once(f"'{display_path(place.folder)}' is passed over: {found.reason}")
        return None

    def _look(self, call: Call, place: Place) -> Loaded | Fault | None:
        """What a place has: the value, something that cannot be used, nothing that may be used."""
        kind = call.kind
        in_memory = kind.loader is not None and kind.loader.reads_bytes
        found = self._looker.look(place, call.wanted, in_memory=in_memory)
        if not isinstance(found, Found):
            return found
        permission = self._permit(kind, found)
        if isinstance(permission, str):
            self._passed.add(found.place.folder)
            told = f"'{display_path(found.path)}' is passed over: {permission}; so are others that are like it"
            self._tell_once(told, about=f"permission {kind.key}")
            return None
        try:
            value = self._load(kind, found.path, found.content, permission)
        except SourceFailed as error:
            if not blames_data(error):
                raise
            self._looker.forget(place.folder)
            return Fault(place, error.message, data_only=True)
        self._settle(call, found)
        return Loaded(value, found.path)

    def _permit(self, kind: Kind, found: Found) -> Permission | str | None:
        """The permission to load the data where its format may run code (None: it needs none); else why there is none.

        This user's own results need no word of trust; what came from a pool, from another user, or perhaps with a clone
        does.
        """
        if kind.loader is None or not kind.loader.runs_code:
            return None
        if found.place.is_users:
            from dm.plumbing.records.trust import permit_own

            permission = permit_own(found.status)
            if permission is not None:
                return permission
        project = self._project
        try:
            return project.demand_trust_in_others(
                f"load '{display_path(found.path)}'", "the code in a pickle that is not this user's own"
            )
        except Refused as error:
            is_named = project.manifest.path is not None
            hint = error.hint if project.trust.is_needed() or not is_named else "dm trust --yes allows it"
            return f"{error.message} ({hint})"

    def _load(self, kind: Kind, file: str, content: bytes | None, permission: Permission | None) -> object:
        recipe = kind.recipe
        if content is not None and kind.loader is not None:
            return kind.loader.load_bytes(content, label=file, permission=permission)
        path = Path(file)
        if recipe.loader is not None:
            from dm.plumbing.formats.loaders.kinds import Loader

            # As a built-in one, for what it raises.
            return Loader(recipe.format, "the given loader", recipe.loader, takes_folder=True).load(path)
        if kind.loader is None:
            return path
        return kind.loader.load(path, permission=permission)

    def _settle(self, call: Call, found: Found) -> None:
        """After a hit: take over what no ref speaks of, and see to the record."""
        place, kind = found.place, call.kind
        if found.is_new and place.own and place.folder not in self._not_adopted:
            self._adopt(call, place)
        if self._register is not None:
            self._register.confirm(
                kind.key, call.hash, place.folder, ref=kind.recipe.ref, format=kind.recipe.format
            )

    def _adopt(self, call: Call, place: Place) -> None:
        """Write a ref for an artifact that a peer made, or put a format into; where that cannot be done now, later."""
        store, folder = place.store, Path(place.folder)
        assert store is not None
        if self._find_distrust(call) is not None:
            return
        try:
            with store.lock_copy(folder, timeout_s=0):
                take_over(store, folder, progress=self.progress)
        except DmError as error:
            if error.code != "locked":
                self._not_adopted.add(place.folder)

    # Computing

    def _compute(
        self, call: Call, *, fresh: bool, should_stop: Callable[[], bool] | None = None
    ) -> Loaded | Pending:
        """Take the lock, look again, make room; then it is the caller's to compute."""
        self._demand_place(call)
        try:
            with ExitStack() as locked:
                return self._compute_alone(call, locked, fresh=fresh, should_stop=should_stop)
        except MachineFailed as error:
            if error.code == "interrupted":
                raise
            self._tell_once(f"results of '{call.kind.recipe.cachetype}' are not kept: {error.message}")
            return Pending(self._describe(call), None)

    def _compute_alone(
        self, call: Call, locked: ExitStack, *, fresh: bool, should_stop: Callable[[], bool] | None
    ) -> Loaded | Pending:
        """``locked`` lets go of the lock, unless the `Pending` that is returned has taken that over."""
        store, folder = self._project.open_store(call.kind.store_root), Path(call.folder)
        lock = locked.enter_context(store.lock_copy(folder, should_stop=should_stop))
        if lock.waited and not fresh:
            # All who waited for it load it at the same time, not one after the other.
            lock.release()
            loaded = self._find(call)
            if loaded is not None:
                return loaded
            lock.acquire()
        answer = self._look_again(call, fresh=fresh)
        if answer is None:
            answer = Pending(self._describe(call, is_kept=True), Held(store, lock, make_staging(store, folder)))
            locked.pop_all()
        return answer

    def _look_again(self, call: Call, *, fresh: bool) -> Loaded | Pending | None:
        """The lock is held: what another computed meanwhile, or None when the place is free for a result."""
        place = self._calls.own_place(call)
        self._passed.discard(call.folder)
        found: Loaded | Fault | Found | None
        if fresh:
            found = self._looker.look(place, call.wanted, in_memory=False)
        else:
            found = self._look(call, place)
        if isinstance(found, Fault) and found.is_unmarked and self._complete(place):
            return self._look_again(call, fresh=fresh)
        if isinstance(found, Loaded):
            return found
        if isinstance(found, Fault):
            self._set_aside(call, found)
        elif not fresh and call.folder in self._passed:
            # Another user's result, which is as good as ours would be: it stays.
            return Pending(self._describe(call), None)
        return None

    def _complete(self, place: Place) -> bool:
        """Mark what a kill left unmarked, when its bytes are what its ref says: the marker is the last step."""
        from dm.plumbing.store.measure import measure_copy

        store, folder = place.store, Path(place.folder)
        assert store is not None
        ref = store.read_ref(folder)
        if ref is None or ref.digest is None or not folder.is_dir():
            return False
        measured = measure_copy(folder)
        if measured.digest != ref.digest:
            return False
        store.adopt(folder, measured.digest, size_bytes=measured.size_bytes, files=measured.files)
        return True

    def _set_aside(self, call: Call, fault: Fault) -> None:
        """Move what cannot be used into the quarantine, the data alone where other formats lie beside it."""
        store, folder = fault.place.store, Path(call.folder)
        assert store is not None
        self._looker.forget(call.folder)
        path = folder
        if fault.data_only and list_other_formats(folder, call.kind.name):
            path = folder / call.kind.name
        if not os.path.lexists(path):
            self.progress.warn(f"'{display_path(folder)}' is computed again: {fault.reason}")
            return
        kept = store.quarantine(path, f"a result of '{call.kind.recipe.cachetype}': {fault.reason}")
        told = f"'{display_path(folder)}' is computed again: {fault.reason}"
        self.progress.warn(f"{told}; what lay there is kept at '{display_path(kept)}'")

    def _describe(self, call: Call, *, is_kept: bool = False) -> Work:
        kind = call.kind
        register = self._register
        provenance = None
        if is_kept:
            from dm.porcelain.artifacts.provenance import read_provenance

            project = self._project
            provenance = read_provenance(
                project.root,
                environment=project.environment,
                module_name=kind.recipe.ref.partition(":")[0] or None,
                progress=self.progress,
            )

        def load(path: Path) -> object:
            from dm.plumbing.records.trust import permit_own

            runs_code = kind.loader is not None and kind.loader.runs_code
            return self._load(kind, os.fspath(path), None, permit_own(os.stat(path)) if runs_code else None)

        def done() -> None:
            self._looker.forget(call.folder)
            if register is not None:
                register.add(kind.key, call.hash, call.folder, ref=kind.recipe.ref, format=kind.recipe.format)

        return Work(
            kind.recipe,
            call.table,
            call.hash,
            kind.name,
            Path(call.folder),
            self.progress,
            load,
            kind.loader is None or not kind.loader.reads_bytes,
            done,
            register.file if register is not None else "",
            provenance,
        )

    def _find_distrust(self, call: Call) -> str | None:
        """Why nothing may be written at its place. Its own: a link may lie there alone, below what others share."""
        return self._project.find_place_distrust(call.kind.location._replace(path=Path(call.folder)))

    def _demand_place(self, call: Call) -> None:
        """Nothing is written at a place that a cloned project chose before the user trusts it. Raises `Refused`."""
        reason = self._find_distrust(call)
        if reason is not None:
            raise Refused(
                f"cannot keep results of '{call.kind.recipe.cachetype}': {reason}",
                hint="dm trust shows what the project asks for; or give the call a 'cache_dir'",
                code="untrusted",
            )

    def _tell_once(self, text: str, *, about: str = "") -> None:
        if (about or text) not in self._told:
            self._told.add(about or text)
            self.progress.warn(text)
