"""What every object store is asked, and how each library answers: coroutines on fsspec's loop.

The libraries' own file-like layers tidy names and hide which version they read. Here names come as the service has
them, and a piece is read of one version only: S3 and Azure are asked for it on condition (If-Match), Google for a
generation. Where a library offers nothing of the kind, the caller looks at the version before and after.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any, NamedTuple

from dm.environment import Environment
from dm.plumbing.transport.bucket.address import BucketAddress
from dm.plumbing.transport.bucket.faults import BucketFault
from dm.plumbing.transport.bucket.services import Service, build_options, load_class
from dm.plumbing.transport.connections import HttpOptions

#: Connections of one client: as many as pieces may be on their way, and some to ask with.
CONNECTIONS = 24


#: What names one version of a file, by what file systems of fsspec call it.
_VALIDATORS = (
    "ETag",
    "etag",
    "generation",
    "version",
    "md5Checksum",
    "modifiedTime",
    "LastModified",
    "last_modified",
    "mtime",
    "modified",
    "created",
)


class Found(NamedTuple):
    """An object as its service describes it. ``validator`` names this version of its bytes; empty: there is none.

    ``is_folder`` says that it stands for a folder and holds no data.
    """

    key: str
    size_bytes: int
    validator: str
    content_type: str | None = None
    is_folder: bool = False


class Backend:
    """Any file system of fsspec; the base of those that know their service better.

    Made by `make_backend`; used on fsspec's loop, save for its making. Its coroutines raise what the library raises,
    and `BucketFault`.
    """

    #: Whether `read` answers for one version only.
    pinned = False
    #: Tries of ours on top of the library's own; None: as many as the options say.
    retries: int | None = 1

    def __init__(self, system: Any, options: HttpOptions) -> None:
        self._system = system
        self._options = options

    @classmethod
    def create(
        cls,
        address: BucketAddress,
        service: Service,
        environment: Environment,
        options: HttpOptions,
        *,
        anonymous: bool,
    ) -> Backend:
        """Make the file system; may ask for credentials, so never on the loop. Raises as the library does."""
        make = load_class(service, address.uri)
        system = make(**build_options(address.scheme, environment, account=address.account, anonymous=anonymous))
        if not system.async_impl:
            from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper  # type: ignore[import-untyped]

            system = AsyncFileSystemWrapper(system, asynchronous=True)
        return cls(system, options)

    async def describe(self, address: BucketAddress) -> Found | None:
        """The object at an address; None when there is none (there may still be a prefix of that name)."""
        try:
            found = await self._system._info(address.place)
        except (FileNotFoundError, IsADirectoryError):
            return None
        if found.get("type") == "directory" or found.get("size") is None:
            return None
        return Found(address.key, int(found["size"]), _find_validator(found), found.get("contentType"))

    async def list_below(self, address: BucketAddress, prefix: str) -> AsyncGenerator[list[Found], None]:
        """All objects whose key begins with a prefix, a page at a time."""
        place = f"{address.bucket}/{prefix}".rstrip("/")
        try:
            listed = await self._system._find(place, withdirs=True, detail=True)
        except FileNotFoundError:
            return
        start = place.lstrip("/") + "/"
        page = []
        for name, details in listed.items():
            name = name.lstrip("/")
            if name.startswith(start):
                folder = details.get("type") == "directory"
                size = 0 if folder else int(details["size"])
                key = name[len(address.bucket.lstrip("/")) + 1 :] + ("/" if folder else "")
                page.append(Found(key, size, _find_validator(details), is_folder=folder))
        yield page

    async def read(self, address: BucketAddress, found: Found, start: int, length: int) -> bytes:
        """Bytes ``start`` to ``start + length`` of an object; never fewer."""
        place = f"{address.bucket}/{found.key}"
        return check_length(await self._system._cat_file(place, start=start, end=start + length), length)

    async def close(self) -> None:
        """Let go of connections."""


def check_length(data: bytes, length: int) -> bytes:
    """The data, when it is as long as it was asked for; else a fault that may pass."""
    if len(data) != length:
        raise BucketFault("passing", f"it sent {len(data):,} of {length:,} bytes")
    return data


def _find_validator(details: dict[str, Any]) -> str:
    """What names a version, among what file systems of fsspec call it; empty when there is nothing."""
    for name in _VALIDATORS:
        value = details.get(name)
        if value is None:
            continue
        if isinstance(value, datetime):  # one and the same time may come as either
            value = value.timestamp()
        text = str(value)
        if text.isprintable() and text.isascii():
            return text
    return ""
