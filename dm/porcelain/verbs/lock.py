"""``lock``: an unlocked copy becomes a verified, read-only one again, or gives way to the shared one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

from dm.errors import ContentMismatch, DmError, MachineFailed
from dm.plumbing.records.state import Record, make_storage_path
from dm.porcelain.find import Candidate, find_known_copy, weigh
from dm.porcelain.integrity import describe_damage, judge, make_missing, name_ways_out_of_edit
from dm.porcelain.publish import discard_copy
from dm.porcelain.select import find_skip_reason, select
from dm.porcelain.unlocked import find_unlocked, lock_in_place
from dm.values import Outcome, fail

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.porcelain.copies import Copy
    from dm.porcelain.integrity import Standing
    from dm.porcelain.project import Project


def lock(project: Project, identifiers: Sequence[str], *, dry_run: bool = False) -> list[Outcome]:
    """Make each named dataset's unlocked copy read-only again; an outcome for each, with the copy that is used then.

    Every byte is read first. Bytes that are not those of the contract (or, without one, not as last seen) are exit 4:
    `pin` accepts them. When the copy at the location has the same bytes it is used again and the private one is
    removed; else the files of the private one share the bytes of objects again. With ``dry_run`` nothing is written. A
    kill leaves each copy whole.
    """
    selection = select(project, identifiers)
    outcomes = list(selection.failures)
    for dataset in selection.datasets:
        try:
            outcomes.append(_lock(project, dataset, dry_run=dry_run))
        except DmError as error:
            outcomes.append(fail(dataset.name, error))
    return outcomes


def _lock(project: Project, dataset: Dataset, *, dry_run: bool) -> Outcome:
    skipped = find_skip_reason(dataset)
    if skipped is not None:
        return Outcome(dataset.name, "skipped", state="skipped", message=skipped)
    candidate = find_unlocked(project, dataset)
    if candidate is None:
        if not dry_run:
            _clear_leftovers(project, dataset)
        return _tell_locked(project, dataset)
    copy = candidate.copy
    with nullcontext() if dry_run else project.lock_copy(copy):
        standing = None if dataset.skip_checksum else _judge(project, dataset, copy)
        size_bytes = None if standing is None else standing.measured.size_bytes
        outcome = Outcome(dataset.name, "ok", path=copy.path, state="clean", size_bytes=size_bytes)
        if standing is not None:
            outcome = outcome._replace(digest=standing.measured.digest)
        shared = None if standing is None else _find_shared(project, dataset, copy, standing)
        if shared is not None:
            if not dry_run:
                _give_way(project, dataset, copy, shared, standing)
            done = "would give" if dry_run else "gave"
            return outcome._replace(path=shared.path, message=f"the private copy {done} way to this one")
        if dry_run:
            return outcome._replace(message="would become read-only")
        lock_in_place(project, dataset, copy, None if standing is None else standing.measured)
        _record(project, dataset, copy, standing)
    return outcome._replace(message="locked: read-only")


def _clear_leftovers(project: Project, dataset: Dataset) -> None:
    """Tidy up after a run that was killed when the private copy was gone already: its lock, its ref."""
    own = project.locate_in_own_scope(dataset)
    if own is None or own.path == project.locate(dataset).path:
        return
    copy = project.copy_at(own)
    if copy.exists() or not (os.path.lexists(f"{copy.path}.lock") or copy.read_ref() is not None):
        return
    # Who holds the lock now is alive, or another tool: then it is theirs to tidy up.
    with suppress(MachineFailed), project.lock_copy(copy, should_stop=lambda: True):
        if not copy.exists():
            copy.remove_ref()


def _tell_locked(project: Project, dataset: Dataset) -> Outcome:
    known = find_known_copy(project, dataset)
    if known is None:
        raise make_missing(dataset)
    told = "it is yours: dm never makes it read-only" if known.copy.user_managed else "it is not unlocked"
    return Outcome(dataset.name, "unchanged", path=known.copy.path, message=told)


def _judge(project: Project, dataset: Dataset, copy: Copy) -> Standing:
    """What every byte of the copy says. Raises `ContentMismatch` for bytes that nobody accepted."""
    standing = judge(project, dataset, copy, quick=False, progress=project.progress)
    if standing.meets_contract is False or (standing.meets_contract is None and standing.as_last_seen is False):
        raise ContentMismatch(
            f"cannot lock '{dataset.name}': {describe_damage(project, dataset, copy, standing)}",
            hint=name_ways_out_of_edit(dataset),
            code="content-mismatch",
        )
    return standing


def _find_shared(project: Project, dataset: Dataset, copy: Copy, standing: Standing) -> Copy | None:
    """The copy at the dataset's location, where that is another one, may be used and has the same bytes: read now, for
    it is all that is left of them.
    """
    shared = project.copy_at(project.locate(dataset))
    if shared.path == copy.path or not shared.exists():
        return None
    weighed = weigh(project, dataset, Candidate(shared, "location", recorded=False), progress=project.progress)
    if weighed.verdict != "use" or weighed.standing is None:
        return None
    if weighed.standing.measured.digest != standing.measured.digest:
        return None
    read = judge(project, dataset, shared, quick=False, progress=project.progress)
    return shared if read.measured.digest == standing.measured.digest else None


def _give_way(project: Project, dataset: Dataset, copy: Copy, shared: Copy, standing: Standing | None) -> None:
    """The shared copy is recorded, then the private one removed, unless it was written to meanwhile."""
    _record(project, dataset, shared, standing)
    again = judge(project, dataset, copy, quick=True)
    if standing is not None and again.measured.digest == standing.measured.digest:
        discard_copy(copy)


def _record(project: Project, dataset: Dataset, copy: Copy, standing: Standing | None) -> None:
    checksum = None if standing is None else standing.measured.checksum
    sha256 = checksum.hex if checksum is not None and checksum.algorithm == "sha256" else None
    path = make_storage_path(project.root, copy.path)
    known = project.state.datasets.get(dataset.key.text)
    if sha256 is None and known is not None:
        sha256 = known.sha256
    if known != Record(path, sha256):
        project.merge_state_if_allowed({dataset.key.text: Record(path, sha256)})
