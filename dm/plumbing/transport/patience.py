"""How often a source is asked again, and when: shared by downloads, small documents and rsync."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from dm.errors import DmError
from dm.plumbing.transport.connections import HttpOptions, PassingFault
from dm.progress import Progress

_Result = TypeVar("_Result")

#: New bytes that a try must bring to start the count of tries again.
_HEADWAY_BYTES = 1 << 20
#: A wait from this length on is told.
_NOTED_WAIT_S = 1.0


class Session(Protocol):
    """What waits between two tries, and may be closed meanwhile by another thread."""

    @property
    def options(self) -> HttpOptions:
        """The bounds of patience."""

    @property
    def closed(self) -> bool:
        """Whether it was closed."""

    def wait(self, seconds: float) -> None:
        """Sleep, or until it is closed."""


def persevere(
    session: Session,
    attempt: Callable[[], _Result],
    *,
    give_up: Callable[[PassingFault, int], DmError],
    progress: Progress,
    count_bytes: Callable[[], int] = lambda: 0,
) -> _Result:
    """Call ``attempt`` until it returns, waiting between two tries, as `HttpOptions` bounds it.

    A `PassingFault` is tried again; the last one raises what ``give_up`` makes of it and of the number of tries. A try
    after which ``count_bytes`` has grown by 1 MiB starts the count again. Everything else that is raised passes.
    """
    options = session.options
    failures = tries = 0
    while True:
        tries += 1
        before_bytes = count_bytes()
        try:
            return attempt()
        except PassingFault as fault:
            if count_bytes() - before_bytes >= _HEADWAY_BYTES:
                failures = 0
            failures += 1
            limit = options.retries if fault.limit is None else min(fault.limit, options.retries)
            if failures > limit or session.closed:
                if session.closed:
                    fault = PassingFault("interrupted", hint="run it again", code="interrupted")
                raise give_up(fault, tries) from fault
            wait_s = _find_wait_s(options, fault, failures)
            if wait_s >= _NOTED_WAIT_S:
                progress.note(f"{fault.reason}; trying again in {wait_s:.0f} s ({failures} of {limit})")
            session.wait(wait_s)


def _find_wait_s(options: HttpOptions, fault: PassingFault, failures: int) -> float:
    """Seconds until the next try: twice as long each time, spread so that many clients do not come as one."""
    import random

    if fault.retry_after_s is not None:
        return min(fault.retry_after_s, options.retry_after_max_s)
    longest: float = min(options.backoff_s * 2 ** (failures - 1), options.backoff_max_s)
    return longest * random.uniform(0.5, 1.0)
