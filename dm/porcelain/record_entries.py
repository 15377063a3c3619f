"""What a catalogue's record becomes in a manifest: one entry, or one for each file (SCHEMA.md, "DOIs and records")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from dm.errors import NotFound, SourceFailed, UsageError
from dm.values import Digest, printable

if TYPE_CHECKING:
    from dm.plumbing.transport.catalogues import CatalogueRecord, RecordFile, ServiceUrls
    from dm.porcelain.project import Project

#: Files that an error names.
_NAMES_TOLD = 8
#: Characters of a title that make a name.
_NAME_CHARACTERS_MAX = 40


class Choice(NamedTuple):
    """What is wanted of a record: ``pick`` are globs over the files' names and paths (none: all files), ``split`` makes
    an entry of each file, ``name`` is the entry's, or what the names of all begin with.
    """

    pick: tuple[str, ...] = ()
    split: bool = False
    name: str | None = None
    extract: bool = False


class Entry(NamedTuple):
    """One entry to be: its name and table, the publisher's checksum of each of its URIs, and its files."""

    name: str
    table: dict[str, object]
    expected: Mapping[str, Digest] = MappingProxyType({})
    files: tuple[RecordFile, ...] = ()

    @property
    def size_bytes(self) -> int | None:
        """The bytes of all files; None where the publisher does not say for each."""
        sizes = [file.size_bytes for file in self.files]
        return sum(size for size in sizes if size is not None) if sizes and None not in sizes else None


def is_record(project: Project, identifier: str) -> bool:
    """Whether a word is a DOI or the landing page of a record at a known service. No request is made."""
    lower = identifier.lstrip()[:16].lower()
    if not lower.startswith(("10.", "doi:", "http://", "https://")):
        return False  # before the catalogues are imported
    from dm.plumbing.transport import catalogues

    return catalogues.is_record(identifier, _read_urls(project))


def read_record(project: Project, identifier: str) -> CatalogueRecord:
    """Ask the service that keeps a record for its files. Raises as `resolve_record`."""
    from dm.plumbing.transport.catalogues import resolve_record
    from dm.plumbing.transport.documents import Documents
    from dm.porcelain.project import read_http_options

    documents = Documents(project.environment, read_http_options(project.places))
    try:
        urls = _read_urls(project)
        return resolve_record(identifier, documents=documents, urls=urls, progress=project.progress)
    finally:
        documents.close()


def _read_urls(project: Project) -> ServiceUrls:
    from dm.plumbing.transport.catalogues import ServiceUrls

    said = {name: project.places.text(f"{name}_url") for name in ServiceUrls._fields}
    return ServiceUrls()._replace(**{name: url.rstrip("/") for name, url in said.items() if url})


class Plan(NamedTuple):
    """The entries of a record, and what a person should know before they are fetched."""

    entries: list[Entry]
    notes: tuple[str, ...]


def make_entries(record: CatalogueRecord, choice: Choice) -> Plan:
    """Choose files of a record and describe them as datasets.

    Raises `NotFound` for a glob that matches nothing, `SourceFailed` where a chosen file is restricted, `UsageError`
    where one archive is to be extracted and there are several files.
    """
    files = _pick(record, choice.pick)
    _refuse_restricted(record, files)
    notes = list(record.notes)
    split = choice.split or (len(files) > 1 and not record.has_named_addresses)
    if choice.extract and len(files) > 1 and not choice.split:
        raise UsageError(
            f"--extract goes with one archive, and {len(files)} files are chosen: {_list_names(files)}",
            hint="--pick the archive, or --split to make an entry of each",
            code="extract-several",
        )
    if split and not choice.split:
        notes.append(f"the addresses at {record.service} do not hold the files' names: one entry for each file")
    if split:
        stem = choice.name or suggest_record_name(record)
        entries = [_describe_file(record, file, f"{stem}/{file.name}") for file in files]
    elif len(files) == 1:
        from dm.plumbing.records.key import suggest_name

        entries = [_describe_file(record, files[0], choice.name or suggest_name(files[0].name))]
    else:
        entries = [_describe_folder(record, files, choice.name or suggest_record_name(record))]
    return Plan(entries, (*notes, *_note_archives(files, choice), *_note_size(files)))


