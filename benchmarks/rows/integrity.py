"""Looking at what is there: every byte read again, or none."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from benchmarks.bench import GIB, MIB, Bench, Plan, Result, Side, write_manifest
from benchmarks.inputs import make_file, make_folder
from benchmarks.timing import Command, CommandFailed, Run, run_timed


def fetch_once(bench: Bench) -> Path:
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
    fetched = fetch_once(bench)
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
    fetched = fetch_once(bench)
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


def verify_quick(bench: Bench) -> Result:
    """`dm verify --quick` of the same when nothing has changed: stat data stand for bytes."""
    fetched = fetch_once(bench)
    data = fetched / "home" / "data" / "datamanifest" / "datasets"
    run_timed(bench.dm_command(fetched, "verify"))
    return bench.measure(
        "verify-quick",
        Plan(
            "`dm verify --quick` of the same, nothing changed",
            [
                Side("dm", lambda folder: bench.dm_command(fetched, "verify", "--quick")),
                Side("dm --version", lambda folder: bench.dm_command(folder, "--version")),
                Side("find", lambda folder: bench.other_command(folder, "find", data, "-size", "+4G")),
            ],
            "≤ 0.2 s + start",
            lambda yardstick_s: 0.2 + yardstick_s,
            pairs=11,
        ),
    )


def second_scope(bench: Bench) -> Result:
    """`dm fetch` of the same datasets into another scope by another project, against `cp -r` of the first copies."""
    fetched = fetch_once(bench)
    home = fetched / "home"
    store = home / "data" / "datamanifest"
    declared = (fetched / "project" / "datamanifest.toml").read_text()
    limit_bytes = (bench.amount(20_000) * 4096 + bench.amount(2 * GIB)) // 100
    before: list[int] = []

    def prepare(folder: Path) -> Command:
        project = folder / "project"
        project.mkdir(parents=True)
        lines = []
        for line in declared.splitlines():
            lines.append(line)
            if line.startswith("key = "):
                lines[-1] = line.replace("bench.example", folder.name)
                lines.append(f'scope = "{folder.name}"')
        (project / "datamanifest.toml").write_text("\n".join(lines) + "\n")
        before[:] = [count_bytes(store)]
        return Command([*bench.dm, "fetch"], project, bench.variables(fetched))

    def check(folder: Path, run: Run) -> None:
        copies = store / folder.name / "datasets"
        if not copies.is_dir():
            raise CommandFailed(f"there is no copy in '{copies}'")
        added = count_bytes(store) - before[0]
        if added > limit_bytes and bench.scale == 1.0:
            raise CommandFailed(f"the second scope has {added} bytes of its own, more than 1 %")

    return bench.measure(
        "second-scope",
        Plan(
            "fetch of the same into a second scope, by another project; ≤ 1 % of the bytes",
            [
                Side("dm", prepare, check),
                Side("cp -r", lambda folder: bench.other_command(folder, "cp", "-r", store / "datasets", "second")),
                Side("cp -rl", lambda folder: bench.other_command(folder, "cp", "-rl", store / "datasets", "second")),
            ],
            "≤ 0.5 × cp -r",
            lambda yardstick_s: 0.5 * yardstick_s,
            pairs=5,
            keep=True,
        ),
    )


def count_bytes(folder: Path) -> int:
    """Disk bytes below a folder as ``du`` counts them: a hard-linked file once."""
    seen: dict[tuple[int, int], int] = {}
    for parent, _, names in os.walk(folder):
        for path in [parent, *[f"{parent}/{name}" for name in names]]:
            status = os.lstat(path)
            seen[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(seen.values())


ROWS = {"verify": verify_all, "verify-quick": verify_quick, "status": status_unchanged, "second-scope": second_scope}
