"""A file or folder of someone else's, as a private copy of our own: reflinked where that works, else copied."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from dm.errors import Refused
from dm.plumbing.fs.link import LinkMode, link_file
from dm.plumbing.fs.machine import display_path, machine_errors
from dm.plumbing.fs.walk import Entry
from dm.plumbing.store.measure import scan_copy

#: How bytes that are not ours may be taken over: never by a hard link.
PRIVATE_MODES: tuple[LinkMode, ...] = ("reflink", "copy")


def copy_privately(source: str, target: str, *, entries: Sequence[Entry] | None = None) -> None:
    """Copy the file or folder ``source`` to ``target``, where nothing lies; the source is left as it is.

    Execute bits and links are kept, folders can be written by their owner, files are read-only, the empty marker at the
    top of a folder is left out. ``entries`` is the walk of the folder, where it was made already. Raises as `link_file`
    and `scan_tree` do; what was copied by then is left at ``target``.
    """
    with machine_errors("read", source):
        status = os.lstat(source)
    if stat.S_ISREG(status.st_mode):
        link_file(source, target, modes=PRIVATE_MODES, executable=bool(status.st_mode & 0o100))
        return
    if not stat.S_ISDIR(status.st_mode):
        raise Refused(f"cannot take in '{display_path(source)}': no file and no folder", code="special-file")
    from pathlib import Path

    top, new = os.fsencode(source), os.fsencode(target)
    with machine_errors("copy to", target):
        os.mkdir(new)
        for entry in scan_copy(Path(source)) if entries is None else entries:
            path = new + b"/" + entry.name
            if entry.kind == "folder":
                os.mkdir(path)
            elif entry.kind == "link":
                os.symlink(os.readlink(top + b"/" + entry.name), path)
            else:
                link_file(top + b"/" + entry.name, path, modes=PRIVATE_MODES, executable=bool(entry.mode & 0o100))
