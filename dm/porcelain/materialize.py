"""Make declared data be here: find, else link from an object, else fetch; verify; publish; record.

One run over many datasets (SCHEMA.md, "Fetch"):

1. *look*: what is there already and vouched for is used, without a request and without reading it again;
2. *obtain*: several workers, each holding its dataset's lock, bring the rest into staging and check it;
3. *publish*: the main thread publishes what has been staged in batches, one flush for each, and releases the locks;
4. *record*: manifest, state and stat cache are written a bounded number of times for the whole run.

A kill at any point leaves whole copies or none; what was published but not recorded is found again by the next run.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext, suppress
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from dm.environment import read_monotonic_s
from dm.errors import ContentMismatch, DmError, MachineFailed, Malformed, Refused
from dm.plumbing.store.measure import measure_checksum
from dm.porcelain.copies import Copy
from dm.porcelain.find import Candidate, Weighed, find_candidates, weigh
from dm.porcelain.integrity import Standing, describe_damage, find_contract, name_way_out
from dm.porcelain.publish import adopt, publish
from dm.porcelain.recording import Recorder
from dm.porcelain.select import find_skip_reason
from dm.values import Digest, Outcome, fail, quote_word

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.plumbing.records.location import Location
    from dm.plumbing.store.publishing import Published
    from dm.porcelain.obtain import Staged
    from dm.porcelain.project import Project
    from dm.porcelain.workers import Workers
    from dm.progress import Task

#: How long the publisher waits for company for a staged dataset while workers are busy, seconds. One flush serves a
#: whole batch, so that a thousand small files cost a handful of flushes and a large file waits unnoticeably.
BATCH_WAIT_S = 0.1
#: Datasets published with one flush at the most: bounds what is locked and unrecorded at any time.
BATCH_SIZE_MAX = 512
#: How often a long run writes down what it has done, seconds.
RECORD_EVERY_S = 30.0


class FetchOptions(NamedTuple):
    """How to materialize: ``jobs`` sources at once, ``force`` goes to the source even when a copy is there and puts
    what lies in the way aside, ``dry_run`` only says what would be done, ``fail_fast`` stops at the first failure.
    ``edit_manifest`` fills checksums into the manifest's file, ``record`` writes the places into the state.
    """

    jobs: int = 8
    force: bool = False
    dry_run: bool = False
    fail_fast: bool = False
    edit_manifest: bool = True
    record: bool = True


class Materialized(NamedTuple):
    """What became of each dataset, in the order asked for, and the fields that fetching them measured."""

    outcomes: list[Outcome]
    fills: dict[str, dict[str, str]]


class _Work(NamedTuple):
    """A dataset that has to be obtained, and where it goes."""

    position: int
    dataset: Dataset
    location: Location
    copy: Copy


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
    calling thread. `KeyboardInterrupt` passes through after what was published has been recorded and every lock is
    released; partial downloads stay for the next run.
    """
    run = _Run(project, options, report)
    try:
        run.go(datasets)
    finally:
        run.finish()
    return Materialized([outcome for outcome in run.outcomes if outcome is not None], run.recorder.all_fills)


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
        self.stopping = threading.Event()
        self._locks: dict[int, ExitStack] = {}

    def go(self, datasets: Sequence[Dataset]) -> None:
        self.outcomes = [None] * len(datasets)
        self.project.look_anew()
        self.project.recall(datasets)
        collisions = self.project.manifest.find_collisions() if datasets else {}
        work = []
        for index, dataset in enumerate(datasets):
            if self.stopping.is_set():
                self._settle(index, _stopped(dataset))
                continue
            try:
                found = self._look(index, dataset, collisions.get(dataset.name))
            except DmError as error:
                found = _Settled(index, fail(dataset.name, error))
            if isinstance(found, _Settled):
                self._settle(found.position, found.outcome)
            else:
                work.append(found)
        if work:
            self._obtain_all(work)

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

    def _look(self, index: int, dataset: Dataset, collides: Sequence[str] | None) -> _Settled | _Work:
        """Settle a dataset that needs nothing, or say what work it is."""
        project, options = self.project, self.options
        skipped = find_skip_reason(dataset)
        if skipped is not None:
            return _Settled(index, Outcome(dataset.name, "skipped", state="skipped", message=skipped))
        if collides:
            names = ", ".join(f"'{name}'" for name in collides)
            raise Malformed(
                f"'{dataset.name}' and {names} would land on each other at '{dataset.landing}'",
                hint=f"set a 'key' of its own for [{dataset.name}]",
                code="key-collision",
            )
        location = project.locate(dataset)
        obstacle: Weighed | None = None
        for candidate in find_candidates(project, dataset):
            is_at_location = candidate.copy.path == location.path
            if options.force and not is_at_location:
                continue
            weighed = weigh(project, dataset, candidate, progress=project.progress)
            if weighed.verdict in ("use", "adopt") and not options.force:
                return _Settled(index, self._use(dataset, weighed, location))
            if is_at_location:
                obstacle = weighed
            elif weighed.verdict == "wrong":
                path = candidate.copy.path
                project.progress.warn(f"passing over '{path}': its bytes are not those of '{dataset.name}'")
        if obstacle is not None:
            found = self._pass_obstacle(index, dataset, location, obstacle)
            if isinstance(found, _Settled):
                return found
            location = found
        refuse_untrusted_place(project, dataset, location)
        if options.dry_run:
            return _Settled(index, Outcome(dataset.name, "ok", path=location.path, message="would be fetched"))
        return _Work(index, dataset, location, project.copy_at(location))

    def _pass_obstacle(
        self, index: int, dataset: Dataset, location: Location, obstacle: Weighed
    ) -> _Settled | Location:
        """Where to go although something lies at the location. Raises when there is no way but ``--force``.

        Another project's copy is left alone, also with ``--force``: this dataset goes to the project's own scope, or
        is there already.
        """
        if obstacle.verdict != "foreign":
            if not self.options.force:
                self._refuse_obstacle(dataset, obstacle)
            return location
        own = self.project.locate_in_own_scope(dataset)
        if own is None or own.path == location.path:
            raise Refused(
                f"cannot fetch '{dataset.name}': '{location.path}' is the copy of another source or project",
                hint="set 'scope' or 'key' for it",
                code="foreign-copy",
            )
        copy = self.project.copy_at(own)
        if copy.exists():
            weighed = weigh(self.project, dataset, Candidate(copy, "location", recorded=True))
            if weighed.verdict in ("use", "adopt") and not self.options.force:
                return _Settled(index, self._use(dataset, weighed, own))
            if not self.options.force:
                self._refuse_obstacle(dataset, weighed)
            return own
        self.project.progress.note(
            f"'{location.path}' is the copy of another source or project; '{dataset.name}' goes to '{own.path}'"
        )
        return own

    def _use(self, dataset: Dataset, weighed: Weighed, location: Location, *, locked: bool = False) -> Outcome:
        """Take a copy that is there; mark and record it where that is still to be done."""
        copy, standing = weighed.candidate.copy, weighed.standing
        if not self.options.dry_run:
            if weighed.verdict == "adopt" and standing is not None and self._may_adopt(dataset, copy):
                with nullcontext() if locked or copy.user_managed else self.project.lock_copy(copy):
                    if not locked:
                        standing = self._weigh_again(dataset, weighed)
                    adopt(copy, dataset, standing)
            if self.recorder.is_news(dataset, copy):
                self._clear_leftovers(dataset, copy, locked=locked)
            self._note_present(dataset, copy, standing)
        measured = None if standing is None else standing.measured
        return Outcome(
            dataset.name,
            "unchanged",
            path=copy.path,
            state="clean" if copy.path == location.path else "relocated",
            digest=None if measured is None else measured.digest,
            size_bytes=None if measured is None else measured.size_bytes,
        )

    def _clear_leftovers(self, dataset: Dataset, copy: Copy, *, locked: bool) -> None:
        """Tidy up after a run that was killed between publishing a copy and recording it: its lock, its staging."""
        if copy.store is None or not (os.path.lexists(f"{copy.path}.lock") or copy.store.has_partials()):
            return
        from dm.porcelain.obtain import find_staging

        # Who holds the lock now is alive, or another tool: then it is theirs to tidy up.
        with suppress(MachineFailed):
            with nullcontext() if locked else self.project.lock_copy(copy, should_stop=lambda: True):
                find_staging(self.project, dataset, copy).clear()
                if copy.store.has_partials():
                    copy.store.clear_abandoned()

    def _may_adopt(self, dataset: Dataset, copy: Copy) -> bool:
        """Whether the marker and the ref of a copy may be written; raises `Refused` where it cannot do without."""
        distrust = self.project.find_distrust(dataset, copy)
        if distrust is not None and not copy.is_marked():
            refuse_untrusted_place(self.project, dataset, self.project.locate(dataset)._replace(path=copy.path))
        return distrust is None

    def _weigh_again(self, dataset: Dataset, weighed: Weighed) -> Standing:
        """What a copy is worth now that its lock is ours."""
        again = weigh(self.project, dataset, weighed.candidate)
        if again.verdict not in ("use", "adopt") or again.standing is None:
            path = weighed.candidate.copy.path
            raise Refused(f"'{path}' changed while it was looked at", hint="run the command again", code="place-taken")
        return again.standing

    def _refuse_obstacle(self, dataset: Dataset, obstacle: Weighed) -> NoReturn:
        """Say why what lies at a place is neither used nor overwritten."""
        path, name = obstacle.candidate.copy.path, quote_word(dataset.name)
        if obstacle.verdict != "wrong" or obstacle.standing is None:
            raise Refused(
                f"cannot fetch '{dataset.name}': '{path}' holds data that nothing vouches for",
                hint=f"move it away, or dm fetch --force {name} puts it aside and fetches",
                code="place-taken",
            )
        damage = describe_damage(self.project, dataset, obstacle.candidate.copy, obstacle.standing)
        raise ContentMismatch(
            f"cannot use '{path}' for '{dataset.name}': {damage}",
            hint=name_way_out(dataset),
            code="copy-damaged",
        )

    # obtain --------------------------------------------------------------------------------------------------------

    def _obtain_all(self, work: Sequence[_Work]) -> None:
        """Let workers obtain, publish what they stage in batches, settle what they report."""
        from dm.porcelain.workers import Workers

        workers = Workers(work, self._obtain_safely, most=self.options.jobs)
        try:
            with self.project.progress.start("datasets", total=len(work), unit="files") as overall:
                self._publish_all(workers, len(work), overall)
        except BaseException:
            self.stopping.set()
            self.project.close_fetchers()
            raise
        finally:
            workers.stop()

    def _publish_all(
        self, workers: Workers[_Work, _Ready | _Settled | BaseException], open_count: int, overall: Task
    ) -> None:
        """Publish and settle what arrives until nothing is open; write down what was done now and then."""
        recorded_s = read_monotonic_s()
        while open_count:
            batch = workers.collect(min(open_count, BATCH_SIZE_MAX), wait_s=BATCH_WAIT_S)
            ready = []
            for arrival in batch:
                if isinstance(arrival, BaseException):
                    raise arrival
                if isinstance(arrival, _Settled):
                    self._settle(arrival.position, arrival.outcome)
                else:
                    ready.append(arrival)
            self._publish(ready)
            open_count -= len(batch)
            overall.advance(len(batch))
            if read_monotonic_s() - recorded_s > RECORD_EVERY_S:
                self.recorder.write()
                recorded_s = read_monotonic_s()

    def _obtain_safely(self, work: _Work) -> _Ready | _Settled | BaseException:
        """A worker's job for one dataset: it never raises."""
        try:
            return self._obtain(work)
        except DmError as error:
            if self.options.fail_fast:
                self.stopping.set()  # here, not when it is settled: this worker takes the next dataset at once
            return _Settled(work.position, fail(work.dataset.name, error))
        except BaseException as error:  # noqa: BLE001 - handed to the main thread, which raises it
            return error

    def _obtain(self, work: _Work) -> _Ready | _Settled:
        from dm.porcelain.obtain import (
            find_staging,
            link_from_objects,
            obtain_from_objects,
            obtain_from_source,
        )

        project, dataset, copy = self.project, work.dataset, work.copy
        if self.stopping.is_set():
            return _Settled(work.position, _stopped(dataset))
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
        force = self.options.force
        with project.progress.start(dataset.name) as task:
            linked = None if force else link_from_objects(project, dataset, copy)
            if linked is not None:
                return _Settled(work.position, self._conclude(work, linked, None))
            staging = find_staging(project, dataset, copy)
            staged = None if force else obtain_from_objects(project, dataset, copy, staging)
            if staged is None:
                staged = obtain_from_source(project, dataset, staging, task=task, progress=project.progress)
        return _Ready(work, staged)

    def _look_again(self, work: _Work) -> _Settled | Location | None:
        """What lies at the place now that its lock is ours: settled, another place to go to, or nothing in the way."""
        record = self.project.state.datasets.get(work.dataset.key.text)
        recorded = record is not None and self.project.root / record.storage_path == work.copy.path
        weighed = weigh(self.project, work.dataset, Candidate(work.copy, "location", recorded=recorded))
        if weighed.verdict in ("use", "adopt") and not self.options.force:
            return _Settled(work.position, self._use(work.dataset, weighed, work.location, locked=True))
        found = self._pass_obstacle(work.position, work.dataset, work.location, weighed)
        return None if found == work.location else found

    # publish -------------------------------------------------------------------------------------------------------

    def _publish(self, ready: Sequence[_Ready]) -> None:
        """Publish a batch, settle each of it, release the locks."""
        if not ready:
            return
        batch = [(item.work.dataset, item.work.copy, item.staged) for item in ready]
        results = publish(self.project, batch, put_aside=self.options.force)
        for item, result in zip(ready, results, strict=True):
            self._settle(item.work.position, self._conclude(item.work, result, item.staged))

    def _conclude(self, work: _Work, result: Published | DmError, staged: Staged | None) -> Outcome:
        """The outcome of one dataset that was published, and what is to be recorded of it."""
        dataset, copy = work.dataset, work.copy
        if isinstance(result, DmError):
            return fail(dataset.name, result)
        contract = find_contract(dataset)
        sha256 = contract.hex if contract is not None and contract.algorithm == "sha256" else None
        if staged is not None:
            staged.staging.clear()
            self.recorder.note_fields(dataset, staged.fill)
            sha256 = staged.sha256
        self.recorder.note_place(dataset, copy, sha256=sha256)
        return Outcome(
            dataset.name,
            "unchanged" if result.unchanged else "ok",
            path=copy.path,
            state="clean" if copy.path == self.project.locate(dataset).path else "relocated",
            digest=result.digest,
            size_bytes=result.size_bytes,
            message="linked" if staged is None or staged.from_object else None,
        )

    def _note_present(self, dataset: Dataset, copy: Copy, standing: Standing | None) -> None:
        """Record a copy that was there; complete an entry that a killed run left without its contract."""
        contract = find_contract(dataset)
        proven = standing is not None and standing.meets_contract and contract is not None
        sha256 = contract.hex if proven and contract is not None and contract.algorithm == "sha256" else None
        self.recorder.note_place(dataset, copy, sha256=sha256)
        if standing is None:
            return
        measured = standing.measured
        if find_contract(dataset) is None:
            cache = self.project.stat_cache
            checksum = measure_checksum(copy.path, "sha256", stat_cache=cache, quick=True).checksum
            fields = {} if checksum is None else {"checksum": str(checksum)}
            self.recorder.note_fields(dataset, {**fields, **_pin_tree(measured.digest)})
        elif dataset.digest is None and standing.meets_contract:
            self.recorder.note_fields(dataset, _pin_tree(measured.digest))

    def _settle(self, index: int, outcome: Outcome) -> None:
        """One dataset is done: let go of its lock, tell it."""
        self.outcomes[index] = outcome
        lock = self._locks.pop(index, None)
        if lock is not None:
            lock.close()
        if outcome.failed and self.options.fail_fast:
            self.stopping.set()
        if self.report is not None:
            self.report(outcome)


def _pin_tree(digest: Digest) -> dict[str, str]:
    return {"digest": str(digest)} if digest.is_tree else {}


def refuse_untrusted_place(project: Project, dataset: Dataset, location: Location) -> None:
    """Raise `Refused` for a place outside that a manifest or a checkout's config chose (SCHEMA.md, "Places")."""
    reason = project.places.untrusted_place(location)
    if reason is not None:
        raise Refused(
            f"cannot write '{dataset.name}': {reason}",
            hint="if that is wanted, set the place in your own config: dm config set --global",
            code="place-untrusted",
        )


def _stopped(dataset: Dataset) -> Outcome:
    return Outcome(dataset.name, "skipped", code="not-tried", message="not tried: an earlier one failed (--fail-fast)")
