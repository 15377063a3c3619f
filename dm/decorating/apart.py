"""Blocking work for tasks of asyncio, each in a thread of its own.

The loop's default executor has few threads, and a wait for another process may last for hours: a few waiting tasks
would stop everything else that uses it.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
#: Whether nobody waits for the work any more.
ShouldStop = Callable[[], bool]


async def run_apart(work: Callable[[ShouldStop], T], *, give_back: Callable[[T], object]) -> T:
    """Run ``work`` in a thread and wait for it without stopping the loop.

    When the task is cancelled meanwhile, the question that the work was given begins to say yes, and what it comes back
    with in spite of that goes to ``give_back``. What it raises is raised here.
    """
    errand = _Errand(work, give_back)
    try:
        return await errand.start()
    except BaseException:
        errand.give_up()
        raise


async def run_to_end(work: Callable[[], T]) -> T:
    """The same for work that is not broken off: a task that is cancelled meanwhile ends as soon as it is done."""
    errand = _Errand(lambda _should_stop: work(), lambda _result: None)
    future = errand.start()
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError as error:
            cancelled = error
        except BaseException:  # noqa: BLE001 - the future keeps it
            break
    if cancelled is not None:
        future.exception()  # seen: being cancelled is what is told
        raise cancelled
    return future.result()


class _Errand(Generic[T]):
    """One piece of work in its thread, whose result goes to the loop, or back when nobody wants it."""

    def __init__(self, work: Callable[[ShouldStop], T], give_back: Callable[[T], object]) -> None:
        self._work = work
        self._give_back = give_back
        self._lock = threading.Lock()
        self._is_given_up = False
        self._results: list[T] = []
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[T] = self._loop.create_future()

    def start(self) -> asyncio.Future[T]:
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._run,), name="dm.cached", daemon=True).start()
        return self._future

    def give_up(self) -> None:
        with self._lock:
            self._is_given_up = True
            results, self._results = self._results, []
        for result in results:
            self._give_back(result)

    def _run(self) -> None:
        try:
            result = self._work(lambda: self._is_given_up)
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is waited for
            self._wake(functools.partial(_fail, error))
            return
        with self._lock:
            if is_wanted := not self._is_given_up:
                self._results.append(result)
        if not is_wanted:
            self._give_back(result)
        elif not self._wake(lambda future: future.set_result(result)):
            self.give_up()

    def _wake(self, settle: Callable[[asyncio.Future[T]], None]) -> bool:
        def settle_if_waited_for() -> None:
            if not self._future.done():
                settle(self._future)

        try:
            self._loop.call_soon_threadsafe(settle_if_waited_for)
        except RuntimeError:  # the loop is closed
            return False
        return True


def _fail(error: BaseException, future: asyncio.Future[T]) -> None:
    future.set_exception(error)
