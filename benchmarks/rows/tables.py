"""Long manifests."""

from __future__ import annotations

from pathlib import Path

from benchmarks.bench import Bench, Plan, Result, Side, write_manifest
from benchmarks.timing import CommandFailed, Run


def list_declared(bench: Bench) -> Result:
    """`dm list` of 10,000 declared datasets against an interpreter that only parses the same manifest."""
    count = bench.amount(10_000)
    project = bench.fresh("list")
    manifest = project / "project" / "datamanifest.toml"
    write_manifest(
        manifest,
        {
            f"dataset{index:05}": {
                "uri": f"https://data.example.org/series/{index % 100:02}/file{index:05}.nc#{index % 7}",
                "checksum": f"sha256:{index:064x}",
                "description": f"monthly means of series {index}",
            }
            for index in range(count)
        },
    )
    parse = "import sys, tomllib; tomllib.load(open(sys.argv[1], 'rb'))"

    def check(folder: Path, run: Run) -> None:
        lines = sum("dataset" in line for line in run.output.splitlines())
        if lines < count:
            raise CommandFailed(f"dm listed {lines} of {count} datasets")

    return bench.measure(
        "list-10000",
        Plan(
            "`dm list` of 10,000 declared datasets",
            [
                Side("dm", lambda folder: bench.dm_command(project, "list"), check),
                Side("tomllib alone", lambda folder: bench.other_command(folder, bench.python, "-c", parse, manifest)),
            ],
            "≤ 0.7 s",
            lambda yardstick_s: 0.7,
            pairs=7,
        ),
    )


ROWS = {"list-10000": list_declared}
