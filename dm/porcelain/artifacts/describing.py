"""Produced datasets: which there are, and all that is known of one. Changes nothing, and reads no data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dm.errors import NotFound
from dm.porcelain.artifacts.catalogue import Facts, find_spots, find_store, list_spots, read_facts

if TYPE_CHECKING:
    from dm.plumbing.records.sidecars import Metadata
    from dm.porcelain.project import Project


def list_artifacts(project: Project) -> Iterator[Facts]:
    """What is known of each artifact, one for each address: of the place that is looked into first."""
    seen: set[str] = set()
    missing = []
    for spot in list_spots(project):
        if spot.address in seen:
            continue
        if not spot.is_there:
            missing.append(spot)
            continue
        seen.add(spot.address)
        yield read_facts(project, spot)
    for spot in missing:
        if spot.address not in seen:
            seen.add(spot.address)
            yield read_facts(project, spot)


def find_artifact_path(project: Project, name: str) -> Path:
    """The folder of an artifact that is complete. Raises `NotFound` for one that is not there, or several."""
    for spot in find_spots(project, name):
        facts = read_facts(project, spot)
        if facts.state in ("complete", "untracked") and spot.folder is not None:
            return spot.folder
    raise NotFound(f"'{spot.name}' is not there", hint="call its function: it is computed again", code="missing")


def describe_artifact(project: Project, name: str) -> dict[str, object]:
    """All that is known of one artifact. Raises `NotFound` where there is none, or several.

    ``made`` tells of the last computation whose data lies there, ``earlier`` by name of data that former ones made.
    """
    spots = find_spots(project, name)
    facts = min((read_facts(project, spot) for spot in spots), key=lambda facts: facts.state == "missing")
    fields = tell_facts(facts)
    spot, metadata = facts.spot, facts.metadata
    recipe = next((known for key, known in project.state.datacache.items() if spot.hash in known.instances), None)
    others = [each.folder for each in spots if each.is_there and each.folder != spot.folder]
    return {
        **fields,
        "fault": facts.fault,
        "ref": None if recipe is None else recipe.ref,
        "store_root": find_store(spot),
        "others": others,
        "data": [{"name": name, "bytes": size} for name, size in facts.entries.items()],
        "digest": None if facts.ref is None else facts.ref.digest,
        "verified": None if facts.ref is None else facts.ref.verified,
        "disk": _count_own_bytes(project, facts),
        "recorded": spot.is_recorded,
        "made": _tell_origin(metadata),
        "earlier": {
            name: {"created": each.created or None, **_tell_origin(each)}
            for name, each in metadata.earlier.items()
            if name in facts.entries
        },
    }


def _tell_origin(metadata: Metadata) -> dict[str, object]:
    """Where data comes from, but for its time."""
    return {
        "tool": metadata.tool or None,
        "runtime": metadata.runtime or None,
        "host": metadata.host or None,
        "user": metadata.user or None,
        "duration_s": metadata.duration_s,
        "state_file": metadata.state_file or None,
        "code_digest": metadata.code_digest or None,
        "git": dict(metadata.git),
        "packages": dict(metadata.packages),
    }


def tell_facts(facts: Facts) -> dict[str, object]:
    """The fields of an artifact's row, as `--json` has them."""
    spot = facts.spot
    return {
        "kind": "cached",
        "name": spot.address,
        "cachetype": spot.cachetype,
        "version": spot.version or None,
        "hash": spot.hash,
        "params": None if facts.config is None else facts.config.params,
        "formats": facts.formats,
        "state": facts.state,
        "path": spot.folder if spot.is_there else None,
        "bytes": facts.size_bytes,
        "files": facts.files,
        "created": facts.metadata.created or None,
    }


def _count_own_bytes(project: Project, facts: Facts) -> int | None:
    from dm.plumbing.store.occupancy import count_own_bytes

    folder = facts.spot.folder
    if facts.state == "missing" or folder is None:
        return None
    roots = dict.fromkeys([*project.list_store_roots(), find_store(facts.spot)])
    stores = [project.open_store(root) for root in roots if root is not None]
    return count_own_bytes(folder, None if facts.ref is None else facts.ref.digest, stores=stores)
