"""OSF (https://developer.osf.io, API v2): projects, components, registrations and single files, with checksums."""

from __future__ import annotations

import re
from urllib.parse import quote

from dm.errors import SourceFailed
from dm.plumbing.transport.catalogues.asking import FILES_MAX, REQUESTS_MAX, Asking, Json, too_large
from dm.plumbing.transport.catalogues.files import (
    check_files,
    missing,
    read_address,
    read_checksum,
    restricted,
    same_host,
    tidy_title,
)
from dm.plumbing.transport.catalogues.protocol import CatalogueRecord, Place, RecordFile
from dm.values import printable

_SITE = "https://osf.io"
_PAGE_FILES = 100
_DEPTH_MAX = 30
#: The letters of an OSF identifier.
_GUID = r"[23456789abcdefghjkmnpqrstuvwxyz]{5}"


class Osf:
    """The catalogue whose API is at ``base``.

    Files of OSF's own storage are listed, folders and all; those of components and of add-ons (GitHub, …) are not.
    The address of a file is ``/download/<id>/``, which holds no name: each has a key, ``osf.io/<record>/<path>``. Files
    change in place there: the address and the key name the version that was listed.
    """

    name = "OSF"

    def __init__(self, base: str) -> None:
        self._base = base

    def find_doi(self, doi: str) -> Place | None:
        """``10.17605/OSF.IO/XXXXX``."""
        found = re.fullmatch(rf"10\.17605/osf\.io/({_GUID})", doi.lower())
        return Place(self._base, found[1]) if found else None

    def find_page(self, uri: str) -> Place | None:
        """``osf.io/xxxxx``, also its list of files."""
        path = same_host(uri, _SITE, self._base)
        found = None if path is None else re.fullmatch(rf"/({_GUID})(?:/(?:overview|files(?:/osfstorage)?))?/?", path)
        return Place(self._base, found[1]) if found else None

    def read_record(self, place: Place, asking: Asking) -> CatalogueRecord:
        """See `protocol.Catalogue`."""
        page = f"{_SITE}/{place.identifier}/"
        try:
            answer = asking.find_json(f"{place.base}/v2/guids/{place.identifier}/?resolve=false", service=self.name)
            if answer is None:
                raise missing(self.name, place.identifier, page)
            referent = answer.at("data", "relationships", "referent", "data")
            kind, identifier = referent.at("type").text(), quote(referent.at("id").word(), safe="")
            if kind == "files":
                return self._read_file_record(place, page, identifier, asking)
            if kind not in ("nodes", "registrations"):
                raise SourceFailed(
                    f"'{place.identifier}' at {self.name} is one of its {printable(kind)}, which hold no files",
                    hint=f"look at {page} for the project that has them",
                    code="record-empty",
                )
            return self._read_node(place, page, f"{place.base}/v2/{kind}/{identifier}", asking)
        except SourceFailed as error:
            if error.code in ("http-401", "http-403"):
                raise restricted(self.name, place.identifier, page, "it is private") from error
            raise

    def _read_node(self, place: Place, page: str, node: str, asking: Asking) -> CatalogueRecord:
        attributes = asking.read_json(f"{node}/", service=self.name).at("data", "attributes")
        files: list[RecordFile] = []
        folders = [f"{node}/files/osfstorage/"]
        depth = {folders[0]: 0}
        while folders:
            folder = folders.pop(0)
            for part in self._read_pages(folder, asking):
                if part.at("attributes", "kind").text() == "folder":
                    inner = f"{node}/files/osfstorage/{_read_path(part)}/"
                    if depth.get(inner) is not None or depth[folder] >= _DEPTH_MAX:
                        raise part.at("attributes", "path").fault("a folder of its own")
                    depth[inner] = depth[folder] + 1
                    if len(depth) > REQUESTS_MAX:  # each takes a request: what is left of them is saved here
                        raise too_large(self.name)
                    folders.append(inner)
                else:
                    files.append(self._read_file(place.identifier, part))
            if len(files) > FILES_MAX:
                raise too_large(self.name)
        doi = f"10.17605/OSF.IO/{place.identifier.upper()}"
        title = tidy_title(attributes.find_text("title"))
        files.sort(key=lambda file: file.name)
        return check_files(CatalogueRecord(self.name, page, doi, title, None, tuple(files)))

    def _read_file_record(self, place: Place, page: str, identifier: str, asking: Asking) -> CatalogueRecord:
        answer = asking.read_json(f"{place.base}/v2/files/{identifier}/", service=self.name)
        file = self._read_file(place.identifier, answer.at("data"))
        return check_files(CatalogueRecord(self.name, page, None, file.name.rpartition("/")[2], None, (file,)))

    def _read_pages(self, folder: str, asking: Asking) -> list[Json]:
        found: list[Json] = []
        page = 1
        while True:
            # The pages are counted here: what an answer calls the next one might be anywhere.
            answer = asking.read_json(f"{folder}?page={page}&page%5Bsize%5D={_PAGE_FILES}", service=self.name)
            parts = answer.at("data").items()
            found += parts
            if answer.find("links", "next") is None or not parts:
                return found
            if len(found) > FILES_MAX:
                raise too_large(self.name)
            page += 1

    def _read_file(self, record: str, part: Json) -> RecordFile:
        attributes = part.at("attributes")
        name = (attributes.find_text("materialized_path") or attributes.at("name").text()).removeprefix("/")
        uri = read_address(part.at("links", "download"))
        version = attributes.find_word("current_version")
        key = f"{_SITE.partition('://')[2]}/{record}/{name}"
        if version is not None and version.isdecimal():
            uri += f"{'&' if '?' in uri else '?'}version={version}"
            key += f"#{version}"
        hashes = attributes.find("extra", "hashes")
        checksum = None
        if hashes is not None:
            sha256, md5 = hashes.find_text("sha256"), hashes.find_text("md5")
            checksum = read_checksum("sha256", sha256 or "", hashes) or read_checksum("md5", md5 or "", hashes)
        return RecordFile(name, uri, checksum, attributes.find_size("size"), key)


def _read_path(part: Json) -> str:
    """The identifier of a folder, from its ``path``: ``/5f…/``."""
    path = part.at("attributes", "path")
    found = re.fullmatch(r"/(\w+)/", path.text())
    if found is None:
        raise path.fault("the path of a folder")
    return found[1]
