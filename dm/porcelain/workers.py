"""Threads that do one job for many items, and hand over what comes of it in batches."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
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
#: The longest wait without a look, seconds: a signal that the kernel gave to another thread (Ctrl-C) is taken up by
#: this one only when it runs.
_WAKE_EVERY_S = 0.2


class Workers(Generic[Item, Result]):
    """``job`` is done for each item that was added, in order, by at most ``most`` threads; it must not raise.

    The threads start in `collect`, become more while they mostly wait and end when there is nothing to do. `stop` ends
    them. All but ``job`` itself belongs to one thread.
    """

    def __init__(self, job: Callable[[Item], Result], *, most: int) -> None:
        self._items: deque[Item] = deque()
        self._job = job
        self._most = max(1, most)
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._done: list[Result] = []
        self._wanted = 1
        self._finished = 0
        self._stopped = False
        #: Items that were added and not collected yet.
        self.open_count = 0
        #: Threads that are at work.
        self.busy = 0

    def add(self, items: Iterable[Item]) -> None:
        """Have more done."""
        with self._changed:
            before = len(self._items)
            self._items.extend(items)
            self.open_count += len(self._items) - before

    def collect(self, most: int, *, wait_s: float) -> list[Result]:
        """Wait for a result, and then at most ``wait_s`` until there are ``most`` of them.

        One has to be still open: else this never returns.
        """
        deadline_s: float | None = None
        with self._changed:
            self._start(min(_FIRST, self._most) - self.busy)
            while True:
                self._wanted = most if self._done else 1
                now_s = read_monotonic_s()
                if self._done and deadline_s is None:
                    deadline_s = now_s + wait_s
                if len(self._done) >= most or (deadline_s is not None and now_s >= deadline_s):
                    batch, self._done = self._done[:most], self._done[most:]
                    self.open_count -= len(batch)
                    return batch
                before = self._finished
                may_grow = bool(self._items) and self.busy < self._most
                rest_s = None if deadline_s is None else deadline_s - now_s
                if may_grow:
                    rest_s = _LOOK_EVERY_S if rest_s is None else min(rest_s, _LOOK_EVERY_S)
                woken = self._changed.wait(_WAKE_EVERY_S if rest_s is None else min(rest_s, _WAKE_EVERY_S))
                if may_grow and not woken and self._finished - before < _ITEMS_EACH * self.busy:
                    self._start(min(self.busy, self._most - self.busy))

    def stop(self) -> None:
        """Let every thread end with the item that it has, and wait for that."""
        self._stopped = True
        for thread in self._threads:
            thread.join()

    def _start(self, count: int) -> None:
        """Start threads, no more than there are items; the lock is held."""
        for _ in range(min(count, len(self._items))):
            thread = threading.Thread(target=self._work, name=f"dm-{len(self._threads)}")
            self._threads.append(thread)
            self.busy += 1
            thread.start()

    def _work(self) -> None:
        while True:
            item = self._take()
            if item is None:
                return
            result = self._job(item)
            with self._changed:
                self._done.append(result)
                self._finished += 1
                # Only who is waited for wakes the other side: a wake-up per item costs more than the rest of this.
                if len(self._done) >= self._wanted:
                    self._changed.notify()

    def _take(self) -> Item | None:
        """The next item; None when this thread is to end."""
        if not self._stopped:
            with suppress(IndexError):
                return self._items.popleft()
        with self._changed:
            # Looked at once more under the lock: what was added meanwhile counts on this thread.
            if self._items and not self._stopped:
                return self._items.popleft()
            self.busy -= 1
            return None


class Lanes:
    """Room for more work at once beside that of workers: ``limit`` in all, of which ``count_busy()`` are taken."""

    def __init__(self, limit: int, count_busy: Callable[[], int]) -> None:
        self._limit = limit
        self._count_busy = count_busy
        self._taken = 0
        self._lock = threading.Lock()

    def try_take(self) -> bool:
        """Take a lane if one is free; it is to be given back."""
        with self._lock:
            if self._taken + self._count_busy() >= self._limit:
                return False
            self._taken += 1
            return True

    def are_overfull(self) -> bool:
        """Whether who holds a lane should give it back soon, since workers came that need it."""
        return self._taken + self._count_busy() > self._limit

    def give_back(self) -> None:
        """A lane is free again."""
        with self._lock:
            self._taken -= 1


#: No lane is ever free.
NO_LANES = Lanes(0, lambda: 0)
