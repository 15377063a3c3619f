"""Connections that another thread can end at any moment, so that nobody waits for a silent host after Ctrl-C.

A thread may wait for a name to be looked up, a connection to be made, a TLS handshake or the head of an answer. The
first two cannot be woken: a thread of their own does them, and is left behind. The others end when the connection is
shut down, which is done through a second descriptor of it: the first is the reader's, who may close it at any time.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from urllib3 import HTTPConnectionPool

#: How often who waits for a connection to be made looks whether to stop, seconds.
_LOOK_EVERY_S = 0.2


class Sockets:
    """The connections of a session, those included that are just being made. Usable from any thread."""

    def __init__(self) -> None:
        self._closed = threading.Event()
        self._handles: set[socket.socket] = set()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed.is_set()

    def wait(self, seconds: float) -> None:
        """Sleep, or until `close`."""
        self._closed.wait(seconds)

    def close(self) -> None:
        """Shut every connection down; from then on none is made."""
        self._closed.set()
        for handle in tuple(self._handles):
            _shut_down(handle)

    def connect(self, make: Callable[[], socket.socket]) -> socket.socket:
        """The connection that ``make`` makes, in another thread. Raises what it raises; `InterruptedError` after
        `close`, at once.
        """
        making: Future[socket.socket] = Future()

        def work() -> None:
            try:
                made = make()
            except BaseException as error:  # noqa: BLE001 - handed to who waits, which raises it
                with suppress(InvalidStateError):
                    making.set_exception(error)
                return
            try:
                making.set_result(made)
            except InvalidStateError:  # nobody waits any more
                made.close()

        if not self.closed:
            threading.Thread(target=work, name="dm-connect", daemon=True).start()
        while not making.done() and not self.closed:
            wait((making,), _LOOK_EVERY_S)
        if making.cancel():
            raise InterruptedError("interrupted")
        return making.result()

    def watch(self, connection: socket.socket) -> socket.socket:
        """Have `close` shut a connection down; until `forget` is called with what this returns."""
        handle = connection.dup()
        self._handles.add(handle)
        if self.closed:  # meanwhile: `close` did not see this one
            _shut_down(handle)
        return handle

    def forget(self, handle: socket.socket) -> None:
        """A connection is closed, or somebody else's to wake."""
        self._handles.discard(handle)
        handle.close()


def make_pool_classes(sockets: Sockets) -> dict[str, type[HTTPConnectionPool]]:
    """urllib3's pools by scheme, whose connections are those of ``sockets``."""
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool

    def make(base: Any) -> Any:
        kind = type("Wakeable", (_Wakeable, base.ConnectionCls), {"sockets": sockets})
        return type("WakeablePool", (base,), {"ConnectionCls": kind})

    return {"http": make(HTTPConnectionPool), "https": make(HTTPSConnectionPool)}


class _Wakeable:
    """What a connection of urllib3 does otherwise than its class."""

    sockets: Sockets
    _handle: socket.socket | None = None

    def _new_conn(self) -> socket.socket:
        connection = self.sockets.connect(super()._new_conn)  # type: ignore[misc]
        self._handle = self.sockets.watch(connection)
        return connection

    def close(self) -> None:
        super().close()  # type: ignore[misc]
        handle, self._handle = self._handle, None
        if handle is not None:
            self.sockets.forget(handle)


def _shut_down(handle: socket.socket) -> None:
    with suppress(OSError):  # closed meanwhile, or never connected
        handle.shutdown(socket.SHUT_RDWR)
