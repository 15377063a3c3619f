"""Azure Blob Storage and Data Lake Storage Gen2, through adlfs's client."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from dm.plumbing.transport.bucket.address import BucketAddress
from dm.plumbing.transport.bucket.backend import Backend, Found, check_length
from dm.plumbing.transport.bucket.faults import BucketFault, find_fault


class AzureBackend(Backend):
    """Blobs of a container, each piece on condition that it is of the version that was described (If-Match)."""

    pinned = True

    async def describe(self, address: BucketAddress) -> Found | None:
        """The blob at an address; None for a folder of a hierarchical namespace."""
        async with self._system.service_client.get_blob_client(address.bucket, address.key) as client:
            try:
                found = await client.get_blob_properties(version_id=address.version)
            except Exception as error:  # raised again unless it is the one that is looked for
                if find_fault(error).kind == "absent":
                    return None
                raise
        read = _read_blob(address.key, found)
        return None if read.is_folder else read

    async def list_below(self, address: BucketAddress, prefix: str) -> AsyncGenerator[list[Found], None]:
        """All blobs whose name begins with a prefix, as many a page as the service gives."""
        async with self._system.service_client.get_container_client(address.bucket) as client:
            pages = client.list_blobs(name_starts_with=prefix, include=["metadata"]).by_page()
            async for page in pages:
                yield [_read_blob(blob.name, blob) async for blob in page]

    async def read(self, address: BucketAddress, found: Found, start: int, length: int) -> bytes:
        """Bytes of a blob."""
        from azure.core import MatchConditions

        asked: dict[str, Any] = {"offset": start, "length": length, "max_concurrency": 1, "decompress": False}
        if address.version is not None:
            asked["version_id"] = address.version
        elif found.validator:
            asked.update(etag=found.validator, match_condition=MatchConditions.IfNotModified)
        async with self._system.service_client.get_blob_client(address.bucket, found.key) as client:
            stream = await client.download_blob(**asked)
            if found.validator and stream.properties.etag not in (found.validator, f'"{found.validator}"'):
                raise BucketFault("changed")
            return check_length(await stream.readall(), length)

    async def close(self) -> None:
        """Close the client's connections."""
        await self._system.service_client.close()
        close = getattr(self._system.credential, "close", None)
        if close is not None:
            await close()


def _read_blob(name: str, blob: Any) -> Found:
    folder = (blob.metadata or {}).get("hdi_isfolder") == "true" or (name.endswith("/") and not blob.size)
    content_type = blob.content_settings.content_type if blob.content_settings is not None else None
    key = name if name.endswith("/") or not folder else f"{name}/"
    return Found(key, 0 if folder else int(blob.size), str(blob.etag or ""), content_type, folder)
