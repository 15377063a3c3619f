"""Keeping results apart from what code of a manifest prints: stdout holds what the command promises, nothing else."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _PerThread:
    """Stands for `sys.stdout`: the real one for the thread that made it, stderr for every other."""

    def __init__(self, results: io.TextIOWrapper) -> None:
        self._results = results
        self._owner = threading.current_thread()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._results if threading.current_thread() is self._owner else sys.stderr, name)


@contextmanager
def keep_results_apart() -> Iterator[None]:
    """While it lasts, only this thread writes to stdout; what others print, and programs that they start, goes to
    stderr. A fetcher of the manifest runs in another thread.
    """
    stdout = sys.stdout
    stdout.flush()
    descriptor = os.dup(1)
    results = open(  # noqa: SIM115 - closed below, without what could not be written
        descriptor, "w", encoding=stdout.encoding, errors=stdout.errors, closefd=False
    )
    os.dup2(2, 1)
    sys.stdout = _PerThread(results)
    try:
        yield
        results.flush()
    finally:
        sys.stdout = stdout
        os.dup2(descriptor, 1)
        os.close(descriptor)
