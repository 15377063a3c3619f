"""Asking another tool of the `datamanifest` family to fetch a dataset: its command line, found on PATH.

The contract (SCHEMA.md, "Other languages"): ``datamanifest fetch <name> --datasets-toml <path> [--datasets-folder
<dir>]``. `dm` answers to it as ``datamanifest-dm``.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dm.errors import Refused, SourceFailed
from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.transport.command import run_command
from dm.values import Key, Permission, printable

#: Set for a peer that `dm` calls and by ``datamanifest-dm`` for itself: who is called by a tool calls no other one.
DELEGATED = "DATAMANIFEST_DELEGATED"


def find_peer(language: str, variables: Mapping[str, str]) -> list[str] | None:
    """The program that fetches for a language: ``datamanifest-<language>``, else ``datamanifest``, on ``PATH`` of
    ``variables``. None when neither is there, or when this process was itself called by such a tool, so that two tools
    never call each other in a circle.
    """
    if variables.get(DELEGATED):
        return None
    path = variables.get("PATH", os.defpath)
    names = [f"datamanifest-{language.lower()}"] if language.isalnum() else []
    for name in [*names, "datamanifest"]:
        program = shutil.which(name, path=path)
        if program is not None:
            return [program]
    return None


def fetch_by_peer(
    peer: Sequence[str],
    name: str,
    *,
    key: Key,
    manifest: Path,
    folder: Path,
    variables: Mapping[str, str],
    should_stop: Callable[[], bool],
    take_line: Callable[[str], None] | None = None,
    permission: Permission,
) -> Path:
    """Let a peer fetch a dataset into ``folder``, a private one, and return what it left there at ``key``.

    ``key`` is the landing key: the dataset's key, or that of the unpacked folder. The peer runs in the manifest's
    folder; what it prints goes to ``take_line``. An empty ``.complete`` at the top of a folder is taken away here; a
    marker beside a file, locks and a store's ``.dm`` are the caller's to remove with ``folder``.

    Raises `SourceFailed` (``peer-failed``) with the peer's last words, or when it left nothing; `Refused` for a link
    that leads out of what it left, for devices and the like, and for a name that would be read as an option; `Stopped`
    when the run stops.
    """
    del permission  # whoever has one may run this; there is nothing in it
    if name.startswith("-"):
        raise Refused(
            f"cannot ask a peer for '{printable(name)}': it would be read as an option",
            hint="give the dataset another name",
            code="peer-name",
        )
    words = [*peer, "fetch", name, "--datasets-toml", os.fspath(manifest), "--datasets-folder", os.fspath(folder)]
    finished = run_command(
        words,
        folder=manifest.parent,
        variables={**variables, DELEGATED: "1"},
        should_stop=should_stop,
        take_line=take_line,
    )
    program = printable(os.path.basename(peer[0]))
    if finished.status != 0:
        # Like `dm`, the peers may end with what to do about it, which is no word of what went wrong.
        fault = finished._replace(lines=tuple(line for line in finished.lines if not line.startswith("hint: ")))
        raise SourceFailed(
            f"'{program}' could not fetch '{printable(name)}': {fault.told}",
            hint="install the language itself, or a peer whose 'fetch' knows --datasets-toml and --datasets-folder",
            code="peer-failed",
        )
    return _find_result(folder, key, program=program, name=name)


def _find_result(folder: Path, key: Key, *, program: str, name: str) -> Path:
    path = folder
    for part in key.parts:
        path = path / part
        if not os.path.lexists(path):
            left = os.listdir(folder) if folder.is_dir() else ()  # a peer may have taken the folder itself away
            there = ", ".join(sorted(map(printable, left))) or "nothing"
            raise SourceFailed(
                f"'{program}' ended well, but '{printable(name)}' is not at '{key}' of the folder that it was given",
                hint=f"in that folder it left: {there}",
                code="peer-failed",
            )
        _check_kind(path, folder, program=program)
    if path.is_dir():
        for place, folders, files in os.walk(path):
            for each in (*folders, *files):
                _check_kind(Path(place, each), path, program=program, link_within=path)
        marker = path / ".complete"
        with machine_errors("take away", marker):
            if marker.is_file() and marker.stat().st_size == 0:
                marker.unlink()
    return path


def _check_kind(path: Path, folder: Path, *, program: str, link_within: Path | None = None) -> None:
    """A file or a folder is fine, and a link that stays below ``link_within``; `Refused` for anything else."""
    with machine_errors("look at", path):
        mode = path.lstat().st_mode
    if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
        return
    kind = "a special file"
    if stat.S_ISLNK(mode):
        if link_within is not None and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(link_within)):
            return
        kind = "a link that leads out of it"
    raise Refused(
        f"'{program}' left {kind} at '{printable(os.fspath(path.relative_to(folder)))}'",
        hint="a copy consists of files and folders of its own",
        code="peer-link",
    )
