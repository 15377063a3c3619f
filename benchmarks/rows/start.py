"""Start-up: what every command pays before it works."""

from __future__ import annotations

from benchmarks.bench import Bench, Plan, Result, Side


def start_version(bench: Bench) -> Result:
    """``dm --version`` against an interpreter that does nothing."""
    return bench.measure(
        "start-version",
        Plan(
            "`dm --version`",
            [
                Side("dm", lambda folder: bench.dm_command(folder, "--version")),
                Side("python -c pass", lambda folder: bench.other_command(folder, bench.python, "-c", "pass")),
            ],
            "≤ 2 × python",
            lambda yardstick_s: 2 * yardstick_s,
            pairs=31,
        ),
    )


def start_status(bench: Bench) -> Result:
    """``dm status`` of an empty project against an interpreter that does nothing."""
    return bench.measure(
        "start-status",
        Plan(
            "`dm status`, empty project",
            [
                Side("dm", lambda folder: bench.dm_command(folder, "status")),
                Side("python -c pass", lambda folder: bench.other_command(folder, bench.python, "-c", "pass")),
            ],
            "≤ 7 × python",
            lambda yardstick_s: 7 * yardstick_s,
            pairs=31,
        ),
    )


ROWS = {"start-version": start_version, "start-status": start_status}
