"""What can go wrong, in kinds that a script can tell apart.

Every error that `dm` raises on purpose is a `DmError`. Its kind fixes the exit status of the command line (the table
of docs/cli.md, asserted by name in tests/unit/test_errors.py) and its ``code`` names the case in JSON output. The
message is one line, lower case, the fault first; the hint is the way out.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


class DmError(Exception):
    """An error with a message for people, a code for scripts and an exit status.

    ``message`` is one line without a full stop; ``hint`` one line that says what to do, or None; ``code`` a kebab-case
    word that stays the same from release to release; ``exit_status`` the process's exit when this error ends it. A
    traceback, as notebooks show it, has the hint below the message.
    """

    exit_status = 70
    default_code = "error"

    def __init__(self, message: str, *, hint: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or self.default_code
        if hint is not None:
            self.add_note(f"hint: {hint}")

    def __str__(self) -> str:
        return self.message


class UsageError(DmError):
    """The words of the call are wrong: unknown option, contradicting options."""

    exit_status = 2
    default_code = "usage"


class NotFound(DmError):
    """No such dataset, object, path or manifest, or a name that is ambiguous."""

    exit_status = 3
    default_code = "not-found"


class ContentMismatch(DmError):
    """Bytes are not what their digest says."""

    exit_status = 4
    default_code = "content-mismatch"


class SourceFailed(DmError):
    """A source did not deliver: network, server, fetcher, a missing extra or runtime."""

    exit_status = 5
    default_code = "source-failed"


class Refused(DmError):
    """Refused for safety: untrusted code or place, unknown data in the way, unsafe key, path, redirect or archive."""

    exit_status = 6
    default_code = "refused"


class Malformed(DmError):
    """A document is malformed or contradicts itself: manifest, state, config, object, store format.

    With ``file`` (and ``line``, 1-based, where known) the message begins with ``file:line: ``.
    """

    exit_status = 7
    default_code = "malformed"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        code: str | None = None,
        file: Path | None = None,
        line: int | None = None,
    ) -> None:
        self.file = file
        self.line = line
        where = "" if file is None else f"{file}: " if line is None else f"{file}:{line}: "
        super().__init__(where + message, hint=hint, code=code)


class MachineFailed(DmError):
    """This machine failed: disk full, permission, read-only file system, I/O error, lock."""

    exit_status = 8
    default_code = "machine-failed"


#: Exit statuses from the gravest down; several failures end a command with the first of these that occurred.
GRAVITY = (70, 4, 6, 7, 8, 5, 3, 2, 1, 0)


def gravest(statuses: Iterable[int]) -> int:
    """Return the exit status that stands for several outcomes: the gravest, 0 when there are none."""
    found = set(statuses)
    for status in GRAVITY:
        if status in found:
            return status
    return max(found, default=0)
