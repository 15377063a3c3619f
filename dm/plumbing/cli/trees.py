"""Printing trees: the same lines for ``ls-tree`` and ``cat-object``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dm.plumbing.cli.output import write_bytes, write_records
from dm.plumbing.store.objects import TreeEntry, encode_tree
from dm.values import Digest, printable

if TYPE_CHECKING:
    from dm.plumbing.store.protocol import Reader


def write_tree(reader: Reader, tree: Digest, *, recursive: bool = False, nul: bool = False) -> None:
    """``<mode> <id> <size>\\t<name>`` for each entry; with ``nul`` exactly the bytes that are hashed.

    ``recursive`` names files by their path and leaves the folders out.
    """
    if nul and not recursive:
        write_bytes(encode_tree(reader.read_tree(tree)))
        return
    entries = list_entries(reader, tree) if recursive else iter(reader.read_tree(tree))
    if nul:
        write_bytes(b"".join(format_entry(entry) + b"\0" for entry in entries))
    else:
        write_records(printable(os.fsdecode(format_entry(entry))).replace("\\t", "\t", 1) for entry in entries)


def format_entry(entry: TreeEntry) -> bytes:
    """One line without its end."""
    return f"{entry.mode} {entry.id.hex()} {entry.size}\t".encode() + entry.name


def list_entries(reader: Reader, tree: Digest, folder: bytes = b"") -> Iterator[TreeEntry]:
    """Every file and link below a tree, named by its path."""
    for entry in reader.read_tree(tree):
        path = folder + entry.name
        if entry.is_folder:
            yield from list_entries(reader, Digest.of_tree(entry.id), path + b"/")
        else:
            yield entry._replace(name=path)
