"""``add``: declare data by its URI or path, fetch it, pin its checksum. Nothing stays declared when that fails."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from dm.errors import DmError, NotFound, Refused, UsageError
from dm.plumbing.records.key import suggest_name
from dm.plumbing.records.state import Record, make_storage_path
from dm.plumbing.store.measure import measure_copy
from dm.porcelain.materialize import FetchOptions, materialize
from dm.porcelain.project import Project
from dm.values import Outcome, fail

if TYPE_CHECKING:
    from dm.plumbing.records.manifest import Manifest


class AddOptions(NamedTuple):
    """Fields of the new entry (None: not set), and what to do with it.

    ``fetch`` off only declares; ``overwrite`` replaces an entry of the same name; ``dry_run`` only says what would be
    declared.
    """

    name: str | None = None
    version: str | None = None
    branch: str | None = None
    format: str | None = None
    extract: bool = False
    checksum: str | None = None
    store: str | None = None
    scope: str | None = None
    lazy: bool = False
    fetch: bool = True
    overwrite: bool = False
    dry_run: bool = False

    def fields(self) -> dict[str, object]:
        """The manifest fields that these options set."""
        named = {
            "version": self.version,
            "branch": self.branch,
            "format": self.format,
            "extract": self.extract or None,
            "checksum": self.checksum,
            "store": self.store,
            "scope": self.scope,
            "lazy_access": self.lazy or None,
        }
        return {name: value for name, value in named.items() if value is not None}


def add(project: Project, source: str, options: AddOptions = AddOptions()) -> Outcome:  # noqa: B008 - frozen
    """Declare one source (a URI, or a path of this machine) and make it be here.

    A path below the project root becomes a user-managed ``storage_path``; one outside a ``file:`` URI, with a note
    that it is bound to this machine. The entry is written to the manifest last, with its checksum, so that a failure
    or a kill leaves no half entry. Raises `UsageError` for a source that is neither, `Refused` for a name that stands
    for other data already, and everything that fetching raises as a failed outcome.
    """
    fields, is_local = _describe_source(project, source)
    name = options.name or suggest_name(str(fields.get("uri") or fields["storage_path"]))
    table = {**fields, **options.fields()}
    try:
        candidate = project.manifest.with_dataset(name, table)
        _refuse_taken_name(project.manifest, name, table, overwrite=options.overwrite)
        if options.dry_run:
            location = project.locate(candidate.datasets[name])
            return Outcome(name, "ok", path=location.path, message="would be declared")
        outcome = Outcome(name, "ok", message="declared")
        if options.fetch and not options.lazy:
            scratch = project.with_manifest(candidate)
            try:
                outcome, measured = _make_present(scratch, name, is_local=is_local)
            finally:
                scratch.close()
            if outcome.failed:
                return outcome
            table = {**table, **measured}

        def change(manifest: Manifest) -> Mapping[str, Mapping[str, object] | None]:
            # Looked at again under the lock: another `add` may have come first.
            _refuse_taken_name(manifest, name, table, overwrite=options.overwrite)
            return {name: table}

        project.edit_manifest(change, replace=options.overwrite)
    except DmError as error:
        return fail(name, error)
    return outcome


def _describe_source(project: Project, source: str) -> tuple[dict[str, object], bool]:
    """The fields that say where the data comes from, and whether the bytes are the user's own, below the project."""
    if "://" in source or source.startswith("git@"):
        return {"uri": source}, False
    path = Path(os.path.normpath(project.environment.working_folder / source))
    if not os.path.lexists(path):
        raise UsageError(
            f"'{source}' is neither a URI nor a path that exists",
            hint="a URI begins with its scheme, like https://… or file:///…",
            code="source-unknown",
        )
    if path == project.root or project.root.is_relative_to(path):
        raise Refused(f"cannot add '{source}': it holds the project itself", code="path-unsafe")
    if path.is_relative_to(project.root):
        return {"storage_path": _write_expression(path.relative_to(project.root).as_posix(), path)}, True
    project.progress.note(f"'{path}' is outside the project: the entry is bound to this machine")
    return {"uri": "file://" + quote(os.fsencode(path))}, False


def _write_expression(text: str, path: Path) -> str:
    """The expression that stands for a path below the project root; `Refused` for one that none can stand for."""
    from dm.plumbing.records.expressions import Use, split_expression

    if "${" in text or any(is_name for is_name, _ in split_expression(text, Use("'storage_path'"))):
        uri = "file://" + quote(os.fsencode(path))
        raise Refused(
            f"cannot add '{text}': '$' in a manifest's path stands for a folder",
            hint=f"rename it, or keep a copy of it in the store: dm add {shlex.quote(uri)}",
            code="path-unsafe",
        )
    return f"./{text}" if text.startswith("~") else text


def _refuse_taken_name(manifest: Manifest, name: str, table: Mapping[str, object], *, overwrite: bool) -> None:
    present = manifest.datasets.get(name)
    if present is None or overwrite:
        return
    source = ("uri", "uris", "storage_path", "version", "branch")
    if all(present.table.get(field) == table.get(field) for field in source):
        raise Refused(
            f"'{name}' is declared already",
            hint=f"dm fetch {shlex.quote(name)} makes it be here; --overwrite declares it anew",
            code="name-taken",
        )
    raise Refused(
        f"the name '{name}' stands for other data already", hint="choose another with --name", code="name-taken"
    )


def _make_present(scratch: Project, name: str, *, is_local: bool) -> tuple[Outcome, dict[str, str]]:
    dataset = scratch.manifest.datasets[name]
    if is_local:
        # The user's own file: measured where it lies, neither copied nor marked.
        path = scratch.locate(dataset).path
        if not path.exists():
            raise NotFound(f"'{path}' does not exist", code="missing")
        measured = measure_copy(path, algorithm="sha256", stat_cache=scratch.stat_cache, progress=scratch.progress)
        fields = {} if measured.checksum is None else {"checksum": str(measured.checksum)}
        if measured.digest.is_tree:
            fields["digest"] = str(measured.digest)
        digest, size_bytes = measured.digest, measured.size_bytes
        sha256 = measured.checksum.hex if measured.checksum is not None and not measured.digest.is_tree else None
        scratch.merge_state({dataset.key.text: Record(make_storage_path(scratch.root, path), sha256)})
        told = "declared where it lies"
        outcome = Outcome(name, "ok", path=path, state="clean", digest=digest, size_bytes=size_bytes, message=told)
        return outcome, fields
    result = materialize(scratch, [dataset], FetchOptions(jobs=1, edit_manifest=False))
    return result.outcomes[0], result.fills.get(name, {})
