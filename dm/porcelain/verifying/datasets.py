"""Datasets of a manifest are read and judged: by their contract first, else by what was last seen."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from dm.errors import DmError, MachineFailed
from dm.plumbing.store.verify import compare_copy
from dm.porcelain.find import Candidate, choose_copy
from dm.porcelain.integrity import (
    Standing,
    describe_damage,
    is_as_measured,
    judge,
    make_missing,
    name_ways_out,
    name_ways_out_of_edit,
)
from dm.porcelain.looking import Look
from dm.porcelain.select import find_skip_reason
from dm.porcelain.verifying.options import VerifyOptions, tell_unread
from dm.progress import Progress
from dm.values import Difference, Outcome, fail

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.porcelain.copies import Copy
    from dm.porcelain.project import Project


def prepare_look(project: Project, dataset: Dataset, options: VerifyOptions, *, named: bool) -> Look:
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
                return settled(fail(dataset.name, make_missing(dataset)))
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
        message=tell_unread(measured.trusted_bytes, measured.size_bytes),
    )


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
    from dm.porcelain.publish import adopt, make_ref

    measured, ref = standing.measured, standing.ref
    if copy.user_managed or (ref is None and copy.store is None) or project.find_distrust(dataset, copy):
        return
    source_id = ref.source_id if ref is not None and ref.source_id else dataset.source_id
    with suppress(MachineFailed):
        if copy.read_ref() != ref:
            return  # who replaced or removed the copy meanwhile wrote down what is so now
        if copy.store is not None and standing.as_last_seen is False:
            # Replaced by somebody, with the right bytes: taken in as what it is now.
            with project.lock_copy(copy):
                if is_as_measured(project, copy, measured):
                    adopt(copy, dataset, measured)
            return
        copy.write_ref(make_ref(measured, source_id))
