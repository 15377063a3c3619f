"""Threads that do one job for many items, and hand over what comes of it in batches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from dm.environment import read_monotonic_s

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Threads to begin with. Work that waits for nobody is slower with more: they only pass Python's lock around (1,000
#: small files from a server on this machine take a fifth less processor time with 2 than with 8).
_FIRST = 2
#: How often it is looked whether more threads would help, seconds; and the items that each thread has to have done
#: since the last look, less than which means that it waits (for a server, mostly).
_LOOK_EVERY_S = 0.02
_ITEMS_EACH = 4


class Workers(Generic[Item, Result]):
    """``job`` is done for each of ``items``, in order, by at most ``most`` threads; it must not raise.

    The threads start at the first `collect` and become more while they mostly wait. `stop` ends them.
    """

    def __init__(self, items: Sequence[Item], job: Callable[[Item], Result], *, most: int) -> None:
        self._items = iter(items)
        self._job = job
        self._most = max(1, min(most, len(items)))
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._done: list[Result] = []
        self._wanted = 1
        self._finished = 0
        self._stopped = False

    def collect(self, most: int, *, wait_s: float) -> list[Result]:
        """Wait for a result, and then at most ``wait_s`` until there are ``most`` of them.

        One has to be still open: else this never returns.
        """
        while len(self._threads) < min(_FIRST, self._most):
            self._start()
        deadline_s: float | None = None
        with self._changed:
            while True:
                self._wanted = most if self._done else 1
                now_s = read_monotonic_s()
                if self._done and deadline_s is None:
                    deadline_s = now_s + wait_s
                if len(self._done) >= most or (deadline_s is not None and now_s >= deadline_s):
                    batch, self._done = self._done[:most], self._done[most:]
                    return batch
                before = self._finished
                may_grow = len(self._threads) < self._most
                rest_s = None if deadline_s is None else deadline_s - now_s
                if may_grow:
                    rest_s = _LOOK_EVERY_S if rest_s is None else min(rest_s, _LOOK_EVERY_S)
                woken = self._changed.wait(rest_s)
                if may_grow and not woken and self._finished - before < _ITEMS_EACH * len(self._threads):
                    for _ in range(min(len(self._threads), self._most - len(self._threads))):
                        self._start()

    def stop(self) -> None:
        """Let every thread end with the item that it has, and wait for that."""
        self._stopped = True
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name=f"dm-{len(self._threads)}")
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        for item in self._items:  # shared by all threads; Python's lock makes each step whole
            if self._stopped:
                return
            result = self._job(item)
            with self._changed:
                self._done.append(result)
                self._finished += 1
                # Only who is waited for wakes the other side: a wake-up per item costs more than the rest of this.
                if len(self._done) >= self._wanted:
                    self._changed.notify()
