"""S3 and what speaks its language, through s3fs's client."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from dm.environment import Environment
from dm.plumbing.transport.bucket.address import BucketAddress
from dm.plumbing.transport.bucket.backend import CONNECTIONS, Backend, Found, check_length
from dm.plumbing.transport.bucket.faults import BucketFault, find_fault
from dm.plumbing.transport.bucket.identity import has_credentials, make_session
from dm.plumbing.transport.bucket.services import Service, build_options, load_class
from dm.plumbing.transport.connections import HttpOptions


class S3Backend(Backend):
    """Objects of a bucket, each piece on condition that it is of the version that was described (If-Match)."""

    pinned = True
    retries = None

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
        """Make the client (see `Backend.create`), with tries, silences and credentials as the session has them."""
        make = load_class(service, address.uri)
        words = build_options(address.scheme, environment, account=None, anonymous=anonymous)
        config = {
            "connect_timeout": options.connect_timeout_s,
            "read_timeout": options.read_timeout_s,
            "max_pool_connections": CONNECTIONS,
            # Every try is counted in one place, which is ours.
            "retries": {"mode": "standard", "total_max_attempts": 1},
        }
        session = make_session(environment)
        return cls(make(**words, session=session, config_kwargs=config), options)

    async def has_credentials(self) -> bool:
        """Whether any were found for this user."""
        return await has_credentials(self._system.session)

    async def describe(self, address: BucketAddress) -> Found | None:
        """The object at an address (HEAD)."""
        client = await self._system.set_session()
        try:
            answer = await client.head_object(Bucket=address.bucket, Key=address.key, **_version(address))
        except Exception as error:
            fault = find_fault(error)
            if fault.kind == "absent":
                return None
            if fault.kind in ("denied", "failed") and not fault.reason.isalpha():
                # An answer to HEAD has no body, so it does not say why; that to a listing does.
                await client.list_objects_v2(Bucket=address.bucket, Prefix=address.key, MaxKeys=1)
            raise
        return Found(address.key, int(answer["ContentLength"]), answer.get("ETag", ""), answer.get("ContentType"))

    async def list_below(self, address: BucketAddress, prefix: str) -> AsyncGenerator[list[Found], None]:
        """All objects whose key begins with a prefix (ListObjectsV2, 1,000 a page)."""
        client = await self._system.set_session()
        asked: dict[str, Any] = {"Bucket": address.bucket, "Prefix": prefix}
        while True:
            answer = await client.list_objects_v2(**asked)
            page = []
            for each in answer.get("Contents", ()):
                key, size = each["Key"], int(each["Size"])
                page.append(Found(key, size, each.get("ETag", ""), is_folder=key.endswith("/") and not size))
            yield page
            if not answer.get("IsTruncated"):
                return
            token = answer.get("NextContinuationToken")
            if not token or token == asked.get("ContinuationToken"):
                raise BucketFault("failed", "a listing that does not end")
            asked["ContinuationToken"] = token

    async def read(self, address: BucketAddress, found: Found, start: int, length: int) -> bytes:
        """Bytes of an object (GET with Range and If-Match)."""
        client = await self._system.set_session()
        asked: dict[str, Any] = {"Bucket": address.bucket, "Key": found.key, **_version(address)}
        if found.validator:
            asked["IfMatch"] = found.validator
        if start or length < found.size_bytes:
            asked["Range"] = f"bytes={start}-{start + length - 1}"
        answer = await client.get_object(**asked)
        async with answer["Body"] as body:
            # A server that knows no If-Match, or no Range, is found out here.
            if found.validator and answer.get("ETag", found.validator) != found.validator:
                raise BucketFault("changed")
            if "Range" in asked and not answer.get("ContentRange", "").startswith(f"bytes {start}-"):
                raise BucketFault("failed", "it sent another part than was asked for")
            return check_length(await body.read(), length)

    async def close(self) -> None:
        """Close the client's connections."""
        creator = getattr(self._system, "_s3creator", None)
        if creator is not None:
            await creator.__aexit__(None, None, None)


def _version(address: BucketAddress) -> dict[str, str]:
    return {} if address.version is None else {"VersionId": address.version}
