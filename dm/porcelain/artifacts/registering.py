"""Records of artifacts in the state: written when one is made, and when a hit finds its record missing or stale.

A hit costs two `stat` calls here: what the state file said is remembered with its stat data. Each result is written
down at once, until that has taken a part of the process's time that is worth saving: a loop over thousands of
parameters does not write a growing file thousands of times. Then what is made is gathered, and written with a later
result or when the process ends. What a kill loses of it is written at the next hit.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dm.environment import read_monotonic_s
from dm.errors import DmError
from dm.plumbing.records.state import Recipe as StateRecipe
from dm.plumbing.records.state import list_state_paths, make_storage_path, resolve_storage_path

if TYPE_CHECKING:
    from multiprocessing.util import Finalize

    from dm.plumbing.records.state import State
    from dm.porcelain.project import Project
    from dm.progress import Progress

#: Writing takes so many seconds, and one part in so many of the time since, at most.
WRITE_FREELY_S = 0.25
WRITE_FACTOR = 20
#: A state that others keep changing is parsed again this often at most, for records that were seen in it before.
_REREAD_S = 1.0
#: Records that are remembered as seen.
_SEEN_MAX = 100_000

_Stamps = tuple[object, ...]


class Register:
    """The ``datacache`` records of one project. Threads may share one. Never raises: what cannot be written is told
    once; an artifact is found by its place without it.
    """

    def __init__(self, project: Project, progress: Progress) -> None:
        self._project = project
        self._progress = progress
        self._paths = [os.fspath(path) for path in list_state_paths(project.root)]
        self._lock = threading.Lock()
        self._stamps: _Stamps | None = None
        self._state: State | None = None
        self._read_s = 0.0
        self._seen: set[tuple[str, str, str]] = set()
        self._waiting: dict[str, StateRecipe] = {}
        self._began_s = read_monotonic_s()
        self._spent_s = 0.0
        self._told = False
        self._at_exit: Finalize | None = None

    @property
    def file(self) -> str:
        """The state file that is written to."""
        return self._paths[0] if os.path.exists(self._paths[0]) else self._paths[1]

    def find(self, key: str, hash: str) -> Path | None:
        """Where an artifact was last found; None when there is no record."""
        recipe = self._read().get(key)
        path = None if recipe is None else recipe.instances.get(hash)
        return resolve_storage_path(self._project.root, path) if path else None

    def confirm(self, key: str, hash: str, folder: str, *, ref: str, format: str) -> None:
        """An artifact was found in a folder: its record is written when it does not say so."""
        fact = (key, hash, folder)
        stamps = self._read_stamps()
        # Others may write the state all the time: what was read a moment ago is good enough to see that all is well.
        is_recent = any(stamps) and read_monotonic_s() - self._read_s < _REREAD_S
        if fact in self._seen and (stamps == self._stamps or is_recent):
            return
        path = make_storage_path(self._project.root, Path(folder))
        last = self._state
        is_known = is_recent and last is not None and _is_recorded(last.datacache, key, hash, path)
        if is_known or _is_recorded(self._read(stamps), key, hash, path):
            if len(self._seen) >= _SEEN_MAX:
                self._seen.clear()
            self._seen.add(fact)
            return
        waiting = self._waiting.get(key)
        if waiting is None or waiting.instances.get(hash) != path:
            self.add(key, hash, folder, ref=ref, format=format)

    def add(self, key: str, hash: str, folder: str, *, ref: str, format: str) -> None:
        """An artifact was made in a folder."""
        path = make_storage_path(self._project.root, Path(folder))
        with self._lock:
            known = self._waiting.get(key)
            instances = {**(known.instances if known else {}), hash: path}
            self._waiting[key] = StateRecipe(ref, format, instances)
            self._ensure_written_at_exit()
        if self._spent_s < WRITE_FREELY_S + (read_monotonic_s() - self._began_s) / WRITE_FACTOR:
            self.write()

    def remove(self, key: str, hash: str) -> None:
        """An artifact is gone."""
        self._seen = {fact for fact in self._seen if fact[:2] != (key, hash)}
        with self._lock:
            waiting = self._waiting.pop(key, None)
            if waiting is not None:
                rest = {name: path for name, path in waiting.instances.items() if name != hash}
                if rest:
                    self._waiting[key] = waiting._replace(instances=rest)
        self._merge({}, [(key, hash)])

    def write(self) -> None:
        """Write what is gathered."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
            at_exit, self._at_exit = self._at_exit, None
        if at_exit is not None:
            at_exit.cancel()
        if waiting:
            began_s = read_monotonic_s()
            self._merge(waiting, [])
            self._spent_s += read_monotonic_s() - began_s

    def _merge(self, recipes: dict[str, StateRecipe], deletes: list[tuple[str, str]]) -> None:
        try:
            state = self._project.merge_recipes(recipes, deletes)
        except DmError as error:
            if not self._told:
                self._told = True
                self._progress.warn(f"{error.message}; results are found by their place")
            # They are not tried again at every hit.
            for key, recipe in recipes.items():
                root = self._project.root
                self._seen.update(
                    (key, hash, os.fspath(resolve_storage_path(root, path))) for hash, path in recipe.instances.items()
                )
            return
        self._state, self._stamps, self._read_s = state, self._read_stamps(), read_monotonic_s()

    def _read(self, stamps: _Stamps | None = None) -> Mapping[str, StateRecipe]:
        stamps = self._read_stamps() if stamps is None else stamps
        if self._state is None or stamps != self._stamps:
            from dm.plumbing.records.state import State, read_state

            try:
                state = read_state(self._project.root)
            except DmError as error:
                if not self._told:
                    self._told = True
                    self._progress.warn(f"{error}; results are found by their place")
                state = State(self._project.root, {}, {})
            self._state, self._stamps, self._read_s = state, stamps, read_monotonic_s()
        return self._state.datacache

    def _read_stamps(self) -> _Stamps:
        return tuple([_read_stamp(path) for path in self._paths])

    def _ensure_written_at_exit(self) -> None:
        """See that what is gathered is written when the process ends, also one of multiprocessing's."""
        if self._at_exit is None:
            from multiprocessing.util import Finalize

            # It holds itself to the process that made it, not to one that is forked off.
            self._at_exit = Finalize(None, self.write, exitpriority=10)


def _is_recorded(recipes: Mapping[str, StateRecipe], key: str, hash: str, path: str) -> bool:
    recipe = recipes.get(key)
    return recipe is not None and recipe.instances.get(hash) == path


def _read_stamp(path: str) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
