"""A download that is killed with SIGKILL, and the next one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.fixtures.fetching import digests_of, fetch, make_http_fetcher, measured, names_in
from tests.fixtures.homes import CHECKOUT
from tests.fixtures.servers import HttpServer

BODY = os.urandom(40_000_000)
FETCH = """
import sys
from pathlib import Path
from tests.fixtures.fetching import fetch, make_http_fetcher
home = Path(sys.argv[1])
fetch(make_http_fetcher(home), sys.argv[2], home / "part")
"""


def start_and_kill(server: HttpServer, home: Path, uri: str) -> None:
    """Fetch in a process of its own and kill it when the server has sent what it is told to send."""
    route = server.routes["/data"]
    process = subprocess.Popen([sys.executable, "-c", FETCH, str(home), uri], cwd=CHECKOUT)
    try:
        assert route.paused.wait(120)
    finally:
        process.kill()
        process.wait()
    route.go.set()


def test_after_a_kill_at_40_percent_the_rest_is_asked_for_and_nothing_else(
    http_server: HttpServer, tmp_path: Path
) -> None:
    uri = http_server.put("/data", BODY, pause_at=16_000_000)
    start_and_kill(http_server, tmp_path, uri)
    part = tmp_path / "part" / "data.bin"
    size = part.stat().st_size
    # How much of it had been written is the kernel's and the scheduler's business: socket buffers hold megabytes.
    assert 0 < size <= 16_000_000
    assert BODY[:size] == part.read_bytes()
    http_server.forget_requests()
    fetched = fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part")
    assert [f"bytes={size}-"] == [request.range for request in http_server.received("/data")]
    assert digests_of(BODY) == measured(fetched)
    assert ["data.bin", "data.bin.resume.tmp"] == names_in(tmp_path / "part")


def test_after_a_kill_other_content_at_the_source_is_fetched_whole(http_server: HttpServer, tmp_path: Path) -> None:
    uri = http_server.put("/data", BODY, pause_at=16_000_000, if_range=False)
    start_and_kill(http_server, tmp_path, uri)
    http_server.change("/data", BODY[::-1])
    fetched = fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part")
    assert digests_of(BODY[::-1]) == measured(fetched)
    assert BODY[::-1] == fetched.path.read_bytes()
