"""Produced datasets are held against the refs of the stores that own their folders, and mended from other copies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dm.errors import DmError, NotFound
from dm.porcelain.artifacts.catalogue import Spot, find_spots, find_store, list_spots
from dm.porcelain.artifacts.removal import find_reason_to_stay
from dm.porcelain.looking import Look
from dm.porcelain.verifying.copies import prepare_copy
from dm.values import Outcome, fail

if TYPE_CHECKING:
    from dm.plumbing.store.disk import DiskStore
    from dm.plumbing.store.refs import Ref
    from dm.porcelain.mending import Mender
    from dm.porcelain.project import Project
    from dm.porcelain.verifying.options import VerifyOptions
    from dm.progress import Progress

_COMPUTED_AGAIN = "no sound copy is in reach: it is computed again when its function is called"


def list_recorded(project: Project) -> list[Spot]:
    """The artifacts that the project's state records."""
    return [spot for spot in list_spots(project) if spot.is_recorded]


def find_named(project: Project, name: str) -> list[Spot]:
    """The folders of the one artifact that is named which are in a store; where none is, those in pools; its recorded
    place where it is nowhere. Raises as `find_spots` does.
    """
    spots = find_spots(project, name)
    there = [spot for spot in spots if spot.is_there]
    return [spot for spot in there if find_store(spot) is not None] or there or spots[:1]


def prepare_artifact(project: Project, spot: Spot, options: VerifyOptions, *, named: bool) -> Look:
    """The look at one artifact: every byte against its ref. What peers added beside it in its folder is no fault."""

    def settled(outcome: Outcome) -> Look:
        return Look(spot.address, None, lambda _progress: outcome)

    if not spot.is_there or spot.folder is None:
        if named:
            hint = "call its function: it is computed again"
            error = NotFound(f"'{spot.name}' is not there", hint=hint, code="missing")
            return settled(fail(spot.address, error))
        return settled(Outcome(spot.address, "skipped", path=spot.folder, state="missing", message="not there"))
    try:
        owned = _find_ref(project, spot)
        reason = find_reason_to_stay(project, spot)
    except DmError as error:
        return settled(fail(spot.address, error)._replace(path=spot.folder))
    if owned is None:
        told = "nothing says what its bytes should be: no ref of its store"
        return settled(
            Outcome(spot.address, "skipped", path=spot.folder, state="untracked", code="no-ref", message=told)
        )
    store, ref = owned
    look = prepare_copy(store, store.ref_name(spot.folder), ref, options, record=reason is None)

    def run(progress: Progress) -> Outcome:
        outcome = look.run(progress)._replace(name=spot.address)
        if not outcome.failed:
            return outcome
        hint = f"dm verify --repair {spot.name} mends it; else it is computed again when its function is called"
        return outcome._replace(hint=hint)

    return Look(spot.address, look.verified, run)


def repair_artifact(project: Project, mender: Mender, spot: Spot, outcome: Outcome, *, dry_run: bool) -> Outcome:
    """Make an artifact what its ref says, from objects and other copies of it; it has no other source."""
    from dm.porcelain.planning import plan_copy
    from dm.porcelain.verifying.repair import tell_fault, tell_mended, tell_planned

    try:
        owned = _find_ref(project, spot)
        reason = find_reason_to_stay(project, spot)
        if owned is None or spot.folder is None:
            return outcome  # forgotten, or removed, meanwhile
        if reason is not None:
            return outcome._replace(hint=f"it is left: {reason}")
        (store, ref), folder = owned, spot.folder
        assert ref.digest is not None
        mender.add_copies(lambda: _list_others(project, spot))
        if dry_run:
            mender.look_beside(store, store.ref_name(folder))
            planned = plan_copy(mender.sound, folder, ref, ref.digest, store=store, keep_siblings=True)
            if planned.left:
                return outcome._replace(differences=planned.left, hint=_COMPUTED_AGAIN)
            return tell_planned(outcome, str(planned))
        mended = mender.mend_copy(store, store.ref_name(folder), ref, ref.digest, keep_siblings=True)
    except NotFound:
        return outcome._replace(hint=_COMPUTED_AGAIN)
    except DmError as error:
        return tell_fault(outcome, error)
    if mended.left:
        return outcome._replace(differences=mended.left, hint=_COMPUTED_AGAIN)
    linked = mender.mend_linked()
    return tell_mended(outcome, folder, ref.digest, mended, size_bytes=ref.size_bytes, linked=linked)


def _find_ref(project: Project, spot: Spot) -> tuple[DiskStore, Ref] | None:
    """The store that owns an artifact's folder, and what it last saw there; None where it knows no digest."""
    root = find_store(spot)
    if root is None or spot.folder is None:
        return None
    store = project.open_store(root)
    ref = store.read_ref(spot.folder)
    return None if ref is None or ref.digest is None else (store, ref)


def _list_others(project: Project, spot: Spot) -> Iterator[Path]:
    for other in list_spots(project):
        if other.address == spot.address and other.folder not in (None, spot.folder):
            assert other.folder is not None
            yield other.folder
