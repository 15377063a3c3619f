"""Threads that ask, one event loop that answers.

fsspec's libraries are coroutines, and everything of theirs runs on fsspec's own loop, in its own thread. The threads of
a fetch hand coroutines over and wait; `close` cancels what is under way, so that each of them comes back at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError, Future, wait
from contextlib import suppress
from typing import Any, TypeVar

from dm.plumbing.transport.bucket.faults import Interrupted

_T = TypeVar("_T")
#: How long tasks that were cancelled and connections may take to end, seconds.
_END_WITHIN_S = 5.0
#: How often it is looked whether to stop, seconds.
_LOOK_EVERY_S = 0.2


class Calls:
    """Runs coroutines for any thread until it is closed."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = threading.Event()
        self._lock = threading.Lock()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed.is_set()

    def submit(self, call: Callable[[], Coroutine[Any, Any, _T]]) -> Future[_T]:
        """Begin a coroutine; its result is asked for with `result`. Raises `Interrupted` after `close`."""
        with self._lock:
            if self.closed:
                raise _interrupted()
            if self._loop is None:
                from fsspec.asyn import get_loop  # type: ignore[import-untyped]

                self._loop = get_loop()
            return asyncio.run_coroutine_threadsafe(self._run(call), self._loop)

    def run(self, call: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Run a coroutine and wait for it. Raises what it raises, and `Interrupted` when `close` ended it."""
        return self.result(self.submit(call))

    def result(self, future: Future[_T], should_stop: Callable[[], bool] = lambda: False) -> _T:
        """Wait for what was submitted, or until ``should_stop`` says so, which cancels it, as does an interrupt.

        Raises what it raised; `Interrupted` when it was cancelled.
        """
        try:
            while not future.done():
                wait((future,), _LOOK_EVERY_S)
                if should_stop():
                    raise _interrupted()
            return future.result()
        except CancelledError:
            raise _interrupted() from None
        finally:
            future.cancel()

    def close(self, last: Callable[[], Awaitable[None]]) -> None:
        """Cancel what is under way, then run ``last``; from any thread, more than once."""
        with self._lock:
            if self.closed:
                return
            self._closed.set()
            loop = self._loop
        if loop is not None:
            with suppress(TimeoutError):  # whoever does not end in time is left behind, as a killed process would
                asyncio.run_coroutine_threadsafe(self._end(last), loop).result(3 * _END_WITHIN_S)

    async def _run(self, call: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            return await call()
        finally:
            self._tasks.discard(task)

    async def _end(self, last: Callable[[], Awaitable[None]]) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_END_WITHIN_S)
        await asyncio.wait_for(last(), _END_WITHIN_S)


def _interrupted() -> Interrupted:
    return Interrupted("interrupted", hint="run it again")


class Budget:
    """So many pieces may be in memory at once, over all transfers. A taker that has none waits for one."""

    def __init__(self, pieces: int) -> None:
        self._left = pieces
        self._given_back = threading.Condition()

    def take(self, should_stop: Callable[[], bool], *, wait: bool) -> bool:
        """Take one; False when there is none and ``wait`` is not set.

        Raises `Interrupted` when ``should_stop`` says so while it waits.
        """
        with self._given_back:
            while not self._left:
                if not wait:
                    return False
                self._given_back.wait(_LOOK_EVERY_S)
                if should_stop():
                    raise _interrupted()
            self._left -= 1
            return True

    def give_back(self) -> None:
        """Give one back."""
        with self._given_back:
            self._left += 1
            self._given_back.notify()
