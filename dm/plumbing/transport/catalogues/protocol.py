"""What a catalogue is asked and what it answers."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from dm.plumbing.transport.catalogues.asking import Asking
from dm.values import Digest


class ServiceUrls(NamedTuple):
    """Where the services are, without a slash at the end: the personal fields ``zenodo_url`` and so on (SCHEMA.md,
    "DOIs and records").

    ``doi`` serves the handle API of doi.org. ``dataverse`` is asked in place of the installation that a DOI leads to;
    None: that one is asked.
    """

    doi: str = "https://doi.org"
    zenodo: str = "https://zenodo.org"
    figshare: str = "https://api.figshare.com"
    dataverse: str | None = None
    pangaea: str = "https://doi.pangaea.de"
    osf: str = "https://api.osf.io"
    datacite: str = "https://api.datacite.org"


class RecordFile(NamedTuple):
    """One file of a record. ``name`` is its path in the record, parts separated by ``/``, safe to join.

    ``uri`` is where its bytes are, of this version for ever where the service allows it. ``key`` is the storage key
    that the file needs where the path of the URI does not end in its name; None: the derived key is right.
    ``checksum`` and ``size_bytes`` are the publisher's. A ``restricted`` file is not for everyone to download.
    """

    name: str
    uri: str
    checksum: Digest | None = None
    size_bytes: int | None = None
    key: str | None = None
    restricted: bool = False


class CatalogueRecord(NamedTuple):
    """A record: what is published under one identifier, in one version.

    ``service`` is the catalogue's name, ``page`` the record's landing page. ``doi`` is that of the version where there
    is one, ``version`` what the publisher calls it. ``notes`` are lines that a person should see (a later version was
    taken, files are elsewhere).
    """

    service: str
    page: str
    doi: str | None
    title: str
    version: str | None
    files: tuple[RecordFile, ...]
    notes: tuple[str, ...] = ()

    @property
    def has_named_addresses(self) -> bool:
        """Whether every file's URI ends in its name, so that several make a folder."""
        return all(file.key is None for file in self.files)


class Place(NamedTuple):
    """Where a catalogue keeps one record: ``base`` is the service's address, ``identifier`` its own name of the record,
    ``version`` the one that was asked for (None: the latest).
    """

    base: str
    identifier: str
    version: str | None = None


class Catalogue(Protocol):
    """One service. It recognises what is its own without a request, and reads records."""

    @property
    def name(self) -> str:
        """The service's name, for people."""

    def find_doi(self, doi: str) -> Place | None:
        """The record of a DOI whose form alone says that it is this service's; None otherwise."""

    def find_page(self, uri: str) -> Place | None:
        """The record that a landing page shows; None for any other URI, that of a file included."""

    def read_record(self, place: Place, asking: Asking) -> CatalogueRecord:
        """Ask the service for a record.

        Raises `SourceFailed` with code ``record-missing``, ``record-restricted``, ``record-empty`` or
        ``record-malformed``, or what asking raises, and `Refused` (``record-unsafe``) for file names or addresses that
        are not safe.
        """
