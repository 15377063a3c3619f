"""The private place of a dataset's bytes on their way to theirs, and the bytes that wait there to be published.

Nothing here is visible to anyone yet. What is staged survives a kill and is gone on from; it goes away when its content
was published or failed its contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from dm.plumbing import hashing
from dm.plumbing.fs.publish import ensure_folder, remove_tree
from dm.plumbing.store.measure import Measured
from dm.values import Digest

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.porcelain.copies import Copy
    from dm.porcelain.project import Project


class Staging:
    """The private place of one dataset's bytes on their way to theirs: the same for every run, so that a killed one is
    gone on from.

    ``folder`` is shared by all; what is one file (or a folder that a source is) arrives there as ``name``, since making
    and removing a folder for each would cost as much as fetching a small file. What takes several files has a folder
    of its own, `make_folder`.
    """

    __slots__ = ("folder", "name", "root")

    def __init__(self, folder: Path, name: str, root: Path | None) -> None:
        self.folder = folder
        self.name = name
        self.root = root  # of the store, whose group a folder is shared with

    @property
    def own_folder(self) -> Path:
        """Where the folder of this dataset's own lies, or would lie."""
        return self.folder / f"{self.name}.d"

    def make_folder(self) -> Path:
        """Make the folder of this dataset's own, unless it is there; return it."""
        folder = self.own_folder
        ensure_folder(folder, root=self.root)
        return folder

    def clear_if_empty(self) -> None:
        """Remove the folder of this dataset's own unless a file in it can be gone on from."""
        if not any(path.is_file() for path in self.own_folder.rglob("*")):
            remove_tree(self.own_folder)

    def clear(self) -> None:
        """Remove what is left: nothing of it can, or need, be gone on from."""
        from dm.plumbing.transport.journal import fresh_path, journal_path

        entry = self.folder / self.name
        journal = journal_path(entry)
        for path in (fresh_path(journal), journal, entry, self.own_folder):
            remove_tree(path)


class Staged(NamedTuple):
    """A dataset's bytes, complete and checked, ready to be published.

    ``entry`` is the file or folder and ``staging`` the private place that holds it, to be cleared in the end.
    ``blob`` is a file's id, measured while it arrived, ``aliases`` the other digests of the same pass, ``tree`` what
    was measured of a folder; ``fill`` is what the manifest's entry is to be completed with, ``sha256`` what the state
    record says; ``revision`` is the commit of a repository.
    """

    entry: Path
    staging: Staging
    blob: Digest | None = None
    aliases: tuple[Digest, ...] = ()
    tree: Measured | None = None
    fill: Mapping[str, str] = MappingProxyType({})
    sha256: str | None = None
    from_object: bool = False
    revision: str | None = None


def find_staging(project: Project, dataset: Dataset, copy: Copy) -> Staging:
    """The private place of one dataset's bytes, on the file system of the copy where a store is there."""
    identity = f"{dataset.source_id}\n{copy.path}"
    name = hashing.blake3_of(identity.encode("utf-8", "surrogateescape")).hex()
    if copy.store is not None:
        return Staging(copy.store.partials(), name, copy.store.root)
    folder = project.ensure_private_folder() / "partial"
    ensure_folder(folder)
    return Staging(folder, name, None)
