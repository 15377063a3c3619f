"""The file system's clock is asked where it can be."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from dm.plumbing.fs.clock import read_file_system_clock_ns
from tests.fixtures.machine import MakeTmpfs


def test_a_file_written_before_is_not_younger_and_one_written_after_not_older(tmp_path: Path) -> None:
    (tmp_path / "before").touch()
    now_ns = read_file_system_clock_ns(tmp_path)
    (tmp_path / "after").touch()
    assert os.stat(tmp_path / "before").st_mtime_ns <= now_ns <= os.stat(tmp_path / "after").st_mtime_ns


def test_the_probe_is_removed(tmp_path: Path) -> None:
    read_file_system_clock_ns(tmp_path)
    assert os.listdir(tmp_path) == []


def test_where_nothing_can_be_written_the_answer_is_two_seconds_early(tmp_path: Path) -> None:
    before_ns = time.time_ns()
    now_ns = read_file_system_clock_ns(tmp_path / "absent")
    assert before_ns - 2_000_000_000 <= now_ns <= time.time_ns() - 2_000_000_000


@pytest.mark.needs_root
def test_the_probe_has_no_name_that_a_kill_could_leave(small_tmpfs: MakeTmpfs) -> None:
    folder = small_tmpfs(64 << 10)
    os.utime(folder, ns=(0, 0))
    assert read_file_system_clock_ns(folder)
    assert 0 == os.stat(folder).st_mtime_ns
