"""Looking at what is there: every byte read again, or none."""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks.bench import GIB, MIB, Bench, Plan, Result, Side, write_manifest
from benchmarks.inputs import make_file, make_folder
from benchmarks.timing import Command, run_timed


def _fetched(bench: Bench) -> Path:
    """A project with 20,000 files of 4 KiB (an archive that became a folder) and one of 2 GiB, fetched and clean."""
    folder = bench.folder / "integrity"
    if folder.exists():
        return folder
    source = make_folder(bench.inputs / "small", bench.amount(20_000), 4096)
    big = make_file(bench.inputs / "big.bin", bench.amount(2 * GIB))
    archive = bench.inputs / "small.tar"
    subprocess.run(["tar", "-cf", archive, "-C", source, "."], check=True)
    folder.mkdir()
    datasets: dict[str, dict[str, object]] = {
        "small": {"uri": f"file://{archive}", "extract": True, "key": "bench.example/small.tar"},
        "big": {"uri": f"file://{big}", "key": "bench.example/big.bin"},
    }
    write_manifest(folder / "project" / "datamanifest.toml", datasets)
    run_timed(bench.dm_command(folder, "fetch"))
    return folder


def _b3sum(bench: Bench, folder: Path, fetched: Path) -> Command:
    b3sum = bench.find_program("b3sum", "b3sum")
    data = fetched / "home" / "data" / "datamanifest" / "datasets"
    return bench.other_command(folder, "sh", "-c", f"find '{data}' -type f -print0 | xargs -0 '{b3sum}' --no-names")


def verify_all(bench: Bench) -> Result:
    """`dm verify` of 20,000 × 4 KiB and 2 GiB against b3sum of the same files."""
    fetched = _fetched(bench)
    return bench.measure(
        "verify",
        Plan(
            "`dm verify`, 20,000 × 4 KiB + 2 GiB",
            [
                Side("dm", lambda folder: bench.dm_command(fetched, "verify")),
                Side("b3sum", lambda folder: _b3sum(bench, folder, fetched)),
            ],
            "≤ 1.6 × b3sum",
            lambda yardstick_s: 1.6 * yardstick_s,
            pairs=7,
            memory_limit_bytes=150 * MIB,
        ),
    )


def status_unchanged(bench: Bench) -> Result:
    """`dm status` of the same when nothing has changed: no byte is read."""
    fetched = _fetched(bench)
    data = fetched / "home" / "data" / "datamanifest" / "datasets"
    return bench.measure(
        "status",
        Plan(
            "`dm status` of the same, nothing changed",
            [
                Side("dm", lambda folder: bench.dm_command(fetched, "status")),
                Side("dm --version", lambda folder: bench.dm_command(folder, "--version")),
                Side("find", lambda folder: bench.other_command(folder, "find", data, "-size", "+4G")),
            ],
            "≤ 0.2 s + start",
            lambda yardstick_s: 0.2 + yardstick_s,
            pairs=11,
        ),
    )


ROWS = {"verify": verify_all, "status": status_unchanged}
