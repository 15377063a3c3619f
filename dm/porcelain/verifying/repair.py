"""What failed is mended: from sound bytes in reach, a dataset at last from its source; or why it is left is said."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dm.errors import DmError, NotFound
from dm.plumbing.fs.publish import remove_tree
from dm.plumbing.records.bindings import has_source
from dm.plumbing.store.measure import measure_copy
from dm.plumbing.store.refs import Ref
from dm.porcelain.broken_paths import Inode, is_artifact
from dm.porcelain.building import build_copy
from dm.porcelain.find import Candidate, choose_copy, find_lost_copy, is_read_only
from dm.porcelain.integrity import find_contract, judge, name_ways_out_of_edit
from dm.porcelain.materialize import FetchOptions, materialize
from dm.porcelain.mending import Mended, Mender
from dm.porcelain.planning import plan_copy
from dm.porcelain.publish import adopt, publish
from dm.porcelain.staging import Staged, find_staging
from dm.porcelain.verifying.reach import find_copies_of
from dm.values import Difference, Digest, Outcome, fail, quote_word

#: What is told of a copy that was gone.
_RESTORED = "it was gone, and is back from sound copies"

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.plumbing.store.disk import DiskStore
    from dm.porcelain.copies import Copy
    from dm.porcelain.project import Project


def repair_dataset(
    project: Project, mender: Mender, dataset: Dataset, outcome: Outcome, *, named: bool, dry_run: bool = False
) -> Outcome:
    """Mend one dataset's copy that failed, or say why it is left alone."""
    chosen = choose_copy(project, dataset, weigh_bytes=False)
    if chosen is None:
        return restore_dataset(project, mender, dataset, outcome, named=named, dry_run=dry_run)
    copy = chosen.candidate.copy
    reason = _find_reason_to_leave(project, dataset, chosen.candidate, named=named)
    if reason is not None:
        return outcome._replace(hint=reason)
    try:
        expected = _find_expected(project, dataset, copy, copy.read_ref())
        if expected is not None and expected != outcome.digest:
            _look_elsewhere(project, mender, dataset, copy, expected)
            if dry_run:
                return _plan_dataset(mender, dataset, copy, outcome, expected)
            mended = _mend_dataset(project, mender, dataset, copy, expected)
            if mended is not None and not mended.left:
                standing = judge(project, dataset, copy, quick=True)
                if standing.meets_contract is not False:
                    linked, measured = mender.mend_linked(), standing.measured
                    return tell_mended(
                        outcome, copy.path, measured.digest, mended, size_bytes=measured.size_bytes, linked=linked
                    )
        elif dry_run:
            return tell_planned(outcome, _tell_source(dataset))
        repaired = _fetch_anew(project, dataset, outcome)
        return _look_again(project, dataset, copy, repaired) if repaired.failed else repaired
    except DmError as error:
        return tell_fault(outcome, error)


def restore_dataset(
    project: Project, mender: Mender, dataset: Dataset, outcome: Outcome, *, named: bool, dry_run: bool = False
) -> Outcome:
    """Bring back a dataset's copy that was seen at its place and is gone, from sound bytes in reach. Nothing is fetched
    for it: without them it is missing as it was, and so is what was never here.
    """
    try:
        lost = find_lost_copy(project, dataset)
        if lost is None:
            return outcome
        reason = _find_reason_to_leave(project, dataset, lost, named=named)
        if reason is not None:
            return outcome._replace(hint=reason)
        copy, ref = lost.copy, lost.copy.read_ref() or Ref()
        expected = _find_expected(project, dataset, copy, ref)
        if expected is None:
            return outcome
        _look_elsewhere(project, mender, dataset, copy, expected)
        if dry_run:
            planned = plan_copy(mender.sound, copy.path, ref, expected, store=copy.store)
            return outcome if planned.left else tell_planned(outcome, str(planned))
        restored = not copy.exists()
        if copy.store is not None:
            restored = mender.restore_copy(copy.store, copy.store.ref_name(copy.path), ref, expected)
        elif restored:
            _mend_alone(project, mender, dataset, copy, expected, aside=None)
        again = _look_again(project, dataset, copy, outcome)
    except NotFound:
        return outcome
    except DmError as error:
        return fail(outcome.name, error)
    return again._replace(message=_RESTORED) if restored and again.code == "mended" else again


def mark_dataset(project: Project, dataset: Dataset, outcome: Outcome, *, named: bool) -> Outcome:
    """Mark a copy that was found right and is not marked as complete, as a killed repair leaves it."""
    chosen = choose_copy(project, dataset, weigh_bytes=False)
    if chosen is None or chosen.candidate.copy.user_managed or chosen.candidate.copy.is_marked():
        return outcome
    copy = chosen.candidate.copy
    if _find_reason_to_leave(project, dataset, chosen.candidate, named=named) is not None:
        return outcome
    try:
        with project.lock_copy(copy):
            standing = judge(project, dataset, copy, quick=True)
            if standing.measured.digest != outcome.digest:
                return outcome
            adopt(copy, dataset, standing.measured)
    except DmError as error:
        return fail(dataset.name, error)
    return outcome._replace(code="mended", message="its bytes are right; it was not marked as complete, and is now")


