"""What has to make room is kept: moved to ``.dm/quarantine/<time>-<n>/`` with a note that says what and why."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from dm.environment import format_time, read_clock_ns
from dm.errors import NotFound
from dm.plumbing.fs.exchange import exchange
from dm.plumbing.fs.machine import display_path, machine_errors
from dm.plumbing.fs.publish import ensure_folder, place, remove_tree, write_file
from dm.plumbing.store.copying import copy_privately
from dm.plumbing.store.layout import Layout
from dm.plumbing.store.markers import marker_path

#: The note beside what was moved. No key may end so, hence nothing that is moved has this name.
NOTE_NAME = "note.tmp"


def set_aside(layout: Layout, path: Path, note: str) -> Path:
    """Move the file, link or folder at ``path``, with its marker, into the store's quarantine; return where it is now.

    ``note`` is one line that says why. The marker goes first, so that a crash leaves a copy that nobody takes for
    complete; the bytes are at one of the two places at any time. Raises `NotFound` when nothing lies there,
    `MachineFailed` for faults of the machine.
    """
    with machine_errors("set aside", path):
        target = _prepare(layout, path, note)
        _move(path, target)
    return target


def put_in_place_of(layout: Layout, path: Path, staged: Path, note: str) -> tuple[Path, bool]:
    """As `set_aside`, and ``staged``, on the file system of ``path``, takes the place of what lies there: at one moment
    where the file system can do that, else right after. Returns where the old is kept, and False where something
    appeared at the place in between: then ``staged`` is where it was.
    """
    with machine_errors("set aside", path):
        target = _prepare(layout, path, note)
        if os.lstat(staged).st_dev == os.lstat(target.parent).st_dev:
            if _exchange(path, staged, target):
                return target, True
            _move(path, target)
            return target, place(staged, path)
        # The copy's place is a mount of its own: the old is kept first, as a copy, and goes when the new is there.
        _copy(path, target)
        if exchange(staged, path):
            remove_tree(staged)
            return target, True
        remove_tree(path)
        return target, place(staged, path)


def _prepare(layout: Layout, path: Path, note: str) -> Path:
    """A folder in the quarantine with the note and the marker of what lies at ``path``; where that itself goes."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"nothing lies at '{display_path(path)}'", code="no-path") from None
    layout.prepare()
    folder = _make_folder(layout)
    lines = f"{display_path(path)}\n{format_time(read_clock_ns())}\n{note}\n"
    write_file(folder / NOTE_NAME, lines.encode("utf-8", "backslashreplace"), durable=False)
    if not stat.S_ISDIR(status.st_mode):
        _move_marker(Path(marker_path(path, is_folder=False)), folder)
    return folder / path.name


def _exchange(path: Path, staged: Path, target: Path) -> bool:
    """The new goes to ``target`` and changes places with the old from there: wherever a kill comes, the old bytes are
    at ``path`` or kept, and ``path`` is never empty. False where that cannot be done; then nothing was.
    """
    os.rename(staged, target)
    exchanged = False
    try:
        exchanged = exchange(target, path)
    finally:
        if not exchanged:
            os.rename(target, staged)
    return exchanged


def _make_folder(layout: Layout) -> Path:
    ensure_folder(layout.quarantine, root=layout.root)
    time = format_time(read_clock_ns()).replace(":", "")
    while True:
        folder = Path(f"{layout.quarantine}/{time}-{_find_free(f'{layout.quarantine}/{time}-')}")
        if ensure_folder(folder, root=layout.root):
            return folder


def _find_free(prefix: str) -> int:
    """A number that no name has yet, in few looks: a repair puts thousands aside in one second, numbered from 1."""
    free = 1
    while os.path.lexists(f"{prefix}{free}"):
        free *= 2
    taken = free // 2
    while free - taken > 1:
        middle = (taken + free) // 2
        if os.path.lexists(f"{prefix}{middle}"):
            taken = middle
        else:
            free = middle
    return free


def _move_marker(marker: Path, folder: Path) -> None:
    # Only an empty file is a marker; other data of that name stays where it is.
    try:
        status = os.lstat(marker)
    except FileNotFoundError:
        return
    if stat.S_ISREG(status.st_mode) and status.st_size == 0:
        _move(marker, folder / marker.name)


def _move(path: Path, target: Path) -> None:
    try:
        os.rename(path, target)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    # The copy's place is a mount of its own: copied, then removed.
    _copy(path, target)
    remove_tree(path)


def _copy(path: Path, target: Path) -> None:
    if stat.S_ISLNK(os.lstat(path).st_mode):
        os.symlink(os.readlink(path), target)
    else:
        copy_privately(os.fspath(path), os.fspath(target))
