"""``add``: declare data by its URI, path or DOI, fetch it, pin its checksum. Nothing stays declared when that fails."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from dm.errors import ContentMismatch, DmError, Malformed, NotFound, Refused, UsageError
from dm.plumbing.records.key import suggest_name
from dm.plumbing.records.state import Record, make_storage_path
from dm.plumbing.store.measure import measure_checksum, measure_copy
from dm.plumbing.transport.address import describe_uri
from dm.porcelain.materialize import FetchOptions, materialize
from dm.porcelain.project import Project
from dm.porcelain.record_entries import Choice, Entry, is_record, make_entries, read_record
from dm.values import Digest, Outcome, fail, printable, quote_word

if TYPE_CHECKING:
    from dm.plumbing.records.manifest import Manifest
    from dm.plumbing.transport.catalogues import CatalogueRecord


class AddOptions(NamedTuple):
    """Fields of the new entry (None: not set), and what to do with it.

    Of a published record ``pick`` are globs over its files, and ``split`` makes an entry of each. ``fetch`` off only
    declares; ``overwrite`` replaces an entry of the same name; ``dry_run`` only says what would be declared.
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
    key: str | None = None
    doi: str | None = None
    pick: tuple[str, ...] = ()
    split: bool = False

    def fields(self) -> dict[str, object]:
        """The manifest fields that these options set."""
        named = {
            "doi": self.doi,
            "version": self.version,
            "branch": self.branch,
            "key": self.key,
            "format": self.format,
            "extract": self.extract or None,
            "checksum": self.checksum,
            "store": self.store,
            "scope": self.scope,
            "lazy_access": self.lazy or None,
        }
        return {name: value for name, value in named.items() if value is not None}


class Added(NamedTuple):
    """What became of one source: an outcome for each entry, one failed outcome for a source that could not be read.

    ``record`` is the published record that it is, None for a URI or path; ``entries`` what was, or would be, declared.
    """

    outcomes: list[Outcome]
    record: CatalogueRecord | None = None
    entries: tuple[Entry, ...] = ()


def add(project: Project, source: str, options: AddOptions = AddOptions()) -> Added:  # noqa: B008 - frozen
    """Declare one source (a URI, a path of this machine, the DOI or page of a published record) and make it be here.

    A path below the project root becomes a user-managed ``storage_path``; one outside a ``file:`` URI, with a note
    that it is bound to this machine. A record is one entry, or one for each file (SCHEMA.md, "DOIs and records"). The
    entries are written to the manifest last and all at once, with their checksums, so that neither a failure nor a kill
    leaves half of a source declared; bytes that arrived stay in the store for the next try.

    Raises `UsageError` for a source that is none of these, `Refused` for a path that cannot be declared; everything
    that resolving and fetching raise is a failed outcome.
    """
    record: CatalogueRecord | None = None
    is_local = False
    _check_checksum(options.checksum)
    if is_record(project, source):
        try:
            record = read_record(project, source)
            entries = _plan_record(project, record, options)
        except UsageError:
            raise
        except DmError as error:
            return Added([fail(source, error)], record)
    else:
        for option, value in (("--pick", options.pick), ("--split", options.split)):
            if value:
                hint = "a record is named by its DOI, like 10.5281/zenodo.N, or by its page"
                raise UsageError(f"{option} goes with a published record, which '{source}' is not", hint=hint)
        fields, is_local = _describe_source(project, source)
        if is_local and options.extract:
            raise UsageError(
                f"--extract goes with a source that is fetched, and '{source}' stays where it lies",
                hint=f"to keep what is in it: dm add --extract {shlex.quote(_uri_of(_resolve_path(project, source)))}",
            )
        name = options.name or suggest_name(str(fields.get("uri") or fields["storage_path"]))
        entries = [Entry(name, {**fields, **options.fields()})]
    try:
        return Added(_declare(project, entries, options, is_local=is_local), record, tuple(entries))
    except DmError as error:
        return Added([fail(entries[0].name if len(entries) == 1 else source, error)], record, tuple(entries))


