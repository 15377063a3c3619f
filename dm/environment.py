"""The only reader of the process's surroundings: variables, home, working directory, host name, clock.

Everything below takes an `Environment` value, so that an open session keeps what it was opened with and a test says
what the world looks like.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class Environment(NamedTuple):
    """A frozen picture of the surroundings."""

    variables: Mapping[str, str]
    home: Path
    working_folder: Path
    host_name: str
    process_id: int

    @classmethod
    def read(cls) -> Environment:
        """Take the picture now. A working directory that no longer exists raises `MachineFailed`."""
        try:
            working_folder = Path.cwd()
        except FileNotFoundError:
            from dm.errors import MachineFailed

            raise MachineFailed("the working directory no longer exists", hint="cd to one that does") from None
        variables = dict(os.environ)
        return cls(variables, Path(os.path.expanduser("~")), working_folder, os.uname().nodename, os.getpid())

    def get(self, name: str) -> str | None:
        """A variable's value; None when it is unset or empty."""
        return self.variables.get(name) or None

    @property
    def user_data_dir(self) -> Path:
        """The platform's folder for user data, without an application name."""
        return self._platform_folder("XDG_DATA_HOME", "user_data_path")

    @property
    def user_cache_dir(self) -> Path:
        """The platform's folder for user caches, without an application name."""
        return self._platform_folder("XDG_CACHE_HOME", "user_cache_path")

    @property
    def user_config_file(self) -> Path:
        """``$XDG_CONFIG_HOME/datamanifest/config.toml``, by default below ``~/.config`` (on every platform)."""
        base = self.get("XDG_CONFIG_HOME")
        return (Path(base) if base else self.home / ".config") / "datamanifest" / "config.toml"

    def _platform_folder(self, variable: str, attribute: str) -> Path:
        # XDG variables answer without platformdirs, whose import costs as much as Python's own start.
        override = self.variables.get(variable, "").strip()
        if override and sys.platform.startswith("linux"):
            return Path(override)
        import platformdirs

        folder: Path = getattr(platformdirs, attribute)()
        return folder


def read_clock_ns() -> int:
    """Wall-clock time in nanoseconds since the epoch."""
    return time.time_ns()


def read_monotonic_s() -> float:
    """Seconds of a clock that never goes back."""
    return time.monotonic()


def format_time(time_ns: int) -> str:
    """RFC 3339 in UTC, whole seconds: ``2026-01-31T12:00:00Z``."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_ns // 1_000_000_000))


#: What the names of variables begin with that decide where things are.
_DECIDING = (b"DATAMANIFEST", b"DATASETS", b"XDG_")


class Surroundings(NamedTuple):
    """What of the surroundings decides where a session's things are, quick to read: for who asks at every call.

    ``variables`` are those whose names begin with ``DATAMANIFEST``, ``DATASETS`` or ``XDG_``, and ``HOME``.
    """

    working_folder: str
    variables: tuple[tuple[bytes, bytes], ...]
    process_id: int

    @classmethod
    def read(cls) -> Surroundings:
        """Look now, in tens of microseconds. A working directory that no longer exists raises `MachineFailed`."""
        try:
            working_folder = os.getcwd()
        except FileNotFoundError:
            working_folder = str(Environment.read().working_folder)  # raises, and says why
        found = os.environb
        deciding = [name for name in found if name.startswith(_DECIDING) or name == b"HOME"]
        return cls(working_folder, tuple([(name, found.get(name, b"")) for name in deciding]), os.getpid())
