"""One thread for the whole process that touches the lock files it holds, so that others see that it lives."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable


class _Held:
    __slots__ = ("descriptor", "due_s", "interval_s", "on_error")

    def __init__(self, descriptor: int, interval_s: float, on_error: Callable[[OSError], None]) -> None:
        self.descriptor = descriptor
        self.interval_s = interval_s
        self.on_error = on_error
        self.due_s = time.monotonic() + interval_s


class Toucher:
    """Touches open files at an interval, from one daemon thread that starts with the first and sleeps in between."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: dict[int, _Held] = {}
        self._wakes_s = 0.0
        self._thread: threading.Thread | None = None

    def add(self, descriptor: int, interval_s: float, on_error: Callable[[OSError], None]) -> None:
        """Touch this file every ``interval_s`` seconds; ``on_error`` is told of a fault, once, and touching goes on."""
        held = _Held(descriptor, interval_s, on_error)
        with self._changed:
            self._held[descriptor] = held
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dm-touch", daemon=True)
                self._wakes_s = held.due_s
                self._thread.start()
            elif held.due_s < self._wakes_s:
                self._changed.notify()

    def remove(self, descriptor: int) -> None:
        """Stop; when this returns the descriptor is no longer used and may be closed."""
        with self._changed:
            self._held.pop(descriptor, None)

    def _run(self) -> None:
        told: set[_Held] = set()
        with self._changed:
            while True:
                now_s = time.monotonic()
                for held in [held for held in self._held.values() if held.due_s <= now_s]:
                    try:
                        os.utime(held.descriptor)
                    except OSError as error:
                        if held not in told:
                            told.add(held)
                            held.on_error(error)
                    held.due_s = now_s + held.interval_s
                told.intersection_update(self._held.values())
                # With nothing held it sleeps until the next lock wakes it.
                self._wakes_s = min((held.due_s for held in self._held.values()), default=float("inf"))
                self._changed.wait(None if not self._held else max(0.0, self._wakes_s - time.monotonic()))


_toucher: Toucher | None = None


def shared_toucher() -> Toucher:
    """The process's one toucher; a forked child, which has no such thread, gets its own."""
    global _toucher
    if _toucher is None:
        _toucher = Toucher()
        os.register_at_fork(after_in_child=_forget)
    return _toucher


def _forget() -> None:
    global _toucher
    _toucher = None
