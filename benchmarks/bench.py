"""The bench: fresh folders, `dm` as a user calls it, and pairs of runs in turns."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.timing import Command, Run, run_timed
from tests.fixtures.machine import find_program
from tests.fixtures.servers import Nginx

MIB = 1 << 20
GIB = 1 << 30


class NotHere(Exception):
    """The row needs something that this machine lacks; the message says what."""


class Side(NamedTuple):
    """One of the two (or more) that are measured in turns.

    ``prepare`` gets a fresh folder and returns the command that is timed; ``check`` looks whether it did the work.
    """

    label: str
    prepare: Callable[[Path], Command]
    check: Callable[[Path, Run], None] = lambda folder, run: None


class Plan(NamedTuple):
    """A row, ready to be measured.

    ``sides``: `dm` first, then the yardstick of the mark, then others that are told for comparison. ``limit_s``: the
    seconds that the mark grants `dm` when the yardstick took so many. ``keep``: folders are removed at the end of the
    row only (mass deletion slows the next creation down).
    """

    work: str
    sides: Sequence[Side]
    mark: str
    limit_s: Callable[[float], float]
    pairs: int = 5
    memory_limit_bytes: int | None = None
    keep: bool = False


class Result(NamedTuple):
    """A measured row as it is reported. ``met`` says of each mark whether it holds."""

    row: str
    work: str
    dm: str
    yardsticks: str
    ratio: str
    mark: str
    met: bool
    memory: str


class Bench:
    """One run of some rows below one folder."""

    def __init__(
        self, folder: Path, *, pairs: int | None, scale: float, dm: str | None, peer: str | None = None
    ) -> None:
        self.folder = folder
        self.inputs = folder / "inputs"
        self.scale = scale
        self._pairs = pairs
        program = Path(dm or Path(sys.executable).with_name("dm")).absolute()
        if not program.exists():
            raise NotHere(f"there is no '{program}' (make install; --dm names another)")
        self.dm = [str(program)]
        #: The interpreter that runs `dm`, for the rows that compare with it.
        beside = program.with_name("python")
        self.python = str(beside) if beside.exists() else sys.executable
        #: The interpreter of the Python peer, for the rows that compare with it.
        self.peer = peer
        self.stack = contextlib.ExitStack()
        self._count = 0

    def amount(self, full: int) -> int:
        """A size or count of the full row, cut down by ``--scale`` for trying things out."""
        return max(1, int(full * self.scale))

    def pairs_of(self, usual: int) -> int:
        """How many pairs a row measures, whose own number is this."""
        return self._pairs or usual

    def fresh(self, name: str) -> Path:
        """A new empty folder."""
        self._count += 1
        folder = self.folder / f"{self._count:04}-{name}"
        folder.mkdir(parents=True)
        return folder

    def find_program(self, name: str, package: str) -> str:
        """A yardstick's program; raises `NotHere` with the package that brings it."""
        found = find_program(name)
        if found is None:
            raise NotHere(f"'{name}' is not installed (apt-get install {package})")
        return found

    def serve(self, *, options: str = "access_log off;") -> Nginx:
        """A real nginx that serves the inputs until the bench ends; ``options`` go into its location block."""
        self.find_program("nginx", "nginx-light")
        self.inputs.mkdir(parents=True, exist_ok=True)
        return self.stack.enter_context(Nginx(self.inputs, options=options))

    def variables(self, folder: Path) -> dict[str, str]:
        """A whole environment with a home of its own in ``folder``."""
        home = folder / "home"
        for part in ("data", "cache", "config"):
            (home / part).mkdir(parents=True, exist_ok=True)
        return {
            "HOME": str(home),
            "XDG_DATA_HOME": str(home / "data"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "XDG_CONFIG_HOME": str(home / "config"),
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
        }

    def dm_command(self, folder: Path, *arguments: str | os.PathLike[str]) -> Command:
        """`dm` with a home in ``folder`` and its project in ``folder/project`` (made, with a manifest, when absent)."""
        project = folder / "project"
        manifest = project / "datamanifest.toml"
        if not manifest.exists():
            write_manifest(manifest, {})
        return Command([*self.dm, *arguments], project, self.variables(folder))

    def other_command(self, folder: Path, *words: str | os.PathLike[str]) -> Command:
        """A yardstick's command, run in ``folder``."""
        return Command(words, folder, self.variables(folder))

    def measure(self, row: str, plan: Plan) -> Result:
        """Measure the pairs of a plan in turns, after one that is not counted.

        Before each run everything dirty is written out, so that no side pays for the other's bytes. Raises
        `CommandFailed` when a side does not do its work.
        """
        pairs = self.pairs_of(plan.pairs)
        runs: list[list[Run]] = [[] for _ in plan.sides]
        made: list[Path] = []
        for number in range(pairs + 1):
            order = range(len(plan.sides)) if number % 2 == 0 else reversed(range(len(plan.sides)))
            for index in order:
                side = plan.sides[index]
                folder = self.fresh(row)
                command = side.prepare(folder)
                os.sync()
                run = run_timed(command)
                side.check(folder, run)
                if number > 0:
                    runs[index].append(run)
                made.append(folder)
                if not plan.keep:
                    shutil.rmtree(made.pop())
        for folder in made:
            shutil.rmtree(folder)
        return _judge(row, plan, runs)


def write_manifest(path: Path, datasets: dict[str, dict[str, object]]) -> None:
    """A manifest with these datasets, as a person would lay it out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["[_META]", "schema = 1", ""]
    for name, fields in datasets.items():
        lines.append(f"[{name}]")
        for field, value in fields.items():
            lines.append(f"{field} = {json.dumps(value)}")  # the same in TOML for what is written here
        lines.append("")
    path.write_text("\n".join(lines))


def _judge(row: str, plan: Plan, runs: list[list[Run]]) -> Result:
    ours, yardstick = runs[0], runs[1]
    ratios = [dm.wall_s / other.wall_s for dm, other in zip(ours, yardstick, strict=True)]
    shares = [dm.wall_s / plan.limit_s(other.wall_s) for dm, other in zip(ours, yardstick, strict=True)]
    peak_bytes = max(run.peak_bytes for run in ours)
    met = statistics.median(shares) <= 1.0
    memory = f"{peak_bytes / MIB:.0f} MiB"
    if plan.memory_limit_bytes is not None:
        met = met and peak_bytes < plan.memory_limit_bytes
        memory += f" (< {plan.memory_limit_bytes / MIB:.0f})"
    told = [
        f"{side.label} {statistics.median(run.wall_s for run in of_side):.3f}"
        for side, of_side in zip(plan.sides[1:], runs[1:], strict=True)
    ]
    return Result(
        row,
        plan.work,
        f"{statistics.median(run.wall_s for run in ours):.3f}",
        ", ".join(told),
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})",
        plan.mark,
        met,
        memory,
    )
