"""What has to be said while a function's result is found or made: Python's own warnings, and its logging.

Something that looks wrong is a `CacheWarning`, at the line of the caller. What a person may like to know while they
wait (who computes the same thing at this moment) goes to the logger ``dm``, which prints to the error stream unless the
program has set up logging otherwise.
"""

from __future__ import annotations

import sys
import warnings
from types import FrameType

from dm.progress import SilentProgress


class CacheWarning(UserWarning):
    """Something about a kept result looks wrong; the value that was returned is right all the same."""


class CodeChanged(CacheWarning):
    """A result was made by code that is not what its function's source says now."""


class ToldToPython(SilentProgress):
    """A sink of progress that passes warnings and notes on to Python's `warnings` and `logging`."""

    def note(self, text: str) -> None:
        """One line to the logger ``dm``."""
        import logging

        logging.getLogger("dm").warning("%s", text)

    def warn(self, text: str) -> None:
        """A `CacheWarning`."""
        warn(text, CacheWarning)


def warn(text: str, category: type[CacheWarning]) -> None:
    """Warn at the line outside this package that led here."""
    warnings.warn(text, category, stacklevel=_find_level())


def _find_level() -> int:
    frame: FrameType | None = sys._getframe(2)
    level = 2
    while frame is not None and _is_ours(frame):
        frame, level = frame.f_back, level + 1
    return 1 if frame is None else level


def _is_ours(frame: FrameType) -> bool:
    name = str(frame.f_globals.get("__name__"))
    return name == "dm" or name.startswith("dm.")
