"""``verify``: read the bytes again and compare them with the digests. Never changes data; records when it looked.

Three things can be looked at: the datasets of a manifest (judged by their contract first), copies that a store knows
(judged by their refs, which a folder that was copied from elsewhere brings along), and a whole store: every object, ref
and marker.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dm.environment import format_time, read_clock_ns, read_monotonic_s
from dm.errors import DmError, MachineFailed, NotFound
from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.records.bindings import has_source
from dm.plumbing.store.examine import DAMAGE, Finding
from dm.plumbing.store.layout import find_store_root
from dm.plumbing.store.refs import Ref
from dm.plumbing.store.verify import compare_copy
from dm.porcelain.find import Candidate, choose_copy, is_read_only
from dm.porcelain.integrity import (
    Standing,
    describe_damage,
    find_contract,
    judge,
    name_ways_out,
    name_ways_out_of_edit,
)
from dm.porcelain.looking import Look, look_at_all
from dm.porcelain.materialize import FetchOptions, materialize
from dm.porcelain.mending import Mended, Mender
from dm.porcelain.publish import adopt, make_ref
from dm.porcelain.select import find_skip_reason, select
from dm.progress import SILENT, Progress
from dm.values import Difference, Digest, Outcome, fail

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.plumbing.store.disk import DiskStore
    from dm.plumbing.store.measure import SeenFiles
    from dm.porcelain.copies import Copy
    from dm.porcelain.project import Project


class VerifyOptions(NamedTuple):
    """How to look. ``quick``: unchanged stat data stand for bytes. ``contract``: the manifest's ``checksum`` is
    computed in any case. ``older_than_s``: only what was not read whole for so many seconds. ``max_time_s``: begin
    nothing after that, and begin with what was not read for longest. ``jobs``: copies read at once. ``repair``: mend
    what is broken, from any sound copy in reach, else from the source.
    """

    quick: bool = False
    contract: bool = False
    older_than_s: float | None = None
    max_time_s: float | None = None
    jobs: int = 2
    repair: bool = False


def verify(
    project: Project,
    identifiers: Sequence[str] = (),
    options: VerifyOptions = VerifyOptions(),  # noqa: B008 - frozen
    *,
    report: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Compare each dataset's bytes with its contract, else with what was last seen; an outcome for each.

    Every byte is read, unless ``quick``: then unchanged stat data stand for bytes, and the outcome's message says how
    much was not read. What differs is in ``differences``, file by file where the tree's objects are there; the exit
    status of such an outcome is 4. A dataset that is not there is exit 3 when named, skipped among all.
    """
    selection = select(project, identifiers)
    tell = report or _ignore
    for failure in selection.failures:
        tell(failure)
    looks = []
    for dataset in selection.datasets:
        looks.append(_prepare(project, dataset, options, named=selection.named))
    outcomes = _look_at(looks, options, project.progress, (lambda _: None) if options.repair else tell)
    if options.repair:
        mender = Mender([project.open_store(root) for root in project.list_store_roots()], progress=project.progress)
        datasets = {dataset.name: dataset for dataset in selection.datasets}
        for index, outcome in enumerate(outcomes):
            if outcome.exit_status == 4:
                outcomes[index] = _repair(project, mender, datasets[outcome.name], outcome, named=selection.named)
            tell(outcomes[index])
    return [*selection.failures, *outcomes]


