"""Durations on the command line: ``30d``, ``12h``, ``10m``, ``45s``, ``2w``; a bare number is seconds."""

from __future__ import annotations

from typing import Any

import click

from dm.durations import read_duration
from dm.errors import UsageError


class Duration(click.ParamType[float]):
    """A length of time; the value is its seconds, a float that is not negative, a thousand years at most."""

    name = "duration"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        """Read ``<number><unit>`` with the units s, m, h, d and w."""
        try:
            return read_duration(value)
        except UsageError as error:
            self.fail(error.message, parameter, context)


DURATION = Duration()
