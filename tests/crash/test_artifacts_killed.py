"""Computations that are killed with SIGKILL at any moment: never a wrong value, never half of one."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from dm.plumbing.fs.temporary import is_temporary
from dm.porcelain.artifacts.session import Loaded
from tests.fixtures.artifacts import RECIPE, Results
from tests.fixtures.homes import Home

#: Enough rounds to meet every step: a round publishes some results and dies within one.
KILLS = 50
KEYS = 2
#: Larger than a write that the kernel does at once.
WORDS = 10_000


def _make_value(key: int, token: int) -> tuple[int, int, list[int]]:
    return key, token, [token] * WORDS


def _is_right(value: object, key: int) -> bool:
    return isinstance(value, tuple) and value == _make_value(key, value[1])


def _compute_for_ever(results: Results, numbers: Iterator[int], begun: int) -> None:
    formats = ("pickle", "json", "pickle")
    for number in numbers:
        os.write(begun, b".")
        recipe = RECIPE._replace(format=formats[number % 3], code_digest=f"python-1:{number}")
        results.call(recipe, {"key": number % KEYS}, value=_make_value(number % KEYS, number), fresh=True)


def _count_from(start: int) -> Iterator[int]:
    while True:
        yield start
        start += 1


def test_a_killed_computation_leaves_a_whole_result_or_none(
    open_anew: Callable[..., Results], results: Results, home: Home
) -> None:
    chances = random.Random(5)
    hits = 0
    first = RECIPE._replace(code_digest="python-1:0")
    results.call(first, {"key": 0}, value=_make_value(0, 0))  # what is imported at the first time is not every child's
    reading, writing = os.pipe()
    for round_number in range(KILLS):
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                _compute_for_ever(open_anew(), _count_from(1000 * round_number), writing)
            os._exit(1)
        # In the first computation or the second, at whatever moment of it.
        for _ in range(1 + round_number % 2):
            os.read(reading, 1)
        time.sleep(chances.uniform(0.0, 0.020))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.set_blocking(reading, False)
        with suppress(BlockingIOError):
            os.read(reading, 1 << 16)
        os.set_blocking(reading, True)
        reader = open_anew()
        for key in range(KEYS):
            for data_format in ("pickle", "json"):
                begun = reader.artifacts.begin(RECIPE._replace(format=data_format), {"key": key})
                if isinstance(begun, Loaded):
                    value = begun.value
                    value = tuple(value) if isinstance(value, list) else value
                    assert _is_right(value, key)
                    assert f"python-1:{value[1]}" == begun.code_digest
                    hits += 1
                else:
                    begun.abandon()
    os.close(reading)
    os.close(writing)
    assert hits > KILLS  # else hardly anything was tried
    for key in range(KEYS):
        assert _is_right(results.call(table={"key": key}, value=_make_value(key, 1), fresh=True), key)
    assert [] == _list_litter(home.cache / "datamanifest")


def _list_litter(root: Path) -> list[str]:
    """Locks that are held by nobody, and what is half-done, when all is over. (A ref's temporary file is prune's.)"""
    partial = [path for path in (root / ".dm" / "partial").iterdir() if not is_temporary(path.name)]
    return [*map(str, partial), *(str(path) for path in root.rglob("*.lock") if ".dm" not in path.parts)]
