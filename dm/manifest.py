"""An open manifest of the Python face: the verbs of the command line as methods.

Each method calls the verb that the command of its name calls, with the same options. What a verb tells as failed
outcomes is raised where ``check`` says so; everything else is returned as it is.
"""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, overload

from dm.answers import Names, Outcomes, check_all, check_name, check_one, list_names
from dm.durations import Duration, read_duration
from dm.environment import Environment
from dm.errors import NotFound, UsageError
from dm.porcelain.project import JOBS_MAX, Project
from dm.progress import SILENT, Progress
from dm.values import Outcome

if TYPE_CHECKING:
    from dm.decorator import Decorator

#: How to read a dataset: a function of its path, ``module:function``, or a format's name.
Loader = Callable[[str], Any] | str


class Manifest:
    """An open manifest: its datasets and results can be declared, fetched, found, verified and kept in order.

    Open one with `Manifest.open`, make one in memory with `Manifest.of`. As a context manager it writes what it
    learned for the next run when it is left; that is only a matter of speed.

    ``names`` of a method is one name, then one `Outcome` comes back, or a list or tuple of names, then a list with an
    outcome for each; where it may be left out, that means all. A name is a dataset's, one of its aliases or its DOI.
    With ``check`` a failure is raised: for one name an error of its own kind, for several `Failed`, which holds every
    outcome. Without, failures are outcomes with ``status == "failed"`` and the error in ``error``.
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
    def names(self) -> builtins.list[str]:
        """The names of the declared datasets, in the manifest's order."""
        return [*self._project.manifest.datasets]

    # Data comes here, is read and is looked at

    @overload
    def fetch(
        self,
        names: str,
        *,
        force: bool = False,
        jobs: int | None = None,
        check: bool = True,
        delegate: bool | None = None,
        dry_run: bool = False,
        fail_fast: bool = False,
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
        dry_run: bool = False,
        fail_fast: bool = False,
    ) -> Outcomes: ...

    def fetch(
        self,
        names: str | Names | None = None,
        *,
        force: bool = False,
        jobs: int | None = None,
        check: bool = True,
        delegate: bool | None = None,
        dry_run: bool = False,
        fail_fast: bool = False,
    ) -> Outcome | Outcomes:
        """Make datasets be here, verified: one by its name, several, or all; return an outcome for each. What has to be
        fetched first for them, since they require it, is in a list behind them.

        ``force`` goes to the source even when a copy is there, ``jobs`` sources are asked at once (by default as
        configured), ``delegate`` says whether fetchers in other languages run (None: as the manifest says). ``dry_run``
        only says what would be fetched, ``fail_fast`` stops at the first failure.

        With ``check`` a failure is raised: for one name its own error kind, for several `Failed`, which holds every
        outcome. Without, failures are outcomes with ``status == "failed"`` and the error in ``error``. The kinds:
        `NotFound` for a name that is not declared, `ContentMismatch` where bytes are not what the manifest says,
        `SourceFailed`, `Refused` where something unknown lies in the way or code is not allowed, `Malformed` for an
        entry at fault, `MachineFailed`. What a fetcher of the manifest raised is the error's ``__cause__``.
        """
        from dm.porcelain.materialize import FetchOptions
        from dm.porcelain.verbs.fetch import fetch as run

        options = FetchOptions(
            jobs=_check_jobs(jobs) or self._project.jobs,
            force=force,
            dry_run=dry_run,
            fail_fast=fail_fast,
            delegate=delegate,
        )
        return self._answer_some(names, lambda chosen: run(self._project, chosen, options), check=check)

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
        options = FetchOptions(jobs=_check_jobs(jobs) or self._project.jobs)
        return run(self._project, check_name(name), loader=loader, options=options)

    def path_of(self, name: str) -> Path:
        """Where a dataset's copy is, or the folder of the result that ``<cachetype>[/<version>]/<digits of its hash>``
        names. Reads no data: `fetch` and `verify` are what vouch for bytes.

        Raises `NotFound` when it is not there, and for a name that is unknown or fits several.
        """
        from dm.porcelain.verbs.locate import find_path

        self._project.forget_state()
        return find_path(self._project, check_name(name))

    @overload
    def status(self, names: str) -> Outcome: ...

    @overload
    def status(self, names: Names | None = None) -> Outcomes: ...

    def status(self, names: str | Names | None = None) -> Outcome | Outcomes:
        """Each dataset's ``state`` (SCHEMA.md, "States"), with the command that mends it as ``hint`` and what was held
        against each other in ``digests``. Never raises for what it finds: a name that is not declared, or an entry at
        fault, is a failed outcome.
        """
        from dm.porcelain.verbs.status import status as run

        return self._answer_some(names, lambda chosen: run(self._project, chosen), check=False)

    @overload
    def verify(
        self,
        names: str,
        *,
        quick: bool = False,
        check: bool = True,
        contract: bool = False,
        older_than: Duration | None = None,
        max_time: Duration | None = None,
        repair: bool = False,
        dry_run: bool = False,
        jobs: int | None = None,
    ) -> Outcome: ...

    @overload
    def verify(
        self,
        names: Names | PathLike[str] | Sequence[PathLike[str]] | None = None,
        *,
        quick: bool = False,
        check: bool = True,
        contract: bool = False,
        older_than: Duration | None = None,
        max_time: Duration | None = None,
        repair: bool = False,
        dry_run: bool = False,
        jobs: int | None = None,
        all: bool = False,
        root: str | PathLike[str] | None = None,
    ) -> Outcomes: ...

    def verify(
        self,
        names: str | Names | PathLike[str] | Sequence[PathLike[str]] | None = None,
        *,
        quick: bool = False,
        check: bool = True,
        contract: bool = False,
        older_than: Duration | None = None,
        max_time: Duration | None = None,
        repair: bool = False,
        dry_run: bool = False,
        jobs: int | None = None,
        all: bool = False,
        root: str | PathLike[str] | None = None,
    ) -> Outcome | Outcomes:
        """Read every byte again and compare it with the digests: of one dataset, of several, or of all and of what
        cached functions produced; return an outcome for each. One of these is named by
        ``<cachetype>[/<version>]/<digits of its hash>``.

        A path in a store, as a `pathlib.Path`, is compared with what is known of it there: a copy, a folder with
        several, a whole store, also one that was copied from elsewhere; that gives a list. ``all`` looks at every store
        that is used here, whole, besides the datasets, ``root`` at one store instead of them.

        ``quick`` trusts unchanged stat data, ``contract`` computes the manifest's checksum in any case. ``older_than``
        looks only at what was not read whole for so long, ``max_time`` begins nothing after that time: both are
        ``"30d"``, seconds or a `datetime.timedelta`. ``repair`` mends what is broken, from any sound copy in reach,
        else from the source; with ``dry_run`` it only says what would be mended. ``jobs`` copies are read at once (by
        default one for each core). Without ``repair`` no data is changed.

        With ``check`` a difference is raised as `ContentMismatch`, one among several as `Failed`; so is `NotFound` for
        what is named and not there (among all it is skipped). What differs is in the outcome's ``differences``. Raises
        `UsageError` for options that contradict each other, `NotFound` where ``root`` is no store.
        """
        from dm.porcelain.verbs.verify import VerifyOptions, Wanted, verify_all

        options = VerifyOptions(
            quick=quick,
            contract=contract,
            older_than_s=None if older_than is None else read_duration(older_than),
            jobs=_check_jobs(jobs) or os.cpu_count() or 1,
            repair=repair,
            dry_run=dry_run,
        )
        max_time_s = None if max_time is None else read_duration(max_time)
        wanted = Wanted(root=None if root is None else self._resolve(root), everything=all)

        def run(wanted: Wanted) -> Outcomes:
            return verify_all(self._project, wanted, options, max_time_s=max_time_s)

        if names is None or isinstance(names, str):
            return self._answer_some(names, lambda chosen: run(wanted._replace(names=chosen)), check=check)
        words, paths = _sort_paths(names)
        if not words and not paths:
            return []
        self._project.forget_state()
        outcomes = run(wanted._replace(names=words, paths=[self._normalize(path) for path in paths]))
        return check_all(outcomes) if check else outcomes

    # What is declared

    def add(
        self,
        source: str | PathLike[str],
        *,
        name: str | None = None,
        version: str | None = None,
        branch: str | None = None,
        format: str | None = None,
        extract: bool = False,
        checksum: str | None = None,
        doi: str | None = None,
        key: str | None = None,
        store: str | None = None,
        scope: str | None = None,
        lazy: bool = False,
        fetch: bool = True,
        overwrite: bool = False,
        dry_run: bool = False,
        pick: str | Sequence[str] = (),
        split: bool = False,
    ) -> Outcome | Outcomes:
        """Declare a URI, a path or a published record's DOI, fetch it and pin its checksum. Return its outcome, or
        those of all entries where a record became several (with ``split``, or where its service wants that).

        ``name`` is the entry's (by default the file's, without its extension); ``version``, ``branch``, ``format``,
        ``doi``, ``key``, ``store`` and ``scope`` set the fields of that name; ``extract`` unpacks an archive;
        ``checksum`` is the publisher's, as ``"md5:…"`` or ``"sha256:…"``. ``lazy`` data is opened at its source and
        declared only, and so is everything with ``fetch=False``. ``overwrite`` replaces an entry of the same name,
        ``dry_run`` only says what would be declared. Of a published record ``pick`` chooses files by one glob or
        several, and ``split`` makes an entry of each.

        Nothing stays declared when that fails: the error is raised. `UsageError` for a source that is none of these,
        `Refused` for a name that is taken or a path that cannot be declared, `Malformed` for a place that another entry
        has, and what `fetch` raises.
        """
        from dm.porcelain.verbs.add import AddOptions
        from dm.porcelain.verbs.add import add as run

        options = AddOptions(
            name=name,
            version=version,
            branch=branch,
            format=format,
            extract=extract,
            checksum=checksum,
            store=store,
            scope=scope,
            lazy=lazy,
            fetch=fetch,
            overwrite=overwrite,
            dry_run=dry_run,
            key=key,
            doi=doi,
            pick=(pick,) if isinstance(pick, str) else tuple(pick),
            split=split,
        )
        self._project.forget_state()
        outcomes = run(self._project, os.fspath(source), options).outcomes
        return check_one(outcomes[0]) if len(outcomes) == 1 else check_all(outcomes)

    @overload
    def remove(
        self, names: str, *, delete: bool = False, dry_run: bool = False, check: bool = True
    ) -> Outcome: ...

    @overload
    def remove(
        self, names: Names, *, delete: bool = False, dry_run: bool = False, check: bool = True
    ) -> Outcomes: ...

    def remove(
        self, names: str | Names, *, delete: bool = False, dry_run: bool = False, check: bool = True
    ) -> Outcome | Outcomes:
        """Take datasets out of the manifest and the state (`dm rm`); return an outcome for each, whose message says
        what became of its bytes.

        They stay, unless ``delete`` asks for their working copies to go too; a copy that another entry uses, one in a
        pool and one of your own stay in any case, and so do objects until `prune`. ``dry_run`` changes nothing. With
        ``check`` a failure is raised: `NotFound` for a name that is not declared, `MachineFailed`.
        """
        from dm.porcelain.verbs.remove import remove as run

        return self._answer(
            names, lambda chosen: run(self._project, chosen, delete=delete, dry_run=dry_run), check=check
        )

    @overload
    def pin(self, names: str, *, dry_run: bool = False, check: bool = True) -> Outcome: ...

    @overload
    def pin(self, names: Names, *, dry_run: bool = False, check: bool = True) -> Outcomes: ...

    def pin(self, names: str | Names, *, dry_run: bool = False, check: bool = True) -> Outcome | Outcomes:
        """Take what is on disk as the new contract: read every byte of each dataset's copy and write its digests into
        the manifest. Return an outcome for each, whose message has the new digest and the old one.

        ``dry_run`` writes nothing. With ``check`` a failure is raised: `NotFound` for a dataset that is not there,
        `Refused` for one that says ``skip_checksum``, `MachineFailed`.
        """
        from dm.porcelain.verbs.pin import pin as run

        return self._answer(names, lambda chosen: run(self._project, chosen, dry_run=dry_run), check=check)

    def list(self, kind: str = "data") -> Outcomes:
        """The declared datasets (``data``), the results of cached functions (``cached``) or both (``all``): an outcome
        for each, with the row's ``fields``. Reads no data.

        Of a dataset these are ``kind``, ``name``, ``format``, ``pinned`` (a `Digest`) and ``key``; of a result
        ``kind``, ``name``, ``cachetype``, ``version``, ``hash``, ``params``, ``formats``, ``state``, ``path``,
        ``bytes``, ``files`` and ``created``. Raises `UsageError` for another kind.
        """
        from dm.porcelain.verbs.listing import list_all

        self._project.forget_state()
        return [*list_all(self._project, kind)]

    def show(self, name: str) -> dict[str, object]:
        """All that is known of a dataset, or of the result that ``<cachetype>[/<version>]/<digits of its hash>`` names,
        by field: what ``dm show --json`` prints, with paths as `pathlib.Path` and digests as `Digest`.

        Bytes are read only where the stat cache does not vouch for them. Raises `NotFound` for a name that is unknown
        or fits several, `Refused` and `Malformed` for an entry at fault.
        """
        from dm.porcelain.verbs.locate import describe

        self._project.forget_state()
        return describe(self._project, check_name(name))

    # Keeping copies, results and stores in order

    @overload
    def unlock(self, names: str, *, dry_run: bool = False, check: bool = True) -> Outcome: ...

    @overload
    def unlock(self, names: Names, *, dry_run: bool = False, check: bool = True) -> Outcomes: ...

    def unlock(self, names: str | Names, *, dry_run: bool = False, check: bool = True) -> Outcome | Outcomes:
        """Give datasets private copies that may be edited, and use these from now on; return an outcome for each, with
        where it is. Every byte is read on the way. A shared copy never becomes writable.

        ``dry_run`` writes nothing. With ``check`` a failure is raised: `NotFound` for a dataset that is not there,
        `ContentMismatch` where the copy in use is damaged, `Refused` where its place has no scopes, `MachineFailed`.
        """
        from dm.porcelain.verbs.unlock import unlock as run

        return self._answer(names, lambda chosen: run(self._project, chosen, dry_run=dry_run), check=check)

    @overload
    def lock(self, names: str, *, dry_run: bool = False, check: bool = True) -> Outcome: ...

    @overload
    def lock(self, names: Names, *, dry_run: bool = False, check: bool = True) -> Outcomes: ...

    def lock(self, names: str | Names, *, dry_run: bool = False, check: bool = True) -> Outcome | Outcomes:
        """Make unlocked copies read-only again, every byte read first; return an outcome for each, with the copy that
        is used from now on.

        ``dry_run`` writes nothing. With ``check`` a failure is raised: `ContentMismatch` for bytes that are not those
        of the manifest (`pin` accepts them), `NotFound` for a dataset that is not there, `MachineFailed`.
        """
        from dm.porcelain.verbs.lock import lock as run

        return self._answer(names, lambda chosen: run(self._project, chosen, dry_run=dry_run), check=check)

    @overload
    def refresh(self, names: str, *, dry_run: bool = False, check: bool = True) -> Outcome: ...

    @overload
    def refresh(self, names: Names | None = None, *, dry_run: bool = False, check: bool = True) -> Outcomes: ...

    def refresh(
        self, names: str | Names | None = None, *, dry_run: bool = False, check: bool = True
    ) -> Outcome | Outcomes:
        """Bring what is recorded in line with the disk: copies that were moved, found or replaced with right bytes
        become known, what is gone is forgotten. Nothing is fetched and no data changes; return an outcome for each
        dataset, and among all for each record that no entry has any more.

        ``dry_run`` writes nothing. With ``check`` a failure is raised, as in `fetch`.
        """
        from dm.porcelain.verbs.refresh import refresh as run

        return self._answer_some(names, lambda chosen: run(self._project, chosen, dry_run=dry_run), check=check)

    def delete(self, name: str, *, dry_run: bool = False, check: bool = True) -> Outcomes:
        """Remove one result of a cached function, named by ``<cachetype>[/<version>]/<digits of its hash>``, with its
        ref and its record; return an outcome for each folder, with its bytes. (A dataset goes by
        ``remove(name, delete=True)``.)

        Copies in pools and in folders of other tools stay (``skipped``), objects until `prune`. Who computes it now is
        waited for. ``dry_run`` changes nothing. Raises `NotFound` where there is none, or several; `Refused` when none
        of its folders is `dm`'s to remove; with ``check`` also `Failed` when a folder could not be removed.
        """
        from dm.porcelain.verbs.delete import delete as run

        self._project.forget_state()
        outcomes = run(self._project, check_name(name), dry_run=dry_run)
        return check_all(outcomes) if check else outcomes

    def dedup(
        self,
        *,
        include_pool: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
        root: str | PathLike[str] | None = None,
        dry_run: bool = False,
        check: bool = True,
    ) -> Outcomes:
        """Let equal files of the working copies share their bytes; return an outcome for each file that was joined,
        with the bytes that it gave back. No content changes; what a hard link joins is read-only afterwards.

        ``include_pool`` are folders of other tools whose files are joined too, ``root`` is the one store to look
        through (by default every one that is used here). ``dry_run`` only says what would be joined. Raises `NotFound`
        where ``root`` is no folder; with ``check`` also `Failed` when a store or file failed, or is a place that was
        not allowed.
        """
        from dm.porcelain.verbs.dedup import DedupOptions
        from dm.porcelain.verbs.dedup import dedup as run

        pools = (include_pool,) if isinstance(include_pool, str | PathLike) else include_pool
        options = DedupOptions(tuple(map(self._resolve, pools)), dry_run, None if root is None else self._resolve(root))
        outcomes = run(self._project, options)
        return check_all(outcomes) if check else outcomes

    def prune(
        self,
        *,
        grace: Duration | None = None,
        quarantine: bool = False,
        gone: bool = False,
        root: str | PathLike[str] | None = None,
        dry_run: bool = False,
        check: bool = True,
    ) -> Outcomes:
        """Remove from the stores what nothing needs any more: objects that no ref reaches, old partial downloads.
        Working copies stay. Return an outcome for each thing that went, with the bytes that it gave back.

        ``grace`` is how long a thing has to be untouched: ``"30d"``, seconds or a `datetime.timedelta`; two weeks by
        default. ``gone`` also forgets copies that are not there any more, ``quarantine`` also removes what was put
        aside. ``root`` is the one store to look through (by default every one that is used here). ``dry_run`` removes
        nothing. Raises `NotFound` where ``root`` is no store; with ``check`` also `Failed` when a store failed, or is a
        place that was not allowed.
        """
        from dm.porcelain.verbs.prune import GRACE_S, PruneOptions
        from dm.porcelain.verbs.prune import prune as run

        options = PruneOptions(
            GRACE_S if grace is None else read_duration(grace),
            quarantine,
            gone,
            dry_run,
            None if root is None else self._resolve(root),
        )
        outcomes = run(self._project, options)
        return check_all(outcomes) if check else outcomes

    # Results of functions, and the end

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

    def _resolve(self, path: str | PathLike[str]) -> Path:
        return Path(self._project.environment.working_folder, path)

    def _normalize(self, path: PathLike[str]) -> Path:
        return Path(os.path.normpath(self._resolve(path)))

    def _answer_some(
        self, names: str | Names | None, run: Callable[[Names], Outcomes], *, check: bool
    ) -> Outcome | Outcomes:
        """Where no names mean all."""
        if names is not None:
            return self._answer(names, run, check=check)
        self._project.forget_state()
        outcomes = run([])
        return check_all(outcomes) if check else outcomes

    def _answer(self, names: str | Names, run: Callable[[Names], Outcomes], *, check: bool) -> Outcome | Outcomes:
        self._project.forget_state()
        if isinstance(names, str):
            name = self._find_name(names)
            outcome = _choose(name, run([names]))
            return check_one(outcome) if check else outcome
        chosen = list_names(names)
        outcomes = run(chosen) if chosen else []
        return check_all(outcomes) if check else outcomes

    def _find_name(self, identifier: str) -> str:
        try:
            return self._project.manifest.find(identifier).name
        except NotFound:
            return identifier


