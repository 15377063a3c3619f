"""The entries of a commit's tree, all of them known and checked before the first one is written."""

from __future__ import annotations

from collections.abc import Callable
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
    found: list[TreeEntry] = []
    todo = [(b"", tree)]
    while todo:
        should_stop()
        folder, name = todo.pop()
        entries = _read_tree(objects.read(name, "tree"), folder, objects.name_bytes)
        if len(found) + len(entries) > ENTRIES_MAX:
            hint = "such a repository is made to fill disks; ask its keeper"
            reason = f"it holds more than {ENTRIES_MAX} files and folders"
            raise GitFault(reason, hint=hint, code="git-too-large", refused=True)
        found += entries
        todo += [(entry.path + b"/", entry.name) for entry in entries if entry.mode == FOLDER]
    return found


def _read_tree(content: bytes, folder: bytes, name_bytes: int) -> list[TreeEntry]:
    entries: list[TreeEntry] = []
    names: set[bytes] = set()
    position, end = 0, len(content)
    while position < end:
        blank = content.find(b" ", position)
        nul = content.find(b"\0", blank)
        if blank < 0 or nul < 0 or nul + 1 + name_bytes > end:
            raise corrupt("a folder in it is damaged")
        digits, name = content[position:blank], content[blank + 1 : nul]
        position = nul + 1 + name_bytes
        path = folder + name
        fault = find_name_fault(name)
        if fault is not None:
            raise unsafe(path, fault)
        if len(path) > PATH_BYTES_MAX:
            raise unsafe(path[:80] + b"...", f"lies deeper than {PATH_BYTES_MAX} bytes of path")
        if name in names:
            raise unsafe(path, "comes twice")
        names.add(name)
        mode = _MODES.get(int(digits, 8) if digits.isdigit() and b"8" not in digits and b"9" not in digits else 0)
        if mode is None:
            raise unsafe(path, "is neither a file, a folder, a link nor a submodule")
        entries.append(TreeEntry(path, mode, content[nul + 1 : position]))
    return entries
