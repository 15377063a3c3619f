"""Where a dataset lives, and by which rules."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from dm.plumbing.records.ladder import Rung


class Location(NamedTuple):
    """Where a dataset is to live.

    ``store_root`` is the folder that holds the copy's objects and refs, None when the copy stands alone;
    ``user_managed`` places never get objects, refs, markers or chmod; ``scope`` is ``""`` where none applies; ``rungs``
    are the settings that decided, the dataset's own field first.
    """

    path: Path
    store_root: Path | None
    user_managed: bool
    scope: str
    rungs: tuple[Rung, ...]


class Rule(NamedTuple):
    """One rule of a dataset's location, as `Places.explain_location` tells it.

    ``name`` is ``storage_path`` (or ``local_path``, ``uri``), ``datasets_dir`` or ``composed``; ``wins`` whether it
    decides; ``reason`` why it does or does not; ``path`` and ``rungs`` what it gives where it applies.
    """

    name: str
    wins: bool
    reason: str
    path: Path | None
    rungs: tuple[Rung, ...]
