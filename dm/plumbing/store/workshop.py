"""Where a piece of work in a store begins: prune is held off, and what the file system can do is known.

Prune holds ``.dm/format`` exclusively; whoever goes from objects to a ref holds it shared, so that no object goes in
between.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dm.plumbing.fs.link import LinkMode
from dm.plumbing.fs.lock import FileLock, SharedLock
from dm.plumbing.store.ground import Ground, survey_ground
from dm.plumbing.store.layout import Layout
from dm.plumbing.store.workspace import Workspace
from dm.progress import Progress


class Workshop:
    """Opens pieces of work in one store; threads may share one. ``link``: the link modes allowed, in order."""

    def __init__(self, layout: Layout, *, link: Sequence[LinkMode], progress: Progress) -> None:
        self._layout = layout
        self._link = tuple(link)
        self._progress = progress
        self._ground: Ground | None = None

    @contextmanager
    def open(self) -> Iterator[Workspace]:
        """A block with a workspace of its own, in which nothing is pruned. The store is made when it is missing."""
        self._layout.prepare()
        with self.hold_off_prune(), Workspace(self._layout) as workspace:
            yield workspace

    def hold_off_prune(self) -> FileLock:
        """A block in which nothing is pruned. Any number of threads and blocks may hold it."""
        return SharedLock(self._layout.format, progress=self._progress)

    @contextmanager
    def read(self) -> Iterator[None]:
        """A block in which objects are read, also in a store that cannot be written to: its owner may prune."""
        if not os.access(self._layout.format, os.R_OK):
            yield
            return
        with self.hold_off_prune():
            yield

    def ground(self) -> Ground:
        """What the file system under this store can do; tried out once."""
        if self._ground is None:
            with self.open() as workspace:
                return self.survey(workspace)
        return self._ground

    def survey(self, workspace: Workspace) -> Ground:
        """As `ground`, tried out in a workspace: what a kill leaves of it is cleared by the next piece of work."""
        if self._ground is None:
            self._ground = survey_ground(Path(workspace.folder), self._link)
        return self._ground

    def usual_modes(self, destination: Path) -> tuple[LinkMode, ...]:
        """The link modes for a file at a path, in order."""
        # Inside the store it is known what works; elsewhere, and where the store cannot be written to, it is tried.
        return self.ground().rungs if self._layout.owns(destination) else self._link
