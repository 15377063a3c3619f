"""Programs of this machine, run without a shell: rsync and ssh, a manifest's ``shell``, other languages' interpreters.

A program that a manifest names runs only with the user's permission (`dm.values.Permission`), which its callers take;
here is only how one is run: its words as they are, nothing on its stdin, what it says kept for the error message, and
never left behind when `dm` stops.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from dm.errors import SourceFailed
from dm.plumbing.fs.machine import machine_errors
from dm.values import printable

#: How often it is looked whether the run is to stop, seconds.
_LOOK_EVERY_S = 0.1
#: The same of a program that ended what it says, or was asked to end: mostly it is gone at once.
_LOOK_AT_END_S = 0.01
#: How long a program that was asked to end may take before it is killed, seconds.
_GRACE_S = 5.0
#: Lines that are kept of what a program says, and the characters of each: enough to see why it failed.
_LINES_KEPT = 20
_LINE_CHARACTERS = 500
#: Bytes of a line that are looked at: what follows them up to its end is dropped.
_LINE_BYTES = 4 * _LINE_CHARACTERS
_READ_BYTES = 64 << 10
#: The most that a pipe holds (Linux: pipe-max-size, unless root raised it).
_PIPE_BYTES = 1 << 20


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
    keep_open: Sequence[int] = (),
) -> Finished:
    """Run a program and wait for its end.

    ``words`` are the program (looked for in ``PATH`` of ``variables``) and its arguments; ``folder`` is its working
    directory and ``variables`` its whole environment. Its stdin is empty; its stdout and stderr are read as one,
    line by line (``\\r`` ends a line too); each line that is not blank, cut to 500 characters, is given to
    ``take_line``, and the last ones are returned. Bytes that are not UTF-8 are shown as ``\\xNN``. ``keep_open`` are
    descriptors that it and its children inherit: a lock on one lasts as long as any of them lives.

    When ``should_stop`` says so (it is asked at least every 0.1 s), when ``take_line`` raises or the caller is
    interrupted, the program gets SIGTERM and after 5 s SIGKILL. With ``own_group`` that goes to all its children as
    well, save those that left its session; it has no terminal then, so that nothing in it can wait for an answer that
    nobody sees.
    Without, it shares the terminal of `dm`, can ask there for a passphrase, and ends its own children itself.

    The end is the end of the program itself; what a child that it left running in the background says later is lost.
    With ``own_group`` such a child is ended as above: it could still write to what the program is to have brought.

    Raises `SourceFailed` (code ``program-missing``) when there is no such program or it cannot be started, and
    `Stopped` when it was ended because the run stops. A status other than 0 is the caller's to judge.
    """
    process = _start(words, folder, variables, own_group=own_group, keep_open=keep_open)
    lines = _Lines(take_line)
    assert process.stdout is not None
    with process.stdout as pipe:
        os.set_blocking(pipe.fileno(), False)
        try:
            _follow(process, pipe.fileno(), lines, words[0], should_stop)
            lines.close()
            if own_group and _is_alive(process, own_group=True):
                _end(process, pipe.fileno(), own_group=True)
        except BaseException:
            _end(process, pipe.fileno(), own_group=own_group)
            raise
    return Finished(process.returncode, tuple(lines.kept))


def _start(
    words: Sequence[str],
    folder: Path,
    variables: Mapping[str, str],
    *,
    own_group: bool,
    keep_open: Sequence[int],
) -> subprocess.Popen[bytes]:
    with machine_errors("work in", folder):
        os.stat(folder)
    try:
        return subprocess.Popen(
            list(words),
            cwd=folder,
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=own_group,
            pass_fds=tuple(keep_open),
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SourceFailed(
            f"cannot run '{printable(words[0])}': {reason[:1].lower()}{reason[1:]}",
            hint="install it, or put the folder that holds it on PATH",
            code="program-missing",
        ) from error


class _Lines:
    """Bytes to lines, the last of which are kept."""

    def __init__(self, take_line: Callable[[str], None] | None) -> None:
        self.kept: deque[str] = deque(maxlen=_LINES_KEPT)
        self._take_line = take_line
        self._rest = b""

    def add(self, data: bytes) -> None:
        *whole, rest = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
        self._rest = rest[:_LINE_BYTES]
        for line in whole:
            self._keep(line)

    def close(self) -> None:
        """No more comes: what is left is a line too."""
        rest, self._rest = self._rest, b""
        self._keep(rest)

    def _keep(self, line: bytes) -> None:
        text = line[:_LINE_BYTES].decode("utf-8", "backslashreplace")[:_LINE_CHARACTERS]
        if text.strip():
            self.kept.append(text)
            if self._take_line is not None:
                self._take_line(text)


def _follow(
    process: subprocess.Popen[bytes], pipe: int, lines: _Lines, program: str, should_stop: Callable[[], bool]
) -> None:
    """Take in what it says until it ends."""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while process.poll() is None:
            if should_stop():
                raise Stopped(f"'{printable(program)}' was stopped")
            if not selector.get_map():
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_LOOK_AT_END_S)
            elif selector.select(_LOOK_EVERY_S) and (data := _read(pipe)) is not None:
                if not data:
                    selector.unregister(pipe)
                lines.add(data)
    # What it left in the pipe: no more than one holds, since a child of it may go on writing.
    for _ in range(_PIPE_BYTES // _READ_BYTES):
        if not (data := _read(pipe)):
            break
        lines.add(data)


def _read(pipe: int) -> bytes | None:
    """What is there now: nothing at the end, None where nothing has come yet."""
    try:
        return os.read(pipe, _READ_BYTES)
    except BlockingIOError:
        return None


def _end(process: subprocess.Popen[bytes], pipe: int, *, own_group: bool) -> None:
    """SIGTERM, and SIGKILL for what is left after a while, or at once when the user is impatient (a second Ctrl-C)."""
    try:
        _send(process, signal.SIGTERM, own_group=own_group)
        deadline_s = time.monotonic() + _GRACE_S
        while _is_alive(process, own_group=own_group) and time.monotonic() < deadline_s:
            # Read on: one that cannot say its last words could not tidy up.
            if not _read(pipe):
                time.sleep(_LOOK_AT_END_S)
    finally:
        if _is_alive(process, own_group=own_group):
            _send(process, signal.SIGKILL, own_group=own_group)
            process.wait()


def _is_alive(process: subprocess.Popen[bytes], *, own_group: bool) -> bool:
    """Whether the program, or with ``own_group`` any child in its group, is still there."""
    if process.poll() is None:
        return True
    # The number of a group is not given out again while it has members.
    return own_group and _send(process, 0, own_group=True)


def _send(process: subprocess.Popen[bytes], number: int, *, own_group: bool) -> bool:
    try:
        if own_group:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS says so of a group of zombies; elsewhere it became another user's
        return False
    return True
