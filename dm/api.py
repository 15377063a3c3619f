"""The Python face: the same verbs as the command line, returning values.

::

    import dm

    dm.fetch()                                  # everything that the manifest here declares
    table = dm.load("co2")                      # one dataset, as what its format is: here a pandas.DataFrame
    path = dm.fetch("co2")                      # the same as a file; an outcome is an os.PathLike

    with dm.Manifest.open("paper/datamanifest.toml") as manifest:
        manifest.status()

The module-level functions work on the manifest of the working directory, found anew at each call. A `Manifest` is
opened once and keeps the configuration it was opened with; several can be open at once. Nothing is printed: pass
``progress`` to hear what goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, overload

from dm.environment import Environment
from dm.errors import DmError, gravest
from dm.porcelain.project import Project
from dm.progress import SILENT, Progress
from dm.values import Outcome

if TYPE_CHECKING:
    from dm.decorator import Decorator

#: Several datasets by name. (Not any iterable: a single `str` is one, and means one dataset.)
Names = list[str] | tuple[str, ...]
#: How to read a dataset: a function of its path, ``module:function``, or a format's name.
Loader = Callable[[str], Any] | str


class Failed(DmError):
    """Several datasets were asked for and some failed.

    ``outcomes`` holds all of them; ``exit_status`` is the gravest, and the message names each failure.
    """

    default_code = "several-failed"

    def __init__(self, outcomes: list[Outcome]) -> None:
        failures = [outcome for outcome in outcomes if outcome.failed]
        told = "; ".join(f"{outcome.name}: {outcome.message}" for outcome in failures)
        super().__init__(f"{len(failures)} of {len(outcomes)} failed: {told}")
        self.outcomes = outcomes
        self.exit_status = gravest(outcome.exit_status for outcome in failures)


class Manifest:
    """An open manifest: datasets that can be fetched, found and verified.

    Open one with `Manifest.open`, make one in memory with `Manifest.of`. As a context manager it writes what it
    learned for the next run when it is left; that is only a matter of speed.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._cached: Decorator | None = None

    @classmethod
    def open(
        cls,
        path: str | PathLike[str] | None = None,
        *,
        progress: Progress = SILENT,
        environment: Environment | None = None,
        trust: bool = False,
    ) -> Manifest:
        """Open a manifest file, or the folder that holds one; without a path the one that the command line would find.

        Code that it names runs where the user allowed it (`dm trust`), or with ``trust``, which is for manifests that
        are your own.
        The storage ladder, environment variables and host name are read now; later changes do not move it. Raises
        `NotFound` when there is none and `Malformed` when it, or a config file, cannot be read.
        """
        surroundings = environment or Environment.read()
        if path is None:
            return cls(Project.open(surroundings, progress=progress, trust=trust))
        place = Path(surroundings.working_folder, path)
        if place.is_dir():
            surroundings = surroundings._replace(working_folder=place, variables=_without_manifest(surroundings))
            return cls(Project.open(surroundings, progress=progress, trust=trust))
        return cls(Project.open(surroundings, manifest_path=place, progress=progress, trust=trust))

    @classmethod
    def of(
        cls,
        datasets: Mapping[str, object],
        *,
        project_root: str | PathLike[str] = ".",
        progress: Progress = SILENT,
        environment: Environment | None = None,
        trust: bool = False,
    ) -> Manifest:
        """A manifest in memory, from the tables that a file would hold: ``{"sst": {"uri": "https://…"}}``.

        ``project_root`` is what relative paths are below, and where the state file is kept. Checksums that fetching
        measures are kept in memory. Code that the tables name runs with ``trust`` only.
        """
        from dm.plumbing.records.manifest import Manifest as Model

        surroundings = environment or Environment.read()
        root = Path(surroundings.working_folder, project_root)
        model = Model.of_tables(datasets, project_root=root)
        return cls(Project.of(model, surroundings, progress=progress, trust=trust))

    @property
    def path(self) -> Path | None:
        """The manifest's file; None for one in memory."""
        return self._project.manifest.path

    @property
    def names(self) -> list[str]:
        """The names of the declared datasets, in the manifest's order."""
        return list(self._project.manifest.datasets)

    @overload
    def fetch(
        self,
        names: str,
        *,
        force: bool = False,
        jobs: int | None = None,
        check: bool = True,
        delegate: bool | None = None,
    ) -> Outcome: ...

    @overload
    def fetch(
        self,
        names: Names | None = None,
        *,
        force: bool = False,
        jobs: int | None = None,
        check: bool = True,
        delegate: bool | None = None,
    ) -> list[Outcome]: ...

    def fetch(
        self,
        names: str | Names | None = None,
        *,
        force: bool = False,
        jobs: int | None = None,
        check: bool = True,
        delegate: bool | None = None,
    ) -> Outcome | list[Outcome]:
        """Make datasets be here, verified: one by its name, several, or all; return an outcome for each. What has to be
        fetched first for them, since they require it, is in a list behind them.

        ``force`` goes to the source even when a copy is there, ``jobs`` sources are asked at once (by default as
        configured), ``delegate`` says whether fetchers in other languages run (None: as the manifest says). With
        ``check`` a failure is raised: for one name its own error kind, for several `Failed`, which holds every outcome.
        Without, failures are outcomes with ``status == "failed"`` and the error in ``error``. What a fetcher of the
        manifest raised is the error's ``__cause__``.
        """
        from dm.porcelain.materialize import FetchOptions
        from dm.porcelain.verbs.fetch import fetch as run

        options = FetchOptions(jobs=jobs or self._project.jobs, force=force, delegate=delegate)
        return self._answer(names, lambda chosen: run(self._project, chosen, options), check=check)

    def load(self, name: str, *, loader: Loader | None = None, jobs: int | None = None) -> Any:
        """Fetch a dataset unless it is there, verified, and return what its loader makes of it.

        ``loader`` is a function of the path (a `str`), ``"module:function"`` or a format's name; without it the
        dataset's own loader is taken, else the manifest's for its format, else the built-in one (docs/formats.md says
        what each of these returns). A folder in no format that has a loader is its path. Data that is opened in place
        (``lazy_access``) is read from its URI.

        Raises what `fetch` raises; `SourceFailed` when there is no loader, its library is missing, it is broken or
        cannot read the data; `Refused` when code of the manifest, or pickle data, would run that was not allowed. What
        a loader of yours or of the manifest raises passes through as it is.
        """
        from dm.porcelain.materialize import FetchOptions
        from dm.porcelain.verbs.load import load as run

        self._project.forget_state()
        return run(self._project, name, loader=loader, options=FetchOptions(jobs=jobs or self._project.jobs))

    def path_of(self, name: str) -> Path:
        """Where a dataset's copy is; `NotFound` when it is not there. Reads no data."""
        from dm.porcelain.verbs.locate import find_path

        return find_path(self._project, name)

    @overload
    def status(self, names: str) -> Outcome: ...

    @overload
    def status(self, names: Names | None = None) -> list[Outcome]: ...

    def status(self, names: str | Names | None = None) -> Outcome | list[Outcome]:
        """Each dataset's ``state`` (SCHEMA.md, "States") with the command that mends it as ``hint``."""
        from dm.porcelain.verbs.status import status as run

        return self._answer(names, lambda chosen: run(self._project, chosen), check=False)

    @overload
    def verify(self, names: str, *, quick: bool = False, check: bool = True) -> Outcome: ...

    @overload
    def verify(
        self, names: Names | None = None, *, quick: bool = False, check: bool = True
    ) -> list[Outcome]: ...

    def verify(
        self, names: str | Names | None = None, *, quick: bool = False, check: bool = True
    ) -> Outcome | list[Outcome]:
        """Read every byte again and compare it with the digests; ``quick`` trusts unchanged stat data.

        With ``check`` a difference is raised, as in `fetch`.
        """
        from dm.porcelain.verbs.verify import VerifyOptions
        from dm.porcelain.verbs.verify import verify as run

        return self._answer(names, lambda chosen: run(self._project, chosen, VerifyOptions(quick=quick)), check=check)

    def add(self, source: str, **options: object) -> Outcome | list[Outcome]:
        """Declare a URI, a path or a record's DOI, fetch it and pin its checksum; the fields of `AddOptions` are the
        options. Return its outcome, or those of all entries where a record became several (``split=True``).

        Nothing stays declared when that fails: the error is raised.
        """
        from dm.porcelain.verbs.add import AddOptions
        from dm.porcelain.verbs.add import add as run

        outcomes = run(self._project, source, AddOptions(**options)).outcomes  # type: ignore[arg-type]
        if len(outcomes) == 1:
            return _checked(outcomes[0])
        if any(outcome.failed for outcome in outcomes):
            raise Failed(outcomes)
        return outcomes

    @property
    def cached(self) -> Decorator:
        """`dm.cached` for this manifest: results of functions that it decorates are kept in this project, wherever they
        are called from (docs/cached.md).
        """
        if self._cached is None:
            from dm.decorating.sessions import ManifestSession
            from dm.decorator import Decorator

            self._cached = Decorator(ManifestSession(self._project))
        return self._cached

    def close(self) -> None:
        """Write what was learned of unchanged files for the next run."""
        if self._cached is not None:
            self._cached.close()
        self._project.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(
        self,
        names: str | Names | None,
        run: Callable[[list[str]], list[Outcome]],
        *,
        check: bool,
    ) -> Outcome | list[Outcome]:
        self._project.forget_state()
        if isinstance(names, str):
            outcome = run([names])[0]
            return _checked(outcome) if check else outcome
        chosen = None if names is None else list(names)
        outcomes = [] if chosen == [] else run(chosen or [])
        if check and any(outcome.failed for outcome in outcomes):
            raise Failed(outcomes) from next((each.error for each in outcomes if each.error is not None), None)
        return outcomes


