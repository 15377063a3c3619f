"""Object stores, by fsspec: one object or all below a prefix, and data that is opened where it lies.

`address` reads a URI, `services` knows which library serves a scheme and what it is told of the user's credentials,
`backend` and its kin speak to one service each, `objects` brings one object, `prefix` a whole folder, `place` opens.
Nothing here is imported before the first URI of such a scheme is used, and no library before that one's.
"""

from __future__ import annotations

from dm.plumbing.transport.bucket.fetcher import BucketFetcher
from dm.plumbing.transport.bucket.place import open_in_place, open_mapping

__all__ = ["BucketFetcher", "open_in_place", "open_mapping"]
