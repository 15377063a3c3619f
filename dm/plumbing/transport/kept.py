"""A request over a connection that is open already, with http.client alone.

For many small files most of the time of a request is what urllib3 does around it (a response object, headers twice,
timeouts set again): 0.2 ms of 0.5. Opening connections, TLS, proxies and saying what went wrong stay urllib3's: only a
connection of its pool that has served before is used here, and whatever fails is asked again there.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import urllib3
    from urllib3.connection import HTTPConnection


class KeptResponse:
    """An answer of http.client that came over a connection of a pool; as much of urllib3's response as is used."""

    def __init__(
        self, pool: urllib3.HTTPConnectionPool, connection: HTTPConnection, body: http.client.HTTPResponse
    ) -> None:
        self._pool = pool
        self._connection: HTTPConnection | None = connection
        self._socket = connection.sock  # None when the answer is the last one
        self._fp = body
        self.status: int = body.status
        self.reason: str = body.reason
        self.headers = cast("Mapping[str, str]", body.headers)

    def drain_conn(self) -> None:
        """Read the rest of the body."""
        try:
            self._fp.read()
        except (OSError, http.client.HTTPException):
            self.close()

    def release_conn(self) -> None:
        """Give the connection back to the pool; the body was read to its end."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool._put_conn(connection)

    def close(self) -> None:
        """Close the connection; the pool opens it anew when it needs it."""
        self._fp.close()
        if self._connection is not None:
            self._connection.close()
        self.release_conn()

    def shutdown(self) -> None:
        """Wake a thread that waits for the body."""
        if self._connection is not None and self._socket is not None:
            self._socket.shutdown(socket.SHUT_RD)


def ask_again(
    pool: urllib3.HTTPConnectionPool, target: str, headers: Mapping[str, str], timeout_s: float
) -> KeptResponse | None:
    """Send a GET over a connection that the pool keeps open; None when there is none, or it did not work.

    Raises urllib3's `ReadTimeoutError` when the server stays silent, and `ClosedPoolError`.
    """
    from urllib3.exceptions import ReadTimeoutError

    connection = cast("HTTPConnection", pool._get_conn())
    if connection.sock is None:
        pool._put_conn(connection)
        return None
    try:
        connection.sock.settimeout(timeout_s)
        connection.putrequest("GET", target, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        return KeptResponse(pool, connection, http.client.HTTPConnection.getresponse(connection))
    except TimeoutError as error:
        connection.close()
        pool._put_conn(connection)
        raise ReadTimeoutError(pool, target, f"no answer within {timeout_s:g} s") from error
    except (OSError, ValueError, http.client.HTTPException):
        # A server may close a connection that was idle at any time: asked again over a new one.
        connection.close()
        pool._put_conn(connection)
        return None
    except BaseException:
        connection.close()
        raise
