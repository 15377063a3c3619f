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
from dm.porcelain.find import choose_copy, is_read_only
from dm.porcelain.integrity import find_contract, judge, name_ways_out_of_edit
from dm.porcelain.materialize import FetchOptions, materialize
from dm.porcelain.mending import Mended, Mender
from dm.porcelain.planning import plan_copy
from dm.porcelain.publish import publish
from dm.porcelain.staging import Staged, find_staging
from dm.porcelain.verifying.reach import find_copies_of
from dm.values import Difference, Digest, Outcome

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
    mended = None
    try:
        expected = _find_expected(project, dataset, copy, copy.read_ref())
        if expected is not None and expected != outcome.digest:
            _look_elsewhere(project, mender, dataset, copy, expected)
            if dry_run:
                return _plan_dataset(mender, dataset, copy, outcome, expected)
            mended = _mend_dataset(project, mender, dataset, copy, expected)
        elif dry_run:
            return tell_planned(outcome, _tell_source(dataset))
    except DmError as error:
        return tell_fault(outcome, error)
    if mended is not None and not mended.left:
        standing = judge(project, dataset, copy, quick=True)
        if standing.meets_contract is not False:
            linked = mender.mend_linked()
            return tell_mended(outcome, copy.path, standing.measured.digest, mended, linked=linked)
    return _fetch_anew(project, dataset, outcome)


def _mend_dataset(
    project: Project, mender: Mender, dataset: Dataset, copy: Copy, expected: Digest
) -> Mended | None:
    """Make a dataset's copy what it should be, of sound bytes; None where they are not to be had."""
    try:
        if copy.store is not None:
            ref = copy.read_ref() or Ref()
            return mender.mend_copy(copy.store, copy.store.ref_name(copy.path), ref, expected)
        return _mend_alone(project, mender, dataset, copy, expected)
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


def _mend_alone(project: Project, mender: Mender, dataset: Dataset, copy: Copy, expected: Digest) -> Mended:
    """A copy in no store is made anew as a whole and takes the place of the bad one. Raises `NotFound`."""
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
            [result] = publish(project, [(dataset, copy, staged)], aside="and was not what it should be")
        finally:
            remove_tree(staging.own_folder)
    if isinstance(result, DmError):
        raise result
    return Mended(1, () if result.kept is None else (result.kept,), ())


def tell_mended(
    outcome: Outcome, path: Path, digest: Digest, mended: Mended, *, linked: Sequence[Path] = ()
) -> Outcome:
    """A failure that was mended; ``linked`` are other copies that shared its bad bytes and were mended with it."""
    kept = f"; the bad bytes are kept in '{mended.kept[0].parent}'" if mended.kept else ""
    also = f", also in '{linked[0]}'" if linked else ""
    also += f" and {len(linked) - 1} more" if len(linked) > 1 else ""
    paths = "1 path" if mended.paths == 1 else f"{mended.paths} paths"
    told = f"mended {paths} from sound copies" if mended.paths else "sound again: something else mended it meanwhile"
    return outcome._replace(
        status="ok", state="clean", path=path, digest=digest, code="mended", exit_status=0, hint=None,
        message=f"{told}{also}{kept}",
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
        keep = is_artifact(outcome.name)
        mended = mender.mend_copy(store, outcome.name, ref, ref.digest, inodes=inodes, keep_siblings=keep)
    except DmError as error:
        return tell_fault(outcome, error)
    if mended.left:
        return _tell_left(outcome, mended.left, inodes)
    linked = mender.mend_linked() if inodes is None else []
    return tell_mended(outcome, store.root / outcome.name, ref.digest, mended, linked=linked)


def _plan_repair(
    mender: Mender, store: DiskStore, outcome: Outcome, ref: Ref, inodes: frozenset[Inode] | None
) -> Outcome:
    assert ref.digest is not None
    mender.look_beside(store, outcome.name)
    copy, keep = store.root / outcome.name, is_artifact(outcome.name)
    planned = plan_copy(mender.sound, copy, ref, ref.digest, store=store, inodes=inodes, keep_siblings=keep)
    if planned.left and not planned.steps:
        return _tell_left(outcome, planned.left, inodes)
    return tell_planned(outcome, str(planned))


def _tell_left(outcome: Outcome, left: Sequence[Difference], inodes: frozenset[Inode] | None) -> Outcome:
    hint = "its project's dm verify --repair knows the contract; or name its path"
    return outcome._replace(differences=left, hint=hint if inodes is not None else "restore it by hand")
