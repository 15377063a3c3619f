"""Objects and prefixes of object stores, as a transport."""

from __future__ import annotations

from dm.environment import Environment
from dm.errors import SourceFailed
from dm.plumbing.fs.publish import ensure_folder, remove_tree
from dm.plumbing.transport.bucket.address import BucketAddress
from dm.plumbing.transport.bucket.backend import Found
from dm.plumbing.transport.bucket.faults import BucketFault
from dm.plumbing.transport.bucket.objects import fetch_object
from dm.plumbing.transport.bucket.prefix import PrefixFetch
from dm.plumbing.transport.bucket.services import SERVICES
from dm.plumbing.transport.bucket.source import Source, Sources
from dm.plumbing.transport.connections import HttpOptions
from dm.plumbing.transport.protocol import Fetched, FetchRequest
from dm.progress import Progress, Task

#: How often an object may change under a transfer before it is given up.
_VERSIONS_MAX = 3


class BucketFetcher:
    """The transport of object stores. A URI that names an object is a file, one that names a prefix a folder.

    With ``/`` at its end a URI is a prefix. Without, it is the object of that key where there is one, else the prefix
    ``key/``. A key is taken as it stands; where nothing has it and it holds percent escapes, decoded.

    Credentials are the user's own; where there are none, or where those that there are are refused, what everybody may
    read is read as everybody does. Memory is bounded whatever the sizes: at most 32 MiB are on their way, over all
    transfers together.
    """

    schemes = frozenset({*SERVICES, "adl"})

    def __init__(self, environment: Environment, options: HttpOptions | None = None) -> None:
        self._sources = Sources(environment, options or HttpOptions())

    def fetch(self, request: FetchRequest, *, task: Task, progress: Progress) -> Fetched:
        """Bring an object or a prefix (see `protocol.Fetcher`), going on with what an earlier run left.

        Raises `SourceFailed`: ``extra-missing``, ``no-such-bucket``, ``no-such-object``, ``access-denied``,
        ``cannot-connect``, ``service-failed``, ``source-changing``; `Refused` (``key-unsafe``) for a prefix with a key
        that cannot be a path; `MachineFailed` when the disk will not take it.
        """
        address = BucketAddress.parse(request.uri)
        source = self._sources.open(address)
        try:
            return self._fetch(source, address, request, task)
        except SourceFailed as error:
            if error.code != "access-denied" or source.anonymous:
                raise
            refused = error
        try:
            fetched = self._fetch(self._sources.open_public(address), address, request, task)
        except SourceFailed as error:
            if error.code == "access-denied":
                raise refused from error
            raise
        progress.note(f"'{address.shown}' may be read by everybody: the credentials that were found are not used")
        return fetched

    def close(self) -> None:
        """End what is under way and let go of connections (see `protocol.Fetcher`)."""
        self._sources.close()

    def _fetch(self, source: Source, address: BucketAddress, request: FetchRequest, task: Task) -> Fetched:
        for attempt in (address, _decode(address)):
            if attempt is None:
                break
            found = None if attempt.is_prefix else source.describe(attempt)
            if found is not None:
                return self._fetch_object(source, attempt, found, request, task)
            prefix = attempt.key if attempt.is_prefix else f"{attempt.key}/"
            listed = source.list_below(attempt, prefix)
            if listed:
                return self._fetch_prefix(source, attempt, prefix, listed, request, task)
        raise source.explain(address, BucketFault("absent"))

    def _fetch_object(
        self, source: Source, address: BucketAddress, found: Found, request: FetchRequest, task: Task
    ) -> Fetched:
        path = request.folder / request.file_name
        ensure_folder(request.folder)
        if path.is_dir() and not path.is_symlink():
            remove_tree(path)  # the prefix that this was
        for _ in range(_VERSIONS_MAX):
            task.resize(found.size_bytes)
            try:
                arrived = fetch_object(source, address, found, path, request.algorithms, task)
            except BucketFault as fault:
                fresh = source.describe(address)
                if fresh is None:
                    raise source.explain(address, BucketFault("absent")) from fault
                found = fresh
                continue
            return Fetched(path, arrived.digests, arrived.size_bytes, found.content_type, arrived.from_cache)
        raise source.explain(address, BucketFault("changed"))

    def _fetch_prefix(
        self,
        source: Source,
        address: BucketAddress,
        prefix: str,
        listed: list[Found],
        request: FetchRequest,
        task: Task,
    ) -> Fetched:
        fetch = PrefixFetch(source, address, prefix, listed, request, task)
        size_bytes, from_cache = fetch.run()
        return Fetched(request.folder / request.file_name, {}, size_bytes, None, from_cache)


def _decode(address: BucketAddress) -> BucketAddress | None:
    """The address with its percent escapes decoded; None when it has none, or decodes to no text."""
    from urllib.parse import unquote

    if "%" not in address.key:
        return None
    try:
        key = unquote(address.key, errors="strict")
    except UnicodeDecodeError:
        return None
    return None if key == address.key or "\0" in key else address._replace(key=key)
