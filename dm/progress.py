"""The sink that long work reports to. Silent by default; the command line draws it."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self


class Task(Protocol):
    """One piece of long work that is under way. Calls may come from any thread."""

    def advance(self, amount: int) -> None:
        """``amount`` more units (bytes, files) are done."""

    def resize(self, total: int | None) -> None:
        """The total is now known (None: unknown)."""

    def describe(self, text: str) -> None:
        """What is being done now, in a word or two."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Progress(Protocol):
    """Takes what long work has to say while it runs."""

    def start(self, label: str, *, total: int | None = None, unit: str = "bytes") -> Task:
        """A new task; leave its `with` block when it is over. ``unit`` is ``bytes`` or ``files``."""

    def note(self, text: str) -> None:
        """One line that a person should see (a lock waited for, another rung taken)."""

    def warn(self, text: str) -> None:
        """One line about something that looks wrong but does not stop the work."""


class SilentTask:
    """A task that nobody watches."""

    def advance(self, amount: int) -> None:
        """Ignored."""

    def resize(self, total: int | None) -> None:
        """Ignored."""

    def describe(self, text: str) -> None:
        """Ignored."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class SilentProgress:
    """The default sink: drops everything."""

    def start(self, label: str, *, total: int | None = None, unit: str = "bytes") -> SilentTask:
        """A task that nobody watches."""
        return SilentTask()

    def note(self, text: str) -> None:
        """Ignored."""

    def warn(self, text: str) -> None:
        """Ignored."""


SILENT = SilentProgress()


def format_size(size_bytes: int | None) -> str:
    """Bytes for people, in powers of 1024: ``0 B``, ``1.5 KiB``, ``2.0 GiB``."""
    if size_bytes is None:
        return "-"
    if size_bytes < 1024:
        return f"{size_bytes} B"
    amount = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        amount /= 1024
        if amount < 1024 or unit == "PiB":
            return f"{amount:.1f} {unit}"
    raise AssertionError("unreachable")
