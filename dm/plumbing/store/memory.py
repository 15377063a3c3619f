"""A store in memory: for manifests that are never written down, and for tests."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from dm.plumbing.hashing import blake3_of, tree_id_of
from dm.plumbing.store.objects import TreeEntry, decode_tree, encode_tree, no_object, refuse_unsafe_names
from dm.plumbing.store.refs import Ref, check_ref_name
from dm.values import Digest


class MemoryStore:
    """Objects and refs in dictionaries (`dm.plumbing.store.protocol.Store`). Not for use by several threads."""

    def __init__(self) -> None:
        self._objects: dict[Digest, bytes] = {}
        self._refs: dict[str, Ref] = {}

    def has(self, digest: Digest) -> bool:
        """Whether the object is there."""
        return digest in self._objects

    def size(self, digest: Digest) -> int:
        """The content's bytes. Raises `NotFound`."""
        data = self._read(digest)
        return sum(entry.size for entry in decode_tree(data)) if digest.is_tree else len(data)

    def open_blob(self, digest: Digest) -> BinaryIO:
        """The blob's bytes. Raises `NotFound`."""
        if digest.is_tree:
            raise no_object(digest, "in memory")
        return io.BytesIO(self._read(digest))

    def read_tree(self, digest: Digest) -> list[TreeEntry]:
        """The folder's entries. Raises `NotFound`."""
        if not digest.is_tree:
            raise no_object(digest, "in memory")
        return decode_tree(self._read(digest))

    def put_blob(self, content: bytes | BinaryIO) -> Digest:
        """Store bytes or a stream; return the blob's id."""
        data = content if isinstance(content, bytes) else content.read()
        digest = Digest.of_blob(blake3_of(data))
        self._objects.setdefault(digest, data)
        return digest

    def put_tree(self, entries: Iterable[TreeEntry]) -> Digest:
        """Store a folder's entries; return the tree's id. Raises `Malformed` and `Refused`."""
        listed = list(entries)
        data = encode_tree(listed)
        refuse_unsafe_names([entry.name for entry in listed])
        digest = Digest.of_tree(tree_id_of(data))
        self._objects.setdefault(digest, data)
        return digest

    def list_objects(self) -> Iterator[tuple[Digest, int]]:
        """Every object with its bytes, in the order of the ids' hex."""
        yield from [(digest, len(self._objects[digest])) for digest in sorted(self._objects, key=lambda each: each.hex)]

    def read_ref(self, name: str) -> Ref | None:
        """What was last seen of the copy ``name``."""
        return self._refs.get(check_ref_name(name))

    def write_ref(self, name: str, ref: Ref) -> None:
        """Record what was seen of a copy."""
        self._refs[check_ref_name(name)] = ref

    def remove_ref(self, name: str) -> None:
        """Forget what was seen of a copy."""
        self._refs.pop(check_ref_name(name), None)

    def list_refs(self) -> Iterator[tuple[str, Ref]]:
        """Every ref, in the order of the names' parts."""
        yield from sorted(self._refs.items(), key=lambda item: item[0].split("/"))

    def _read(self, digest: Digest) -> bytes:
        data = self._objects.get(digest)
        if data is None:
            raise no_object(digest, "in memory")
        return data
