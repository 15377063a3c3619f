"""A second working copy from the same objects."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.bench import GIB, Bench, Plan, Result, Side
from benchmarks.inputs import make_file, make_folder
from benchmarks.timing import Command, CommandFailed, Run, run_timed


def _published(bench: Bench) -> tuple[Path, str, Path]:
    """A home whose store holds one folder of 20,000 × 4 KiB and 2 GiB: the home's folder, its digest, the copy."""
    folder = bench.fresh("published")
    staged = make_folder(folder / "staged", bench.amount(20_000), 4096)
    make_file(staged / "big.bin", bench.amount(2 * GIB))
    copy = folder / "home" / "data" / "datamanifest" / "datasets" / "bench.example" / "all"
    run = run_timed(bench.dm_command(folder, "publish", staged, copy))
    return folder, run.output.split()[0], copy


def _own_bytes(folder: Path) -> int:
    """Disk bytes below a folder that no other name shares (hard links; shared extents are not seen)."""
    total = 0
    for parent, _, names in os.walk(folder):
        total += os.lstat(parent).st_blocks * 512
        for name in names:
            status = os.lstat(os.path.join(parent, name))
            total += status.st_blocks * 512 if status.st_nlink == 1 else 0
    return total


def second_copy(bench: Bench) -> Result:
    """`dm checkout-object` of 20,000 × 4 KiB and 2 GiB against `cp -rl` of the first copy."""
    home, digest, first = _published(bench)
    limit_bytes = (bench.amount(20_000) * 4096 + bench.amount(2 * GIB)) // 100
    destinations: list[Path] = []

    def prepare(folder: Path) -> Command:
        destinations.append(folder / "second")
        return bench.dm_command(home, "checkout-object", digest, destinations[-1])

    def check(folder: Path, run: Run) -> None:
        own = _own_bytes(destinations[-1])
        if own > limit_bytes and bench.scale == 1.0:
            raise CommandFailed(f"the second copy has {own} bytes of its own, more than 1 %")

    return bench.measure(
        "second-copy",
        Plan(
            "second copy of 20,000 × 4 KiB + 2 GiB, by links; ≤ 1 % of the bytes",
            [
                Side("dm", prepare, check),
                Side("cp -rl", lambda folder: bench.other_command(folder, "cp", "-rl", first, "second")),
            ],
            "≤ 2.5 × cp -rl",
            lambda yardstick_s: 2.5 * yardstick_s,
            keep=True,
        ),
    )


ROWS = {"second-copy": second_copy}
