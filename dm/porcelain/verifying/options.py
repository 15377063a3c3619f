"""How a verification goes about it: its options, and looking at many things in their order."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from dm.environment import format_time, read_clock_ns, read_monotonic_s
from dm.errors import UsageError
from dm.porcelain.looking import Look, look_at_all
from dm.progress import Progress
from dm.values import Outcome

Report = Callable[[Outcome], None]


class VerifyOptions(NamedTuple):
    """How to look. ``quick``: unchanged stat data stand for bytes. ``contract``: the manifest's ``checksum`` is
    computed in any case. ``older_than_s``: only what was not read whole for so many seconds. ``deadline_s`` (of
    `read_monotonic_s`): begin nothing after that, and begin with what was not read for longest. ``jobs``: copies read
    at once. ``repair``: mend what is broken, from any sound copy in reach, else from the source; with ``dry_run`` only
    say what would be mended, and from where.
    """

    quick: bool = False
    contract: bool = False
    older_than_s: float | None = None
    deadline_s: float | None = None
    jobs: int = 2
    repair: bool = False
    dry_run: bool = False

    def check(self) -> None:
        """Raise `UsageError` for options that contradict each other."""
        if self.quick and self.contract:
            raise UsageError("--quick reads no bytes that --contract could be computed of")
        if self.dry_run and not self.repair:
            raise UsageError("--dry-run goes with --repair", hint="without --repair dm verify changes no data")


class SharedTime:
    """The time that a verification may take, shared out: each of its parts gets an equal part of what is left."""

    def __init__(self, total_s: float | None, *, parts: int) -> None:
        self._end_s = None if total_s is None else read_monotonic_s() + total_s
        self._parts = parts

    def give(self, options: VerifyOptions) -> VerifyOptions:
        """The options for the next part."""
        if self._end_s is None:
            return options
        now_s = read_monotonic_s()
        share_s = max(0.0, self._end_s - now_s) / max(1, self._parts)
        self._parts -= 1
        return options._replace(deadline_s=now_s + share_s)


def look_at(
    looks: list[Look], options: VerifyOptions, progress: Progress, report: Callable[[Outcome], None]
) -> list[Outcome]:
    if options.older_than_s is not None:
        before = format_time(read_clock_ns() - int(options.older_than_s * 1_000_000_000))
        looks = [look for look in looks if look.verified is None or look.verified <= before]
    return look_at_all(looks, jobs=options.jobs, progress=progress, report=report, deadline_s=options.deadline_s)


def tell_unread(unread: int, size_bytes: int) -> str | None:
    return f"{unread} of {size_bytes} bytes not read: their stat data are unchanged" if unread else None


def ignore(_outcome: Outcome) -> None:
    return None
