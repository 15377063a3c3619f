"""One command, run as a process of its own: wall time, processor time and peak memory as the kernel counts them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Command(NamedTuple):
    """What is run: the words, where, and with which environment. ``input`` is a file that it reads from."""

    words: Sequence[str | os.PathLike[str]]
    folder: Path
    variables: Mapping[str, str]
    input: Path | None = None


class Run(NamedTuple):
    """A finished run.

    ``peak_bytes`` is the largest resident memory of the process or of a child it waited for, and no less than this
    process's own when it started it (some 30 MiB): the kernel counts from the fork.
    """

    wall_s: float
    processor_s: float
    peak_bytes: int
    output: str


class CommandFailed(Exception):
    """A measured command did not end with 0: there is no number."""


def run_timed(command: Command) -> Run:
    """Run a command to its end and measure it. Output goes to a file, as a terminal or a pipe would slow it down."""
    words = [os.fspath(word) for word in command.words]
    output = command.folder / "bench-output"
    errors = command.folder / "bench-errors"
    with open(output, "wb") as out, open(errors, "wb") as err, open(command.input or os.devnull, "rb") as given:
        started = time.perf_counter()
        process = subprocess.Popen(
            words, cwd=command.folder, env=dict(command.variables), stdin=given, stdout=out, stderr=err
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        last = errors.read_text(errors="replace").strip() or output.read_text(errors="replace").strip()
        raise CommandFailed(f"{' '.join(words[:6])}: exit {process.returncode}: {last[-500:]}")
    # ru_maxrss is in KiB on Linux, in bytes on macOS
    unit = 1 if os.uname().sysname == "Darwin" else 1024
    processor_s = usage.ru_utime + usage.ru_stime
    return Run(wall_s, processor_s, usage.ru_maxrss * unit, output.read_text(errors="replace"))
