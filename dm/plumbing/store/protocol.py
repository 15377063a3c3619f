"""What a store can do, by ability. One contract suite (tests/contracts/test_stores.py) holds for all that claim it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO, Protocol

from dm.plumbing.store.objects import TreeEntry
from dm.plumbing.store.refs import Ref
from dm.values import Digest


class TreeReader(Protocol):
    """Trees that can be read."""

    def read_tree(self, digest: Digest) -> list[TreeEntry]:
        """The folder's entries in the order of their names' bytes, verified. Raises as `Reader.open_blob`, and
        `Malformed`.
        """


class Reader(TreeReader, Protocol):
    """Objects that can be read. Ids are ``blake3`` for a blob and ``blake3-tree`` for a tree; others are never had."""

    def has(self, digest: Digest) -> bool:
        """Whether the object is there. Its bytes are not looked at."""

    def size(self, digest: Digest) -> int:
        """The content's bytes: a blob's length, for a tree the sum below it. Raises `NotFound`."""

    def open_blob(self, digest: Digest) -> BinaryIO:
        """The blob's bytes, verified before the first is handed out.

        Raises `NotFound`, also for a tree's id, and `ContentMismatch` when the object is damaged.
        """


class Store(Reader, Protocol):
    """Objects and refs that can be written. Writing what is there already changes nothing and is no error."""

    def put_blob(self, content: bytes | BinaryIO) -> Digest:
        """Store bytes, or what is left in a binary stream in bounded memory; return the blob's id."""

    def put_tree(self, entries: Iterable[TreeEntry]) -> Digest:
        """Store a folder's entries, given in any order; return the tree's id.

        Whether the entries' objects are there is not asked. Raises `Malformed` for what is no folder, `Refused` for
        names that may not be written (`refuse_unsafe_names`).
        """

    def list_objects(self) -> Iterator[tuple[Digest, int]]:
        """Every object, in the order of the ids' hex, with the bytes it takes in the store."""

    def read_ref(self, name: str) -> Ref | None:
        """What was last seen of the copy ``name`` (its ``/``-joined path below the root); None: nothing known."""

    def write_ref(self, name: str, ref: Ref) -> None:
        """Record what was seen of a copy. Raises `Refused` for a name that is no safe relative path."""

    def remove_ref(self, name: str) -> None:
        """Forget what was seen of a copy; nothing there is fine."""

    def list_refs(self) -> Iterator[tuple[str, Ref]]:
        """Every ref, in the order of the names' parts."""
