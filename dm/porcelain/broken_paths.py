"""Which paths of a copy are to be mended, of all that differ."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dm.plumbing.store.markers import has_marker
from dm.plumbing.store.objects import FOLDER_MODE, TreeEntry
from dm.values import Difference


class Broken(NamedTuple):
    """``todo`` is to be mended, in order; ``left`` is not; ``whole`` says that no folder is there to be mended in."""

    todo: Sequence[Difference]
    left: Sequence[Difference]
    whole: bool


def list_broken(
    copy: Path,
    differences: Sequence[Difference],
    wanted: Mapping[bytes, TreeEntry],
    inodes: frozenset[int] | None,
) -> Broken:
    """What is to be mended in a folder that should hold ``wanted``.

    With ``inodes`` only what is a link to these, and what is lost where the marker is too: a copy without its marker is
    one that a repair was killed in.
    """
    left: list[Difference] = []
    if inodes is not None:
        unmarked = not has_marker(copy, is_folder=True)
        chosen = [
            each
            for each in differences
            if each.how != "added" and (is_among(copy / each.path, inodes) or (each.how == "lost" and unmarked))
        ]
        left = [each for each in differences if each not in chosen]
        differences = chosen
    whole = any(each.path == "." for each in differences)
    if whole:
        return Broken([Difference(os.fsdecode(name), "lost") for name in sorted(wanted)], left, True)
    return Broken([path for each in differences for path in _expand(each, wanted)], left, False)


def _expand(difference: Difference, wanted: Mapping[bytes, TreeEntry]) -> Iterator[Difference]:
    """A path to be mended, and all below it where it is a folder: that is named itself when it is empty, when another
    thing lies in its place, and when its tree could not be read.
    """
    yield difference
    name = os.fsencode(difference.path)
    if name in wanted and wanted[name].mode == FOLDER_MODE:
        for below in sorted(wanted):
            if below.startswith(name + b"/"):
                yield Difference(os.fsdecode(below), "lost")


def is_among(path: Path, inodes: frozenset[int]) -> bool:
    """Whether what lies at a path is a link to one of these inodes."""
    try:
        return os.lstat(path).st_ino in inodes
    except OSError:
        return False
