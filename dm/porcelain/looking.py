"""Many things are looked at in turn, on several threads: in an order, for a limited time, and until somebody stops it.

What a look finds is an outcome; it never raises. Ctrl-C ends a look in the middle of a file.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import NamedTuple, Self

from dm.environment import read_monotonic_s
from dm.errors import DmError
from dm.porcelain.workers import Workers
from dm.progress import Progress, Task
from dm.values import Outcome, fail


class Look(NamedTuple):
    """One thing to look at. ``verified`` is when every byte of it was last read (RFC 3339), None when that is not
    known; ``run`` looks, telling how far it is.
    """

    name: str
    verified: str | None
    run: Callable[[Progress], Outcome]


class _Stopped(Exception):
    """The run stops; what was being read is let go."""


class _Stoppable:
    """A sink that ends whoever reports to it once the run stops: long reads report between two pieces."""

    def __init__(self, progress: Progress, stopping: threading.Event) -> None:
        self._progress = progress
        self._stopping = stopping

    def start(self, label: str, *, total: int | None = None, unit: str = "bytes") -> Task:
        return _StoppableTask(self._progress.start(label, total=total, unit=unit), self._stopping)

    def note(self, text: str) -> None:
        self._progress.note(text)

    def warn(self, text: str) -> None:
        self._progress.warn(text)


class _StoppableTask:
    def __init__(self, task: Task, stopping: threading.Event) -> None:
        self._task = task
        self._stopping = stopping

    def advance(self, amount: int) -> None:
        if self._stopping.is_set():
            raise _Stopped
        self._task.advance(amount)

    def resize(self, total: int | None) -> None:
        self._task.resize(total)

    def describe(self, text: str) -> None:
        self._task.describe(text)

    def __enter__(self) -> Self:
        self._task.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.__exit__(kind, error, trace)


def look_at_all(
    looks: Sequence[Look],
    *,
    jobs: int,
    progress: Progress,
    report: Callable[[Outcome], None],
    deadline_s: float | None = None,
) -> list[Outcome]:
    """Look at each, ``jobs`` at once; return the outcomes in the order of ``looks``, and report each as it stands.

    With a deadline (of `read_monotonic_s`) those that were read the longest ago come first, and what has not begun by
    then is skipped (code ``time-up``): called again, it goes on where it stopped. A `KeyboardInterrupt` ends every look
    within one piece of a file.
    """
    stopping = threading.Event()
    sink = _Stoppable(progress, stopping)
    order = list(range(len(looks)))
    if deadline_s is not None:
        order.sort(key=lambda index: (looks[index].verified or "", index))
    outcomes: dict[int, Outcome] = {}

    def look(index: int) -> tuple[int, Outcome | BaseException]:
        one = looks[index]
        if deadline_s is not None and read_monotonic_s() >= deadline_s:
            told = "not looked at: the time is up"
            return index, Outcome(one.name, "skipped", code="time-up", message=told)
        try:
            return index, one.run(sink)
        except DmError as error:
            return index, fail(one.name, error)
        except BaseException as error:  # noqa: BLE001 - handed to the calling thread, which raises it
            return index, error

    workers = Workers(look, most=jobs)
    workers.add(order)
    try:
        with progress.start("verifying", total=len(looks), unit="files") as overall:
            while workers.open_count:
                for index, found in workers.collect(workers.open_count, wait_s=0.05):
                    if isinstance(found, BaseException):
                        raise found
                    outcomes[index] = found
                    report(found)
                    overall.advance(1)
    finally:
        stopping.set()
        workers.stop()
    return [outcomes[index] for index in range(len(looks))]
