"""Reading the URI of an object or a prefix."""

from __future__ import annotations

import re
from typing import NamedTuple

from dm.errors import SourceFailed
from dm.plumbing.transport.address import describe_uri

#: The parameter of a query that names one version of an object, by scheme.
_VERSION_PARAMETERS = {"s3": "versionId", "gs": "generation", "gcs": "generation"}
_AZURE_VERSION_PARAMETER = "versionid"
_AZURE_SCHEMES = frozenset({"az", "abfs", "abfss"})
_AZURE_HOSTS = (".blob.core.windows.net", ".dfs.core.windows.net")
#: What an account may be called: it becomes a part of the host that credentials are sent to.
_ACCOUNT = re.compile(r"[A-Za-z0-9-]+")


class BucketAddress(NamedTuple):
    """Where data lies in an object store.

    ``bucket`` is the bucket or container; ``key`` is what follows it, as it stands in the URI: with its slash at the
    end where it has one, empty for the whole bucket. ``version`` is the version (generation) that the URI asks for and
    ``account`` the storage account that an Azure URI names.
    """

    uri: str
    scheme: str
    bucket: str
    key: str
    version: str | None = None
    account: str | None = None

    @property
    def is_prefix(self) -> bool:
        """Whether it can only be a folder: it ends in a slash, or it is the whole bucket."""
        return not self.key or self.key.endswith("/")

    @property
    def place(self) -> str:
        """``bucket/key``, the path as fsspec has it."""
        return f"{self.bucket}/{self.key}" if self.key else self.bucket

    @property
    def shown(self) -> str:
        """The URI as messages show it."""
        return describe_uri(self.uri)

    @classmethod
    def parse(cls, uri: str) -> BucketAddress:
        """Read ``scheme://bucket/key``; of Azure also ``az://account.blob.core.windows.net/container/key``.

        The key is taken as it stands, without percent-decoding: so do the services' own tools and fsspec. What follows
        the first ``#`` or ``?`` is no part of it. Raises `SourceFailed` when no bucket is named, or
        an account that cannot be one.
        """
        head, _, rest = uri.partition("://")
        scheme = head.lower()
        rest, _, query = rest.partition("#")[0].partition("?")
        bucket, _, key = rest.partition("/")
        account = None
        if scheme in _AZURE_SCHEMES:
            suffix = next((each for each in _AZURE_HOSTS if bucket.lower().endswith(each)), None)
            if suffix is not None:
                account = bucket[: -len(suffix)]
                if not _ACCOUNT.fullmatch(account):
                    message = f"cannot fetch '{describe_uri(uri)}': no storage account has such a name"
                    raise SourceFailed(message, hint="check the 'uri'", code="uri-malformed")
                bucket, _, key = key.partition("/")
        if not bucket:
            named = "container" if scheme in _AZURE_SCHEMES else "bucket"
            message = f"cannot fetch '{describe_uri(uri)}': it names no {named}"
            raise SourceFailed(message, hint=f"write {scheme}://{named}/key", code="uri-malformed")
        return cls(uri, scheme, bucket, key, _find_version(scheme, query), account)


def _find_version(scheme: str, query: str) -> str | None:
    from urllib.parse import parse_qs

    name = _AZURE_VERSION_PARAMETER if scheme in _AZURE_SCHEMES else _VERSION_PARAMETERS.get(scheme)
    if not query or name is None:
        return None
    return parse_qs(query).get(name, [None])[0]
