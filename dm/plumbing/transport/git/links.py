"""Ways to a server that git's protocol is spoken over: a socket, and an ssh program."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from dm.environment import Environment
from dm.errors import SourceFailed
from dm.plumbing.transport.connections import HttpOptions, PassingFault
from dm.plumbing.transport.git.faults import GitFault
from dm.plumbing.transport.git.remote import GIT_PORT, Remote
from dm.plumbing.transport.wakeable import Sockets
from dm.values import printable

_PIECE_BYTES = 256 << 10
#: How often it is looked whether the run is to stop, while a program is silent.
_LOOK_EVERY_S = 0.1
#: How long a program that is no longer needed may take to end, and what it says to be read.
_END_S = 5.0
_LINES_KEPT = 20
_LINE_BYTES = 500

T = TypeVar("T")


class Link:
    """Bytes to and from a server. Used by one thread, but for `interrupt`. Faults are raised as `PassingFault`."""

    def __init__(self, place: str, options: HttpOptions) -> None:
        self.place = place
        self.interrupted = False
        self.closed = False
        self._timeout_s = options.read_timeout_s
        self._buffer = bytearray()

    def read(self, size: int) -> bytes:
        """``size`` bytes, fewer at the end."""
        while len(self._buffer) < size:
            piece = self._guard(lambda: self._receive(_PIECE_BYTES))
            if not piece:
                break
            self._buffer += piece
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def write(self, data: bytes) -> None:
        """Send all of it."""
        self._guard(lambda: self._send(data))

    def end_writing(self) -> None:
        """Nothing more will be written."""

    def close(self) -> None:
        """Let go of the server."""
        self.closed = True

    def interrupt(self) -> None:
        """Wake the thread that waits for the server; from any thread."""
        raise NotImplementedError

    @property
    def told(self) -> str:
        """What was said beside the protocol, once it has ended: why it did. Empty where nothing was."""
        return ""

    def _receive(self, size: int) -> bytes:
        raise NotImplementedError

    def _send(self, data: bytes) -> None:
        raise NotImplementedError

    def _guard(self, work: Callable[[], T]) -> T:
        try:
            result = work()
        except TimeoutError as error:
            raise PassingFault(f"{self.place} was silent for {self._timeout_s:g} s", code="timeout") from error
        except (OSError, ValueError) as error:
            if self.interrupted:
                raise PassingFault("interrupted", code="interrupted") from error
            raise PassingFault(f"{self.place} dropped the connection", code="connection-dropped") from error
        if self.interrupted:
            raise PassingFault("interrupted", code="interrupted")
        return result


class SocketLink(Link):
    """A connection to a git daemon."""

    def __init__(self, remote: Remote, options: HttpOptions, sockets: Sockets) -> None:
        super().__init__(printable(remote.place), options)
        host, timeout_s = self.place, options.connect_timeout_s
        address = (remote.host, remote.port or GIT_PORT)
        hint = f"is {host} up, and can it be reached from this machine?"
        try:
            self._socket = sockets.connect(lambda: socket.create_connection(address, timeout=timeout_s))
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                reason = f"the name of {host} cannot be resolved now"
                raise PassingFault(reason, code="unknown-host", limit=2) from error
            hint = "check the spelling of the 'uri' and the network of this machine"
            raise GitFault(f"no host {host} is known", hint=hint, code="unknown-host") from error
        except TimeoutError as error:
            reason = f"cannot connect to {host} within {timeout_s:g} s"
            raise PassingFault(reason, hint=hint, code="cannot-connect", limit=2) from error
        except (OSError, UnicodeError) as error:
            because = (error.strerror or "").lower() if isinstance(error, OSError) else "its name is malformed"
            reason = f"cannot connect to {host}: {because}"
            raise PassingFault(reason, hint=hint, code="cannot-connect", limit=2) from error
        self._socket.settimeout(options.read_timeout_s)

    def end_writing(self) -> None:
        """Nothing more will be written."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Let go of the server."""
        super().close()
        self._socket.close()

    def interrupt(self) -> None:
        """Wake the thread that waits for the server; from any thread."""
        self.interrupted = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _receive(self, size: int) -> bytes:
        return self._socket.recv(size)

    def _send(self, data: bytes) -> None:
        self._socket.sendall(data)


