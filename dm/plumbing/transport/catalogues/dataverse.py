"""Dataverse (https://guides.dataverse.org, native API): any installation, files with MD5 or SHA checksums."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from urllib.parse import parse_qs, quote, urlsplit

from dm.plumbing.transport.catalogues.asking import Asking, Json
from dm.plumbing.transport.catalogues.files import check_files, missing, read_checksum, tidy_title
from dm.plumbing.transport.catalogues.protocol import CatalogueRecord, Place, RecordFile

#: Suffixes of what Dataverse turns into a table of its own, by the type of the original, where it kept no name.
_ORIGINAL_SUFFIXES = {
    "text/csv": ".csv",
    "text/comma-separated-values": ".csv",
    "text/tsv": ".tsv",
    "application/x-stata": ".dta",
    "application/x-stata-13": ".dta",
    "application/x-stata-14": ".dta",
    "application/x-stata-15": ".dta",
    "application/x-spss-sav": ".sav",
    "application/x-spss-por": ".por",
    "application/x-rlang-transport": ".RData",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
}


class Dataverse:
    """All installations; ``base`` is asked in place of the one that a DOI leads to, where it is set.

    A table that Dataverse took apart is asked for as it was uploaded: the publisher's checksum is that file's. The
    latest published version is taken unless the page's address names one. The address of a file is
    ``/api/access/datafile/<number>``, which holds no name: each has a key, ``<host>/datafile/<number>/<name>``.
    """

    name = "Dataverse"

    def __init__(self, base: str | None) -> None:
        self._base = base

    def find_doi(self, doi: str) -> Place | None:
        """``10.7910/DVN/…``, Harvard's; others are known by where they lead."""
        if not re.fullmatch(r"10\.7910/DVN/[\w]+", doi, re.IGNORECASE):
            return None
        return Place(self._base or "https://dataverse.harvard.edu", f"doi:{doi}")

    def find_page(self, uri: str) -> Place | None:
        """``…/dataset.xhtml?persistentId=…``, ``…/citation?persistentId=…``, ``…/file.xhtml?persistentId=…``."""
        parts = urlsplit(uri)
        folder, _, last = parts.path.rpartition("/")
        query = parse_qs(parts.query)
        identifier = query.get("persistentId", [""])[0]
        is_page = last in ("dataset.xhtml", "citation", "file.xhtml")
        if not is_page or not re.match(r"(doi|hdl|perma|ark):\S", identifier):
            return None
        version = query.get("version", [""])[0]
        base = self._base or f"{parts.scheme}://{parts.netloc}{folder}"
        return Place(base, identifier, version if re.fullmatch(r"\d+(\.\d+)?", version) else None)

    def read_record(self, place: Place, asking: Asking) -> CatalogueRecord:
        """See `protocol.Catalogue`."""
        persistent = quote(place.identifier, safe="")
        page = f"{place.base}/dataset.xhtml?persistentId={place.identifier}"
        version = place.version or ":latest-published"
        uri = f"{place.base}/api/datasets/:persistentId/versions/{version}?persistentId={persistent}"
        answer = asking.find_json(uri, service=self.name)
        if answer is None:
            answer = asking.find_json(
                f"{place.base}/api/files/:persistentId?persistentId={persistent}", service=self.name
            )
            if answer is None:
                raise missing(self.name, place.identifier, page)
            return self._read_single(place, page, answer.at("data"))
        data = answer.at("data")
        number, minor = data.find_word("versionNumber"), data.find_word("versionMinorNumber")
        told = None if number is None else f"{number}.{minor or 0}"
        files = tuple(self._read_file(place.base, part) for part in data.find_items("files"))
        doi = place.identifier.removeprefix("doi:") if place.identifier.startswith("doi:") else None
        notes: tuple[str, ...] = ()
        if place.version is None and told is not None:
            notes = (f"a Dataverse DOI stands for all versions: the latest, {told}, is what is added",)
        return check_files(CatalogueRecord(self.name, page, doi, _read_title(data), told, files, notes))

    def _read_single(self, place: Place, page: str, data: Json) -> CatalogueRecord:
        """The record of a DOI that is one file's own."""
        file = self._read_file(place.base, data)
        doi = place.identifier.removeprefix("doi:") if place.identifier.startswith("doi:") else None
        said = data.find_text("description") or data.find_text("dataFile", "description")
        title = tidy_title(said or data.find_text("label"))
        return check_files(CatalogueRecord(self.name, page, doi, title, None, (file,)))

    def _read_file(self, base: str, part: Json) -> RecordFile:
        stored = part.at("dataFile")
        number = stored.at("id").word()
        name = part.find_text("label") or stored.at("filename").text()
        uri = f"{base}/api/access/datafile/{quote(number, safe='')}"
        size_bytes = stored.find_size("filesize")
        original = stored.find_text("originalFileFormat")
        if original is not None:
            uri += "?format=original"
            suffix = _ORIGINAL_SUFFIXES.get(original.partition(";")[0].strip())
            renamed = str(PurePosixPath(name).with_suffix(suffix)) if suffix and PurePosixPath(name).name else name
            name = stored.find_text("originalFileName") or renamed
            size_bytes = stored.find_size("originalFileSize")
        folder = part.find_text("directoryLabel")
        path = f"{folder}/{name}" if folder else name
        checksum = stored.find("checksum")
        if checksum is None:
            digest = read_checksum("md5", stored.find_text("md5") or "", stored)
        else:
            digest = read_checksum(checksum.at("type").text(), checksum.at("value").text(), checksum)
        host = urlsplit(base).hostname or ""
        key = f"{host}/datafile/{number}/{name}"
        return RecordFile(path, uri, digest, size_bytes, key, part.is_set("restricted"))


def _read_title(data: Json) -> str:
    for field in data.find_items("metadataBlocks", "citation", "fields"):
        if field.find_text("typeName") == "title":
            return tidy_title(field.find_text("value"))
    return ""
