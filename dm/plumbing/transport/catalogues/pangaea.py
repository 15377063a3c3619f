"""PANGAEA (https://wiki.pangaea.de, "PANGAEA search" and data set pages): tables as text, and lists of files.

What a record is, its schema.org description says (``?format=metadata_jsonld``): a file, a table that is served as text
(``?format=textfile``), or a series of other records. A table whose first column is ``Binary`` is a list of files, with
their md5 checksums beside them.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from dm.errors import SourceFailed
from dm.plumbing.transport.catalogues.asking import Asking, Json
from dm.plumbing.transport.catalogues.files import (
    check_files,
    missing,
    quote_path,
    read_address,
    read_checksum,
    restricted,
    same_host,
    tidy_title,
)
from dm.plumbing.transport.catalogues.protocol import CatalogueRecord, Place, RecordFile

_DEFAULT = "https://doi.pangaea.de"
_DOWNLOADS = "https://download.pangaea.de"
#: The comment above a table is shorter than this; a list of files is not longer than the other.
_HEAD_BYTES = 1 << 20
_LIST_BYTES = 32 << 20
#: 2**63 has 19 digits.
_SIZE_DIGITS_MAX = 18


class Pangaea:
    """The catalogue at ``base``. A table has no checksum, and its URI no name: its key is the DOI's with ``.tab``."""

    name = "PANGAEA"

    def __init__(self, base: str) -> None:
        self._base = base

    def find_doi(self, doi: str) -> Place | None:
        """``10.1594/PANGAEA.N``."""
        found = re.fullmatch(r"10\.1594/PANGAEA\.(\d+)", doi, re.IGNORECASE)
        return Place(self._base, found[1]) if found else None

    def find_page(self, uri: str) -> Place | None:
        """``/10.1594/PANGAEA.N`` without a ``format``."""
        path = same_host(uri, self._base, _DEFAULT)
        found = None if path is None else re.fullmatch(r"/10\.1594/PANGAEA\.(\d+)/?", path, re.IGNORECASE)
        return Place(self._base, found[1]) if found else None

    def read_record(self, place: Place, asking: Asking) -> CatalogueRecord:
        """See `protocol.Catalogue`."""
        doi = f"10.1594/PANGAEA.{place.identifier}"
        page = f"{place.base}/{doi}"
        answer = asking.find_json(f"{page}?format=metadata_jsonld", service=self.name)
        if answer is None:
            raise missing(self.name, doi, page)
        title = tidy_title(answer.find_text("name"))
        free = answer.find("isAccessibleForFree")
        if free is not None and free.value is False:
            reason = answer.find("conditionsOfAccess")
            raise restricted(self.name, title, page, str(reason.value) if reason is not None else "restricted")
        kind, address = _classify(answer)
        version = answer.find_word("version")
        if kind == "file" and address is not None:
            name = unquote(urlsplit(read_address(address)).path.rpartition("/")[2])
            files: tuple[RecordFile, ...] = (RecordFile(name, address.text()),)
        elif kind == "table":
            files = self._read_table(place, f"{page}?format=textfile", asking)
        elif kind == "series":
            raise self._explain_series(answer, title, page)
        else:
            files = ()
        return check_files(CatalogueRecord(self.name, page, doi, title, version, files))

    def _read_table(self, place: Place, uri: str, asking: Asking) -> tuple[RecordFile, ...]:
        """The table itself, or the files that it lists."""
        head = asking.read_head(uri, service=self.name, limit_bytes=_HEAD_BYTES)
        columns, rows = _split_table(head.data)
        if not columns or columns[0] != "Binary":
            name = f"PANGAEA.{place.identifier}.tab"
            host = urlsplit(place.base).hostname or ""
            return (RecordFile(name, uri, key=f"{host}/10.1594/{name}"),)
        if not head.whole:
            head = asking.read_head(uri, service=self.name, limit_bytes=_LIST_BYTES)
            columns, rows = _split_table(head.data)
        if not head.whole:
            raise Json(None, self.name, "the list of files").fault(f"shorter than {_LIST_BYTES >> 20} MiB")
        base = _DOWNLOADS if place.base == _DEFAULT else place.base
        places = {name: columns.index(name) for name in ("Binary", "Binary (Hash)", "Binary (Size)") if name in columns}
        files = []
        for number, row in enumerate(rows):
            part = Json(row, self.name, f"row {number + 1} of the list of files")
            cells = {name: row[index].strip() if index < len(row) else "" for name, index in places.items()}
            name, size = cells["Binary"], cells.get("Binary (Size)", "")
            if not name:
                continue
            checksum = read_checksum("md5", cells.get("Binary (Hash)", ""), part)
            address = f"{base}/dataset/{place.identifier}/files/{quote_path(name)}"
            files.append(RecordFile(name, address, checksum, _read_size(size)))
        return tuple(files)

    def _explain_series(self, answer: Json, title: str, page: str) -> SourceFailed:
        members = answer.find("hasPart")
        parts = [] if members is None else members.items() if isinstance(members.value, list) else [members]
        names = []
        for part in parts:
            named = part.value if isinstance(part.value, str) else part.find_text("@id") or part.find_text("url") or ""
            found = re.search(r"10\.1594/PANGAEA\.\d+", named)
            if found is not None:
                names.append(found[0])
        told = f" of {len(names)} data sets" if names else " of data sets"
        example = f", like dm add {names[0]}" if names else ""
        return SourceFailed(
            f"'{title}' at {self.name} is a series{told}, not one data set",
            hint=f"add those that are wanted{example}; they are listed at {page}",
            code="record-series",
        )


def _read_size(cell: str) -> int | None:
    """The bytes that a cell tells; None for one that tells none, or more than any file has."""
    return int(cell) if cell.isdecimal() and len(cell) <= _SIZE_DIGITS_MAX else None


def _classify(answer: Json) -> tuple[str | None, Json | None]:
    """What a record is by its distributions: ``file``, ``table`` or ``series``, with the address; None: nothing."""
    distributions = answer.find("distribution")
    if distributions is None:
        return ("series" if answer.find("hasPart") is not None else None), None
    parts = distributions.items() if isinstance(distributions.value, list) else [distributions]
    found: dict[str, Json] = {}
    for part in parts:
        address = part.find("contentUrl")
        if address is None:
            continue
        encoding = (part.find_text("encodingFormat") or "").lower()
        uri = address.text().lower()
        if "format=textfile" in uri or "tab-separated" in encoding:
            found.setdefault("table", address)
        elif "/files/" in uri and "format=" not in uri:
            found.setdefault("file", address)
        elif "format=zip" in uri or encoding == "application/zip":
            found.setdefault("series", address)
    kind = next((kind for kind in ("file", "table", "series") if kind in found), None)
    return kind, None if kind is None else found[kind]


def _split_table(data: bytes) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of a table below its ``/* … */`` comment; no columns where the comment does not end."""
    text = data.decode("utf-8", "replace")
    if text.lstrip("\ufeff").startswith("/*"):
        text = text.partition("*/")[2].lstrip("\r\n")
    lines = text.splitlines()
    columns = [cell.strip() for cell in lines[0].split("\t")] if lines else []
    return columns, [line.split("\t") for line in lines[1:]]