class SshLink(Link):
    """An ssh program that runs git's end on the server.

    It may ask for a passphrase where `dm` has a terminal, as ssh does by itself; without one it is told not to ask.
    The server's silence is bounded only where nobody can be asked.
    """

    def __init__(
        self, words: Sequence[str], remote: Remote, command: str, environment: Environment, options: HttpOptions
    ) -> None:
        super().__init__(printable(remote.place), options)
        self._lines: deque[bytes] = deque(maxlen=_LINES_KEPT)
        self._may_ask = _has_terminal()
        line = [*words, "-x", "-o", "SendEnv=GIT_PROTOCOL"]
        if not self._may_ask:
            line += ["-o", "BatchMode=yes"]
        if remote.port is not None:
            line += ["-p", str(remote.port)]
        line += [remote.host if remote.user is None else f"{remote.user}@{remote.host}", command]
        try:
            self._process = subprocess.Popen(
                line,
                cwd=environment.working_folder,
                env={**environment.variables, "GIT_PROTOCOL": "version=2", "LC_ALL": "C"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            message = f"cannot run '{printable(line[0])}': {reason}"
            hint = "install OpenSSH, or set ssh_command to what is used in its place"
            raise SourceFailed(message, hint=hint, code="program-missing") from error
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._input, self._output, self._errors = (
            self._process.stdin,
            self._process.stdout,
            self._process.stderr,
        )
        self._heard = False
        self._reader = threading.Thread(target=self._read_errors, name="dm-git-ssh", daemon=True)
        self._reader.start()

    @property
    def told(self) -> str:
        """What ssh and the server's git said, once they have ended. Empty where nothing was said."""
        self._reader.join(_END_S)
        lines = [line.decode("utf-8", "replace").strip() for line in self._lines]
        lines = [line for line in lines if line]
        # git's last words are advice; the fault comes first, as ``fatal:``, ssh's or a forge's own as ``ERROR:``.
        for mark in ("fatal:", "ERROR:"):
            marked = [line.removeprefix("remote: ") for line in lines if mark in line]
            if marked:
                return marked[0].partition(mark)[2].strip()
        return lines[-1] if lines else ""

    def end_writing(self) -> None:
        """Nothing more will be written."""
        with suppress(OSError):
            self._input.close()

    def close(self) -> None:
        """Let go of the server: the program is ended when it does not end by itself."""
        super().close()
        with suppress(OSError):
            self._input.close()
        self._output.close()
        try:
            self._process.wait(0.0 if self.interrupted else _END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(_END_S)

    def interrupt(self) -> None:
        """Wake the thread that waits for the server; from any thread."""
        self.interrupted = True
        self._process.terminate()

    def _receive(self, size: int) -> bytes:
        waited_s = 0.0
        while not select.select([self._output], [], [], _LOOK_EVERY_S)[0]:
            waited_s += _LOOK_EVERY_S
            if self.interrupted:
                raise OSError
            if waited_s >= self._timeout_s and (self._heard or not self._may_ask):
                raise TimeoutError
        self._heard = True
        return os.read(self._output.fileno(), size)

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._input.write(view) :]

    def _read_errors(self) -> None:
        with self._errors as errors:
            rest = b""
            while piece := os.read(errors.fileno(), 65536):
                *whole, rest = (rest + piece).replace(b"\r", b"\n").split(b"\n")
                self._lines.extend(line[:_LINE_BYTES] for line in whole)
                rest = rest[:_LINE_BYTES]
            self._lines.append(rest)


def _has_terminal() -> bool:
    """Whether somebody can be asked: ssh asks on the process's terminal, wherever its input comes from."""
    try:
        os.close(os.open(Path("/dev/tty"), os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True