def _check_checksum(text: str | None) -> None:
    if text is None:
        return
    try:
        Digest.parse(text)
    except Malformed as error:
        hint = error.hint or "the publisher's page has it, as in md5:… or sha256:…"
        raise UsageError(f"--checksum: {error.message}", hint=hint, code=error.code) from error


def _plan_record(project: Project, record: CatalogueRecord, options: AddOptions) -> list[Entry]:
    """The entries of a record with the fields that the options set."""
    if options.branch is not None:
        raise UsageError("--branch goes with a repository, not with a published record")
    plan = make_entries(record, Choice(options.pick, options.split, options.name, options.extract))
    several = len(plan.entries) > 1
    for option, value in (("--key", options.key), ("--checksum", options.checksum)):
        if value and (several or (option == "--checksum" and len(plan.entries[0].files) > 1)):
            chosen = f"{sum(len(entry.files) for entry in plan.entries)} are chosen"
            raise UsageError(f"{option} goes with one file, and {chosen}", hint="--pick the one that is meant")
    entries = []
    for entry in plan.entries:
        fields = options.fields()
        if options.extract:
            fields.update(_find_extract(entry, fields, several=several))
        entries.append(entry._replace(table={**entry.table, **fields}))
        _compare_checksums(entry, options.checksum)
    for note in plan.notes:
        project.progress.note(note)
    return entries


def _find_extract(entry: Entry, fields: Mapping[str, object], *, several: bool) -> dict[str, object]:
    """Whether an entry is extracted: an archive is; of several entries the others stay as they are."""
    from dm.plumbing.formats.archive import find_archive_format

    if find_archive_format(entry.files[0].name) is not None or fields.get("format") is not None:
        return {"extract": True}
    if several:
        return {"extract": None}
    raise UsageError(
        f"--extract goes with an archive, and '{printable(entry.files[0].name)}' has no archive's name",
        hint="leave it out, or say the archive's --format",
    )


def _compare_checksums(entry: Entry, given: str | None) -> None:
    """Raise `ContentMismatch` where the caller's checksum and the publisher's contradict each other."""
    said = entry.files[0].checksum if given is not None else None
    if given is None or said is None:
        return
    wanted = Digest.parse(given)
    if wanted.algorithm == said.algorithm and wanted != said:
        raise ContentMismatch(
            f"'{entry.name}' cannot be both: --checksum is {wanted}, the record says {said}",
            hint="leave --checksum out to take the publisher's",
            code="checksum-mismatch",
        )


def _declare(project: Project, entries: Sequence[Entry], options: AddOptions, *, is_local: bool) -> list[Outcome]:
    """Fetch entries and write them to the manifest, all or none. Raises `DmError` for what stops all of them."""
    candidate = project.manifest.with_datasets({entry.name: _without_none(entry.table) for entry in entries})
    for entry in entries:
        _refuse_taken_name(project.manifest, entry.name, entry.table, overwrite=options.overwrite)
    _refuse_collisions(candidate, entries)
    if options.dry_run:
        return [_tell_plan(project, candidate, entry) for entry in entries]
    outcomes = [Outcome(entry.name, "ok", size_bytes=entry.size_bytes, message="declared") for entry in entries]
    measured: Mapping[str, Mapping[str, str]] = {}
    if options.fetch and not options.lazy:
        scratch = project.with_manifest(candidate)
        try:
            if is_local:
                outcomes, measured = _measure_local(scratch, entries[0].name)
            else:
                outcomes, measured = _fetch_all(scratch, entries)
        finally:
            scratch.close()
        if any(outcome.failed for outcome in outcomes):
            published = {entry.name for entry in entries if entry.table.get("checksum") and entry.files}
            return [
                _tell_undeclared(each, options, published=each.name in published) if each.failed else _leave_out(each)
                for each in outcomes
            ]
    tables = {entry.name: _without_none({**entry.table, **measured.get(entry.name, {})}) for entry in entries}

    def change(manifest: Manifest) -> Mapping[str, Mapping[str, object] | None]:
        # Looked at again under the lock: another `add` may have come first.
        for name, table in tables.items():
            _refuse_taken_name(manifest, name, table, overwrite=options.overwrite)
        return tables

    project.edit_manifest(change, replace=options.overwrite)
    return outcomes


