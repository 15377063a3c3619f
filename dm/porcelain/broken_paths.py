"""Which paths of a copy are to be mended, of all that differ."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dm.plumbing.records.artifact_names import is_param_hash
from dm.plumbing.store.markers import has_marker
from dm.plumbing.store.objects import FOLDER_MODE, TreeEntry
from dm.values import Difference

#: A file by its device and its number there.
Inode = tuple[int, int]


class Broken(NamedTuple):
    """``todo`` is to be mended, in order; ``left`` is not; ``whole`` says that no folder is there to be mended in."""

    todo: Sequence[Difference]
    left: Sequence[Difference]
    whole: bool


def list_broken(
    copy: Path,
    differences: Sequence[Difference],
    wanted: Mapping[bytes, TreeEntry],
    inodes: frozenset[Inode] | None,
    *,
    keep_siblings: bool = False,
) -> Broken:
    """What is to be mended in a folder that should hold ``wanted``; with ``keep_siblings`` not what is a sibling.

    With ``inodes`` only what is a link to these, and what is lost where the marker is too: a copy without its marker is
    one that a repair was killed in.
    """
    left: list[Difference] = []
    if keep_siblings:
        differences = [each for each in differences if not is_sibling(each, wanted)]
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


def is_artifact(name: str) -> bool:
    """Whether a ref's name is that of a produced dataset: its last part is a parameter hash."""
    return is_param_hash(name.rpartition("/")[2])


def is_sibling(difference: Difference, names: Container[bytes]) -> bool:
    """Whether something lies beside what a folder should hold, not inside of it: in the folder of a produced dataset
    other tools put further formats there.
    """
    return difference.how == "added" and os.fsencode(difference.path).partition(b"/")[0] not in names


def is_among(path: Path, inodes: frozenset[Inode]) -> bool:
    """Whether what lies at a path is a link to one of these inodes."""
    return find_inode(path) in inodes


def find_inode(path: Path) -> Inode | None:
    """What lies at a path, by device and number; None where nothing does."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
