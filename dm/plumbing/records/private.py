"""The checkout's private folder ``.datamanifest/``: made when first needed, ignored by Git as a whole."""

from __future__ import annotations

import os
from pathlib import Path

from dm.errors import Refused
from dm.plumbing.fs.machine import machine_errors

PRIVATE_FOLDER = ".datamanifest"


def ensure_private_folder(project_root: Path) -> Path:
    """Make ``.datamanifest/`` with a ``.gitignore`` that holds ``*``, and return it. May be repeated, also at once.

    Raises `MachineFailed`, and `Refused` for a link that leads out of the project: a clone may bring one along.
    """
    folder = project_root / PRIVATE_FOLDER
    if os.path.islink(folder):
        root, real = os.path.realpath(project_root), os.path.realpath(folder)
        if not real.startswith(root.rstrip("/") + "/"):
            raise Refused(
                f"'{folder}' is a link that leads out of the project, to '{real}'",
                hint="remove it: dm makes a folder in its place",
                code="place-untrusted",
            )
    ignore = folder / ".gitignore"
    with machine_errors("look at", ignore):
        if os.path.lexists(ignore):
            return folder
    from dm.plumbing.fs.publish import ensure_folder, place, write_file
    from dm.plumbing.fs.temporary import temporary_name

    ensure_folder(folder)
    staged = folder / temporary_name()
    write_file(staged, b"*\n", durable=False)
    if not place(staged, ignore):
        os.unlink(staged)
    return folder