def verify_copies(
    store: DiskStore,
    names: Sequence[str] | None = None,
    options: VerifyOptions = VerifyOptions(),  # noqa: B008 - frozen
    *,
    seen: SeenFiles | None = None,
    mender: Mender | None = None,
    inodes: frozenset[int] | None = None,
    progress: Progress = SILENT,
    report: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Compare copies with the refs of their store (all of them when no ``names`` of refs are given): no manifest is
    needed. ``seen`` are files that were read in this run. With a ``mender`` what differs is made as its ref says; with
    ``inodes`` only what is a link to these.
    """
    looks = []
    outcomes: list[Outcome] = []
    for name in _list_names(store) if names is None else names:
        try:
            ref = store.read_ref(name)
        except DmError as error:
            outcomes.append(fail(name, error))
            continue
        if ref is not None and ref.digest is not None:
            looks.append(_prepare_copy(store, name, ref, options, seen))
    tell = report or _ignore
    for outcome in outcomes:
        tell(outcome)
    found = _look_at(looks, options, progress, tell if mender is None else _ignore)
    if mender is not None:
        for index, outcome in enumerate(found):
            if outcome.exit_status in (3, 4):
                found[index] = _mend_copy(mender, store, outcome, inodes)
            elif outcome.digest is not None and store.state_of(store.root / outcome.name) == "unmarked":
                # A repair, or a publish, was killed right before it marked the copy.
                mender.mend_marker(store, outcome.name, outcome.digest)
            tell(found[index])
    return [*outcomes, *found]


def verify_store(
    store: DiskStore,
    options: VerifyOptions = VerifyOptions(),  # noqa: B008 - frozen
    *,
    others: Sequence[DiskStore] = (),
    progress: Progress = SILENT,
    report: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Examine a whole store: every object against its name, refs, markers and leftovers, then every copy by its ref.

    Damage is a failed outcome (exit 4), a ref that cannot be read exit 7; what is only untidy is ``skipped`` with its
    code. A file that is hard-linked to its object is read once. A look that ``max_time_s`` cuts short names the copies
    that it did not come to.

    With ``repair`` a bad object gives way to sound bytes from this store or ``others``, also in the copies that are
    hard links to it; stray markers and the work of dead processes are removed, and a copy that is what its ref says
    gets the marker that it lacks. A copy that only differs from its ref is left: its project's contract is not known
    here. One repair of a store goes on at a time.
    """
    if not options.repair:
        return _verify_store(store, options, None, progress=progress, report=report or _ignore)
    mender = Mender([store, *others], progress=progress)
    with ExitStack() as held:
        with suppress(MachineFailed):  # one that cannot be written to is looked at all the same
            held.enter_context(mender.repairing(store))
        return _verify_store(store, options, mender, progress=progress, report=report or _ignore)


def _verify_store(
    store: DiskStore,
    options: VerifyOptions,
    mender: Mender | None,
    *,
    progress: Progress,
    report: Callable[[Outcome], None],
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    begun_s = read_monotonic_s()
    examiner = store.examiner(progress=progress)
    objects = examiner.read_objects() if store.exists() else None
    findings: list[Finding] = []
    if objects is not None:
        findings += examiner.find_object_faults(objects)
        findings += examiner.find_ref_faults()
    findings += examiner.find_place_faults()
    inodes = frozenset() if mender is None else frozenset(_list_inodes(store, findings))
    for finding in findings:
        outcomes.append(_describe(finding) if mender is None else _tidy(mender, store, finding))
        report(outcomes[-1])
    if objects is None:
        return outcomes
    total = sum(objects.sound.values())
    if not any(finding.kind in DAMAGE for finding in findings):
        sound = Outcome(
            os.fspath(store.root), "ok", path=store.root, state="clean", size_bytes=total,
            message=f"{len(objects.sound)} objects are sound",
        )  # fmt: skip
        outcomes.append(sound)
        report(sound)
    if options.max_time_s is not None:
        options = options._replace(max_time_s=max(0.0, options.max_time_s - (read_monotonic_s() - begun_s)))
    lost = {finding.copies[0] for finding in findings if finding.kind in ("copy-missing", "ref-malformed")}
    names = [name for name in _list_names(store) if name not in lost]
    return [
        *outcomes,
        *verify_copies(
            store, names, options, seen=objects.seen, mender=mender, inodes=inodes, progress=progress, report=report
        ),
    ]


def find_copies(path: Path) -> tuple[Path, list[str] | None]:
    """The store that owns a path, and the names of its refs that the path means: a copy, the copy that it lies in, or
    all copies below a folder; None for the whole store, where the path is its root.

    Raises `NotFound` where no store knows anything there.
    """
    if (path / ".dm" / "format").exists():
        return path, None
    root = find_store_root(path)
    if root is None:
        raise NotFound(f"no store knows '{path}'", hint="name a dataset, or a path below a store", code="no-ref")
    refs = root / ".dm" / "refs"
    place = path.relative_to(root)
    for candidate in (place, *place.parents):
        if candidate != Path() and (refs / candidate).is_file():
            return root, [candidate.as_posix()]
    below = refs / place
    names = sorted(each.relative_to(refs).as_posix() for each in below.rglob("*") if each.is_file())
    if not names:
        raise NotFound(f"nothing is known of '{path}'", hint="dm hash-object prints what it is", code="no-ref")
    return root, names


def _ignore(_outcome: Outcome) -> None:
    return None


def _look_at(
    looks: list[Look], options: VerifyOptions, progress: Progress, report: Callable[[Outcome], None]
) -> list[Outcome]:
    if options.older_than_s is not None:
        before = format_time(read_clock_ns() - int(options.older_than_s * 1_000_000_000))
        looks = [look for look in looks if look.verified is None or look.verified <= before]
    deadline_s = None if options.max_time_s is None else read_monotonic_s() + options.max_time_s
    return look_at_all(looks, jobs=options.jobs, progress=progress, report=report, deadline_s=deadline_s)


def _list_names(store: DiskStore) -> Iterator[str]:
    """The names of a store's refs, also of those that cannot be read."""
    for path in sorted((store.meta / "refs").rglob("*")):
        if path.is_file():
            yield path.relative_to(store.meta / "refs").as_posix()


# Datasets


def _prepare(project: Project, dataset: Dataset, options: VerifyOptions, *, named: bool) -> Look:
    def settled(outcome: Outcome) -> Look:
        return Look(dataset.name, None, lambda _progress: outcome)

    skipped = find_skip_reason(dataset)
    if skipped is not None:
        return settled(Outcome(dataset.name, "skipped", state="skipped", message=skipped))
    try:
        chosen = choose_copy(project, dataset, weigh_bytes=False)
        if chosen is None:
            location = project.locate(dataset)
            if named:
                hint = f"dm fetch {shlex.quote(dataset.name)}"
                error = NotFound(f"'{dataset.name}' is not there", hint=hint, code="missing")
                return settled(fail(dataset.name, error))
            return settled(
                Outcome(dataset.name, "skipped", path=location.path, state="missing", message="not there")
            )
        copy = chosen.candidate.copy
        if dataset.skip_checksum:
            told = "skip_checksum is set"
            return settled(Outcome(dataset.name, "skipped", path=copy.path, state="skipped", message=told))
        ref = copy.read_ref()
    except DmError as error:
        return settled(fail(dataset.name, error))

    def run(progress: Progress) -> Outcome:
        standing = judge(
            project, dataset, copy, quick=options.quick, contract=options.contract, progress=progress
        )
        return _compare(project, dataset, chosen.candidate, standing)

    return Look(dataset.name, None if ref is None else ref.verified, run)


def _compare(project: Project, dataset: Dataset, candidate: Candidate, standing: Standing) -> Outcome:
    copy, measured = candidate.copy, standing.measured
    outcome = Outcome(
        dataset.name, "ok", path=copy.path, digest=measured.digest, size_bytes=measured.size_bytes, state="clean"
    )
    damaged = standing.meets_contract is False
    if standing.meets_contract is None:
        if standing.as_last_seen is None:
            reason = "no contract, and never seen before: there is nothing to compare it with"
            return outcome._replace(status="skipped", state="unpinned", message=reason)
        damaged = not standing.as_last_seen
    if damaged:
        return outcome._replace(
            status="failed",
            state="source-changed" if standing.as_last_seen else "modified",
            code="content-mismatch",
            message=describe_damage(project, dataset, copy, standing),
            hint=name_ways_out_of_edit(dataset) if copy.is_unlocked() else name_ways_out(dataset),
            differences=_find_differences(project, dataset, copy, standing),
            exit_status=4,
        )
    if not measured.trusted_bytes:
        _record_look(project, copy, dataset, standing)
    return outcome._replace(
        state="updated" if standing.as_last_seen is False else "clean",
        message=_tell_unread(measured.trusted_bytes, measured.size_bytes),
    )


def _tell_unread(unread: int, size_bytes: int) -> str | None:
    return f"{unread} of {size_bytes} bytes not read: their stat data are unchanged" if unread else None


def _repair(project: Project, mender: Mender, dataset: Dataset, outcome: Outcome, *, named: bool) -> Outcome:
    """Mend one dataset's copy that failed, or say why it is left alone."""
    chosen = choose_copy(project, dataset, weigh_bytes=False)
    if chosen is None:
        return outcome
    copy = chosen.candidate.copy
    contract = find_contract(dataset)
    if not named and (contract is None or copy.user_managed):
        told = "it is yours" if copy.user_managed else "it has no contract"
        return outcome._replace(hint=f"{told} and is mended only by name: dm verify --repair {outcome.name}")
    if copy.is_unlocked():
        return outcome._replace(hint=name_ways_out_of_edit(dataset))
    if is_read_only(chosen.candidate) or project.find_distrust(dataset, copy):
        return outcome._replace(hint="it lies where dm may not write")
    ref = copy.read_ref()
    expected = contract if contract is not None and contract.algorithm in ("blake3", "blake3-tree") else None
    if expected is None:
        expected = project.find_blob_id(contract) if contract is not None else None if ref is None else ref.digest
    if copy.store is not None and expected is not None and expected != outcome.digest:
        try:
            mended = mender.mend_copy(copy.store, copy.store.ref_name(copy.path), ref or Ref(), expected)
        except NotFound:
            mended = None
        except DmError as error:
            return fail(outcome.name, error)
        if mended is not None and not mended.left:
            standing = judge(project, dataset, copy, quick=True)
            if standing.meets_contract is not False:
                return _tell_mended(outcome, copy.path, standing.measured.digest, mended)
    return _fetch_anew(project, dataset, outcome)


def _tell_mended(outcome: Outcome, path: Path, digest: Digest, mended: Mended) -> Outcome:
    kept = f"; the bad bytes are kept in '{mended.kept[0].parent}'" if mended.kept else ""
    paths = "1 path" if mended.paths == 1 else f"{mended.paths} paths"
    return outcome._replace(
        status="ok", state="clean", path=path, digest=digest, code="mended", exit_status=0, hint=None,
        message=f"mended {paths} from sound copies{kept}",
    )  # fmt: skip


def _fetch_anew(project: Project, dataset: Dataset, outcome: Outcome) -> Outcome:
    """The last way: the source. What lay there is put aside first."""
    if not has_source(dataset):
        return outcome._replace(hint="no sound copy is in reach, and it has no source")
    fetched = materialize(project, [dataset], FetchOptions(jobs=1, force=True)).outcomes[-1]
    if fetched.failed:
        return outcome._replace(message=f"{outcome.message}; no sound copy is in reach, and {fetched.message}")
    return fetched._replace(status="ok", code="mended", message="mended from its source")


def _find_differences(
    project: Project, dataset: Dataset, copy: Copy, standing: Standing
) -> Sequence[Difference]:
    """Each path that differs, where what was expected can be read from a store; else the copy as a whole."""
    expected = dataset.digest or (None if standing.ref is None else standing.ref.digest)
    if expected is None or expected == standing.measured.digest or not expected.is_tree:
        return (Difference(".", "changed"),)
    reader = project.find_reader(expected, first=copy.store)
    # What was just read is in the stat cache: the folder is not read twice to name what differs.
    comparison = compare_copy(copy.path, expected, reader, stat_cache=project.stat_cache, quick=True)
    return comparison.differences or (Difference(".", "changed"),)


def _record_look(project: Project, copy: Copy, dataset: Dataset, standing: Standing) -> None:
    """Note in the ref that every byte was read now. Where that cannot be written, the look was no less true."""
    measured, ref = standing.measured, standing.ref
    if copy.user_managed or (ref is None and copy.store is None) or project.find_distrust(dataset, copy):
        return
    source_id = ref.source_id if ref is not None and ref.source_id else dataset.source_id
    with suppress(MachineFailed):
        if copy.store is not None and standing.as_last_seen is False:
            # Replaced by somebody, with the right bytes: taken in as what it is now.
            with project.lock_copy(copy):
                adopt(copy, dataset, measured)
            return
        copy.write_ref(make_ref(measured, source_id))


# Copies that a store knows, and stores


def _prepare_copy(
    store: DiskStore, name: str, ref: Ref, options: VerifyOptions, seen: SeenFiles | None
) -> Look:
    def run(progress: Progress) -> Outcome:
        assert ref.digest is not None
        path = store.root / name
        comparison = compare_copy(
            path,
            ref.digest,
            store,
            stat_cache=store.stat_cache,
            quick=options.quick,
            ref_root=store.root,
            seen=seen,
            progress=progress,
        )
        outcome = Outcome(
            name, "ok", path=path, state="clean", digest=comparison.digest, size_bytes=comparison.size_bytes
        )
        if not comparison.equal and store.is_unlocked(path):
            told = "unlocked and edited: its project's dm status tells the ways out"
            differences = comparison.differences
            return outcome._replace(
                status="skipped", state="modified", code="unlocked", message=told, differences=differences
            )
        if not comparison.equal:
            lost = comparison.digest is None and not os.path.lexists(path)
            told = f"its bytes are {comparison.digest}, last seen were {ref.digest}"
            return outcome._replace(
                status="failed",
                state="missing" if lost else "modified",
                code="missing" if lost else "content-mismatch",
                message="it is not there" if lost else told,
                hint="dm verify --repair mends it from any good copy",
                differences=() if lost else comparison.differences,
                exit_status=3 if lost else 4,
            )
        if not comparison.trusted_bytes:
            with suppress(MachineFailed):
                store.write_ref(name, ref._replace(verified=format_time(read_clock_ns())))
        return outcome._replace(message=_tell_unread(comparison.trusted_bytes, comparison.size_bytes))

    return Look(name, ref.verified, run)


def _mend_copy(mender: Mender, store: DiskStore, outcome: Outcome, inodes: frozenset[int] | None) -> Outcome:
    ref = store.read_ref(outcome.name)
    if ref is None or ref.digest is None:
        return outcome
    try:
        mended = mender.mend_copy(store, outcome.name, ref, ref.digest, inodes=inodes)
    except DmError as error:
        return outcome._replace(message=f"{outcome.message}; {error.message}", hint=error.hint)
    if mended.left:
        hint = "its project's dm verify --repair knows the contract; or name its path"
        return outcome._replace(differences=mended.left, hint=hint if inodes is not None else "restore it by hand")
    return _tell_mended(outcome, store.root / outcome.name, ref.digest, mended)


def _list_inodes(store: DiskStore, findings: Sequence[Finding]) -> Iterator[int]:
    """The inodes of damaged objects: what is a hard link to one is damaged with it. Those that a repair put aside, and
    was killed before it came to the copies, count too.
    """
    damaged = [finding.path for finding in findings if finding.kind == "object-damaged"]
    for path in [*damaged, *(store.meta / "quarantine").glob("*/" + "[0-9a-f]" * 62)]:
        with suppress(FileNotFoundError):
            yield os.lstat(path).st_ino


def _tidy(mender: Mender, store: DiskStore, finding: Finding) -> Outcome:
    """Mend what a finding is about where that is safe; else say it."""
    outcome = _describe(finding)
    try:
        if finding.kind in DAMAGE and finding.digest is not None:
            told = _mend_object(mender, store, finding, finding.digest)
        elif finding.kind == "marker-stray":
            with machine_errors("remove", finding.path):
                finding.path.unlink()
            told = "removed: a completion marker without a copy"
        elif finding.kind == "marker-missing" and finding.digest is not None:
            if not mender.mend_marker(store, finding.copies[0], finding.digest):
                return outcome
            told = "marked as complete: its bytes are what its ref says"
        elif finding.kind == "leftover" and finding.path.parent == store.meta / "unlocked":
            with machine_errors("remove", finding.path):
                finding.path.unlink()
            told = "removed: a note on a copy that is not there"
        elif finding.kind == "leftover" and finding.path.is_relative_to(store.meta):
            store.clear_abandoned()
            told = "removed: work that a process left half-done"
        else:
            return outcome
    except DmError as error:
        return outcome._replace(message=f"{outcome.message}; {error.message}", hint="restore it, or fetch its dataset")
    return outcome._replace(status="ok", code="mended", exit_status=0, message=told, hint=None)


def _mend_object(mender: Mender, store: DiskStore, finding: Finding, digest: Digest) -> str:
    """Mend an object and say how. One that no copy needs is put aside where there are no sound bytes for it."""
    try:
        kept = mender.mend_object(store, digest)
    except NotFound:
        if finding.kind != "object-damaged" or finding.copies:
            raise
        kept = store.quarantine(finding.path, "a damaged object: its bytes were not those of its name")
        return f"put aside: no copy needs it; its bytes are kept at '{kept}'"
    return "mended from a sound copy" + (f"; the bad bytes are kept at '{kept}'" if kept else "")


def _describe(finding: Finding) -> Outcome:
    copies = f"; it is needed by {', '.join(finding.copies[:5])}" if finding.digest and finding.copies else ""
    if len(finding.copies) > 5:
        copies += f" and {len(finding.copies) - 5} more"
    name = str(finding.digest) if finding.kind.startswith("object-") and finding.digest else os.fspath(finding.path)
    outcome = Outcome(
        name, "skipped", path=finding.path, digest=finding.digest, code=finding.kind,
        message=f"{finding.message}{copies}",
    )  # fmt: skip
    if finding.kind in DAMAGE:
        hint = "dm verify --all --repair mends it from any good copy"
        return outcome._replace(status="failed", exit_status=4, hint=hint)
    if finding.kind == "ref-malformed":
        return outcome._replace(status="failed", exit_status=7)
    return outcome