def _choose(name: str, outcomes: Outcomes) -> Outcome:
    """The outcome of one name: what it requires has one too, and so has each folder of a result; a failure first."""
    own = [outcome for outcome in outcomes if outcome.name == name] or outcomes
    return next((outcome for outcome in own if outcome.failed), own[0])


def _sort_paths(names: object) -> tuple[list[str], list[PathLike[str]]]:
    """What a caller named: names, and paths. An outcome opens like a path, but it has a name too: that is refused."""
    if isinstance(names, PathLike) and not isinstance(names, Outcome):
        return [], [names]
    if isinstance(names, Outcome) or not isinstance(names, Iterable):
        return list_names(names), []
    given = [*names]
    paths = [each for each in given if isinstance(each, PathLike) and not isinstance(each, Outcome)]
    return list_names([each for each in given if not isinstance(each, PathLike) or isinstance(each, Outcome)]), paths


def _check_jobs(jobs: int | None) -> int | None:
    if jobs is not None and not 1 <= jobs <= JOBS_MAX:
        raise UsageError(f"jobs is {jobs}", hint=f"from 1 to {JOBS_MAX} things are done at a time")
    return jobs


def _without_manifest(environment: Environment) -> dict[str, str]:
    hidden = ("DATAMANIFEST_TOML", "DATASETS_TOML")
    return {name: value for name, value in environment.variables.items() if name not in hidden}
