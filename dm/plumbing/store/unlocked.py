"""Which working copies are unlocked: private and writable, so that their bytes are their user's to change.

A note for each in ``.dm/unlocked/<BLAKE3 of the copy's name>``: the name and a newline (SCHEMA.md, "Unlocked copies").
Copies in no store are noted below ``.datamanifest/.dm``, by their absolute paths.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.fs.publish import flush_file_systems, write_private
from dm.plumbing.fs.remove import unlink_quietly
from dm.plumbing.hashing import blake3_of
from dm.plumbing.store.layout import Layout


def is_unlocked(layout: Layout, name: str) -> bool:
    """Whether a copy is noted as unlocked; ``name`` is its ref's name, or its absolute path where it has none."""
    return os.path.exists(_note_path(layout, name))


def note_unlocked(layout: Layout, name: str, private: str, *, durable: bool) -> None:
    """Note that a copy is unlocked. It is noted before its first file can be written to.

    ``private`` is a path in a workspace of the store, where nothing lies: what a kill leaves there is cleared.
    """
    path = _note_path(layout, name)
    with machine_errors("write", path):
        write_private(private, os.fsencode(f"{name}\n"))
        if durable:
            flush_file_systems([Path(private)])
        layout.ensure_folder_once(os.path.dirname(path))
        os.rename(private, path)


def forget_unlocked(layout: Layout, name: str) -> None:
    """A copy is not unlocked any more, or not there; nothing noted is fine."""
    if os.path.isdir(layout.unlocked):
        path = _note_path(layout, name)
        with machine_errors("remove", path):
            unlink_quietly(Path(path))


def list_unlocked(layout: Layout) -> Iterator[tuple[str, Path]]:
    """The name of every copy that is noted, with its note, whether or not the copy is there."""
    with machine_errors("list", layout.unlocked):
        try:
            names = sorted(os.listdir(layout.unlocked))
        except (FileNotFoundError, NotADirectoryError):
            return
        for each in names:
            path = layout.unlocked / each
            try:
                yield os.fsdecode(path.read_bytes()).removesuffix("\n"), path
            except FileNotFoundError:
                continue


def _note_path(layout: Layout, name: str) -> str:
    return f"{os.fspath(layout.unlocked)}/{blake3_of(os.fsencode(name)).hex()}"
