"""Whoever waits for a server that says nothing is woken, wherever in the talk that is."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dm.errors import SourceFailed
from dm.plumbing.transport.git.fetcher import GitFetcher
from dm.plumbing.transport.protocol import Fetcher
from dm.plumbing.transport.wakeable import Sockets
from dm.plumbing.transport.web import HttpFetcher, HttpOptions
from tests.fixtures.fetching import fetch, make_environment

#: Longer than any test may take.
PATIENT = HttpOptions(connect_timeout_s=600, read_timeout_s=600)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Silent:
    """A server that answers so many requests and then hears and says nothing; ``asked`` is set when it does."""

    def __init__(self, answers: int = 0) -> None:
        self.asked = threading.Event()
        self._answers = answers
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            for _ in range(self._answers):
                connection.recv(65536)
                connection.sendall(ANSWER)
            connection.recv(65536)
            self.asked.set()
            while connection.recv(65536):
                pass

    def close(self) -> None:
        self._listener.close()
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.fixture
def silent(request: pytest.FixtureRequest) -> Iterator[Silent]:
    server = Silent(getattr(request, "param", 0))
    yield server
    server.close()


def ended_by_close(fetcher: Fetcher, uri: str, folder: Path, silent: Silent) -> SourceFailed:
    """What a fetch raises in another thread when the transport is closed while the server is silent."""
    raised: list[SourceFailed] = []

    def work() -> None:
        with pytest.raises(SourceFailed) as caught:
            fetch(fetcher, uri, folder)
        raised.append(caught.value)

    thread = threading.Thread(target=work)
    thread.start()
    assert silent.asked.wait(60)
    fetcher.close()
    thread.join(60)
    assert not thread.is_alive()
    return raised[0]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_close_ends_the_wait_for_an_answer_and_for_a_handshake(silent: Silent, tmp_path: Path, scheme: str) -> None:
    uri = f"{scheme}://127.0.0.1:{silent.port}/data"
    error = ended_by_close(HttpFetcher(make_environment(tmp_path), PATIENT), uri, tmp_path / "part", silent)
    assert (f"cannot fetch '{uri}': interrupted", "interrupted") == (error.message, error.code)


@pytest.mark.parametrize("silent", [1], indirect=True)
def test_close_ends_the_wait_for_an_answer_over_a_connection_that_was_kept(silent: Silent, tmp_path: Path) -> None:
    fetcher = HttpFetcher(make_environment(tmp_path), PATIENT)
    uri = f"http://127.0.0.1:{silent.port}/data"
    assert b"ok" == fetch(fetcher, uri, tmp_path / "first").path.read_bytes()
    assert "interrupted" == ended_by_close(fetcher, uri, tmp_path / "part", silent).code


def test_close_ends_the_wait_for_a_proxy(silent: Silent, tmp_path: Path) -> None:
    environment = make_environment(tmp_path, https_proxy=f"http://127.0.0.1:{silent.port}")
    error = ended_by_close(HttpFetcher(environment, PATIENT), "https://data.example/a", tmp_path / "part", silent)
    assert "interrupted" == error.code


@pytest.mark.parametrize("scheme", ["git+http", "git"])
def test_close_ends_the_wait_for_a_list_of_branches(silent: Silent, tmp_path: Path, scheme: str) -> None:
    uri = f"{scheme}://127.0.0.1:{silent.port}/data"
    error = ended_by_close(GitFetcher(make_environment(tmp_path), PATIENT), uri, tmp_path / "part", silent)
    assert (f"cannot fetch '{uri}': interrupted", "interrupted") == (error.message, error.code)


def test_close_ends_the_wait_for_a_host_that_does_not_take_the_connection() -> None:
    sockets = Sockets()
    begun, go_on = threading.Event(), threading.Event()
    near, far = socket.socketpair()

    def make() -> socket.socket:
        begun.set()
        assert go_on.wait(60)
        return near

    raised: list[type[BaseException]] = []

    def work() -> None:
        with pytest.raises(InterruptedError) as caught:
            sockets.connect(make)
        raised.append(caught.type)

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(60)
    sockets.close()
    thread.join(60)
    assert [InterruptedError] == raised
    # What is made all the same, too late, is closed: the other end reads the end.
    go_on.set()
    far.settimeout(60)
    assert b"" == far.recv(1)
    far.close()
    with pytest.raises(InterruptedError):
        sockets.connect(make)


def test_a_connection_is_made_and_what_fails_is_raised() -> None:
    sockets = Sockets()
    near, far = socket.socketpair()
    assert near is sockets.connect(lambda: near)
    with pytest.raises(ConnectionRefusedError):
        sockets.connect(lambda: socket.create_connection(("127.0.0.1", 1)))
    handle = sockets.watch(near)
    sockets.close()
    assert (b"", b"") == (near.recv(1), far.recv(1))
    sockets.forget(handle)
    near.close()
    far.close()