def _checked(outcome: Outcome) -> Outcome:
    if not outcome.failed:
        return outcome
    if outcome.error is not None:
        raise outcome.error
    kinds = {kind.exit_status: kind for kind in DmError.__subclasses__() if kind is not Failed}
    kind = kinds.get(outcome.exit_status, DmError)
    raise kind(outcome.message or outcome.status, hint=outcome.hint, code=outcome.code)


def _without_manifest(environment: Environment) -> dict[str, str]:
    hidden = ("DATAMANIFEST_TOML", "DATASETS_TOML")
    return {name: value for name, value in environment.variables.items() if name not in hidden}


@overload
def fetch(
    names: str,
    *,
    force: bool = False,
    jobs: int | None = None,
    check: bool = True,
    delegate: bool | None = None,
) -> Outcome: ...


@overload
def fetch(
    names: Names | None = None,
    *,
    force: bool = False,
    jobs: int | None = None,
    check: bool = True,
    delegate: bool | None = None,
) -> list[Outcome]: ...


def fetch(
    names: str | Names | None = None,
    *,
    force: bool = False,
    jobs: int | None = None,
    check: bool = True,
    delegate: bool | None = None,
) -> Outcome | list[Outcome]:
    """`Manifest.fetch` on the manifest of the working directory."""
    with Manifest.open() as manifest:
        return manifest.fetch(names, force=force, jobs=jobs, check=check, delegate=delegate)


def load(name: str, *, loader: Loader | None = None, jobs: int | None = None) -> Any:
    """`Manifest.load` on the manifest of the working directory."""
    with Manifest.open() as manifest:
        return manifest.load(name, loader=loader, jobs=jobs)


def path(name: str) -> Path:
    """`Manifest.path_of` on the manifest of the working directory."""
    with Manifest.open() as manifest:
        return manifest.path_of(name)


@overload
def status(names: str) -> Outcome: ...


@overload
def status(names: Names | None = None) -> list[Outcome]: ...


def status(names: str | Names | None = None) -> Outcome | list[Outcome]:
    """`Manifest.status` on the manifest of the working directory."""
    with Manifest.open() as manifest:
        return manifest.status(names)


@overload
def verify(names: str, *, quick: bool = False, check: bool = True) -> Outcome: ...


@overload
def verify(names: Names | None = None, *, quick: bool = False, check: bool = True) -> list[Outcome]: ...


def verify(
    names: str | Names | None = None, *, quick: bool = False, check: bool = True
) -> Outcome | list[Outcome]:
    """`Manifest.verify` on the manifest of the working directory."""
    with Manifest.open() as manifest:
        return manifest.verify(names, quick=quick, check=check)
