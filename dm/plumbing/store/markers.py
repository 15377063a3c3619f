"""The marker that says that a working copy is complete: an empty file, shared with the other tools.

``<copy>.complete`` beside a file, ``<copy>/.complete`` inside a folder. See SCHEMA.md, "Working copies".
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Literal

from dm.errors import Refused
from dm.plumbing.fs.machine import display_path, machine_errors

MARKER_NAME = ".complete"
CopyState = Literal["absent", "unmarked", "complete"]


def marker_path(copy: str | Path, *, is_folder: bool) -> str:
    """Where a copy's marker lies."""
    return f"{os.fspath(copy)}/{MARKER_NAME}" if is_folder else f"{os.fspath(copy)}{MARKER_NAME}"


def read_copy_state(copy: str | Path) -> CopyState:
    """Whether something lies at ``copy``, and whether its marker says that it is complete. A link is followed.

    Only an empty file is a marker: a ``.complete`` with content is data that someone put there.
    """
    with machine_errors("look at", copy):
        try:
            status = os.stat(copy)
        except (FileNotFoundError, NotADirectoryError):
            return "unmarked" if os.path.lexists(copy) else "absent"
        marked = has_marker(copy, is_folder=stat.S_ISDIR(status.st_mode))
    return "complete" if marked else "unmarked"


def has_marker(copy: str | Path, *, is_folder: bool) -> bool:
    """Whether the marker is there. Raises `OSError`."""
    path = marker_path(copy, is_folder=is_folder)
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == 0


def refuse_foreign_marker(copy: str | Path, *, is_folder: bool) -> bool:
    """Whether the marker is there, for who is about to write it.

    Raises `Refused` when what lies in its place is no marker: it would be lost.
    """
    path = marker_path(copy, is_folder=is_folder)
    if not os.path.lexists(path):
        return False
    if not has_marker(copy, is_folder=is_folder):
        raise Refused(
            f"cannot mark '{display_path(copy)}' as complete: '{display_path(path)}' is not an empty file",
            hint="move it away",
            code="marker-in-the-way",
        )
    return True


def put_marker(copy: str | Path, *, is_folder: bool) -> None:
    """Say that a copy is complete. Raises `OSError`."""
    os.close(os.open(marker_path(copy, is_folder=is_folder), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666))


def remove_marker(copy: str | Path, *, is_folder: bool) -> None:
    """Take the marker away, the first step of every replacement. Nothing there is fine. Raises `OSError`."""
    try:
        os.unlink(marker_path(copy, is_folder=is_folder))
    except (FileNotFoundError, NotADirectoryError):
        return
