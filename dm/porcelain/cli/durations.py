"""Durations on the command line: ``30d``, ``12h``, ``10m``, ``45s``, ``2w``; a bare number is seconds."""

from __future__ import annotations

from typing import Any

import click

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600, "": 1}
#: A thousand years: longer ones mean the same, and a date before them can be written.
_LONGEST_S = 1000 * 365 * 24 * 3600.0


class Duration(click.ParamType[float]):
    """A length of time; the value is its seconds, a float that is not negative, a thousand years at most."""

    name = "duration"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        """Read ``<number><unit>`` with the units s, m, h, d and w."""
        if isinstance(value, (int, float)):
            return float(value)
        text = str(value).strip().lower()
        digits = text.rstrip("smhdw")
        try:
            seconds = float(digits) * _SECONDS[text[len(digits) :]]
        except (ValueError, KeyError):
            seconds = -1.0
        if not 0 <= seconds < float("inf"):
            self.fail(f"'{value}' is no length of time; write it as in 30d, 12h, 10m or 45s", parameter, context)
        return min(seconds, _LONGEST_S)


DURATION = Duration()
