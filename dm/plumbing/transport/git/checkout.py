"""A folder made from a commit's entries: bytes and modes as they are recorded, and nothing that they ask for.

No filter runs (clean and smudge, line endings, ``ident``), `.gitattributes` is a file like any other. Links come last,
so that no file is ever written through one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.transport.git.faults import GitFault, unsafe
from dm.plumbing.transport.git.objects import Objects
from dm.plumbing.transport.git.tree import FOLDER, LINK, PROGRAM, SUBMODULE, TreeEntry
from dm.values import printable

_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LINK_BYTES_MAX = 4095
#: A pointer of Git LFS is shorter than this and begins like that (git-lfs, docs/spec.md; the second is its first name).
_POINTER_BYTES_MAX = 1024
_POINTER_HEADS = (b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/")
#: So many paths are named in a message.
_NAMED = 3


class CheckedOut(NamedTuple):
    """What was made: the bytes of its files, and where submodules are, which are empty folders."""

    size_bytes: int
    submodules: tuple[bytes, ...]


def check_out(
    objects: Objects,
    entries: Sequence[TreeEntry],
    target: Path,
    *,
    report: Callable[[int], None],
    should_stop: Callable[[], None],
) -> CheckedOut:
    """Make a new folder ``target`` of ``entries`` (see `tree.list_entries`). ``report`` is told of bytes written.

    A submodule becomes an empty folder, as git itself leaves it. Raises `GitFault`: for pointers of Git LFS, for a link
    that leads out, for names that are one name on this file system; `MachineFailed`. Then a part of the folder may be
    there, for the caller to remove.
    """
    root = os.fsencode(target)
    with machine_errors("write", target):
        os.mkdir(root)
    links: list[TreeEntry] = []
    submodules: list[bytes] = []
    pointers: list[bytes] = []
    size_bytes = 0
    for entry in entries:
        should_stop()
        place = root + b"/" + entry.path
        if entry.mode in (FOLDER, SUBMODULE):
            with machine_errors("write", place):
                try:
                    os.mkdir(place)
                except FileExistsError:
                    raise _same_name(entry.path) from None
            if entry.mode == SUBMODULE:
                submodules.append(entry.path)
        elif entry.mode == LINK:
            links.append(entry)
        else:
            count, is_pointer = _write_file(objects, entry, place, should_stop)
            size_bytes += count
            report(count)
            if is_pointer:
                pointers.append(entry.path)
    if pointers:
        hint = "clone it with git and git-lfs, then 'dm add' the files, or name where they can be fetched themselves"
        reason = f"{name_some(pointers)} would be a pointer of Git LFS, not the data: git-lfs keeps that elsewhere"
        raise GitFault(reason, hint=hint, code="git-lfs")
    _make_links(objects, links, root)
    return CheckedOut(size_bytes, tuple(submodules))


def _write_file(
    objects: Objects, entry: TreeEntry, place: bytes, should_stop: Callable[[], None]
) -> tuple[int, bool]:
    """Write one file; return its bytes, and whether it is a pointer of Git LFS."""
    with machine_errors("write", place):
        try:
            descriptor = os.open(place, _FILE_FLAGS, 0o777 if entry.mode == PROGRAM else 0o666)
        except FileExistsError:
            raise _same_name(entry.path) from None
    count = 0
    head = b""

    def take(piece: bytes) -> None:
        nonlocal count, head
        head = head if count else piece
        count += len(piece)
        view = memoryview(piece)
        with machine_errors("write", place):
            while view:
                view = view[os.write(descriptor, view) :]
        if count > len(piece):
            should_stop()

    try:
        objects.send_blob(entry.name, take)
    finally:
        with machine_errors("write", place):
            os.close(descriptor)
    is_pointer = count < _POINTER_BYTES_MAX and head.startswith(_POINTER_HEADS) and b"\noid " in head
    return count, is_pointer


def _make_links(objects: Objects, links: Sequence[TreeEntry], root: bytes) -> None:
    for entry in links:
        if objects.read_size_bytes(entry.name) > _LINK_BYTES_MAX:
            raise unsafe(entry.path, "is a link to a path that is too long")
        text = objects.read(entry.name, "blob")
        if not text or b"\0" in text:
            raise unsafe(entry.path, "is a link to nothing")
        inside = os.path.normpath(os.path.join(os.path.dirname(entry.path), text))
        if text.startswith(b"/") or inside == b".." or inside.startswith(b"../"):
            raise _leaves(entry.path, text)
        place = root + b"/" + entry.path
        with machine_errors("write", place):
            try:
                os.symlink(text, place)
            except FileExistsError:
                raise _same_name(entry.path) from None
    # One link may lead out through another (a -> b/c/.., b/c -> ..), which only shows when all of them are there.
    real = os.path.realpath(root)
    for entry in links:
        place = os.path.realpath(root + b"/" + entry.path)
        if place != real and not place.startswith(real + b"/"):
            raise _leaves(entry.path, os.readlink(root + b"/" + entry.path))


def _leaves(path: bytes, text: bytes) -> GitFault:
    shown, where = (printable(os.fsdecode(name)) for name in (path, text))
    reason = f"its link '{shown}' leads out of the folder, to '{where}'"
    hint = "a repository may not choose what is read here; ask its keeper to put a copy in its place"
    return GitFault(reason, hint=hint, code="link-leaves", refused=True)


def _same_name(path: bytes) -> GitFault:
    return unsafe(path, "has the name of another one on this file system, but for case or Unicode's forms")


def name_some(paths: Sequence[bytes]) -> str:
    """The first few paths, quoted, and how many more there are, for a message."""
    shown = ", ".join(f"'{printable(os.fsdecode(path))}'" for path in paths[:_NAMED])
    return shown if len(paths) <= _NAMED else f"{shown} and {len(paths) - _NAMED} more"
