"""The bench measures whole commands: what it is asked for is measured, from a checkout, whoever met a mark."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.fixtures.machine import needs

CHECKOUT = Path(__file__).resolve().parents[2]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )


def test_the_rows_of_the_bench_are_listed() -> None:
    done = _run("--list")
    assert (0, "") == (done.returncode, done.stderr)
    assert {"start-version", "fetch-1000", "verify", "second-copy", "cached-hit-small"} <= set(done.stdout.split())


def test_a_row_of_the_bench_is_measured_beside_its_yardstick(tmp_path: Path) -> None:
    needs("nginx")
    needs("curl")
    results = (CHECKOUT / "benchmarks" / "RESULTS.md").read_bytes()
    done = _run("fetch-1000", "--pairs", "1", "--scale", "0.01", "--folder", str(tmp_path))
    assert "" == done.stderr
    [_, row] = done.stdout.splitlines()
    assert row.startswith("fetch-1000: dm ") and "curl -K list" in row
    assert done.returncode in (0, 1)  # 1: the mark was missed, which says nothing of a hundredth of the work
    assert results == (CHECKOUT / "benchmarks" / "RESULTS.md").read_bytes()
    assert [] == list(tmp_path.iterdir())
