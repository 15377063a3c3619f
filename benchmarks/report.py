"""RESULTS.md: the last numbers of each row, with what the machine is like and without its name."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks.bench import Result

_HEAD = """# Results

Ratios of `dm` against what a user knows, both sides in turns in one run, each in a fresh folder, after one pair that is
not counted: the median and, in brackets, the smallest and the largest. Seconds are medians of wall time. Believe ratios
of two or more, not absolutes. A mark that is missed has its reason below the table. `make bench ROW=NAME` measures a
row and writes it here.

"""
_COLUMNS = "| row | work | dm (s) | yardstick (s) | ratio | mark | met | peak memory |\n" + "|---" * 8 + "|\n"
_NOTES = "\n## Notes\n"


def describe_machine(folder: Path) -> str:
    """Cores, system, file system and Python: what a number depends on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    kind = "unknown file system"
    found = subprocess.run(["stat", "-f", "-c", "%T", str(folder)], capture_output=True, text=True, check=False)
    if found.returncode == 0:
        kind = found.stdout.strip().replace("ext2/ext3", "ext4")
    return f"{cores} cores, {platform.system()}, {kind}, Python {platform.python_version()}, warm cache, loopback"


def format_row(result: Result) -> str:
    """One line of the table."""
    fields = (*result[:6], "yes" if result.met else "**no**", result.memory)
    return "| " + " | ".join(fields) + " |"


def write_results(path: Path, results: Iterable[Result], *, machine: str, order: list[str]) -> None:
    """Put rows into the table; other rows stay unless they were measured on another kind of machine."""
    text = path.read_text() if path.exists() else ""
    notes = text.partition(_NOTES)[2]
    rows: dict[str, str] = {}
    if f"Machine: {machine}." in text:
        rows = {match[1]: match[0] for match in re.finditer(r"^\| ([a-z0-9-]+) \|.*\|$", text, re.MULTILINE)}
        rows.pop("row", None)
    rows.update((result.row, format_row(result)) for result in results)
    table = "\n".join(rows[name] for name in order if name in rows)
    stamp = f"Machine: {machine}. Last measured {time.strftime('%Y-%m-%d', time.gmtime())}.\n\n"
    path.write_text(_HEAD + stamp + _COLUMNS + table + "\n" + _NOTES + notes)
