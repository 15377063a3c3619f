"""``verify``: read the bytes again and compare them with the digests. Never changes data; records when it looked."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from dm.errors import DmError, MachineFailed, NotFound
from dm.plumbing.store.verify import compare_copy
from dm.porcelain.find import Candidate, choose_copy
from dm.porcelain.integrity import Standing, describe_damage, judge, name_way_out
from dm.porcelain.publish import make_ref
from dm.porcelain.select import find_skip_reason, select
from dm.values import Difference, Outcome, fail

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.porcelain.copies import Copy
    from dm.porcelain.project import Project


def verify(
    project: Project,
    identifiers: Sequence[str] = (),
    *,
    quick: bool = False,
    report: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Compare each dataset's bytes with its contract, else with what was last seen; an outcome for each.

    Every byte is read, unless ``quick``: then unchanged stat data stand for bytes, and the outcome's message says how
    much was not read. What differs is in ``differences``, file by file where the tree's objects are there; the exit
    status of such an outcome is 4. A dataset that is not there is exit 3 when named, skipped among all.
    """
    selection = select(project, identifiers)
    outcomes: list[Outcome] = []

    def settle(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if report is not None:
            report(outcome)

    for failure in selection.failures:
        settle(failure)
    for dataset in selection.datasets:
        try:
            settle(_verify_one(project, dataset, quick=quick, named=selection.named))
        except DmError as error:
            settle(fail(dataset.name, error))
    return outcomes


def _verify_one(project: Project, dataset: Dataset, *, quick: bool, named: bool) -> Outcome:
    name = dataset.name
    skipped = find_skip_reason(dataset)
    if skipped is not None:
        return Outcome(name, "skipped", state="skipped", message=skipped)
    chosen = choose_copy(project, dataset, weigh_bytes=False)
    if chosen is None:
        location = project.locate(dataset)
        if named:
            raise NotFound(f"'{name}' is not there", hint=f"dm fetch {shlex.quote(name)}", code="missing")
        return Outcome(name, "skipped", path=location.path, state="missing", message="not there")
    copy = chosen.candidate.copy
    if dataset.skip_checksum:
        return Outcome(name, "skipped", path=copy.path, state="skipped", message="skip_checksum is set")
    standing = judge(project, dataset, copy, quick=quick, progress=project.progress)
    return _compare(project, dataset, chosen.candidate, standing)


def _compare(project: Project, dataset: Dataset, candidate: Candidate, standing: Standing) -> Outcome:
    copy, measured = candidate.copy, standing.measured
    outcome = Outcome(
        dataset.name, "ok", path=copy.path, digest=measured.digest, size_bytes=measured.size_bytes, state="clean"
    )
    unread = measured.trusted_bytes
    note = f"{unread} of {measured.size_bytes} bytes not read: their stat data are unchanged" if unread else None
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
            hint=name_way_out(dataset),
            differences=_find_differences(project, dataset, copy, standing),
            exit_status=4,
        )
    if not unread:
        _record_look(project, copy, dataset, standing)
    return outcome._replace(state="updated" if standing.as_last_seen is False else "clean", message=note)


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
        copy.write_ref(make_ref(measured, source_id))
