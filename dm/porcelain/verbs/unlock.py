"""``unlock``: a private copy that may be edited, in the project's own scope. A shared copy never becomes writable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dm.errors import ContentMismatch, DmError, Refused
from dm.plumbing.records.state import Record, make_storage_path
from dm.plumbing.store.refs import Ref
from dm.plumbing.store.unlocking import is_private
from dm.porcelain.find import Candidate, choose_copy, is_read_only, weigh
from dm.porcelain.integrity import describe_damage, judge, make_missing, name_ways_out
from dm.porcelain.present import refuse_untrusted_place
from dm.porcelain.publish import adopt
from dm.porcelain.select import find_skip_reason, select
from dm.porcelain.unlocked import find_unlocked, unlock_in_place
from dm.values import Digest, Outcome, fail, quote_word

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.plumbing.records.location import Location
    from dm.porcelain.copies import Copy
    from dm.porcelain.find import Weighed
    from dm.porcelain.project import Project


def unlock(project: Project, identifiers: Sequence[str], *, dry_run: bool = False) -> list[Outcome]:
    """Give each named dataset a private, writable copy; an outcome for each, with where it is.

    It is made of the copy in use, every byte of which is read and held against what it should be, and lies in the
    project's own scope; a copy that lies there already, or whose place is an expression inside the project, becomes
    private where it is. The state then leads there. What the user manages is unchanged: it was never read-only. With
    ``dry_run`` nothing is written. A kill leaves each copy whole.
    """
    selection = select(project, identifiers)
    outcomes = list(selection.failures)
    records: dict[str, Record] = {}
    for dataset in selection.datasets:
        try:
            outcomes.append(_unlock(project, dataset, records, dry_run=dry_run))
        except DmError as error:
            outcomes.append(fail(dataset.name, error))
    if records:
        project.merge_state_if_allowed(records)
    return outcomes


def _unlock(project: Project, dataset: Dataset, records: dict[str, Record], *, dry_run: bool) -> Outcome:
    skipped = find_skip_reason(dataset)
    if skipped is not None:
        return Outcome(dataset.name, "skipped", state="skipped", message=skipped)
    known = find_unlocked(project, dataset)
    if known is not None:
        return _finish(project, dataset, known, records, dry_run=dry_run)
    chosen = _choose(project, dataset)
    source = chosen.candidate.copy
    size_bytes = None if chosen.standing is None else chosen.standing.measured.size_bytes
    if source.user_managed:
        told = "it is yours already: dm never makes it read-only"
        return Outcome(dataset.name, "unchanged", path=source.path, size_bytes=size_bytes, message=told)
    target = _find_target(project, dataset)
    copy = source if source.path == target.path else project.copy_at(target)
    outcome = Outcome(dataset.name, "ok", path=target.path, size_bytes=size_bytes)
    is_new = copy is not source and not copy.exists()
    if not is_new and copy is not source:
        chosen = _weigh_target(project, dataset, copy)
    if is_new and copy.store is None:
        raise Refused(
            f"cannot unlock '{dataset.name}': it is used at '{source.path}', not at its location",
            hint=f"dm fetch --force {quote_word(dataset.name)} brings it to its location",
            code="not-at-location",
        )
    refuse_untrusted_place(project, dataset, target)
    if dry_run:
        done = "would be copied, to be edited" if is_new else "would become private and writable"
        return outcome._replace(message=done)
    with project.lock_copy(copy):
        if is_new:
            _copy(project, dataset, chosen, copy)
        else:
            _open(project, dataset, copy)
    _record(project, dataset, copy, records)
    return outcome._replace(message="unlocked: a private copy that you may edit")


def _choose(project: Project, dataset: Dataset) -> Weighed:
    """The copy in use. Raises when there is none whose bytes are right."""
    chosen = choose_copy(project, dataset)
    if chosen is None:
        raise make_missing(dataset)
    path = chosen.candidate.copy.path
    if chosen.verdict in ("use", "adopt"):
        return chosen
    if chosen.standing is None or chosen.verdict == "unknown":
        raise Refused(
            f"cannot unlock '{dataset.name}': nothing vouches for what lies at '{path}'",
            hint=f"dm fetch --force {quote_word(dataset.name)} puts it aside and fetches",
            code="place-taken",
        )
    raise _mismatch(project, dataset, chosen)


def _mismatch(project: Project, dataset: Dataset, weighed: Weighed) -> ContentMismatch:
    assert weighed.standing is not None
    damage = describe_damage(project, dataset, weighed.candidate.copy, weighed.standing)
    return ContentMismatch(
        f"cannot unlock '{dataset.name}': {damage}", hint=name_ways_out(dataset), code="copy-damaged"
    )


def _find_target(project: Project, dataset: Dataset) -> Location:
    """Where a private copy goes: the project's own scope, or its place where that is in the project."""
    own = project.locate_in_own_scope(dataset)
    if own is not None:
        return own
    location = project.locate(dataset)
    if not location.path.is_relative_to(project.root):
        raise Refused(
            f"cannot unlock '{dataset.name}': '{location.path}' is not in the project, and its place has no scopes",
            hint="copy it to where you want to change it, or take 'storage_path' out of its entry",
            code="no-scope",
        )
    return location


