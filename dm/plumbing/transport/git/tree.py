"""The entries of a commit's tree, all of them known and checked before the first one is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from dm.plumbing.transport.git.faults import GitFault, corrupt, unsafe
from dm.plumbing.transport.git.names import find_name_fault
from dm.plumbing.transport.git.objects import Objects

#: As many entries as an archive may hold by default (dm.plumbing.formats.archive): trees that name each other over and
#: over make billions out of a few hundred bytes.
ENTRIES_MAX = 2_000_000
#: The longest path below the folder, in bytes: with the folder's own it stays below what Linux opens (4096).
PATH_BYTES_MAX = 3000

FOLDER = 0o040000
FILE = 0o100644
PROGRAM = 0o100755
LINK = 0o120000
SUBMODULE = 0o160000
#: What git has written since 2005 for what is a plain file today.
_MODES = {FOLDER: FOLDER, FILE: FILE, 0o100664: FILE, PROGRAM: PROGRAM, LINK: LINK, SUBMODULE: SUBMODULE}
_OCTAL_DIGITS = frozenset(b"01234567")


class TreeEntry(NamedTuple):
    """A path below the folder, what it is, and the name of its object (of a submodule: its commit elsewhere)."""

    path: bytes
    mode: int
    name: bytes


def list_entries(objects: Objects, tree: bytes, should_stop: Callable[[], None]) -> list[TreeEntry]:
    """Every entry of a tree, a folder before what it holds, the folders in no special order.

    Raises `GitFault`: for names and modes that may not be made here, for more than two million entries or paths of
    more than 3000 bytes, for a damaged tree.
    """
    if _count_entries(objects, tree, should_stop) > ENTRIES_MAX:
        hint = "such a repository is made to fill disks; ask its keeper"
        reason = f"it holds more than {ENTRIES_MAX} files and folders"
        raise GitFault(reason, hint=hint, code="git-too-large", refused=True)
    found: list[TreeEntry] = []
    todo = [(b"", tree)]
    while todo:
        should_stop()
        folder, name = todo.pop()
        entries = _read_tree(objects.read(name, "tree"), folder, objects.name_bytes)
        found += entries
        todo += [(entry.path + b"/", entry.name) for entry in entries if entry.mode == FOLDER]
    return found


def _count_entries(objects: Objects, tree: bytes, should_stop: Callable[[], None]) -> int:
    """How many entries a tree has in all, each distinct tree read once, however often it is named."""
    counts: dict[bytes, int] = {}
    below: dict[bytes, list[bytes]] = {}
    done: set[bytes] = set()
    todo = [tree]
    while todo:
        should_stop()
        name = todo[-1]
        folders = below.get(name)
        if folders is None:
            entries = list(_parse_tree(objects.read(name, "tree"), objects.name_bytes))
            below[name] = [folder for mode, _, folder in entries if mode == FOLDER]
            counts[name] = len(entries)
            todo += [folder for folder in below[name] if folder not in below]
            continue
        todo.pop()
        if name not in done:
            done.add(name)
            counts[name] += sum(counts[folder] for folder in folders)
    return counts[tree]


def _read_tree(content: bytes, folder: bytes, name_bytes: int) -> list[TreeEntry]:
    entries: list[TreeEntry] = []
    names: set[bytes] = set()
    for mode, name, object_name in _parse_tree(content, name_bytes):
        path = folder + name
        fault = find_name_fault(name)
        if fault is not None:
            raise unsafe(path, fault)
        if len(path) > PATH_BYTES_MAX:
            raise unsafe(path[:80] + b"...", f"lies deeper than {PATH_BYTES_MAX} bytes of path")
        if name in names:
            raise unsafe(path, "comes twice")
        names.add(name)
        known = _MODES.get(mode)
        if known is None:
            raise unsafe(path, "is neither a file, a folder, a link nor a submodule")
        entries.append(TreeEntry(path, known, object_name))
    return entries


def _parse_tree(content: bytes, name_bytes: int) -> Iterator[tuple[int, bytes, bytes]]:
    """The mode, name and object's name of each entry of a tree object (gitformat-index(5) has the modes)."""
    position, end = 0, len(content)
    while position < end:
        blank = content.find(b" ", position)
        nul = content.find(b"\0", blank)
        digits = content[position:blank]
        position = nul + 1 + name_bytes
        if blank < 0 or nul < 0 or position > end or not digits or not _OCTAL_DIGITS.issuperset(digits):
            raise corrupt("a folder in it is damaged")
        yield int(digits, 8), content[blank + 1 : nul], content[nul + 1 : position]
