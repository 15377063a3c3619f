"""Which open project a call works in: that of the working folder, or that of a given manifest.

Opening one reads the manifest and the config files, which is far too much for every call. So the open ones are kept,
and a call only asks whether what they were opened from is still the same: some `stat` calls, no file read.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from dm.decorating.telling import ToldToPython
from dm.environment import Environment, Surroundings
from dm.plumbing.records.config import CONFIG_NAME
from dm.plumbing.records.manifest import discover
from dm.progress import SILENT, Progress

if TYPE_CHECKING:
    from dm.porcelain.artifacts.session import Artifacts
    from dm.porcelain.project import Project

#: A file's or folder's modification time (ns), size and inode; None when it is not there.
Stamp = tuple[int, int, int] | None
#: So many projects stay open at most.
_OPEN_MAX = 8


class Session(NamedTuple):
    """An open project, with its results."""

    artifacts: Artifacts
    project: Project


class Sessions(Protocol):
    """Says where a call works."""

    def find(self) -> Session:
        """The open session of this call. Raises what opening a manifest raises."""

    def close(self) -> None:
        """Write what the sessions learned. They can be used again afterwards."""


class _Opened(NamedTuple):
    """A session with what it was opened from: ``files`` decide all of it, a change of ``folders`` (those where a nearer
    manifest might appear) only asks for another search.
    """

    session: Session
    manifest: Path | None
    files: Sequence[tuple[str, Stamp]]
    folders: Sequence[tuple[str, Stamp]]


class WorkingFolderSessions:
    """The projects of the working folders that calls came from; opened again when a manifest, a config file or a
    variable that decides has changed, and in a forked child. Threads share it.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._opened: dict[Surroundings, _Opened] = {}
        self._inherited: list[object] = []
        os.register_at_fork(after_in_child=self._forget)

    def __reduce__(self) -> tuple[Callable[..., Sessions], tuple[()]]:
        return find_own_sessions, ()  # in another process it is that one's working folder

    def find(self) -> Session:
        """The session of the working folder's project."""
        here = Surroundings.read()
        opened = self._opened.get(here)
        if opened is None or not _are_as_before(opened.files) or not _are_as_before(opened.folders):
            with self._lock:
                opened = self._renew(here)
        return opened.session

    def close(self) -> None:
        """Write what the sessions learned of unchanged files."""
        with self._lock:
            opened, self._opened = self._opened, {}
        for each in opened.values():
            _close(each.session)

    def _renew(self, here: Surroundings) -> _Opened:
        environment = Environment.read()
        opened = self._opened.get(here)
        if opened is not None and _are_as_before(opened.files):
            folders = _look_at(_list_folders(here.working_folder, opened.manifest))
            if discover(environment.working_folder, environment) == opened.manifest:
                opened = self._opened[here] = opened._replace(folders=folders)
                return opened
        self._discard(here)
        if not self._opened:
            import atexit

            atexit.unregister(self.close)
            atexit.register(self.close)
        opened = self._opened[here] = self._open(environment)
        return opened

    def _open(self, environment: Environment) -> _Opened:
        manifest = discover(environment.working_folder, environment)
        folders = _look_at(_list_folders(str(environment.working_folder), manifest))
        files = [str(environment.user_config_file)]
        if manifest is not None:
            files += [str(manifest), os.path.join(manifest.parent, CONFIG_NAME)]
        seen = _look_at(files)  # before they are read: what changes meanwhile is noticed at the next call
        return _Opened(_open_session(environment, self._progress), manifest, seen, folders)

    def _discard(self, here: Surroundings) -> None:
        """Close the session that is replaced, and the oldest when there are too many."""
        while here in self._opened or len(self._opened) >= _OPEN_MAX:
            oldest = here if here in self._opened else next(iter(self._opened))
            _close(self._opened.pop(oldest).session)

    def _forget(self) -> None:
        # A child has none of the threads that may hold the lock, and must not close what the parent works with.
        self._lock = threading.Lock()
        self._inherited.append(self._opened)
        self._opened = {}


@cache
def find_own_sessions() -> WorkingFolderSessions:
    """The sessions of this process, which `dm.cached` works in."""
    return WorkingFolderSessions(ToldToPython())


class ManifestSession:
    """The session of one open manifest, which keeps what it was opened with, also in forked children."""

    def __init__(self, project: Project) -> None:
        from dm.porcelain.artifacts.session import Artifacts

        # Whoever opened the manifest without a sink hears what is wrong with results as the users of `dm.cached` do.
        progress = ToldToPython() if project.progress is SILENT else project.progress
        self._session = Session(Artifacts(project, progress=progress), project)

    def __reduce__(self) -> tuple[Callable[..., Sessions], tuple[Path]]:
        path = self._session.project.manifest.path
        if path is None:
            raise TypeError("a cached function of a manifest without a file cannot be sent to another process")
        return _open_manifest, (path,)

    def find(self) -> Session:
        """The manifest's session."""
        return self._session

    def close(self) -> None:
        """Write what it learned. It can be used again afterwards."""
        self._session.artifacts.close()


@cache
def _open_manifest(path: Path) -> ManifestSession:
    """The session of a manifest that another process had open; opened once, with this process's own trust."""
    from dm.porcelain.project import Project

    return ManifestSession(Project.open(Environment.read(), manifest_path=path))


def _open_session(environment: Environment, progress: Progress) -> Session:
    """The working folder's project; of one without a manifest no state is kept."""
    from dm.porcelain.artifacts.opening import open_project
    from dm.porcelain.artifacts.session import Artifacts

    project = open_project(environment, progress=progress)
    return Session(Artifacts(project, record=project.manifest.path is not None), project)


def _close(session: Session) -> None:
    session.artifacts.close()
    session.project.close()


def _list_folders(working_folder: str, manifest: Path | None) -> list[str]:
    """The folders in which another manifest would be found before this one."""
    folders = [working_folder, *map(str, Path(working_folder).parents)]
    if manifest is None:
        return folders
    home = str(manifest.parent)
    return folders[: folders.index(home) + 1] if home in folders else []


def _look_at(paths: Sequence[str]) -> list[tuple[str, Stamp]]:
    return [(path, _read_stamp(path)) for path in paths]


def _are_as_before(seen: Sequence[tuple[str, Stamp]]) -> bool:
    return all(_read_stamp(path) == stamp for path, stamp in seen)


def _read_stamp(path: str) -> Stamp:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
