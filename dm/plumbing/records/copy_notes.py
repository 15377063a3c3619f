"""What is known of copies outside any store root: ``.datamanifest/dm.toml``.

A copy in a store has a ref. One that the user manages, or whose ``storage_path`` gives no store root, has its ref's
line here, under its path as the state records it (SCHEMA.md, "The store"). Missing means unknown, never modified. The
file can be made again: one that cannot be understood is told and replaced at the next write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dm.errors import Malformed
from dm.plumbing.records.plain import write_plain
from dm.plumbing.records.private import PRIVATE_FOLDER, ensure_private_folder
from dm.plumbing.records.record_file import RecordFile, read_record
from dm.plumbing.records.state import encode_text, make_storage_path, read_document, resolve_storage_path
from dm.progress import SILENT, Progress

if TYPE_CHECKING:
    from dm.plumbing.records.rewrite import Rewrite

COPY_NOTES_NAME = f"{PRIVATE_FOLDER}/dm.toml"
COPY_NOTES_SCHEMA = 1


def read_copy_notes(project_root: Path, *, progress: Progress = SILENT) -> dict[Path, str]:
    """The ref line of each such copy by its absolute path; empty when there are none.

    A file that cannot be understood is told and taken for empty. Raises `MachineFailed` when it cannot be read.
    """
    return _interpret(project_root, _read_document(read_record(project_root / COPY_NOTES_NAME), progress))


def merge_copy_notes(
    project_root: Path,
    updates: Mapping[Path, str],
    deletes: Iterable[Path] = (),
    *,
    holder: str | None = None,
    progress: Progress = SILENT,
) -> dict[Path, str]:
    """Merge ref lines by path in one locked read-merge-rename and return what is now held.

    Nothing is written when nothing changes; concurrent writers lose nothing. Raises `MachineFailed`, and `Refused` for
    a path that is not UTF-8.
    """
    from dm.plumbing.records.rewrite import Rewrite, RewriteOptions, rewrite_record

    deleted = frozenset(deletes)
    result: list[dict[Path, str]] = []

    def build(found: list[RecordFile]) -> Rewrite | None:
        old = _interpret(project_root, _read_document(found[0], progress))
        new = {path: line for path, line in old.items() if path not in deleted}
        new.update((path, line.strip()) for path, line in updates.items())
        result[:] = [new]
        return None if new == old else Rewrite(found[0], _encode(project_root, new))

    path = project_root / COPY_NOTES_NAME
    lock = ensure_private_folder(project_root) / "dm.lock"
    rewrite_record([path], build, RewriteOptions(lock, f"'{path}'", holder, False, progress))
    return result[0]


def _read_document(file: RecordFile, progress: Progress) -> Mapping[str, object]:
    if file.content is None:
        return {}
    try:
        document = read_document(file)
    except Malformed as error:
        progress.warn(f"{error.message}; it is made again")
        return {}
    meta = document.get("_META")
    schema = meta.get("schema") if isinstance(meta, dict) else None
    if schema != COPY_NOTES_SCHEMA:
        progress.warn(f"{file.path}: schema {schema!r} is not {COPY_NOTES_SCHEMA}; it is made again")
        return {}
    return document


def _interpret(project_root: Path, document: Mapping[str, object]) -> dict[Path, str]:
    table = document.get("copies")
    found = table.items() if isinstance(table, dict) else ()
    return {resolve_storage_path(project_root, path): line for path, line in found if path and isinstance(line, str)}


def _encode(project_root: Path, notes: Mapping[Path, str]) -> bytes:
    copies = {make_storage_path(project_root, path): line for path, line in notes.items()}
    text = write_plain({"_META": {"schema": COPY_NOTES_SCHEMA}, "copies": copies})
    return encode_text(text or "")