def _without_none(table: Mapping[str, object]) -> dict[str, object]:
    return {field: value for field, value in table.items() if value is not None}


def _leave_out(outcome: Outcome) -> Outcome:
    told = "not declared, since another file of the record failed; it stays in the store for the next try"
    return outcome._replace(status="skipped", code="not-declared", message=told)


def _tell_undeclared(outcome: Outcome, options: AddOptions, *, published: bool) -> Outcome:
    """A way out that goes by the dataset's entry leads nowhere while it is not declared.

    ``published`` says that its checksum is the publisher's, unless the caller gave one.
    """
    hint = outcome.hint or ""
    if (options.checksum is not None or published) and hint.endswith(f"correct 'checksum' of [{outcome.name}]"):
        told = "if the source's content is right, correct --checksum or leave it out"
        if options.checksum is None:
            told = "'checksum' is the publisher's: try again later; if it stays so, tell the publisher"
        return outcome._replace(hint=f"nothing was declared; {told}")
    if f"dm fetch --force {quote_word(outcome.name)}" not in hint:
        return outcome
    return outcome._replace(hint=f"with --no-fetch it is declared all the same; then {outcome.hint}")


def _tell_plan(project: Project, candidate: Manifest, entry: Entry) -> Outcome:
    location = project.locate(candidate.datasets[entry.name])
    count = len(entry.files)
    told = "would be declared" if count < 2 else f"{count} files would be declared as one folder"
    return Outcome(entry.name, "ok", path=location.path, size_bytes=entry.size_bytes, message=told)


def _refuse_collisions(candidate: Manifest, entries: Sequence[Entry]) -> None:
    """Raise `Malformed` where an entry's data would lie on that of another source."""
    collisions = candidate.find_collisions()
    for entry in entries:
        others = collisions.get(entry.name)
        if others:
            names = ", ".join(f"'{printable(name)}'" for name in others)
            place = candidate.datasets[entry.name].landing
            hint = "give it a place of its own with --key"
            if len(entries) > 1:
                hint = f"leave that file out with --pick, or take {names} out first with dm rm"
            raise Malformed(
                f"'{printable(entry.name)}' and {names} would land on each other at '{place}'",
                hint=hint,
                code="key-collision",
            )


def _describe_source(project: Project, source: str) -> tuple[dict[str, object], bool]:
    """The fields that say where the data comes from, and whether the bytes are the user's own, below the project."""
    if "://" in source or source.startswith("git@"):
        return {"uri": source}, False
    if not source.strip():
        raise UsageError("a source is empty", hint="name a URI, a DOI or a path", code="source-unknown")
    path = _resolve_path(project, source)
    if not os.path.lexists(path):
        raise UsageError(
            f"'{printable(source)}' is neither a URI, nor a DOI, nor a path that exists",
            hint=_guess_source(source),
            code="source-unknown",
        )
    if path == project.root or project.root.is_relative_to(path):
        raise Refused(f"cannot add '{source}': it holds the project itself", code="path-unsafe")
    if path.is_relative_to(project.root):
        return {"storage_path": _write_expression(path.relative_to(project.root).as_posix(), path)}, True
    project.progress.note(f"'{path}' is outside the project: the entry is bound to this machine")
    return {"uri": _uri_of(path)}, False


def _resolve_path(project: Project, source: str) -> Path:
    return Path(os.path.normpath(project.environment.working_folder / source))


