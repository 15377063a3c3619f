"""Make declared data be here: find, else link from an object, else fetch; verify; publish; record.

One run over many datasets (SCHEMA.md, "Fetch"):

1. *look*: what is there already and vouched for is used, without a request and without reading it again;
2. *obtain*: several workers, each holding its dataset's lock, bring the rest into staging and check it;
3. *publish*: the main thread publishes what has been staged in batches, one flush for each, and releases the locks;
4. *record*: manifest, state and stat cache are written a bounded number of times for the whole run.

A kill at any point leaves whole copies or none; what was published but not recorded is found again by the next run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING, NamedTuple

from dm.environment import read_monotonic_s
from dm.errors import ContentMismatch, DmError, Malformed, Refused
from dm.plumbing.fs.publish import remove_tree
from dm.plumbing.store.measure import measure_checksum
from dm.porcelain.copies import Copy
from dm.porcelain.find import Weighed, find_candidates, weigh
from dm.porcelain.integrity import Standing, describe_damage, find_contract
from dm.porcelain.publish import adopt, publish
from dm.porcelain.recording import Recorder
from dm.porcelain.select import find_skip_reason
from dm.values import Digest, Outcome, fail

if TYPE_CHECKING:
    import queue

    from dm.plumbing.records.dataset import Dataset
    from dm.plumbing.records.places import Location
    from dm.plumbing.store.publishing import Published
    from dm.porcelain.obtain import Staged
    from dm.porcelain.project import Project

#: How long the publisher waits for company for a staged dataset while workers are busy, seconds. One flush serves a
#: whole batch, so that a thousand small files cost a few dozen flushes and a large file waits unnoticeably.
BATCH_WAIT_S = 0.03
#: Datasets published with one flush at the most: bounds what is locked and unrecorded at any time.
BATCH_SIZE_MAX = 512
#: How often a long run writes down what it has done, seconds.
RECORD_EVERY_S = 30.0


class FetchOptions(NamedTuple):
    """How to materialize: ``jobs`` sources at once, ``force`` goes to the source even when a copy is there and puts
    what lies in the way aside, ``dry_run`` only says what would be done, ``fail_fast`` stops at the first failure.
    ``edit_manifest`` fills checksums into the manifest's file.
    """

    jobs: int = 8
    force: bool = False
    dry_run: bool = False
    fail_fast: bool = False
    edit_manifest: bool = True


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
    """A dataset that is staged; its lock is held until it is published."""

    work: _Work
    staged: Staged
    lock: ExitStack


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
        self.recorder = Recorder(project, edit_manifest=options.edit_manifest)
        self.outcomes: list[Outcome | None] = []
        self.stopping = threading.Event()
        self._held = ExitStack()

    def go(self, datasets: Sequence[Dataset]) -> None:
        self.outcomes = [None] * len(datasets)
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
        self._held.close()
        self.recorder.write()

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
        copy = project.copy_at(location)
        if not options.force:
            obstacle: Weighed | None = None
            for candidate in find_candidates(project, dataset):
                weighed = weigh(project, dataset, candidate, progress=project.progress)
                if weighed.verdict in ("use", "adopt"):
                    return _Settled(index, self._use(dataset, weighed, location))
                if candidate.copy.path == location.path:
                    obstacle = weighed
                elif weighed.verdict == "wrong":
                    project.progress.warn(f"passing over '{candidate.copy.path}': its bytes are not those of "
                                          f"'{dataset.name}'")
            if obstacle is not None:
                location = self._go_around(dataset, location, obstacle)
                copy = project.copy_at(location)
        refuse_untrusted_place(project, dataset, location)
        if options.dry_run:
            return _Settled(index, Outcome(dataset.name, "ok", path=location.path, message="would be fetched"))
        return _Work(index, dataset, location, copy)

    def _use(self, dataset: Dataset, weighed: Weighed, location: Location, *, locked: bool = False) -> Outcome:
        """Take a copy that is there; mark and record it where that is still to be done."""
        copy, standing = weighed.candidate.copy, weighed.standing
        if not self.options.dry_run:
            if weighed.verdict == "adopt" and standing is not None:
                with nullcontext() if locked or copy.user_managed else self.project.lock_copy(copy):
                    if not locked:
                        standing = self._weigh_again(dataset, weighed)
                    adopt(copy, dataset, standing)
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

    def _weigh_again(self, dataset: Dataset, weighed: Weighed) -> Standing:
        """What a copy is worth now that its lock is ours."""
        again = weigh(self.project, dataset, weighed.candidate)
        if again.verdict not in ("use", "adopt") or again.standing is None:
            path = weighed.candidate.copy.path
            raise Refused(f"'{path}' changed while it was looked at", hint="run the command again", code="place-taken")
        return again.standing

    def _go_around(self, dataset: Dataset, location: Location, obstacle: Weighed) -> Location:
        """Where to go when something lies at the location: the project's own scope for a foreign copy, else nowhere."""
        if obstacle.verdict == "foreign":
            own = self.project.locate_in_own_scope(dataset)
            if own is not None and own.path != location.path:
                self.project.progress.note(
                    f"'{location.path}' is another project's copy with other content; "
                    f"'{dataset.name}' goes to '{own.path}'"
                )
                candidate = self.project.copy_at(own)
                if not candidate.exists():
                    return own
                raise Refused(
                    f"cannot fetch '{dataset.name}': '{own.path}' holds something else",
                    hint=f"dm fetch --force {dataset.name} puts it aside",
                    code="place-taken",
                )
            raise Refused(
                f"cannot fetch '{dataset.name}': '{location.path}' is another project's copy with other content",
                hint="set 'scope' or 'key' for it",
                code="foreign-copy",
            )
        if obstacle.verdict == "unknown":
            raise Refused(
                f"cannot fetch '{dataset.name}': '{location.path}' holds data that nothing vouches for",
                hint=f"move it away, or dm fetch --force {dataset.name} puts it aside and fetches",
                code="place-taken",
            )
        assert obstacle.standing is not None  # with skip_checksum nothing is ever found wrong
        damage = describe_damage(self.project, dataset, obstacle.candidate.copy, obstacle.standing)
        raise ContentMismatch(
            f"cannot use '{location.path}' for '{dataset.name}': {damage}",
            hint=f"dm fetch --force {dataset.name} puts it aside and fetches again",
            code="copy-damaged",
        )

    # obtain --------------------------------------------------------------------------------------------------------

    def _obtain_all(self, work: Sequence[_Work]) -> None:
        """Let workers obtain, publish what they stage in batches, settle what they report."""
        import queue
        from concurrent.futures import ThreadPoolExecutor

        arrivals: queue.SimpleQueue[_Ready | _Settled | BaseException] = queue.SimpleQueue()
        workers = max(1, min(self.options.jobs, len(work)))
        open_count = len(work)
        overall = self.project.progress.start("datasets", total=len(work), unit="files")
        pool = ThreadPoolExecutor(workers, thread_name_prefix="dm-fetch")
        recorded_s = read_monotonic_s()
        try:
            for item in work:
                pool.submit(self._obtain_into, item, arrivals)
            while open_count:
                batch = self._collect(arrivals, open_count)
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
        except BaseException:
            self.stopping.set()
            self.project.close_fetchers()
            pool.shutdown(wait=True, cancel_futures=True)
            while not arrivals.empty():
                arrival = arrivals.get()
                if isinstance(arrival, _Ready):
                    self._held.push(arrival.lock)
            raise
        pool.shutdown()
        overall.__exit__(None, None, None)

    def _collect(
        self, arrivals: queue.SimpleQueue[_Ready | _Settled | BaseException], open_count: int
    ) -> list[_Ready | _Settled | BaseException]:
        """Wait for the next arrival and take along what comes shortly after it."""
        import queue

        batch = [arrivals.get()]
        deadline_s = read_monotonic_s() + BATCH_WAIT_S
        while len(batch) < min(open_count, BATCH_SIZE_MAX):
            try:
                batch.append(arrivals.get(timeout=max(0.0, deadline_s - read_monotonic_s())))
            except queue.Empty:
                break
        return batch

    def _obtain_into(
        self, work: _Work, arrivals: queue.SimpleQueue[_Ready | _Settled | BaseException]
    ) -> None:
        """A worker's job for one dataset; whatever happens, one arrival is put."""
        try:
            arrivals.put(self._obtain(work))
        except DmError as error:
            if self.options.fail_fast:
                self.stopping.set()  # here, not when it is settled: this worker takes the next dataset at once
            arrivals.put(_Settled(work.position, fail(work.dataset.name, error)))
        except BaseException as error:  # noqa: BLE001 - handed to the main thread, which raises it
            arrivals.put(error)

    def _obtain(self, work: _Work) -> _Ready | _Settled:
        from dm.porcelain.obtain import (
            link_from_objects,
            make_staging_folder,
            obtain_from_objects,
            obtain_from_source,
        )

        project, dataset, copy = self.project, work.dataset, work.copy
        if self.stopping.is_set():
            return _Settled(work.position, _stopped(dataset))
        lock = ExitStack()
        try:
            if not copy.user_managed:
                lock.enter_context(project.lock_copy(copy, should_stop=self.stopping.is_set))
            if not self.options.force:
                # Another process may have brought it while we waited.
                arrived = self._look_again(work)
                if arrived is not None:
                    lock.close()
                    return _Settled(work.position, arrived)
            with project.progress.start(dataset.name) as task:
                linked = None if self.options.force else link_from_objects(project, dataset, copy)
                if linked is not None:
                    lock.close()
                    return _Settled(work.position, self._conclude(work, linked, None))
                folder = make_staging_folder(project, dataset, copy)
                staged = None if self.options.force else obtain_from_objects(project, dataset, copy, folder)
                if staged is None:
                    staged = obtain_from_source(project, dataset, folder, task=task, progress=project.progress)
            return _Ready(work, staged, lock)
        except BaseException:
            lock.close()
            raise

    def _look_again(self, work: _Work) -> Outcome | None:
        """What lies at the place now that its lock is ours: another process may have published meanwhile."""
        from dm.porcelain.find import Candidate

        if not work.copy.exists():
            return None
        weighed = weigh(self.project, work.dataset, Candidate(work.copy, "location", recorded=False))
        if weighed.verdict in ("use", "adopt"):
            return self._use(work.dataset, weighed, work.location, locked=True)
        self._go_around(work.dataset, work.location, weighed)
        return None

    # publish -------------------------------------------------------------------------------------------------------

    def _publish(self, ready: Sequence[_Ready]) -> None:
        """Publish a batch, settle each of it, release the locks."""
        if not ready:
            return
        try:
            results = publish(self.project, [(item.work.dataset, item.work.copy, item.staged) for item in ready])
        except BaseException:
            for item in ready:
                self._held.push(item.lock)
            raise
        for item, result in zip(ready, results, strict=True):
            self._settle(item.work.position, self._conclude(item.work, result, item.staged))
            item.lock.close()

    def _conclude(self, work: _Work, result: Published | DmError, staged: Staged | None) -> Outcome:
        """The outcome of one dataset that was published, and what is to be recorded of it."""
        dataset, copy = work.dataset, work.copy
        if isinstance(result, DmError):
            return fail(dataset.name, result)
        contract = find_contract(dataset)
        sha256 = contract.hex if contract is not None and contract.algorithm == "sha256" else None
        if staged is not None:
            remove_tree(staged.folder)
            self.recorder.note_fields(dataset, staged.fill)
            sha256 = staged.sha256
        self.recorder.note_place(dataset, copy, sha256=sha256)
        return Outcome(
            dataset.name,
            "ok",
            path=copy.path,
            state="clean" if copy.path == self.project.locate(dataset).path else "relocated",
            digest=result.digest,
            size_bytes=result.size_bytes,
            message="linked" if staged is None or staged.from_object else None,
        )

    def _note_present(self, dataset: Dataset, copy: Copy, standing: Standing | None) -> None:
        """Record a copy that was there; complete an entry that a killed run left without its contract."""
        self.recorder.note_place(dataset, copy, sha256=None)
        if standing is None:
            return
        measured = standing.measured
        if find_contract(dataset) is None:
            if not copy.user_managed:
                cache = self.project.stat_cache
                checksum = measure_checksum(copy.path, "sha256", stat_cache=cache, quick=True).checksum
                fields = {} if checksum is None else {"checksum": str(checksum)}
                self.recorder.note_fields(dataset, {**fields, **_pin_tree(measured.digest)})
        elif dataset.digest is None and standing.meets_contract:
            self.recorder.note_fields(dataset, _pin_tree(measured.digest))

    def _settle(self, index: int, outcome: Outcome) -> None:
        self.outcomes[index] = outcome
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