def _weigh_target(project: Project, dataset: Dataset, copy: Copy) -> Weighed:
    weighed = weigh(project, dataset, Candidate(copy, "scope", recorded=False))
    if weighed.verdict not in ("use", "adopt"):
        raise Refused(
            f"cannot unlock '{dataset.name}': '{copy.path}' holds data that is not its",
            hint="move it away",
            code="place-taken",
        )
    return weighed


def _copy(project: Project, dataset: Dataset, chosen: Weighed, copy: Copy) -> None:
    """A private copy of the one in use; what was written is read again."""
    source = chosen.candidate.copy
    expected: Digest | None = None if chosen.standing is None else chosen.standing.measured.digest
    assert copy.store is not None
    ref = source.read_ref()
    like = ref._replace(source_id=dataset.source_id) if ref is not None else Ref(source_id=dataset.source_id)
    if copy.exists():
        raise Refused(f"something came to lie at '{copy.path}'", hint="say it again", code="place-taken")
    copy.store.place_unlocked(source.path, copy.path, expected=expected, source_id=dataset.source_id, like=like)
    copy.note_revision(source.find_revision())


def _open(project: Project, dataset: Dataset, copy: Copy) -> None:
    """The copy where it lies, every byte of it read first. The caller holds its lock."""
    measured = None
    if not dataset.skip_checksum:
        candidate = Candidate(copy, "state", recorded=True)
        standing = judge(project, dataset, copy, quick=False, progress=project.progress)
        if standing.meets_contract is False or (standing.meets_contract is None and standing.as_last_seen is False):
            from dm.porcelain.find import Weighed

            raise _mismatch(project, dataset, Weighed(candidate, "wrong", standing))
        measured = standing.measured
        if not copy.is_marked() or not standing.as_last_seen:
            adopt(copy, dataset, measured)
    unlock_in_place(project, copy, measured)


def _finish(
    project: Project, dataset: Dataset, known: Candidate, records: dict[str, Record], *, dry_run: bool
) -> Outcome:
    """One that is unlocked already, or was when its run was killed: what is left to do is done."""
    copy = known.copy
    outcome = Outcome(dataset.name, "unchanged", path=copy.path, message="it is unlocked already")
    if dry_run or is_read_only(known):
        return outcome
    if not is_private(copy.path):
        with project.lock_copy(copy):
            unlock_in_place(project, copy, None)
        outcome = outcome._replace(status="ok", message="unlocked: a private copy that you may edit")
    if not copy.is_marked():
        with project.lock_copy(copy):
            weighed = weigh(project, dataset, known)
            if weighed.verdict == "adopt" and weighed.standing is not None:
                adopt(copy, dataset, weighed.standing.measured)
    if not known.recorded:
        _record(project, dataset, copy, records)
    return outcome


def _record(project: Project, dataset: Dataset, copy: Copy, records: dict[str, Record]) -> None:
    record = project.state.datasets.get(dataset.key.text)
    sha256 = None if record is None else record.sha256
    records[dataset.key.text] = Record(make_storage_path(project.root, copy.path), sha256)
