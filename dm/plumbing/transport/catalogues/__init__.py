"""Catalogues of published data: from a DOI or the address of a record to its files.

`resolution` decides which service keeps a record and asks it; each service is a file of its own behind `protocol`.
Nothing is written here, and no file of a record is fetched.
"""

from dm.plumbing.transport.catalogues.protocol import CatalogueRecord, RecordFile, ServiceUrls
from dm.plumbing.transport.catalogues.resolution import is_record, resolve_record

__all__ = ["CatalogueRecord", "RecordFile", "ServiceUrls", "is_record", "resolve_record"]
