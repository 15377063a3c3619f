"""Edits of a manifest's file: one at a time among `dm`s, and nothing lost to a peer that takes no lock.

Under the manifest's lock (``.datamanifest/manifest.lock`` beside the file) the text is read, changed in place, checked
and renamed over the old one. When a peer has changed the file meanwhile, the change is made again on its text.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from dm.errors import MachineFailed, NotFound
from dm.plumbing.records.manifest import Manifest
from dm.plumbing.records.private import ensure_private_folder
from dm.plumbing.records.rewrite import RecordFile, Rewrite, RewriteOptions, rewrite_record
from dm.plumbing.records.toml import dump_canonical
from dm.plumbing.records.toml_edit import TableName, edit_tables
from dm.progress import SILENT, Progress
from dm.values import printable

LOCK_NAME = "manifest.lock"

#: Fields to set by dataset (or path of a table): None as a field removes it, None for a whole table removes that.
TableChanges = Mapping[TableName, Mapping[str, object] | None]
#: Says what to set, seeing the manifest as it is now.
Change = Callable[[Manifest], TableChanges] | Callable[[Manifest], Mapping[str, Mapping[str, object] | None]]


class EditOptions(NamedTuple):
    """How a manifest is edited. ``canonical`` writes the whole file in canonical form; ``replace`` lets a table that
    is set lose the fields that are not named; ``holder`` is what those who wait for the lock are shown
    (``<pid> <hostname>``).
    """

    canonical: bool = False
    replace: bool = False
    holder: str | None = None
    progress: Progress = SILENT


def edit_manifest(
    path: Path,
    change: Change,
    options: EditOptions = EditOptions(),  # noqa: B008 - a frozen value
) -> Manifest:
    """Change a manifest's file and return it as it then is.

    ``change`` gets the manifest as it is now and returns what to set; it may be called several times and may raise to
    leave the file alone. Only the lines concerned change. A symlink is edited where it points; mode and owner are
    kept; nothing is written when nothing changes. Where ``checksum`` is set, its older spelling ``sha256`` goes.

    Raises `NotFound` for a missing file, `Malformed` when it cannot be read or would be malformed afterwards,
    `MachineFailed` when it cannot be written, one without any write permission included. A crash leaves the old text or
    the new one.
    """
    target = Path(os.path.realpath(path))
    if not target.exists():
        raise NotFound(f"no manifest '{printable(str(path))}'", hint="dm init makes one", code="manifest-missing")
    result: list[Manifest] = []

    def build(found: list[RecordFile]) -> Rewrite | None:
        file = found[0]
        manifest, data = _change(path, file, change, options)
        result[:] = [manifest]
        if data == file.content:
            return None
        _check_writable(path, file)
        return Rewrite(file, data)

    lock = ensure_private_folder(target.parent) / LOCK_NAME
    rewriting = RewriteOptions(lock, f"'{printable(str(path))}'", options.holder, progress=options.progress)
    rewrite_record([target], build, rewriting)
    return result[0]


def _change(
    path: Path,
    file: RecordFile,
    change: Change,
    options: EditOptions,
) -> tuple[Manifest, bytes]:
    if file.content is None:
        raise NotFound(
            f"no manifest '{printable(str(path))}'", hint="it was there a moment ago", code="manifest-missing"
        )
    manifest = Manifest.parse(file.content, path)
    wanted = {
        name: None if fields is None else _complete(manifest, name, fields, replace=options.replace)
        for name, fields in change(manifest).items()
    }
    edited = edit_tables(manifest.text, wanted, document=manifest.document)
    if edited.text == manifest.text:
        return manifest, file.content
    data = dump_canonical(edited.document) if options.canonical else edited.text.encode("utf-8")
    text = data.decode("utf-8") if options.canonical else edited.text
    return Manifest(edited.document, text=text, path=path), data


def _complete(
    manifest: Manifest, name: TableName, fields: Mapping[str, object], *, replace: bool
) -> Mapping[str, object]:
    dataset = manifest.datasets.get(name) if isinstance(name, str) else None
    if dataset is None:
        return fields
    completed = dict(fields)
    if replace:
        completed = {**dict.fromkeys(dataset.table), **completed}
    elif fields.get("checksum") and "sha256" in dataset.table:
        completed.setdefault("sha256", None)
    return completed


def _check_writable(path: Path, file: RecordFile) -> None:
    # A rename would replace a read-only file: its mode says that nobody wants that, root included.
    if file.status is not None and (not file.status.st_mode & 0o222 or not os.access(file.path, os.W_OK)):
        raise MachineFailed(
            f"cannot write '{printable(str(path))}': it is read-only",
            hint="chmod u+w it, or ask its owner",
            code="read-only",
        )
