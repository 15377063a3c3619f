"""Names of temporary files: how litter of a killed process is told from data."""

from __future__ import annotations

import os
import re

_TEMPORARY_PREFIX = ".dm-"
_TEMPORARY_SUFFIX = ".tmp"
#: Characters of a target's name that go into a temporary one: with four bytes each there is room below 255.
_TARGET_LENGTH_MAX = 40


def temporary_name(target: str = "") -> str:
    """A new name for a temporary file: hidden, unique, and known to `is_temporary`.

    ``target`` is the name of what it is to become; then `is_temporary_of` knows it too.
    """
    return f"{_prefix(target)}{os.getpid():x}-{os.urandom(6).hex()}{_TEMPORARY_SUFFIX}"


def is_temporary(name: str | bytes) -> bool:
    """Whether a file's name is one that `temporary_name` made (litter when no process is at work)."""
    text = os.fsdecode(name)
    return text.startswith(_TEMPORARY_PREFIX) and text.endswith(_TEMPORARY_SUFFIX)


def is_temporary_of(target: str, name: str) -> bool:
    """Whether a file's name is one that ``temporary_name(target)`` made."""
    pattern = re.escape(_prefix(target)) + "[0-9a-f]+-[0-9a-f]{12}" + re.escape(_TEMPORARY_SUFFIX)
    return name.startswith(_TEMPORARY_PREFIX) and re.fullmatch(pattern, name) is not None


def _prefix(target: str) -> str:
    return f"{_TEMPORARY_PREFIX}{target[:_TARGET_LENGTH_MAX]}-" if target else _TEMPORARY_PREFIX
