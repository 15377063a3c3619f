"""One dataset that is brought from its source, and what it shares with the others of its run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from dm.porcelain.workers import NO_LANES, Lanes
from dm.progress import SilentTask, Task

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.porcelain.order import Required
    from dm.porcelain.project import Project
    from dm.porcelain.staging import Staging
    from dm.values import Digest

_SILENT_TASK = SilentTask()


class Shared:
    """What the jobs of one run share.

    ``should_stop`` says that the run was interrupted, ``fail_fast`` that it stops at the first failure. ``expected``
    are digests that publishers give, by URI. ``delegate`` is the call's word on fetchers in other languages (None: as
    the manifest says), ``tell_lines`` asks for every line that a program says. ``turn`` is held by the fetcher that
    runs: code of a user's is rarely made for threads. ``lanes`` are what a job that has several sources may ask at once
    beside its first.
    """

    __slots__ = ("delegate", "expected", "fail_fast", "lanes", "should_stop", "tell_lines", "turn")

    def __init__(
        self,
        *,
        should_stop: Callable[[], bool] = lambda: False,
        fail_fast: bool = False,
        lanes: Lanes = NO_LANES,
        expected: Mapping[str, Digest] = MappingProxyType({}),
        delegate: bool | None = None,
        tell_lines: bool = False,
    ) -> None:
        self.should_stop = should_stop
        self.fail_fast = fail_fast
        self.lanes = lanes
        self.expected = expected
        self.delegate = delegate
        self.tell_lines = tell_lines
        self.turn = threading.Lock()  # of one run: a fetcher may fetch other datasets itself, in a run of its own


class Job(NamedTuple):
    """One dataset on its way from its source into ``staging``; ``required`` is what it requires, already there."""

    project: Project
    dataset: Dataset
    staging: Staging
    shared: Shared
    task: Task = _SILENT_TASK
    required: tuple[Required, ...] = ()
