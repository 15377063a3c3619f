"""A download that is killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.bench import MIB, Bench, Result, write_manifest
from benchmarks.inputs import make_file
from benchmarks.timing import CommandFailed, run_timed

_SIZE_BYTES = 400 * MIB
#: Slow enough to be caught in the middle, fast enough not to wait for.
_RATE_BYTES = 200 * MIB




class Sent(NamedTuple):
    """One answered request in the server's log."""

    status: int
    body_bytes: int


def _read_sent(log: Path, count: int) -> list[Sent]:
    """The requests answered so far, waiting a while until there are ``count`` (a line is written at the end of one)."""
    for _ in range(500):
        lines = log.read_text().splitlines() if log.exists() else []
        if len(lines) >= count:
            break
        time.sleep(0.01)
    fields = [line.split('" ')[1].split()[:2] for line in lines]
    return [Sent(int(status), int(size)) for status, size in fields]


def killed_download(bench: Bench) -> Result:
    """Killed with SIGKILL at 80 % of a download, then run again: the server's own log says what was sent twice."""
    size_bytes = bench.amount(_SIZE_BYTES)
    make_file(bench.inputs / "killed.bin", size_bytes)
    folder = bench.fresh("killed")
    log = folder / "sent"
    server = bench.serve(options=f"limit_rate {bench.amount(_RATE_BYTES)}; access_log {log} combined;")
    manifest = folder / "project" / "datamanifest.toml"
    write_manifest(manifest, {"killed": {"uri": f"{server.url}/killed.bin"}})
    command = bench.dm_command(folder, "fetch")
    data = folder / "home" / "data"
    process = subprocess.Popen(
        [os.fspath(word) for word in command.words],
        cwd=command.folder,
        env=dict(command.variables),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    # A preallocated file has its full size at once, so the clock decides: the server's rate is known.
    time.sleep(0.8 * size_bytes / bench.amount(_RATE_BYTES) + 0.3)
    if process.poll() is not None:
        raise CommandFailed("the download was over before it could be killed")
    process.send_signal(signal.SIGKILL)
    process.wait()
    (first,) = _read_sent(log, 1)
    started = time.perf_counter()
    run = run_timed(command)
    wall_s = time.perf_counter() - started
    again = _read_sent(log, 2)[1:]

    if not again:
        raise CommandFailed("the second run asked the server for nothing")
    sent_again = sum(sent.body_bytes for sent in again)
    twice = max(0, first.body_bytes + sent_again - size_bytes) / size_bytes
    statuses = "/".join(str(sent.status) for sent in again)
    litter = sorted(str(path.relative_to(data)) for path in data.rglob("*") if path.suffix in (".tmp", ".lock"))
    litter += [str(path.relative_to(data)) for path in data.rglob(".dm/partial/*")]
    share = first.body_bytes / size_bytes
    return Result(
        "killed-download",
        f"killed at {share:.0%} of 400 MiB, started again",
        f"{wall_s:.3f}",
        f"answered {statuses}",
        f"{sent_again / size_bytes:.0%} asked again, {twice:.1%} sent twice",
        # What the kernel had not yet handed over at the kill is sent twice: sockets hold a few MiB.
        "the rest only, no litter",
        twice < 0.05 and not litter,
        f"{run.peak_bytes / MIB:.0f} MiB" + (f"; left behind: {', '.join(litter)}" if litter else ""),
    )


ROWS = {"killed-download": killed_download}
