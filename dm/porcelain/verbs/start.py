"""``init``: a manifest and the ignore entries of what `dm` keeps beside it. Never overwrites."""

from __future__ import annotations

from pathlib import Path

from dm.environment import Environment
from dm.errors import DmError, Refused
from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.fs.publish import ensure_folder, write_file
from dm.plumbing.records.manifest import MANIFEST_NAMES
from dm.plumbing.records.record_file import read_record
from dm.plumbing.records.state import STATE_FILE_NAME
from dm.plumbing.records.trust import TrustStore
from dm.progress import SILENT, Progress
from dm.values import Outcome

#: What a new project's Git ignores: the state file and the checkout's private folder.
IGNORED = (STATE_FILE_NAME, ".datamanifest/")
_MANIFEST = """\
# The data that this project needs. `dm add URI` declares and fetches, `dm fetch` makes everything be here, verified.

[_META]
schema = 1
"""


def start(folder: Path, environment: Environment, *, progress: Progress = SILENT) -> Outcome:
    """Write ``datamanifest.toml`` into a folder (made if need be) and complete its ``.gitignore``.

    What this user then adds by `dm` needs no further word (SCHEMA.md, "Trust"). Raises `Refused` where a manifest of
    any name lies there already; nothing is changed then.
    """
    for name in MANIFEST_NAMES:
        if (folder / name).exists() or (folder / name).is_symlink():
            raise Refused(f"'{folder / name}' exists", hint="dm add declares data in it", code="manifest-exists")
    with machine_errors("create", folder):
        ensure_folder(folder)
    path = folder / MANIFEST_NAMES[0]
    _ignore(folder / ".gitignore")
    write_file(path, _MANIFEST.encode())
    try:
        TrustStore(environment, progress=progress).allow(path, (), is_answer=False)
    except DmError as error:
        progress.note(f"{error.message}; dm trust will ask before anything runs")
    return Outcome(path.name, "ok", path=path, message="created")


def _ignore(path: Path) -> None:
    text = read_record(path).content or b""
    lines = {line.strip() for line in text.splitlines()}
    missing = [entry.encode() for entry in IGNORED if entry.encode() not in lines]
    if missing:
        if text and not text.endswith(b"\n"):
            text += b"\n"
        write_file(path, text + b"\n".join(missing) + b"\n")
