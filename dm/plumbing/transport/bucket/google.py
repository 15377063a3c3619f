"""Google Cloud Storage, through gcsfs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from types import MethodType
from typing import Any

from dm.plumbing.transport.bucket.address import BucketAddress
from dm.plumbing.transport.bucket.backend import Backend, Found, check_length
from dm.plumbing.transport.connections import HttpOptions


class GoogleBackend(Backend):
    """Objects of a bucket, each piece of the generation that was described."""

    pinned = True
    retries = None

    def __init__(self, system: Any, options: HttpOptions) -> None:
        super().__init__(system, options)
        # What is stored gzipped (Content-Encoding) is what is wanted, not what aiohttp unpacks it to; answers to
        # questions may come gzipped too, and are unpacked: so there are two sessions.
        quick = {"skip_instance_cache": True, "token": "anon", "session_kwargs": {"auto_decompress": False}}
        self._reader = type(system)(endpoint_url=system._endpoint, **quick)
        self._reader.credentials = system.credentials
        for each in (self._system, self._reader):
            _ask_once(each)

    async def describe(self, address: BucketAddress) -> Found | None:
        """The object at an address."""
        details = {} if address.version is None else {"generation": address.version}
        try:
            found = await self._system._call("GET", "b/{}/o/{}", address.bucket, address.key, json_out=True, **details)
        except FileNotFoundError:
            return None
        return _read_item(found)

    async def list_below(self, address: BucketAddress, prefix: str) -> AsyncGenerator[list[Found], None]:
        """All objects whose name begins with a prefix, 1,000 a page."""
        asked: dict[str, Any] = {"prefix": prefix, "maxResults": 1000}
        while True:
            answer = await self._system._call("GET", "b/{}/o", address.bucket, json_out=True, **asked)
            yield [_read_item(item) for item in answer.get("items", ())]
            token = answer.get("nextPageToken")
            if not token:
                return
            asked["pageToken"] = token

    async def read(self, address: BucketAddress, found: Found, start: int, length: int) -> bytes:
        """Bytes of one generation of an object."""
        place = f"{address.bucket}/{found.key}"
        generation = found.validator or address.version
        data = await self._reader._cat_file(place, start=start, end=start + length, generation=generation)
        return check_length(data, length)

    async def close(self) -> None:
        """Close the session's connections."""
        for system in (self._system, self._reader):
            if system._session is not None:
                await system._session.close()


def _ask_once(system: Any) -> None:
    """Take gcsfs's own tries away: six that no option changes, half a minute where nobody answers. `Source` tries."""
    from gcsfs.retry import retry_request  # type: ignore[import-untyped]

    system._request = MethodType(retry_request(retries=1)(type(system)._request.__wrapped__), system)


def _read_item(item: dict[str, Any]) -> Found:
    name, size = str(item["name"]), int(item["size"])
    folder = name.endswith("/") and not size
    return Found(name, size, str(item.get("generation", "")), item.get("contentType"), folder)
