"""``dm read-state``."""

from __future__ import annotations

from dm.plumbing.cli.frame import Session, command


@command("read-state", json=False)
def COMMAND(session: Session) -> None:  # noqa: N802
    """Print the state as JSON: format, and under datasets each key with storage_path, path (absolute) and sha256."""
    from dm.plumbing.cli.output import JSON_FORMAT, write_json
    from dm.plumbing.records.state import resolve_storage_path

    project = session.open_project()
    datasets = {
        key: {
            "storage_path": record.storage_path,
            "path": str(resolve_storage_path(project.root, record.storage_path)),
            "sha256": record.sha256,
        }
        for key, record in project.state.datasets.items()
    }
    cached = {
        name: {"ref": recipe.ref, "format": recipe.format, "instances": dict(recipe.instances)}
        for name, recipe in project.state.datacache.items()
    }
    write_json({"format": JSON_FORMAT, "datasets": datasets, "datacache": cached})
