"""DataCite (https://support.datacite.org/docs/api): what is known of a DOI that no service here keeps.

Most records there say nothing of files. Where ``contentUrl`` is set, it does; else the landing page is told.
"""

from __future__ import annotations

from urllib.parse import quote, unquote, urlsplit

from dm.errors import SourceFailed
from dm.plumbing.transport.address import describe_uri
from dm.plumbing.transport.catalogues.asking import Asking, Json
from dm.plumbing.transport.catalogues.files import check_files, read_address, tidy_title
from dm.plumbing.transport.catalogues.protocol import CatalogueRecord, RecordFile
from dm.values import printable

_NAME = "DataCite"


def read_datacite(doi: str, page: str, *, base: str, asking: Asking) -> CatalogueRecord:
    """The record of a DOI by its metadata; ``page`` is where doi.org leads.

    Raises `SourceFailed` (``record-no-files``) that names the landing page where no file is known.
    """
    answer = asking.find_json(f"{base}/dois/{quote(doi, safe='/')}", service=_NAME)
    if answer is None:
        raise _no_files(doi, page, "")
    attributes = answer.at("data", "attributes")
    titles = attributes.find_items("titles")
    title = tidy_title(titles[0].find_text("title")) if titles else ""
    files = tuple(_read_file(part) for part in _list_addresses(attributes))
    if not files:
        raise _no_files(doi, page, title)
    return check_files(CatalogueRecord(_NAME, page, doi, title, attributes.find_word("version"), files))


def _list_addresses(attributes: Json) -> list[Json]:
    found = attributes.find("contentUrl")
    if found is None or not found.value:
        return []
    return found.items() if isinstance(found.value, list) else [found]


def _read_file(part: Json) -> RecordFile:
    uri = read_address(part)
    path = urlsplit(uri).path.rstrip("/")
    return RecordFile(unquote(path.rpartition("/")[2]) or "data", uri)


def _no_files(doi: str, page: str, title: str) -> SourceFailed:
    told = f"'{printable(title)}' (doi {printable(doi)})" if title else f"doi '{printable(doi)}'"
    return SourceFailed(
        f"no service that dm knows says which files {told} has; it leads to '{describe_uri(page)}'",
        hint=f"find the address of the data there, then dm add URI --doi {printable(doi)}",
        code="record-no-files",
    )
