"""Files of a record as a service names them: data from outside, checked before it is used."""

from __future__ import annotations

import unicodedata
from urllib.parse import quote, urlsplit

from dm.errors import Malformed, Refused, SourceFailed
from dm.plumbing.transport.address import describe_uri
from dm.plumbing.transport.catalogues.asking import FILES_MAX, Json, too_large
from dm.plumbing.transport.catalogues.protocol import CatalogueRecord, RecordFile
from dm.values import DIGEST_HEX_LENGTHS, Digest, find_key_fault, printable

#: Characters of a title that become the description.
_TITLE_CHARACTERS_MAX = 300


def read_checksum(algorithm: str, hexadecimal: str, part: Json) -> Digest | None:
    """A publisher's checksum; None for an algorithm that `dm` does not know, and for an empty one.

    Raises `SourceFailed` where it is no digest of that algorithm.
    """
    name = algorithm.strip().lower().replace("-", "")
    if name not in DIGEST_HEX_LENGTHS or not hexadecimal.strip():
        return None
    try:
        return Digest.parse(f"{name}:{hexadecimal.strip()}")
    except Malformed as error:
        raise part.fault(f"a {name} checksum") from error


def quote_path(name: str) -> str:
    """A file's path as a part of a URI."""
    return quote(name, safe="/")


def read_address(part: Json) -> str:
    """An address that a service gives for a file: http or https, without user, password and control characters.

    Raises `Refused` for any other.
    """
    uri = part.text()
    try:
        parts = urlsplit(uri)
        is_usable = parts.scheme.lower() in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        is_usable = False
    if not is_usable or not uri.isprintable() or " " in uri:
        raise Refused(
            f"{part.service} gives an address that is not used: '{describe_uri(uri)}'",
            hint="only http and https are followed from a record; add the files that are wanted by their URIs",
            code="record-unsafe",
        )
    return uri


def tidy_title(text: str | None) -> str:
    """A title as one line of text, shortened where it is very long; ``""`` for none."""
    line = printable(" ".join((text or "").split()))
    return line if len(line) <= _TITLE_CHARACTERS_MAX else line[: _TITLE_CHARACTERS_MAX - 1].rstrip() + "…"


def check_files(record: CatalogueRecord) -> CatalogueRecord:
    """The record, when the names of its files are safe and differ.

    Raises `Refused` (``record-unsafe``) for a name that is empty or absolute, has a part ``.`` or ``..``, a control
    character or what the store keeps for itself, and for two that are equal (in Unicode NFC) or lie one in the other;
    `SourceFailed` for a record without files (``record-empty``) or with too many.
    """
    if not record.files:
        raise SourceFailed(
            f"the record at {record.service} has no files: '{printable(record.title)}'",
            hint=f"look at {record.page}",
            code="record-empty",
        )
    if len(record.files) > FILES_MAX:
        raise too_large(record.service)
    seen = set()
    for file in record.files:
        fault = find_key_fault(file.name)
        name = unicodedata.normalize("NFC", file.name)
        if fault is None and name in seen:
            fault = "two files have it"
        if fault is not None:
            raise _unsafe(record, file, fault)
        seen.add(name)
    for file in record.files:
        parts = unicodedata.normalize("NFC", file.name).split("/")
        if any("/".join(parts[:depth]) in seen for depth in range(1, len(parts))):
            raise _unsafe(record, file, "another file has the name of its folder")
    return record


def _unsafe(record: CatalogueRecord, file: RecordFile, fault: str) -> Refused:
    return Refused(
        f"{record.service} names a file '{printable(file.name)}', which is not used: {fault}",
        hint="add the files that are wanted by their URIs",
        code="record-unsafe",
    )


def missing(service: str, identifier: str, page: str) -> SourceFailed:
    """The error of a record that a service does not have."""
    return SourceFailed(
        f"{service} has no record '{printable(identifier)}'",
        hint=f"check the identifier, and look at {describe_uri(page)}: it may have been withdrawn",
        code="record-missing",
    )


def restricted(service: str, title: str, page: str, reason: str) -> SourceFailed:
    """The error of a record whose files are not for everyone."""
    return SourceFailed(
        f"the files of '{printable(title)}' at {service} are not for everyone to download: {printable(reason)}",
        hint=f"ask for access at {describe_uri(page)}, then dm add the files by path or URI",
        code="record-restricted",
    )


def same_host(uri: str, *bases: str | None) -> str | None:
    """The path and query of a URI on the host of one of these addresses (below its path); None on any other.

    ``www.`` in front makes no difference, nor does http instead of https.
    """
    place = _place_of(uri)
    for base in bases:
        head = None if base is None else _place_of(base)
        if place is None or head is None or place[0] != head[0]:
            continue
        folder = head[1].rstrip("/")
        if place[1] == folder or place[1].startswith((f"{folder}/", f"{folder}?")):
            return place[1][len(folder) :]
    return None


def _place_of(uri: str) -> tuple[str, str] | None:
    scheme, slashes, rest = uri.partition("#")[0].partition("://")
    if not slashes or scheme.lower() not in ("http", "https"):
        return None
    host, slash, path = rest.partition("/")
    return host.lower().removeprefix("www."), slash + path
