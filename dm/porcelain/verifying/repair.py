"""What failed is mended: from sound bytes in reach, a dataset at last from its source; or why it is left is said."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dm.errors import DmError, NotFound
from dm.plumbing.records.bindings import has_source
from dm.plumbing.store.refs import Ref
from dm.porcelain.find import choose_copy, is_read_only
from dm.porcelain.integrity import find_contract, judge, name_ways_out_of_edit
from dm.porcelain.materialize import FetchOptions, materialize
from dm.porcelain.mending import Mended, Mender
from dm.values import Digest, Outcome, fail

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.plumbing.store.disk import DiskStore
    from dm.porcelain.project import Project


def repair_dataset(project: Project, mender: Mender, dataset: Dataset, outcome: Outcome, *, named: bool) -> Outcome:
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
                return tell_mended(outcome, copy.path, standing.measured.digest, mended)
    return _fetch_anew(project, dataset, outcome)


def tell_mended(outcome: Outcome, path: Path, digest: Digest, mended: Mended) -> Outcome:
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


def repair_copy(mender: Mender, store: DiskStore, outcome: Outcome, inodes: frozenset[int] | None) -> Outcome:
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
    return tell_mended(outcome, store.root / outcome.name, ref.digest, mended)
