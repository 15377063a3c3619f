"""figshare (https://docs.figshare.com): ``GET /v2/articles/ID``, files with md5 checksums."""

from __future__ import annotations

import re

from dm.errors import SourceFailed
from dm.plumbing.transport.catalogues.asking import FILES_MAX, Asking, Json, too_large
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

#: An article names at most so many of its files; the others are asked for by pages.
_INLINE_FILES = 10
_PAGE_FILES = 100


class Figshare:
    """The catalogue whose API is at ``base``.

    A DOI without ``.vN`` is that of all versions: the latest is taken and its own DOI pinned. The address of a file is
    ``…/files/<number>``, which holds no name: each has a key, ``figshare.com/files/<number>/<name>``.
    """

    name = "figshare"

    def __init__(self, base: str) -> None:
        self._base = base

    def find_doi(self, doi: str) -> Place | None:
        """``10.6084/m9.figshare.ID`` with or without ``.vN``, and ``c.ID`` (a collection, which is told)."""
        found = re.fullmatch(r"10\.6084/m9\.figshare\.(c\.)?(\d+)(?:\.v(\d+))?", doi, re.IGNORECASE)
        return Place(self._base, (found[1] or "") + found[2], found[3]) if found else None

    def find_page(self, uri: str) -> Place | None:
        """``/articles/<kind>/<title>/ID[/VERSION]`` of figshare.com and of the portals of institutions."""
        host, _, path = uri.partition("://")[2].partition("/")
        if host.lower() != "figshare.com" and not host.lower().endswith(".figshare.com"):
            path = same_host(uri, self._base) or ""
        return self.find_article(path)

    def find_article(self, path: str) -> Place | None:
        """The article that a landing page's path names; for hosts that a DOI led to."""
        path = path.partition("?")[0].partition("#")[0].strip("/")
        found = re.fullmatch(r"(?:v2/)?articles/(?:[^/]+/){0,2}?(\d+)(?:/(\d+)|/versions/(\d+))?", path)
        if found is not None:
            return Place(self._base, found[1], found[2] or found[3])
        found = re.fullmatch(r"collections/[^/]+/(\d+)(?:/\d+)?", path)
        return Place(self._base, f"c.{found[1]}") if found else None

    def read_record(self, place: Place, asking: Asking) -> CatalogueRecord:
        """See `protocol.Catalogue`."""
        page = f"https://figshare.com/articles/dataset/_/{place.identifier}"
        if place.identifier.startswith("c."):
            raise SourceFailed(
                f"'{place.identifier}' at {self.name} is a collection, not one article with files",
                hint="add the articles that are wanted one by one",
                code="record-series",
            )
        article = f"{place.base}/v2/articles/{place.identifier}"
        version_path = f"/versions/{place.version}" if place.version else ""
        answer = asking.find_json(article + version_path, service=self.name)
        if answer is None:
            wanted = f"{place.identifier}.v{place.version}" if place.version else place.identifier
            raise missing(self.name, wanted, page)
        title = tidy_title(answer.find_text("title"))
        version = answer.find_word("version")
        page = answer.find_text("url_public_html") or page
        doi = answer.find_text("doi")
        parts = answer.find_items("files")
        if not parts:
            self._refuse_without_files(answer, title, page)
        if len(parts) >= _INLINE_FILES:
            parts = self._read_pages(f"{article}/versions/{version}" if version else article, asking)
        notes = []
        if place.version is None and version is not None:
            doi = doi if doi is None or re.search(r"\.v\d+$", doi) else f"{doi}.v{version}"
            notes.append(f"no version was asked for: the latest, '{doi or version}', is what is added")
        files = tuple(self._read_file(part) for part in parts)
        return check_files(CatalogueRecord(self.name, page, doi, title, version, files, tuple(notes)))

    def _refuse_without_files(self, answer: Json, title: str, page: str) -> None:
        if answer.is_set("is_embargoed"):
            raise restricted(self.name, title, page, "they are under embargo")
        if answer.is_set("is_confidential"):
            raise restricted(self.name, title, page, "they are confidential")

    def _read_pages(self, article: str, asking: Asking) -> list[Json]:
        found: list[Json] = []
        page = 1
        while True:
            uri = f"{article}/files?page={page}&page_size={_PAGE_FILES}"
            parts = asking.read_json(uri, service=self.name).items()
            found += parts
            if len(parts) < _PAGE_FILES:
                return found
            if len(found) > FILES_MAX:
                raise too_large(self.name)
            page += 1

    def _read_file(self, part: Json) -> RecordFile:
        name, number = part.at("name").text(), part.at("id").word()
        uri = read_address(part.at("download_url"))
        md5 = part.find_text("supplied_md5") or part.find_text("computed_md5") or ""
        size_bytes = part.find_size("size")
        if part.is_set("is_link_only"):  # it lies elsewhere: figshare knows neither its size nor its bytes
            md5, size_bytes = "", None
        return RecordFile(name, uri, read_checksum("md5", md5, part), size_bytes, f"figshare.com/files/{number}/{name}")
