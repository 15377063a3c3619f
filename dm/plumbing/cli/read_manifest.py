"""``dm read-manifest``."""

from __future__ import annotations

from dm.plumbing.cli.frame import Session, command


@command("read-manifest", json=False)
def COMMAND(session: Session) -> None:  # noqa: N802
    """Print the manifest as JSON: format, path, and datasets with their fields, key and landing path."""
    from dm.errors import DmError
    from dm.plumbing.cli.output import JSON_FORMAT, encode_value, write_json

    manifest = session.open_project().manifest
    datasets = {}
    for name, dataset in manifest.datasets.items():
        row: dict[str, object] = {"fields": encode_value(dataset.table)}
        try:
            row.update(key=dataset.key.text, landing=dataset.landing.text)
        except DmError as error:
            row.update(key=None, landing=None, fault=error.message)
        datasets[name] = row
    structure = {name: encode_value(value) for name, value in manifest.document.items() if name.startswith("_")}
    path = None if manifest.path is None else str(manifest.path)
    write_json({"format": JSON_FORMAT, "path": path, "structure": structure, "datasets": datasets})
