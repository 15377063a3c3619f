"""Names of temporary files: how litter of a killed process is told from data."""

from __future__ import annotations

import os

_TEMPORARY_PREFIX = ".dm-"
_TEMPORARY_SUFFIX = ".tmp"


def temporary_name() -> str:
    """A new name for a temporary file: hidden, unique, and known to `is_temporary`."""
    return f"{_TEMPORARY_PREFIX}{os.getpid():x}-{os.urandom(6).hex()}{_TEMPORARY_SUFFIX}"


def is_temporary(name: str | bytes) -> bool:
    """Whether a file's name is one that `temporary_name` made (litter when no process is at work)."""
    text = os.fsdecode(name)
    return text.startswith(_TEMPORARY_PREFIX) and text.endswith(_TEMPORARY_SUFFIX)
