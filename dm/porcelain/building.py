"""A file or folder is made of sound bytes, as a private copy: for a place that shares nothing with any store."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.store.copying import copy_privately
from dm.plumbing.store.measure import measure_copy
from dm.plumbing.store.objects import EXECUTABLE_MODE, FOLDER_MODE, LINK_MODE
from dm.plumbing.store.sharing import damaged_source
from dm.porcelain.sound_bytes import SoundBytes, is_sound, not_in_reach
from dm.values import Digest


def build_copy(
    sound: SoundBytes, expected: Digest, target: Path, *, size_bytes: int | None = None, name: bytes = b""
) -> None:
    """Make ``expected`` at ``target``, where nothing lies, of files that their owner may write to.

    ``size_bytes`` and ``name`` of a file help to find it. Raises `NotFound` when not all of it is in reach; what was
    made by then is left at ``target``.
    """
    if not expected.is_tree:
        _build_file(sound, expected, target, size_bytes, name)
        return
    with machine_errors("write", target):
        target.mkdir()
    for name, entry in sound.list_entries(expected):
        path = Path(os.fsdecode(os.fsencode(target) + b"/" + name))
        digest = Digest.of_blob(entry.id)
        if entry.mode == FOLDER_MODE:
            with machine_errors("write", path):
                path.mkdir()
        elif entry.mode == LINK_MODE:
            _build_link(sound, digest, path)
        else:
            _build_file(sound, digest, path, entry.size, name, executable=entry.mode == EXECUTABLE_MODE)
    if measure_copy(target).digest != expected:  # of a folder in it nothing is known
        raise not_in_reach(expected)


def _build_file(
    sound: SoundBytes, digest: Digest, path: Path, size_bytes: int | None, name: bytes, *, executable: bool = False
) -> None:
    source = sound.find_bytes(digest, size_bytes=size_bytes, name=name)
    if source is None:
        raise not_in_reach(digest)
    copy_privately(os.fspath(source), os.fspath(path))
    if not is_sound(path, digest):
        raise damaged_source(source, digest)
    with machine_errors("write", path):
        mode = stat.S_IMODE(path.stat().st_mode) & 0o666
        os.chmod(path, mode | 0o200 | ((mode & 0o444) >> 2 if executable else 0))


def _build_link(sound: SoundBytes, digest: Digest, path: Path) -> None:
    target = sound.find_link(digest)
    if target is None:
        source = sound.find_bytes(digest)
        if source is None:
            raise not_in_reach(digest)
        with machine_errors("read", source):
            target = source.read_bytes()
    with machine_errors("write", path):
        os.symlink(target, os.fsencode(path))
