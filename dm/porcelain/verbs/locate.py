"""``path`` and ``show``: where a dataset is, declared or produced, and all that is known of it. Changes nothing."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from dm.errors import NotFound
from dm.porcelain.artifacts.catalogue import means_artifact
from dm.porcelain.artifacts.describing import describe_artifact, find_artifact_path
from dm.porcelain.find import find_known_copy
from dm.porcelain.integrity import make_missing
from dm.porcelain.select import find_skip_reason
from dm.porcelain.states import tell_state

if TYPE_CHECKING:
    from pathlib import Path

    from dm.plumbing.records.dataset import Dataset
    from dm.porcelain.copies import Copy
    from dm.porcelain.project import Project


def find_path(project: Project, identifier: str) -> Path:
    """Where a dataset's copy is now: complete, and known as this dataset's by its ref, its digest or the state; or the
    folder of the produced one that ``<cachetype>[/<version>]/<prefix>`` names, unless a declared one has this name.

    No byte is read: `fetch` and `verify` are what vouch for bytes. Raises `NotFound` when it is not there.
    """
    if means_artifact(project, identifier):
        return find_artifact_path(project, identifier)
    dataset = project.manifest.find(identifier)
    if dataset.lazy_access:
        message = f"'{dataset.name}' has no path: it is opened in place (lazy_access)"
        raise NotFound(message, hint=f"dm.load({dataset.name!r}) in Python opens it", code="lazy-access")
    project.look_anew()
    candidate = find_known_copy(project, dataset)
    if candidate is None:
        raise make_missing(dataset)
    return candidate.copy.path


def describe(project: Project, identifier: str) -> dict[str, object]:
    """All that is known of a dataset: its entry, key, location with the rules that led there, copy, ref and record; its
    state with the digests that were held against each other for it.

    As for `status`, bytes are read only where the stat cache does not vouch for them. Of a produced dataset, named as
    for `find_path`, what is known of that; ``kind`` is ``data`` or ``cached``.
    """
    if means_artifact(project, identifier):
        return describe_artifact(project, identifier)
    dataset = project.manifest.find(identifier)
    location = project.locate(dataset)
    project.look_anew()
    candidate = None if find_skip_reason(dataset) else find_known_copy(project, dataset)
    ref = None if candidate is None else candidate.copy.read_ref()
    record = project.state.datasets.get(dataset.key.text)
    told = tell_state(project, dataset)
    return {
        "kind": "data",
        "name": dataset.name,
        "key": dataset.key.text,
        "declared": dict(dataset.table),
        "location": location.path,
        "store_root": location.store_root,
        "user_managed": location.user_managed,
        "scope": location.scope,
        "path": None if candidate is None else candidate.copy.path,
        "state": told.state,
        "way_out": told.hint,
        "digests": dict(told.digests),
        "unlocked": None if candidate is None else candidate.copy.is_unlocked(),
        "access": None if candidate is None else _tell_access(dataset, candidate.copy),
        "digest": None if ref is None else ref.digest,
        "bytes": None if ref is None else ref.size_bytes,
        "disk": None if candidate is None else _count_own_bytes(project, candidate.copy),
        "files": None if ref is None else ref.files,
        "verified": None if ref is None else ref.verified,
        "revision": None if candidate is None else candidate.copy.find_revision(),
        "recorded": None if record is None else record.storage_path,
        "trusted": project.is_trusted() if project.trust.is_needed() else None,
        "rules": [
            {
                "rule": rule.name,
                "wins": rule.wins,
                "reason": rule.reason,
                "rungs": [f"{rung.name}={rung.value} ({rung.origin})" for rung in rule.rungs],
            }
            for rule in project.places.explain_location(dataset)
        ],
    }


def _tell_access(dataset: Dataset, copy: Copy) -> str:
    """Whether the copy may be edited, and what to do where it may not: programs only say "permission denied"."""
    if copy.user_managed:
        return "yours: dm never makes it read-only"
    if copy.is_unlocked():
        return f"unlocked: you may edit it; dm lock {shlex.quote(dataset.name)} makes it read-only again"
    shared = "it may share its bytes with other copies"
    return f"read-only, since {shared}; dm unlock {shlex.quote(dataset.name)} makes a copy that you may edit"


def _count_own_bytes(project: Project, copy: Copy) -> int:
    from dm.plumbing.store.occupancy import count_own_bytes

    ref = copy.read_ref()
    stores = list(project.list_readable_stores())
    return count_own_bytes(copy.path, None if ref is None else ref.digest, stores=stores)
