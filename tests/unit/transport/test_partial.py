"""The file that a transfer writes: what is measured while it grows."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dm.plumbing.transport.partial import Partial
from tests.fixtures.fetching import ALGORITHMS, digests_of

#: So much of it is still being hashed when the next bytes are there.
PIECE_BYTES = 4 << 20


def read_of(data: bytes) -> Callable[[memoryview], int]:
    """A source that is never waited for."""
    left = memoryview(data)

    def read(view: memoryview) -> int:
        nonlocal left
        count = min(len(view), len(left))
        view[:count] = left[:count]
        left = left[count:]
        return count

    return read


def check(partial: Partial, path: Path, expected: bytes) -> None:
    assert expected == path.read_bytes()
    assert digests_of(expected) == {name: digest.hex for name, digest in partial.digests().items()}


@pytest.mark.parametrize("turns", [2, 3, 4, 5])
def test_what_comes_in_several_times_is_measured_as_a_whole(tmp_path: Path, turns: int) -> None:
    path, pieces = tmp_path / "part", [os.urandom(PIECE_BYTES) for _ in range(turns)]
    partial = Partial.create(path, ALGORITHMS)
    for piece in pieces:
        partial.take_in(read_of(piece), None, lambda count: None)
    check(partial, path, b"".join(pieces))
    partial.close()


@pytest.mark.parametrize("keep", [100_000, 600_000, 1 << 20, 3 << 20, 5 << 20, 9_000_000])
def test_what_goes_on_at_once_is_measured_as_a_whole(tmp_path: Path, keep: int) -> None:
    path, rest = tmp_path / "part", os.urandom(PIECE_BYTES)
    path.write_bytes(os.urandom(keep))
    expected = path.read_bytes() + rest
    partial = Partial.reopen(path, ALGORITHMS, lambda size: size)
    assert partial is not None
    partial.take_in(read_of(rest), None, lambda count: None)
    check(partial, path, expected)
    partial.close()


def test_what_comes_after_an_interruption_is_measured_as_a_whole(tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(count: int) -> None:
        raise Interrupted

    path, pieces = tmp_path / "part", [os.urandom(PIECE_BYTES) for _ in range(8)]
    partial = Partial.create(path, ALGORITHMS)
    expected = b""
    for piece in pieces:
        with pytest.raises(Interrupted):
            partial.take_in(read_of(piece), None, interrupt)
        expected += piece[: partial.size_bytes - len(expected)]
    check(partial, path, expected)
    partial.close()