def _uri_of(path: Path) -> str:
    return "file://" + quote(os.fsencode(path))


def _guess_source(source: str) -> str:
    """The way out of a word that is no source: the URI or DOI that it nearly is."""
    import re

    record = re.fullmatch(r"zenodo\.(\d+)", source, re.IGNORECASE)
    if record is not None:
        return f"did you mean 10.5281/zenodo.{record[1]}?"
    if re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}(:\d+)?/\S+", source):
        return f"did you mean https://{printable(source)}?"
    return "a URI begins with its scheme, like https://… or file:///…; a DOI with its prefix, like 10.5281/…"


def _write_expression(text: str, path: Path) -> str:
    """The expression that stands for a path below the project root; `Refused` for one that none can stand for."""
    from dm.plumbing.records.expressions import Use, split_expression

    if "${" in text or any(is_name for is_name, _ in split_expression(text, Use("'storage_path'"))):
        uri = _uri_of(path)
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
    said = table.get("uri") or table.get("storage_path")  # of several sources in a call, which one it was
    hint = "choose another with --name" + (f" for '{describe_uri(said)}'" if isinstance(said, str) else "")
    raise Refused(f"the name '{name}' stands for other data already", hint=hint, code="name-taken")


def _fetch_all(scratch: Project, entries: Sequence[Entry]) -> tuple[list[Outcome], Mapping[str, Mapping[str, str]]]:
    """Bring all entries here, several at once; the outcomes and the fields that were measured.

    When one fails, the others' records of where they are go again: they are not declared. Their bytes stay.
    """
    known = set(scratch.state.datasets)
    expected = {uri: digest for entry in entries for uri, digest in entry.expected.items()}
    datasets = [scratch.manifest.datasets[entry.name] for entry in entries]
    options = FetchOptions(jobs=scratch.jobs, edit_manifest=False, expected=expected)
    result = materialize(scratch, datasets, options)
    outcomes = result.outcomes[: len(entries)]
    if any(outcome.failed for outcome in outcomes) and len(entries) > 1:
        scratch.merge_state({}, {dataset.key.text for dataset in datasets if dataset.key.text not in known})
    return outcomes, result.fills


def _measure_local(scratch: Project, name: str) -> tuple[list[Outcome], Mapping[str, Mapping[str, str]]]:
    """The user's own file: measured where it lies, neither copied nor marked."""
    dataset = scratch.manifest.datasets[name]
    path = scratch.locate(dataset).path
    if not path.exists():
        raise NotFound(f"'{path}' does not exist", code="missing")
    declared = dataset.checksum
    algorithm = "sha256" if declared is None else declared.algorithm
    measured = measure_copy(path, algorithm=algorithm, stat_cache=scratch.stat_cache, progress=scratch.progress)
    checksum = measured.checksum
    if algorithm == "blake3":
        checksum = measure_checksum(path, algorithm, stat_cache=scratch.stat_cache, progress=scratch.progress).checksum
    if declared is not None and checksum != declared:
        raise ContentMismatch(
            f"'{path}' is not what --checksum says: it is {checksum or measured.digest}, not {declared}",
            hint="leave --checksum out to take what is there",
            code="checksum-mismatch",
        )
    fields = {} if checksum is None else {"checksum": str(checksum)}
    if measured.digest.is_tree:
        fields["digest"] = str(measured.digest)
    digest, size_bytes = measured.digest, measured.size_bytes
    is_sha256 = checksum is not None and checksum.algorithm == "sha256" and not digest.is_tree
    sha256 = checksum.hex if checksum is not None and is_sha256 else None
    scratch.merge_state({dataset.key.text: Record(make_storage_path(scratch.root, path), sha256)})
    told = "declared where it lies"
    outcome = Outcome(name, "ok", path=path, state="clean", digest=digest, size_bytes=size_bytes, message=told)
    return [outcome], {name: fields}
