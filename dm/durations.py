"""Lengths of time as a user says them: ``30d``, ``12h``, ``10m``, ``45s``, ``2w``; a bare number is seconds."""

from __future__ import annotations

from datetime import timedelta

from dm.errors import UsageError

#: A length of time: ``30d``, a number of seconds, or a `datetime.timedelta`.
Duration = str | float | timedelta

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600, "": 1}
#: A thousand years: longer ones mean the same, and a date before them can be written.
_LONGEST_S = 1000 * 365 * 24 * 3600.0


def read_duration(value: Duration) -> float:
    """Its seconds: not negative, a thousand years at most. Raises `UsageError` for what is none.

    A text is ``<number><unit>`` with the units s, m, h, d and w.
    """
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    else:
        text = str(value).strip().lower()
        digits = text.rstrip("smhdw")
        try:
            seconds = float(digits) * _SECONDS[text[len(digits) :]]
        except (ValueError, KeyError):
            seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise UsageError(f"'{value}' is no length of time; write it as in 30d, 12h, 10m or 45s")
    return min(seconds, _LONGEST_S)
