"""What a repair would do, and where it would take the bytes from: sought as `mending` does, and nothing is written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dm.errors import NotFound
from dm.plumbing.store.objects import FOLDER_MODE, LINK_MODE, TreeEntry
from dm.plumbing.store.verify import compare_copy
from dm.porcelain.broken_paths import Inode, is_among, list_broken
from dm.porcelain.sound_bytes import SoundBytes, not_in_reach
from dm.values import Difference, Digest

if TYPE_CHECKING:
    from dm.plumbing.store.disk import DiskStore
    from dm.plumbing.store.refs import Ref

#: So many paths are named with where their bytes would come from.
_NAMED = 5


class Step(NamedTuple):
    """One path that would be mended, and how, in words."""

    path: str
    how: str


class Planned(NamedTuple):
    """What would be mended, and what could not."""

    steps: Sequence[Step]
    left: Sequence[Difference]

    def __str__(self) -> str:
        named = [f"{step.path} {step.how}" if step.path != "." else step.how for step in self.steps[:_NAMED]]
        more = len(self.steps) - len(named)
        count = "1 path" if len(self.steps) == 1 else f"{len(self.steps)} paths"
        told = f"would mend {count}: {', '.join(named)}" + (f" and {more} more" if more else "")
        return told + (f"; {len(self.left)} would be left" if self.left else "")


class _Trees:
    """The trees that are in reach, as `compare_copy` reads them."""

    def __init__(self, sound: SoundBytes) -> None:
        self._sound = sound

    def read_tree(self, digest: Digest) -> list[TreeEntry]:
        entries = self._sound.find_tree(digest)
        if entries is None:
            raise not_in_reach(digest)
        return entries


def plan_object(sound: SoundBytes, store: DiskStore, digest: Digest, *, size_bytes: int | None = None) -> str:
    """Where sound bytes for an object would be taken from. Raises `NotFound`."""
    if digest.is_tree:
        if sound.find_tree(digest) is None:
            raise not_in_reach(digest)
        return "from a sound copy of the folder"
    return _find_source(sound, digest, size_bytes=size_bytes, but=store.object_path(digest))


def plan_copy(
    sound: SoundBytes,
    copy: Path,
    ref: Ref,
    expected: Digest,
    *,
    store: DiskStore | None,
    inodes: frozenset[Inode] | None = None,
    keep_siblings: bool = False,
) -> Planned:
    """What `Mender.mend_copy` would do. Raises `NotFound` when what the copy should be cannot be told."""
    if not expected.is_tree:
        if inodes is not None and not is_among(copy, inodes):
            return Planned((), (Difference(".", "changed"),))
        size_bytes = ref.size_bytes if ref.digest == expected else None
        return Planned((Step(".", _find_source(sound, expected, size_bytes=size_bytes, but=copy)),), ())
    trees = _Trees(sound)
    trees.read_tree(expected)
    wanted = dict(sound.list_entries(expected))
    cache, root = (None, None) if store is None else (store.stat_cache, store.root)
    comparison = compare_copy(copy, expected, trees, stat_cache=cache, quick=True, ref_root=root)
    broken = list_broken(copy, comparison.differences, wanted, inodes, keep_siblings=keep_siblings)
    steps: list[Step] = []
    left = list(broken.left)
    for difference in broken.todo:
        try:
            steps.append(Step(difference.path, _plan_path(sound, copy, difference, wanted)))
        except NotFound:
            left.append(difference)
    return Planned(steps, left)


def _plan_path(sound: SoundBytes, copy: Path, difference: Difference, wanted: dict[bytes, TreeEntry]) -> str:
    entry = wanted.get(os.fsencode(difference.path))
    if entry is None:
        return "put aside"
    if difference.how == "mode":
        return "its mode"
    if entry.mode == FOLDER_MODE:
        if sound.find_tree(Digest.of_tree(entry.id)) is None:
            raise not_in_reach(Digest.of_tree(entry.id))
        return "the folder"
    digest = Digest.of_blob(entry.id)
    if entry.mode == LINK_MODE and sound.find_link(digest) is not None:
        return "the link"
    name = os.fsencode(difference.path)
    return _find_source(sound, digest, size_bytes=entry.size, name=name, but=copy / difference.path)


def _find_source(
    sound: SoundBytes, digest: Digest, *, size_bytes: int | None, but: Path, name: bytes = b""
) -> str:
    source = sound.find_bytes(digest, size_bytes=size_bytes, name=name, but=but)
    if source is None:
        raise not_in_reach(digest)
    return f"from '{source}'"