def suggest_record_name(record: CatalogueRecord) -> str:
    """A name from a record's title: its first words in lower case, joined by ``-``; else the last part of its DOI."""
    words = "".join(letter if letter.isalnum() else " " for letter in record.title.lower()).split()
    name = ""
    for word in words:
        longer = f"{name}-{word}" if name else word[:_NAME_CHARACTERS_MAX]
        if len(longer) > _NAME_CHARACTERS_MAX:
            break
        name = longer
    return name or (record.doi or record.service).rpartition("/")[2].lower()


def _pick(record: CatalogueRecord, globs: Sequence[str]) -> tuple[RecordFile, ...]:
    if not globs:
        return record.files
    from fnmatch import fnmatchcase

    chosen = set()
    for glob in globs:
        matches = {
            file.name
            for file in record.files
            if fnmatchcase(file.name, glob) or fnmatchcase(file.name.rpartition("/")[2], glob)
        }
        if not matches:
            raise NotFound(
                f"--pick '{printable(glob)}' matches no file of the record; it has {_list_names(record.files)}",
                hint="the whole name or path must match, letter case too; --dry-run lists all of them with their sizes",
                code="no-match",
            )
        chosen |= matches
    return tuple(file for file in record.files if file.name in chosen)


def _refuse_restricted(record: CatalogueRecord, files: Sequence[RecordFile]) -> None:
    closed = [file for file in files if file.restricted]
    if not closed:
        return
    others = len(files) - len(closed)
    hint = f"ask for access at {record.page}"
    raise SourceFailed(
        f"{len(closed)} of {len(files)} files at {record.service} are restricted: {_list_names(closed)}",
        hint=f"--pick the other{'s' if others > 1 else ''}, or {hint}" if others else hint,
        code="record-restricted",
    )


def _list_names(files: Sequence[RecordFile]) -> str:
    told = ", ".join(f"'{printable(file.name)}'" for file in files[:_NAMES_TOLD])
    more = len(files) - _NAMES_TOLD
    return f"{told} and {more} more" if more > 0 else told


def _describe(record: CatalogueRecord) -> dict[str, object]:
    fields = {"doi": record.doi, "version": record.version, "description": record.title}
    return {name: value for name, value in fields.items() if value}


def _describe_file(record: CatalogueRecord, file: RecordFile, name: str) -> Entry:
    from dm.plumbing.records.key import derive_key, find_format, read_uri

    table: dict[str, object] = {"uri": file.uri, **_describe(record)}
    # A version would enter the derived key; the address is that of one version anyway.
    key = file.key or (derive_key(file.uri) if record.version else None)
    if key is not None:
        table["key"] = key
    if read_uri(file.uri).format is not None:
        # The table of PANGAEA begins with a comment that no reader of tables takes.
        suffix = find_format(file.name)
        table["format"] = "txt" if suffix in (None, "tab") and file.checksum is None else suffix or "bin"
    if file.checksum is not None:
        table["checksum"] = str(file.checksum)
    return Entry(name, table, {}, (file,))


def _describe_folder(record: CatalogueRecord, files: Sequence[RecordFile], name: str) -> Entry:
    table: dict[str, object] = {"uris": [file.uri for file in files], **_describe(record)}
    expected = {file.uri: file.checksum for file in files if file.checksum is not None}
    return Entry(name, table, expected, tuple(files))


def _note_archives(files: Sequence[RecordFile], choice: Choice) -> tuple[str, ...]:
    from dm.plumbing.formats.archive import find_archive_format

    if len(files) != 1 or choice.extract or find_archive_format(files[0].name) is None:
        return ()
    return (f"'{files[0].name}' is an archive and stays one: --extract makes the folder in it the dataset",)


def _note_size(files: Sequence[RecordFile]) -> tuple[str, ...]:
    from dm.progress import format_size

    sizes = [file.size_bytes for file in files if file.size_bytes is not None]
    if len(files) < 2 and sum(sizes) < 100_000_000:
        return ()
    unknown = f", {len(files) - len(sizes)} of unknown size" if len(sizes) < len(files) else ""
    return (f"{len(files)} file{'s' if len(files) > 1 else ''}, {format_size(sum(sizes))} in all{unknown}",)
