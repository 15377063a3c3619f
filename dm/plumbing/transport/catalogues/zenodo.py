"""Zenodo (https://developers.zenodo.org): ``GET /api/records/N``, files with md5 checksums."""

from __future__ import annotations

import re

from dm.plumbing.transport.catalogues.asking import Asking, Json
from dm.plumbing.transport.catalogues.files import (
    check_files,
    missing,
    quote_path,
    read_checksum,
    restricted,
    same_host,
    tidy_title,
)
from dm.plumbing.transport.catalogues.protocol import CatalogueRecord, Place, RecordFile

_DEFAULT = "https://zenodo.org"


class Zenodo:
    """The catalogue at ``base``.

    The DOI of a record as a whole (Zenodo's "concept" DOI) leads to its latest version, whose own DOI is what the
    record then has. Addresses are ``/records/N/files/NAME?download=1``: the ones of the API end in ``/content``, which
    would be every file's name.
    """

    name = "Zenodo"

    def __init__(self, base: str) -> None:
        self._base = base

    def find_doi(self, doi: str) -> Place | None:
        """``10.5281/zenodo.N``."""
        found = re.fullmatch(r"10\.5281/zenodo\.(\d+)", doi, re.IGNORECASE)
        return Place(self._base, found[1]) if found else None

    def find_page(self, uri: str) -> Place | None:
        """``/records/N``, ``/record/N``, ``/api/records/N``, ``/doi/10.5281/zenodo.N``."""
        path = same_host(uri, self._base, _DEFAULT)
        if path is None:
            return None
        path = path.partition("?")[0].rstrip("/")
        found = re.fullmatch(r"(?:/api)?/records?/(\d+)(?:/latest|/export/[\w-]+)?", path)
        found = found or re.fullmatch(r"/(?:doi/10\.5281/zenodo\.|badge/latestdoi/)(\d+)", path, re.IGNORECASE)
        return Place(self._base, found[1]) if found else None

    def read_record(self, place: Place, asking: Asking) -> CatalogueRecord:
        """See `protocol.Catalogue`."""
        page = f"{place.base}/records/{place.identifier}"
        api = f"{place.base}/api/records/{place.identifier}"
        answer = asking.find_json(api, service=self.name) or asking.find_json(
            f"{api}/versions/latest", service=self.name
        )
        if answer is None:
            raise missing(self.name, place.identifier, page)
        number = answer.at("id").word()
        if not number.isdecimal():
            raise answer.at("id").fault("the number of a record")
        metadata = answer.at("metadata")
        title = tidy_title(metadata.find_text("title") or answer.find_text("title"))
        page = f"{place.base}/records/{number}"
        doi = answer.find_text("doi") or metadata.find_text("doi")
        access = metadata.find_text("access_right") or "open"
        parts = answer.find_items("files")
        if not parts and access != "open":
            raise restricted(self.name, title, page, access)
        notes = []
        if number != place.identifier:
            of_all = answer.find_text("conceptdoi") or place.identifier
            notes.append(f"'{of_all}' stands for all versions: the latest, '{doi or number}', is what is added")
        version = metadata.find_text("version")
        files = tuple(self._read_file(place.base, number, part) for part in parts)
        return check_files(CatalogueRecord(self.name, page, doi, title, version, files, tuple(notes)))

    def _read_file(self, base: str, number: str, part: Json) -> RecordFile:
        name = part.at("key").text()
        algorithm, _, hexadecimal = (part.find_text("checksum") or "").rpartition(":")
        checksum = read_checksum(algorithm or "md5", hexadecimal, part)
        uri = f"{base}/records/{number}/files/{quote_path(name)}?download=1"
        return RecordFile(name, uri, checksum, part.find_size("size"))
