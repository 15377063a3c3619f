"""Which service keeps a record, and asking it (SCHEMA.md, "DOIs and records").

A DOI whose form names its service is that service's. Any other is looked up at doi.org, by its handle API: the landing
page that it leads to says whose it is. What no service here keeps is asked of DataCite.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from dm.errors import SourceFailed
from dm.plumbing.transport.address import describe_uri
from dm.plumbing.transport.catalogues.asking import Asking, Json
from dm.plumbing.transport.catalogues.datacite import read_datacite
from dm.plumbing.transport.catalogues.dataverse import Dataverse
from dm.plumbing.transport.catalogues.figshare import Figshare
from dm.plumbing.transport.catalogues.files import read_address
from dm.plumbing.transport.catalogues.osf import Osf
from dm.plumbing.transport.catalogues.pangaea import Pangaea
from dm.plumbing.transport.catalogues.protocol import Catalogue, CatalogueRecord, Place, ServiceUrls
from dm.plumbing.transport.catalogues.zenodo import Zenodo
from dm.plumbing.transport.documents import Documents
from dm.progress import Progress
from dm.values import printable

#: DOI name syntax (ANSI/NISO Z39.84): prefix ``10.`` with a registrant code, a slash, a suffix.
_DOI = re.compile(r"10\.\d{4,9}(?:\.\d+)*/[^\s\x00-\x1f\x7f]+")
_DOI_HOSTS = ("doi.org", "dx.doi.org", "www.doi.org")


class _Found(NamedTuple):
    catalogue: Catalogue
    place: Place


def find_doi(identifier: str, urls: ServiceUrls) -> str | None:
    """The DOI that an identifier is: bare, with ``doi:``, or as a URL of doi.org; None when it is none."""
    text = identifier.strip()
    if text[:4].lower() == "doi:":
        text = text[4:].strip()
    elif "://" in text:
        try:
            parts = urlsplit(text)
        except ValueError:
            return None  # no URI at all: whoever uses it as one says so
        if parts.scheme.lower() not in ("http", "https"):
            return None
        if (parts.hostname or "") not in _DOI_HOSTS and not text.startswith(f"{urls.doi}/"):
            return None
        text = unquote(parts.path.lstrip("/") if parts.hostname in _DOI_HOSTS else text[len(urls.doi) + 1 :])
    return text if _DOI.fullmatch(text) else None


def is_record(identifier: str, urls: ServiceUrls) -> bool:
    """Whether an identifier is a DOI or the landing page of a known service. No request is made."""
    return find_doi(identifier, urls) is not None or _find_page(identifier, _list_catalogues(urls)) is not None


def resolve_record(
    identifier: str, *, documents: Documents, urls: ServiceUrls, progress: Progress
) -> CatalogueRecord:
    """The record behind a DOI or a landing page, with its files.

    Raises `SourceFailed` where there is none, where the services do not answer or answer what cannot be read, and
    `Refused` for names and addresses of files that are not safe.
    """
    asking = Asking(documents, progress)
    catalogues = _list_catalogues(urls)
    doi = find_doi(identifier, urls)
    if doi is None:
        found = _find_page(identifier, catalogues)
        if found is None:
            raise SourceFailed(
                f"'{printable(identifier)}' is neither a DOI nor a page of a service that dm knows",
                hint="a DOI begins with '10.'; known are Zenodo, figshare, Dataverse, PANGAEA and OSF",
                code="record-unknown",
            )
        return found.catalogue.read_record(found.place, asking)
    for catalogue in catalogues:
        place = catalogue.find_doi(doi)
        if place is not None:
            return catalogue.read_record(place, asking)
    page = _look_up(doi, urls, asking)
    found = _find_page(page, catalogues) or _find_portal(page, urls)
    if found is None:
        return read_datacite(doi, page, base=urls.datacite, asking=asking)
    record = found.catalogue.read_record(found.place, asking)
    return record if record.doi is not None else record._replace(doi=doi)


def _list_catalogues(urls: ServiceUrls) -> tuple[Catalogue, ...]:
    return (
        Zenodo(urls.zenodo),
        Figshare(urls.figshare),
        Pangaea(urls.pangaea),
        Osf(urls.osf),
        Dataverse(urls.dataverse),
    )


def _find_page(uri: str, catalogues: tuple[Catalogue, ...]) -> _Found | None:
    if "://" not in uri:
        return None
    try:
        urlsplit(uri)
    except ValueError:
        return None
    for catalogue in catalogues:
        place = catalogue.find_page(uri)
        if place is not None:
            return _Found(catalogue, place)
    return None


def _find_portal(page: str, urls: ServiceUrls) -> _Found | None:
    """The article of a page that looks like figshare's on the host of an institution."""
    figshare = Figshare(urls.figshare)
    path = urlsplit(page).path
    place = figshare.find_article(path) if re.match(r"/articles/[^/]+/[^/]+/\d+", path) else None
    return None if place is None else _Found(figshare, place)


def _look_up(doi: str, urls: ServiceUrls, asking: Asking) -> str:
    """The landing page of a DOI, by the handle API of doi.org."""
    answer = asking.find_json(f"{urls.doi}/api/handles/{quote(doi, safe='/')}", service="doi.org")
    if answer is None or answer.find_word("responseCode") in ("100", "200"):
        raise SourceFailed(
            f"no DOI '{printable(doi)}' is registered",
            hint=f"check its spelling: {describe_uri(f'https://doi.org/{doi}')}",
            code="doi-unknown",
        )
    for part in answer.find_items("values"):
        if part.find_text("type") == "URL":
            return read_address(part.at("data", "value"))
    raise Json(None, "doi.org", "values").fault("the address of a page")
