"""Progress on a terminal: notes and warnings as lines, long work as bars. `rich` is imported when a bar is first due.

A task shows up after it has lived for a while, so that quick work draws nothing and costs nothing.
"""

from __future__ import annotations

import os
import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from dm.environment import read_monotonic_s
from dm.plumbing.cli.frame import say
from dm.plumbing.cli.output import route_lines
from dm.progress import Progress, SilentTask, format_size
from dm.values import printable

if TYPE_CHECKING:
    from dm.plumbing.cli.frame import Session

#: Work that is over before this draws no bar, seconds.
BAR_DELAY_S = 0.4


def choose_progress(session: Session) -> Progress:
    """Bars when stderr is a terminal and they are wanted; else notes only; warnings always."""
    wanted = not session.quiet and not session.no_progress
    if wanted and sys.stderr.isatty() and session.environment.get("TERM") != "dumb":
        return BarProgress(color=session.color)
    return LineProgress(quiet=session.quiet)


class LineProgress:
    """Notes and warnings as lines on stderr, no bars."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet

    def start(self, label: str, *, total: int | None = None, unit: str = "bytes") -> SilentTask:
        """Nothing is drawn."""
        return SilentTask()

    def note(self, text: str) -> None:
        """A line, unless ``--quiet``."""
        if not self._quiet:
            say(printable(text))

    def warn(self, text: str) -> None:
        """A line that begins with ``dm: warning:``."""
        say(f"dm: warning: {printable(text)}")


class BarProgress:
    """One bar for each task that takes long, drawn by rich on stderr."""

    def __init__(self, *, color: str = "auto") -> None:
        self._color = color
        self._lock = threading.RLock()
        self._display: Any = None

    def start(self, label: str, *, total: int | None = None, unit: str = "bytes") -> BarTask:
        """A task that becomes a bar once it has lived for `BAR_DELAY_S`."""
        return BarTask(self, label, total, unit)

    def note(self, text: str) -> None:
        """A line above the bars."""
        self._print(printable(text))

    def warn(self, text: str) -> None:
        """A line above the bars that begins with ``dm: warning:``."""
        self._print(f"dm: warning: {printable(text)}")

    def stop(self) -> None:
        """Take all bars away."""
        with self._lock:
            if self._display is not None:
                route_lines(None)
                self._display.stop()
                self._display = None

    def _print(self, line: str) -> None:
        with self._lock:
            if self._display is None:
                say(line)
            else:
                self._display.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def ensure_display(self) -> Any:
        """The rich display, started when the first bar is due."""
        with self._lock:
            if self._display is None:
                from rich.console import Console
                from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
                from rich.progress import Progress as Display

                self._display = Display(
                    TextColumn("{task.description}", markup=False),
                    BarColumn(),
                    TextColumn("{task.fields[amount]}", markup=False),
                    TimeRemainingColumn(),
                    console=Console(stderr=True, no_color=self._color == "never"),
                    transient=True,
                    redirect_stdout=False,  # to stderr, where nobody looks for results that a file or a pipe is for
                )
                self._display.start()
                if _share_terminal():
                    route_lines(self._print)
            return self._display


def _share_terminal() -> bool:
    """Whether results go to the terminal that the bars are drawn on: then they are lines above the bars."""
    try:
        return os.path.samestat(os.fstat(1), os.fstat(2))
    except OSError:
        return False


class BarTask:
    """One task of a `BarProgress`. Calls may come from any thread."""

    def __init__(self, owner: BarProgress, label: str, total: int | None, unit: str) -> None:
        self._owner = owner
        self._label = printable(label)
        self._total = total
        self._unit = unit
        self._done = 0
        self._began_s = read_monotonic_s()
        self._bar: Any = None
        self._lock = threading.Lock()

    def advance(self, amount: int) -> None:
        """``amount`` more units are done; less, when a transfer begins anew."""
        with self._lock:
            self._done += amount
            if self._bar is None and read_monotonic_s() - self._began_s < BAR_DELAY_S:
                return
            display = self._owner.ensure_display()
            if self._bar is None:
                self._bar = display.add_task(self._label, total=self._total, amount="")
            display.update(self._bar, completed=self._done, amount=self._describe_amount())

    def _describe_amount(self) -> str:
        if self._unit != "bytes":
            return f"{self._done}" if self._total is None else f"{self._done}/{self._total}"
        speed = format_size(int(self._done / max(read_monotonic_s() - self._began_s, 0.1)))
        total = "" if self._total is None else f"/{format_size(self._total)}"
        return f"{format_size(self._done)}{total} {speed}/s"

    def resize(self, total: int | None) -> None:
        """The total is now known."""
        self._total = total
        if self._bar is not None:
            self._owner.ensure_display().update(self._bar, total=total)

    def describe(self, text: str) -> None:
        """Show what is being done now beside the label."""
        if self._bar is not None:
            self._owner.ensure_display().update(self._bar, description=f"{self._label}: {printable(text)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._owner.ensure_display().remove_task(self._bar)
            self._bar = None
