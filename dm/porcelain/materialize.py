"""Make declared data be here: find, else link from an object, else fetch; verify; publish; record.

One run over many datasets (SCHEMA.md, "Fetch"):

1. *look*: what is there already and vouched for is used, without a request and without reading it again; what the
   rest requires joins the run;
2. *obtain*: several workers, each holding its dataset's lock, bring the rest into staging and check it, a dataset once
   all that it requires is there;
3. *publish*: the main thread publishes what has been staged in batches, one flush for each, and releases the locks;
4. *record*: manifest, state and stat cache are written a bounded number of times for the whole run.

A kill at any point leaves whole copies or none; what was published but not recorded is found again by the next run.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from dm.environment import read_monotonic_s
from dm.errors import DmError, MachineFailed
from dm.porcelain.copies import Copy
from dm.porcelain.find import Candidate, weigh
from dm.porcelain.integrity import find_contract
from dm.porcelain.job import Shared
from dm.porcelain.present import Presence
from dm.porcelain.publish import FETCHED_AGAIN, publish
from dm.porcelain.recording import Recorder
from dm.porcelain.requirements import Released, Requirements, make_untried
from dm.values import Digest, Outcome, fail, quote_word

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.plumbing.records.location import Location
    from dm.plumbing.store.publication import Published
    from dm.porcelain.order import Required
    from dm.porcelain.project import Project
    from dm.porcelain.staging import Staged
    from dm.porcelain.workers import Workers
    from dm.progress import Task

#: How long the publisher waits for company for a staged dataset while workers are busy, seconds. One flush serves a
#: whole batch, so that a thousand small files cost a handful of flushes and a large file waits unnoticeably.
BATCH_WAIT_S = 0.1
#: Datasets published with one flush at the most: bounds what is locked and unrecorded at any time.
BATCH_SIZE_MAX = 512
#: How often a long run writes down what it has done, seconds.
RECORD_EVERY_S = 30.0

#: Codes of the store for content that it will not take, whenever it is tried: nothing of that can be gone on from.
_UNFIT = frozenset({"marker-in-source", "name-reserved", "names-clash", "special-file"})


class FetchOptions(NamedTuple):
    """How to materialize: ``jobs`` sources at once, ``force`` goes to the source even when a copy is there and puts
    what lies in the way aside, ``dry_run`` only says what would be done, ``fail_fast`` stops at the first failure.
    ``edit_manifest`` fills checksums into the manifest's file, ``record`` writes the places into the state.
    ``delegate`` is whether fetchers in other languages may run (None: as the manifest says), ``expected`` the
    digests that publishers give, by URI, ``tell_lines`` asks for every line that a program of the manifest says.
    """

    jobs: int = 8
    force: bool = False
    dry_run: bool = False
    fail_fast: bool = False
    edit_manifest: bool = True
    record: bool = True
    delegate: bool | None = None
    expected: Mapping[str, Digest] = MappingProxyType({})
    tell_lines: bool = False


class Materialized(NamedTuple):
    """What became of each dataset, in the order asked for, then of those that these required; of a dry run in the
    order of bringing. ``fills`` are the fields that fetching them measured.
    """

    outcomes: list[Outcome]
    fills: dict[str, dict[str, str]]


class _Work(NamedTuple):
    """A dataset that has to be obtained, where it goes, and what it requires, once all of that is there."""

    position: int
    dataset: Dataset
    location: Location
    copy: Copy
    required: tuple[Required, ...] = ()


class _Ready(NamedTuple):
    """A dataset that is staged; its lock is held until it is settled."""

    work: _Work
    staged: Staged


class _Settled(NamedTuple):
    """A dataset that needs no publishing any more."""

    position: int
    outcome: Outcome


def materialize(
    project: Project,
    datasets: Sequence[Dataset],
    options: FetchOptions = FetchOptions(),  # noqa: B008 - a frozen value
    *,
    report: Callable[[Outcome], None] | None = None,
) -> Materialized:
    """Make each dataset be at its place, verified; return an outcome for each.

    Failures are outcomes, never exceptions; ``report`` is called with each outcome as soon as it stands, from the
    calling thread. What a dataset that has to be fetched requires comes first, and is reported too;
    `FetchOptions.force` is about those that were asked for. `KeyboardInterrupt` passes through after what was published
    has been recorded and every lock is released; partial downloads stay for the next run.
    """
    run = _Run(project, options, report)
    try:
        run.go(datasets)
    finally:
        run.finish()
    return Materialized(run.list_outcomes(), run.recorder.all_fills)


class _Run:
    """One call of `materialize`."""

    def __init__(
        self, project: Project, options: FetchOptions, report: Callable[[Outcome], None] | None
    ) -> None:
        self.project = project
        self.options = options
        self.report = report
        self.recorder = Recorder(project, edit_manifest=options.edit_manifest, record=options.record)
        self.outcomes: list[Outcome | None] = []
        self.stopping = threading.Event()  # at the first failure, with --fail-fast
        self.interrupted = threading.Event()
        self.shared = Shared(
            should_stop=self.interrupted.is_set,
            fail_fast=options.fail_fast,
            expected=options.expected,
            delegate=options.delegate,
            tell_lines=options.tell_lines,
        )
        self._locks: dict[int, ExitStack] = {}
        self._datasets: list[Dataset] = []
        self._asked = 0
        self._order: list[int] = []  # in which they were settled
        self._requirements = Requirements(project, self._datasets, self.outcomes)
        self._work: dict[int, _Work] = {}  # of what has to be obtained and was not started yet
        self._startable: deque[int] = deque()
        self._fallout: deque[tuple[int, Outcome]] = deque()
        self._is_following = False
        self._presence = Presence(project, self.recorder, dry_run=options.dry_run)

    def go(self, datasets: Sequence[Dataset]) -> None:
        self._datasets += datasets
        self.outcomes += [None] * len(datasets)
        self._asked = len(datasets)
        self.project.look_anew()
        self.project.recall(datasets)
        self._look_at_all()
        self._follow(self._requirements.hold_back(self._work))
        if self.options.dry_run:
            while self._startable:
                planned = self._work.pop(self._startable.popleft())
                self._settle(planned.position, _tell_plan(planned))
        elif self._startable:
            self._obtain_all()

    def list_outcomes(self) -> list[Outcome]:
        """The outcomes in the order that `Materialized` promises."""
        order = self._order if self.options.dry_run else range(len(self.outcomes))
        return [outcome for outcome in (self.outcomes[position] for position in order) if outcome is not None]

    def finish(self) -> None:
        """Write down what was done and let go of what is still held; also after an error."""
        for lock in self._locks.values():
            lock.close()
        self._locks.clear()
        try:
            self.recorder.write()
        except DmError as error:
            unpinned = self.recorder.unpinned
            if not unpinned:
                raise
            for index, outcome in enumerate(self.outcomes):
                if outcome is not None and outcome.name in unpinned:
                    failed = fail(outcome.name, error)
                    at = failed._replace(path=outcome.path, digest=outcome.digest, size_bytes=outcome.size_bytes)
                    self._settle(index, at)

    # look ----------------------------------------------------------------------------------------------------------

    def _look_at_all(self) -> None:
        """Settle what needs nothing and note the rest as work; what that requires joins behind what was asked for."""
        collisions = self.project.manifest.find_collisions() if self._datasets else {}
        position = -1
        while (position := position + 1) < len(self._datasets):
            dataset = self._datasets[position]
            if self.stopping.is_set():
                self._settle(position, make_untried(dataset.name))
                continue
            try:
                found = self._presence.look(
                    dataset, collisions.get(dataset.name), force=self._is_forced(position)
                )
                if not isinstance(found, Outcome) and "requires" in dataset.table:
                    self._requirements.note(position)
            except DmError as error:
                found = fail(dataset.name, error)
            if isinstance(found, Outcome):
                self._settle(position, found)
            else:
                self._work[position] = _Work(position, dataset, found, self.project.copy_at(found))

    def _is_forced(self, position: int) -> bool:
        """Whether ``--force`` is about a dataset: one that was asked for."""
        return self.options.force and position < self._asked

    # obtain --------------------------------------------------------------------------------------------------------

    def _obtain_all(self) -> None:
        """Let workers obtain, publish what they stage in batches, settle what they report."""
        from dm.porcelain.workers import Lanes, Workers

        workers: Workers[_Work, _Ready | _Settled | BaseException] = Workers(
            self._obtain_safely, most=self.options.jobs
        )
        self.shared.lanes = Lanes(self.options.jobs, lambda: workers.busy)
        total = len(self._startable) + self._requirements.count_held()
        try:
            with self.project.progress.start("datasets", total=total, unit="files") as overall:
                self._publish_all(workers, overall)
        except BaseException:
            self.interrupted.set()
            self.stopping.set()
            self.project.close_fetchers()
            raise
        finally:
            workers.stop()

    def _publish_all(self, workers: Workers[_Work, _Ready | _Settled | BaseException], overall: Task) -> None:
        """Publish and settle what arrives until nothing is open; write down what was done now and then."""
        recorded_s = read_monotonic_s()
        while True:
            workers.add([self._start(position) for position in self._startable])
            self._startable.clear()
            if not workers.open_count:
                return
            batch = workers.collect(min(workers.open_count, BATCH_SIZE_MAX), wait_s=BATCH_WAIT_S)
            ready = []
            for arrival in batch:
                if isinstance(arrival, BaseException):
                    raise arrival
                if isinstance(arrival, _Settled):
                    self._settle(arrival.position, arrival.outcome)
                else:
                    ready.append(arrival)
            self._publish(ready)
            overall.advance(len(batch))
            if read_monotonic_s() - recorded_s > RECORD_EVERY_S:
                self.recorder.write()
                recorded_s = read_monotonic_s()

    def _start(self, position: int) -> _Work:
        return self._work.pop(position)._replace(required=self._requirements.hand_on(position))

    def _obtain_safely(self, work: _Work) -> _Ready | _Settled | BaseException:
        """A worker's job for one dataset: it never raises."""
        try:
            return self._obtain(work)
        except DmError as error:
            if self.options.fail_fast:
                self.stopping.set()  # here, not when it is settled: this worker takes the next dataset at once
            return _Settled(work.position, fail(work.dataset.name, _name_way_to_read(self.project, work, error)))
        except BaseException as error:  # noqa: BLE001 - handed to the main thread, which raises it
            return error

    def _obtain(self, work: _Work) -> _Ready | _Settled:
        from dm.porcelain.job import Job
        from dm.porcelain.obtain import link_from_objects, obtain_from_objects
        from dm.porcelain.sources import obtain_from_source
        from dm.porcelain.staging import find_staging

        project, dataset, copy = self.project, work.dataset, work.copy
        if self.stopping.is_set():
            return _Settled(work.position, make_untried(dataset.name))
        lock = ExitStack()
        self._locks[work.position] = lock
        lock.enter_context(project.lock_copy(copy, should_stop=self.stopping.is_set))
        # Another process may have brought it, or something else, while we waited.
        found = self._look_again(work) if copy.exists() else None
        if isinstance(found, _Settled):
            return found
        if found is not None:
            lock.close()
            return self._obtain(work._replace(location=found, copy=project.copy_at(found)))
        force = self._is_forced(work.position)
        with project.progress.start(dataset.name) as task:
            linked = None if force else link_from_objects(project, dataset, copy)
            if linked is not None:
                return _Settled(work.position, self._conclude(work, linked, None))
            staging = find_staging(project, dataset, copy)
            staged = None if force else obtain_from_objects(project, dataset, copy, staging)
            if staged is None:
                staged = obtain_from_source(Job(project, dataset, staging, self.shared, task, work.required))
        return _Ready(work, staged)

    def _look_again(self, work: _Work) -> _Settled | Location | None:
        """What lies at the place now that its lock is ours: settled, another place to go to, or nothing in the way."""
        record = self.project.state.datasets.get(work.dataset.key.text)
        recorded = record is not None and self.project.root / record.storage_path == work.copy.path
        weighed = weigh(self.project, work.dataset, Candidate(work.copy, "location", recorded=recorded))
        if weighed.verdict in ("use", "adopt") and not self._is_forced(work.position):
            return _Settled(work.position, self._presence.use(work.dataset, weighed, work.location, locked=True))
        force = self._is_forced(work.position)
        found = self._presence.pass_obstacle(work.dataset, work.location, weighed, force=force)
        if isinstance(found, Outcome):
            return _Settled(work.position, found)
        return None if found == work.location else found

    # publish -------------------------------------------------------------------------------------------------------

    def _publish(self, ready: Sequence[_Ready]) -> None:
        """Publish a batch, settle each of it, release the locks."""
        if not ready:
            return
        asked = [item for item in ready if item.work.position < self._asked]
        joined = [item for item in ready if item.work.position >= self._asked]
        for items, force in ((asked, self.options.force), (joined, False)):
            if not items:
                continue
            batch = [(item.work.dataset, item.work.copy, item.staged) for item in items]
            results = publish(self.project, batch, aside=FETCHED_AGAIN if force else None)
            for item, result in zip(items, results, strict=True):
                self._settle(item.work.position, self._conclude(item.work, result, item.staged))

    def _conclude(self, work: _Work, result: Published | DmError, staged: Staged | None) -> Outcome:
        """The outcome of one dataset that was published, and what is to be recorded of it."""
        dataset, copy = work.dataset, work.copy
        if isinstance(result, DmError):
            if staged is not None and result.code in _UNFIT:
                with suppress(MachineFailed):
                    staged.staging.clear()
            return fail(dataset.name, result)
        contract = find_contract(dataset)
        sha256 = contract.hex if contract is not None and contract.algorithm == "sha256" else None
        if staged is not None:
            with suppress(MachineFailed):  # what a program that was left behind still writes is cleared another time
                staged.staging.clear()
            if staged.revision is not None:
                copy.note_revision(staged.revision)
            self.recorder.note_fields(dataset, staged.fill)
            sha256 = staged.sha256
        self.recorder.note_place(dataset, copy, sha256=sha256)
        if self._is_forced(work.position):
            self._presence.retire_unlocked(dataset, copy.path)
        return Outcome(
            dataset.name,
            "unchanged" if result.unchanged else "ok",
            path=copy.path,
            state="clean" if copy.path == self.project.locate(dataset).path else "relocated",
            digest=result.digest,
            size_bytes=result.size_bytes,
            message="linked" if staged is None or staged.from_object else None,
        )

    def _settle(self, index: int, outcome: Outcome) -> None:
        """One dataset is done: let go of its lock, tell it."""
        self.outcomes[index] = outcome
        lock = self._locks.pop(index, None)
        if lock is not None:
            lock.close()
        if outcome.failed and self.options.fail_fast:
            self.stopping.set()
        self._order.append(index)
        if self.report is not None:
            self.report(outcome)
        if self._requirements:
            self._follow(self._requirements.release(index, outcome))

    def _follow(self, released: Released) -> None:
        """Start what may start now, settle what fails with what it required."""
        self._startable += released.free
        self._fallout += released.settled
        if self._is_following:
            return  # whoever called goes on with it: chains are long
        self._is_following = True
        while self._fallout:
            self._settle(*self._fallout.popleft())
        self._is_following = False


def _name_way_to_read(project: Project, work: _Work, error: DmError) -> DmError:
    """A fault of the machine in a store that may only be read: the hint says how to go on using it."""
    store = work.copy.store
    if store is None or store.may_write() or error.code not in ("permission", "read-only"):
        return error
    path = os.fspath(project.locate(work.dataset).path)
    pool = quote_word(path.removesuffix(f"/{work.dataset.landing.text}"))
    hint = f"you may only read this store: choose one of yours, and dm config set datasets_pools {pool} still reads it"
    return MachineFailed(error.message, hint=hint, code=error.code)


def _tell_plan(work: _Work) -> Outcome:
    from dm.porcelain.sources import find_code

    code = find_code(work.dataset)
    told = "would be fetched" if code is None else f"would be fetched by code ({code})"
    return Outcome(work.dataset.name, "ok", path=work.location.path, message=told)
