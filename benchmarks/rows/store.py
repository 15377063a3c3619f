"""Storing what is on this machine: staged folders and files published, a user's folder ingested."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from benchmarks.bench import GIB, Bench, Plan, Result, Side
from benchmarks.inputs import make_file, make_folder
from benchmarks.timing import Command


def _publish(bench: Bench, folder: Path, source: Path) -> Command:
    """`dm publish` of a private copy of ``source``, into the user's own store."""
    command = bench.dm_command(folder)
    staged = folder / "staged"
    if source.is_dir():
        shutil.copytree(source, staged)
    else:
        shutil.copyfile(source, staged)
    copy = folder / "home" / "data" / "datamanifest" / "datasets" / "bench.example" / source.name
    return command._replace(words=[*bench.dm, "publish", staged, copy])


def store_small(bench: Bench) -> Result:
    """A staged folder of 20,000 files of 4 KiB, published, against `borg create` of the same."""
    source = make_folder(bench.inputs / "small", bench.amount(20_000), 4096)
    borg = bench.find_program("borg", "borgbackup")

    def prepare_borg(folder: Path) -> Command:
        command = bench.other_command(folder, borg, "create", f"{folder / 'repository'}::one", source)
        command = command._replace(variables={**command.variables, "BORG_BASE_DIR": str(folder / "borg")})
        subprocess.run(
            [borg, "init", "--encryption=none", folder / "repository"], env=dict(command.variables), check=True
        )
        return command

    return bench.measure(
        "store-20000",
        Plan(
            "publish a staged folder of 20,000 × 4 KiB",
            [
                Side("dm", lambda folder: _publish(bench, folder, source)),
                Side("borg create", prepare_borg),
                Side("cp -r", lambda folder: bench.other_command(folder, "cp", "-r", source, "copy")),
            ],
            "≤ borg",
            lambda yardstick_s: yardstick_s,
            keep=True,
        ),
    )


def ingest_small(bench: Bench) -> Result:
    """A user's folder of 20,000 files of 4 KiB, stored and left untouched, against `cp -r`."""
    source = make_folder(bench.inputs / "small", bench.amount(20_000), 4096)
    return bench.measure(
        "ingest-20000",
        Plan(
            "`hash-object -w` of 20,000 × 4 KiB",
            [
                Side("dm", lambda folder: bench.dm_command(folder, "hash-object", "-w", source)),
                Side("cp -r", lambda folder: bench.other_command(folder, "cp", "-r", source, "copy")),
            ],
            "≤ 1.5 × cp -r",
            lambda yardstick_s: 1.5 * yardstick_s,
            keep=True,
        ),
    )


def publish_big(bench: Bench) -> Result:
    """One staged file of 2 GiB, published, against reading it with BLAKE3 on all cores."""
    source = make_file(bench.inputs / "big.bin", bench.amount(2 * GIB))
    b3sum = bench.find_program("b3sum", "b3sum")
    return bench.measure(
        "publish-2gib",
        Plan(
            "publish one staged 2 GiB file",
            [
                Side("dm", lambda folder: _publish(bench, folder, source)),
                Side("b3sum", lambda folder: bench.other_command(folder, b3sum, source)),
            ],
            "≤ 1.5 × b3sum",
            lambda yardstick_s: 1.5 * yardstick_s,
        ),
    )


ROWS = {"store-20000": store_small, "ingest-20000": ingest_small, "publish-2gib": publish_big}