def _find_reason_to_leave(project: Project, dataset: Dataset, candidate: Candidate, *, named: bool) -> str | None:
    """Why a copy is not mended, as a hint; None where it may be."""
    copy = candidate.copy
    if not named and (copy.user_managed or find_contract(dataset) is None):
        told = "it is yours" if copy.user_managed else "it has no contract"
        return f"{told} and is mended only by name: dm verify --repair {quote_word(dataset.name)}"
    if copy.is_unlocked():
        return name_ways_out_of_edit(dataset)
    if is_read_only(candidate) or project.find_distrust(dataset, copy):
        return "it lies where dm may not write"
    return None


def _look_again(project: Project, dataset: Dataset, copy: Copy, outcome: Outcome) -> Outcome:
    """A failure stands only when it is still one once nobody works on the copy: a fetch or another repair beside this
    one may have had it in hand.
    """
    with project.lock_copy(copy):
        if not copy.exists():
            return outcome
        standing = judge(project, dataset, copy, quick=False)
    right = standing.as_last_seen if standing.meets_contract is None else standing.meets_contract
    if not right or not copy.is_marked():
        return outcome
    measured = standing.measured
    return tell_mended(outcome, copy.path, measured.digest, Mended(0, (), ()), size_bytes=measured.size_bytes)


def _mend_dataset(
    project: Project, mender: Mender, dataset: Dataset, copy: Copy, expected: Digest
) -> Mended | None:
    """Make a dataset's copy what it should be, of sound bytes; None where they are not to be had."""
    try:
        if copy.store is not None:
            ref = copy.read_ref() or Ref()
            return mender.mend_copy(copy.store, copy.store.ref_name(copy.path), ref, expected)
        return _mend_alone(project, mender, dataset, copy, expected, aside="and was not what it should be")
    except NotFound:
        return None


def _look_elsewhere(project: Project, mender: Mender, dataset: Dataset, copy: Copy, expected: Digest) -> None:
    own = copy.path
    mender.add_copies(lambda: (path for path in find_copies_of(project, dataset) if path != own))
    mender.add_copies(lambda: (path for path in _find_noted(project, expected) if path != own))


def _plan_dataset(mender: Mender, dataset: Dataset, copy: Copy, outcome: Outcome, expected: Digest) -> Outcome:
    try:
        planned = plan_copy(mender.sound, copy.path, copy.read_ref() or Ref(), expected, store=copy.store)
    except NotFound:
        return tell_planned(outcome, _tell_source(dataset))
    if planned.left:
        return tell_planned(outcome, _tell_source(dataset))
    return tell_planned(outcome, str(planned))


def _tell_source(dataset: Dataset) -> str | None:
    return "no sound copy is in reach: it would be fetched again" if has_source(dataset) else None


def tell_planned(outcome: Outcome, told: str | None) -> Outcome:
    """What a repair would do about a failure, which stays one; without ``told`` there is nothing that it could do."""
    if told is None:
        return outcome._replace(hint="no sound copy is in reach, and it has no source")
    return outcome._replace(code="would-mend", message=f"{outcome.message}; {told}", hint=None)


def _find_expected(project: Project, dataset: Dataset, copy: Copy, ref: Ref | None) -> Digest | None:
    """The id of the bytes that a copy should have; None where nothing tells it."""
    contract = find_contract(dataset)
    if contract is None:
        return None if ref is None else ref.digest
    if contract.algorithm in ("blake3", "blake3-tree"):
        return contract
    if dataset.extract:
        # The checksum is the archive's. What was unpacked of it was seen when it came from this source.
        return ref.digest if ref is not None and ref.source_id == dataset.source_id else None
    known = project.find_blob_id(contract)
    if known is not None:
        return known
    for path in find_copies_of(project, dataset):
        if path != copy.path and os.path.lexists(path):
            try:
                measured = measure_copy(path, algorithm=contract.algorithm, stat_cache=project.stat_cache)
            except DmError:
                continue  # one that cannot be read is of no help
            if measured.checksum == contract:
                return measured.digest
    return None


def _find_noted(project: Project, expected: Digest) -> Iterator[Path]:
    """Copies outside any store that had, when this checkout saw them last, these bytes; or folders, for a folder."""
    for path in project.notes.list_copies():
        ref = project.notes.find(path)
        seen = None if ref is None else ref.digest
        if seen is not None and (seen == expected or (seen.is_tree and expected.is_tree)):
            yield path


