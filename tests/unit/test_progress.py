from __future__ import annotations

import pytest

from dm.progress import SILENT, Progress


def test_the_silent_sink_takes_everything_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    progress: Progress = SILENT
    progress.note("waiting for a lock")
    progress.warn("text/html came for a netCDF file")
    with progress.start("sst", total=10, unit="files") as task:
        task.advance(3)
        task.resize(None)
        task.describe("hashing")
    assert ("", "") == capfd.readouterr()


def test_an_error_passes_through_a_silent_task() -> None:
    with pytest.raises(ZeroDivisionError), SILENT.start("sst") as task:
        task.advance(1 // 0)
