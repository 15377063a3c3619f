"""What is known of copies outside any store root: ``.datamanifest/dm.toml``.

A copy in a store has a ref. One that the user manages, or whose ``storage_path`` gives no store root, has its ref's
line here, under its path as the state records it (SCHEMA.md, "The store"). Of a repository's working copy the commit is
here too, wherever it lies. Missing means unknown, never modified. The file can be made again: one that cannot be
understood is told and replaced at the next write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

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


class CopyNotes(NamedTuple):
    """What is known of copies, by absolute path: the ref line of those in no store, the commit of repositories."""

    copies: dict[Path, str]
    revisions: dict[Path, str]


def read_copy_notes(project_root: Path, *, progress: Progress = SILENT) -> CopyNotes:
    """What the file says; empty when there is none.

    A file that cannot be understood is told and taken for empty. Raises `MachineFailed` when it cannot be read.
    """
    return _interpret(project_root, _read_document(read_record(project_root / COPY_NOTES_NAME), progress))


def merge_copy_notes(
    project_root: Path,
    updates: Mapping[Path, str],
    deletes: Iterable[Path] = (),
    *,
    revisions: Mapping[Path, str | None] = MappingProxyType({}),
    holder: str | None = None,
    progress: Progress = SILENT,
) -> CopyNotes:
    """Merge ref lines and commits (None: there is none any more) by path in one locked read-merge-rename and return
    what is now held.

    Nothing is written when nothing changes; concurrent writers lose nothing. Raises `MachineFailed`, and `Refused` for
    a path that is not UTF-8 and a link that leads out of the project.
    """
    from dm.plumbing.records.rewrite import Rewrite, RewriteOptions, rewrite_record

    deleted = frozenset(deletes)
    result: list[CopyNotes] = []

    def build(found: list[RecordFile]) -> Rewrite | None:
        old = _interpret(project_root, _read_document(found[0], progress))
        copies = {path: line for path, line in old.copies.items() if path not in deleted}
        copies.update((path, line.strip()) for path, line in updates.items())
        commits = {path: commit for path, commit in {**old.revisions, **revisions}.items() if commit is not None}
        new = CopyNotes(copies, commits)
        result[:] = [new]
        return None if new == old else Rewrite(found[0], _encode(project_root, new))

    path = project_root / COPY_NOTES_NAME
    lock = ensure_private_folder(project_root) / "dm.lock"
    rewrite_record([path], build, RewriteOptions(lock, f"'{path}'", holder, False, progress, within=project_root))
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


def _interpret(project_root: Path, document: Mapping[str, object]) -> CopyNotes:
    def read(name: str) -> dict[Path, str]:
        table = document.get(name)
        found = table.items() if isinstance(table, dict) else ()
        return {resolve_storage_path(project_root, at): text for at, text in found if at and isinstance(text, str)}

    return CopyNotes(read("copies"), read("revisions"))


def _encode(project_root: Path, notes: CopyNotes) -> bytes:
    def write(table: Mapping[Path, str]) -> dict[str, str]:
        return {make_storage_path(project_root, path): text for path, text in table.items()}

    document: dict[str, object] = {"_META": {"schema": COPY_NOTES_SCHEMA}, "copies": write(notes.copies)}
    if notes.revisions:
        document["revisions"] = write(notes.revisions)
    text = write_plain(document)
    return encode_text(text or "")