def _mend_alone(
    project: Project, mender: Mender, dataset: Dataset, copy: Copy, expected: Digest, *, aside: str | None
) -> Mended:
    """A copy in no store is made anew as a whole; with ``aside``, a reason, it takes the place of the bad one. Raises
    `NotFound`.
    """
    ref = copy.read_ref()
    size_bytes = ref.size_bytes if ref is not None and ref.digest == expected else None
    if expected.is_tree:
        mender.add_copies(lambda: [copy.path])  # what is right in it serves too
    with project.lock_copy(copy):
        staging = find_staging(project, dataset, copy)
        entry = staging.make_folder() / "sound"
        remove_tree(entry)
        try:
            build_copy(mender.sound, expected, entry, size_bytes=size_bytes, name=os.fsencode(copy.path.name))
            tree = measure_copy(entry) if expected.is_tree else None
            staged = Staged(entry, staging, None if expected.is_tree else expected, tree=tree)
            [result] = publish(project, [(dataset, copy, staged)], aside=aside)
        finally:
            remove_tree(staging.own_folder)
    if isinstance(result, DmError):
        raise result
    return Mended(1, () if result.kept is None else (result.kept,), ())


def tell_mended(
    outcome: Outcome,
    path: Path,
    digest: Digest,
    mended: Mended,
    *,
    size_bytes: int | None,
    linked: Sequence[Path] = (),
) -> Outcome:
    """A failure that was mended; ``linked`` are other copies that shared its bad bytes and were mended with it."""
    kept = f"; the bad bytes are kept in '{mended.kept[0].parent}'" if mended.kept else ""
    also = f", also in '{linked[0]}'" if linked else ""
    also += f" and {len(linked) - 1} more" if len(linked) > 1 else ""
    paths = "1 path" if mended.paths == 1 else f"{mended.paths} paths"
    told = f"mended {paths} from sound copies" if mended.paths else "sound again: something else mended it meanwhile"
    return outcome._replace(
        status="ok", state="clean", path=path, digest=digest, size_bytes=size_bytes, code="mended", exit_status=0,
        hint=None, message=f"{told}{also}{kept}",
    )  # fmt: skip


def tell_fault(outcome: Outcome, error: DmError) -> Outcome:
    """A failure that stays one, with what went wrong when it was to be mended."""
    return outcome._replace(message=f"{outcome.message}; {error.message}", hint=error.hint, error=error)


def _fetch_anew(project: Project, dataset: Dataset, outcome: Outcome) -> Outcome:
    """The last way: the source. What lay there is put aside first."""
    if not has_source(dataset):
        return outcome._replace(hint="no sound copy is in reach, and it has no source")
    fetched = materialize(project, [dataset], FetchOptions(jobs=1, force=True)).outcomes[-1]
    if fetched.failed:
        return outcome._replace(message=f"{outcome.message}; no sound copy is in reach, and {fetched.message}")
    return fetched._replace(status="ok", code="mended", message="mended from its source")


def repair_copy(
    mender: Mender, store: DiskStore, outcome: Outcome, inodes: frozenset[Inode] | None, *, dry_run: bool
) -> Outcome:
    """Make a copy what its ref says, or with ``inodes`` what of it is a link to these; say what could not be mended."""
    try:
        ref = store.read_ref(outcome.name)
        if ref is None or ref.digest is None:
            return outcome
        if dry_run:
            return _plan_repair(mender, store, outcome, ref, inodes)
        if outcome.exit_status == 3:
            if not mender.restore_copy(store, outcome.name, ref, ref.digest):
                return outcome  # something has come to lie there
            path, nothing = store.root / outcome.name, Mended(0, (), ())
            told = tell_mended(outcome, path, ref.digest, nothing, size_bytes=ref.size_bytes)
            return told._replace(message=_RESTORED)
        keep = is_artifact(outcome.name)
        mended = mender.mend_copy(store, outcome.name, ref, ref.digest, inodes=inodes, keep_siblings=keep)
    except DmError as error:
        return tell_fault(outcome, error)
    if mended.left:
        return _tell_left(outcome, mended.left, inodes)
    linked = mender.mend_linked() if inodes is None else []
    path = store.root / outcome.name
    return tell_mended(outcome, path, ref.digest, mended, size_bytes=ref.size_bytes, linked=linked)


def _plan_repair(
    mender: Mender, store: DiskStore, outcome: Outcome, ref: Ref, inodes: frozenset[Inode] | None
) -> Outcome:
    assert ref.digest is not None
    mender.look_beside(store, outcome.name)
    copy, keep = store.root / outcome.name, is_artifact(outcome.name)
    planned = plan_copy(mender.sound, copy, ref, ref.digest, store=store, inodes=inodes, keep_siblings=keep)
    if planned.left and (not planned.steps or outcome.exit_status == 3):
        return _tell_left(outcome, planned.left, inodes)
    return tell_planned(outcome, str(planned))


def _tell_left(outcome: Outcome, left: Sequence[Difference], inodes: frozenset[Inode] | None) -> Outcome:
    hint = "its project's dm verify --repair knows the contract; or name its path"
    return outcome._replace(differences=left, hint=hint if inodes is not None else "restore it by hand")
