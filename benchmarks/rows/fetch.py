"""Fetching over HTTP from a real server on loopback, against curl from the same server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.bench import GIB, MIB, Bench, Plan, Result, Side, write_manifest
from benchmarks.inputs import make_file, make_folder
from benchmarks.timing import Command, CommandFailed, Run, run_timed


def _check_count(count: int, size_bytes: int) -> Callable[[Path, Run], None]:
    def check(folder: Path, run: Run) -> None:
        store = folder / "home" / "data" / "datamanifest" / "datasets"
        found = [path for path in store.rglob("*.bin") if path.is_file()]
        if len(found) != count or any(path.stat().st_size != size_bytes for path in found[:10]):
            raise CommandFailed(f"dm fetched {len(found)} of {count} files")

    return check


def fetch_one(bench: Bench) -> Result:
    """One file of 2 GiB: streamed, hashed twice and published, against `curl -o`, which only writes."""
    size_bytes = bench.amount(2 * GIB)
    make_file(bench.inputs / "big.bin", size_bytes)
    server = bench.serve()
    curl = bench.find_program("curl", "curl")
    url = f"{server.url}/big.bin"

    def prepare(folder: Path) -> Command:
        write_manifest(folder / "project" / "datamanifest.toml", {"big": {"uri": url}})
        return bench.dm_command(folder, "fetch")

    def prepare_flushed(folder: Path) -> Command:
        return bench.other_command(folder, "sh", "-c", f"{curl} -sS -o out {url} && sync -d out")

    return bench.measure(
        "fetch-2gib",
        Plan(
            "fetch one 2 GiB file, hashed and published",
            [
                Side("dm", prepare, _check_count(1, size_bytes)),
                Side("curl -o", lambda folder: bench.other_command(folder, curl, "-sS", "-o", "out", url)),
                Side("curl -o and sync", prepare_flushed),
            ],
            "≤ 1.1 × curl",
            lambda yardstick_s: 1.1 * yardstick_s,
            memory_limit_bytes=120 * MIB,
        ),
    )


def _small_manifest(count: int, url: str) -> dict[str, dict[str, object]]:
    return {
        f"file{index:06}": {"uri": f"{url}/tiny/part{index // 200:04}/file{index:06}.bin"} for index in range(count)
    }


def _curl_list(bench: Bench, folder: Path, count: int, url: str) -> Command:
    configuration = folder / "list"
    configuration.write_text(
        "".join(
            f'url = "{url}/tiny/part{index // 200:04}/file{index:06}.bin"\noutput = "out{index:06}"\n'
            for index in range(count)
        )
    )
    return bench.other_command(folder, bench.find_program("curl", "curl"), "-sS", "-K", configuration)


def _dm_many(bench: Bench, folder: Path, count: int, url: str) -> Command:
    write_manifest(folder / "project" / "datamanifest.toml", _small_manifest(count, url))
    return bench.dm_command(folder, "fetch")


def fetch_thousand(bench: Bench) -> Result:
    """1,000 files of 1 KiB: objects, copies, state and manifest written, against one curl process."""
    count = bench.amount(1000)
    make_folder(bench.inputs / "tiny", bench.amount(10_000), 1024)
    server = bench.serve()
    return bench.measure(
        "fetch-1000",
        Plan(
            "fetch 1,000 files of 1 KiB",
            [
                Side("dm", lambda folder: _dm_many(bench, folder, count, server.url), _check_count(count, 1024)),
                Side("curl -K list", lambda folder: _curl_list(bench, folder, count, server.url)),
            ],
            "≤ 0.3 s + 5 × curl",
            lambda yardstick_s: 0.3 + 5 * yardstick_s,
            keep=True,
        ),
    )


def fetch_ten_thousand(bench: Bench) -> Result:
    """10,000 files of 1 KiB against `dm`'s own time for 1,000: in line, not squared."""
    many, few = bench.amount(10_000), bench.amount(1000)
    make_folder(bench.inputs / "tiny", many, 1024)
    server = bench.serve()
    return bench.measure(
        "fetch-10000",
        Plan(
            "fetch 10,000 files of 1 KiB",
            [
                Side("dm", lambda folder: _dm_many(bench, folder, many, server.url), _check_count(many, 1024)),
                Side("dm, 1,000 files", lambda folder: _dm_many(bench, folder, few, server.url)),
                Side("curl -K list", lambda folder: _curl_list(bench, folder, many, server.url)),
            ],
            "≤ 11 × its own for 1,000",
            lambda yardstick_s: 11 * yardstick_s,
            pairs=3,
            keep=True,
        ),
    )


def fetch_again(bench: Bench) -> Result:
    """`dm fetch` when all 1,000 are there: no request, no byte read again."""
    count = bench.amount(1000)
    make_folder(bench.inputs / "tiny", bench.amount(10_000), 1024)
    server = bench.serve(options="")
    there = bench.fresh("fetched")
    run_timed(_dm_many(bench, there, count, server.url))
    asked = len(server.requests)
    again = bench.dm_command(there, "fetch")

    def check(folder: Path, run: Run) -> None:
        if len(server.requests) != asked:
            raise CommandFailed("dm asked the server again")

    return bench.measure(
        "fetch-again",
        Plan(
            "fetch again, all 1,000 there",
            [
                Side("dm", lambda folder: again, check),
                Side("dm --version", lambda folder: bench.dm_command(folder, "--version")),
            ],
            "≤ 0.3 s + start",
            lambda yardstick_s: 0.3 + yardstick_s,
            pairs=11,
        ),
    )


ROWS = {
    "fetch-2gib": fetch_one,
    "fetch-1000": fetch_thousand,
    "fetch-10000": fetch_ten_thousand,
    "fetch-again": fetch_again,
}
