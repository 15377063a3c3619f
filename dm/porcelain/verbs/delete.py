"""``delete``: take one artifact away, with its ref and its record. Objects stay for `prune`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dm.errors import DmError, NotFound, Refused, UsageError
from dm.plumbing.records.state import resolve_storage_path
from dm.porcelain.artifacts.catalogue import Spot, find_spots, read_facts
from dm.porcelain.artifacts.removal import find_reason_to_stay, remove_artifact
from dm.values import Outcome, fail, printable, quote_word

if TYPE_CHECKING:
    from dm.porcelain.project import Project


def delete(project: Project, name: str, *, dry_run: bool = False) -> list[Outcome]:
    """Remove the one artifact that ``<cachetype>[/<version>]/<prefix>`` names, wherever it lies in folders of the
    project or in a store that the state leads to; an outcome for each folder, with its bytes.

    Copies in pools and in the peers' own folder stay (``skipped``). Whoever computes it now is waited for. With
    ``dry_run`` nothing is changed. Raises `NotFound` where there is none, or several; `UsageError` for a name that none
    can have, and for a declared dataset's; `Refused` when none of its folders is `dm`'s to remove.
    """
    try:
        spots = find_spots(project, name)
    except (NotFound, UsageError) as error:
        if error.code == "ambiguous" or not _is_declared(project, name):
            raise
        hint = f"dm rm --delete {quote_word(name)} takes it out of the manifest, with its copy"
        raise UsageError(f"'{printable(name)}' is a declared dataset", hint=hint, code="declared") from error
    judged = [(spot, find_reason_to_stay(project, spot)) for spot in spots if spot.is_there]
    if judged and all(reason is not None for _, reason in judged):
        spot, reason = judged[0]
        raise Refused(f"cannot delete '{spot.folder}': {reason}", hint=_hint(spot), code="not-ours")
    outcomes = []
    for spot, reason in judged:
        outcomes.append(_remove(project, spot, dry_run=dry_run) if reason is None else _skip(spot, reason))
    if not judged:
        told = "its record would be removed" if dry_run else "its record is removed"
        outcomes.append(Outcome(spots[0].address, "ok", state="missing", message=f"{told}; it was not there"))
    records = _find_records(project, spots)
    if records and not dry_run and not any(outcome.failed for outcome in outcomes):
        project.merge_recipes({}, records)
    return outcomes


def _is_declared(project: Project, name: str) -> bool:
    try:
        project.manifest.find(name)
    except NotFound:
        return False
    return True


def _skip(spot: Spot, reason: str) -> Outcome:
    return Outcome(spot.address, "skipped", path=spot.folder, message=f"'{spot.folder}' stays: {reason}")


def _hint(spot: Spot) -> str:
    if spot.root is not None and spot.root.store_root is not None:
        return "dm trust shows what the project asks for"
    return "delete it by hand, or with the tool that put it there"


def _remove(project: Project, spot: Spot, *, dry_run: bool) -> Outcome:
    facts = read_facts(project, spot)
    outcome = Outcome(spot.address, "ok", path=spot.folder, state=facts.state, size_bytes=facts.size_bytes)
    try:
        if dry_run:
            return outcome._replace(message="would be removed")
        is_removed = remove_artifact(project, spot)
    except DmError as error:
        return fail(spot.address, error)._replace(path=spot.folder)
    return outcome._replace(message="removed" if is_removed else "was gone already")


def _find_records(project: Project, spots: Sequence[Spot]) -> list[tuple[str, str]]:
    """The records of what is removed: those of the artifact, and those that lead to one of its folders."""
    folders = {spot.folder for spot in spots if spot.folder is not None}
    param_hash = spots[0].hash
    found = []
    for key, recipe in project.state.datacache.items():
        path = recipe.instances.get(param_hash)
        if path is None:
            continue
        folder = resolve_storage_path(project.root, path) if path else None
        same_name = key.replace("@", "/", 1) == os.path.dirname(spots[0].address)
        if same_name or folder in folders:
            found.append((key, param_hash))
    return found
