"""Programs of this machine, run without a shell: rsync and ssh, a manifest's ``shell``, other languages' interpreters.

A program that a manifest names runs only with the user's permission (`dm.values.Permission`), which its callers take;
here is only how one is run: its words as they are, nothing on its stdin, what it says kept for the error message, and
never left behind when `dm` stops.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from dm.errors import SourceFailed
from dm.values import printable

#: How often it is looked whether the run is to stop, seconds.
_LOOK_EVERY_S = 0.1
#: How long a program that was asked to end may take before it is killed, seconds.
_GRACE_S = 5.0
#: Lines that are kept of what a program says, and the characters of each: enough to see why it failed.
_LINES_KEPT = 20
_LINE_CHARACTERS = 500


class Finished(NamedTuple):
    """How a program ended: its exit status (negative: the signal that ended it) and the last lines that it said."""

    status: int
    lines: tuple[str, ...]

    @property
    def told(self) -> str:
        """Its last line that is not empty, for a message on one line; the status where it said nothing."""
        last = next((line for line in reversed(self.lines) if line.strip()), None)
        if last is not None:
            return printable(last.strip())
        if self.status < 0:
            return f"it was ended by signal {-self.status}"
        return f"it ended with status {self.status}"


class Stopped(SourceFailed):
    """A program was ended because the run stops."""

    default_code = "stopped"


def run_command(
    words: Sequence[str],
    *,
    folder: Path,
    variables: Mapping[str, str],
    should_stop: Callable[[], bool],
    take_line: Callable[[str], None] | None = None,
    own_group: bool = True,
) -> Finished:
    """Run a program and wait for its end.

    ``words`` are the program (looked for in ``PATH`` of ``variables``) and its arguments; ``folder`` is its working
    directory and ``variables`` its whole environment. Its stdin is empty; its stdout and stderr are read line by line,
    each line (with ``\\r`` as a line's end too) is given to ``take_line`` from another thread, and the last ones are
    returned. When ``should_stop`` says so, or the caller is interrupted, it gets SIGTERM and after 5 s SIGKILL: with
    ``own_group`` the whole process group that it leads, children included. Without, it shares the terminal of `dm`,
    so that it can ask for a passphrase.

    Raises `SourceFailed` (code ``program-missing``) when there is no such program or it cannot be started, and
    `Stopped` when it was ended because the run stops. A status other than 0 is the caller's to judge.
    """
    try:
        process = subprocess.Popen(
            list(words),
            cwd=folder,
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0 if own_group else None,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SourceFailed(
            f"cannot run '{printable(words[0])}': {reason}",
            hint="install it, or put the folder that holds it on PATH",
            code="program-missing",
        ) from error
    lines: deque[str] = deque(maxlen=_LINES_KEPT)
    reader = threading.Thread(target=_read_lines, args=(process, lines, take_line), name="dm-command", daemon=True)
    reader.start()
    try:
        while True:
            try:
                process.wait(_LOOK_EVERY_S)
                break
            except subprocess.TimeoutExpired:
                if should_stop():
                    raise Stopped(f"'{printable(words[0])}' was stopped") from None
    except BaseException:
        _end(process, own_group=own_group)
        raise
    finally:
        # A child that it left running may hold the pipe open: what it says is no longer waited for.
        reader.join(1.0)
    return Finished(process.returncode, tuple(lines))


def _read_lines(
    process: subprocess.Popen[bytes], lines: deque[str], take_line: Callable[[str], None] | None
) -> None:
    assert process.stdout is not None
    rest = b""
    with process.stdout as pipe:
        while data := os.read(pipe.fileno(), 65536):
            *whole, rest = (rest + data).replace(b"\r", b"\n").split(b"\n")
            for line in whole:
                _keep(line, lines, take_line)
            if len(rest) > _LINE_CHARACTERS * 8:
                rest = rest[: _LINE_CHARACTERS * 8]
        if rest:
            _keep(rest, lines, take_line)


def _keep(line: bytes, lines: deque[str], take_line: Callable[[str], None] | None) -> None:
    text = line.decode("utf-8", "backslashreplace")[:_LINE_CHARACTERS]
    if text.strip():
        lines.append(text)
        if take_line is not None:
            take_line(text)


def _end(process: subprocess.Popen[bytes], *, own_group: bool) -> None:
    """SIGTERM, and SIGKILL for what is left after a while; returns when the program is gone."""

    def send(number: int) -> None:
        with suppress(ProcessLookupError):
            if own_group:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)

    send(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_S)
    send(signal.SIGKILL)  # also children that outlived their leader
    process.wait()
