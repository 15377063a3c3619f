"""Connections that are closed while answers are on their way."""

from __future__ import annotations

from pathlib import Path

from dm.environment import Environment
from dm.plumbing.transport.connections import Connections, HttpOptions, PassingFault
from dm.progress import SILENT
from tests.fixtures.servers import HttpServer


def test_an_answer_that_came_when_it_was_closed_is_not_waited_for(http_server: HttpServer, tmp_path: Path) -> None:
    uri = http_server.put("/a.bin", b"x" * (1 << 20))
    route = http_server.routes["/a.bin"]
    route.pause_at = 1 << 19
    options = HttpOptions(read_timeout_s=60.0)
    connections = Connections(Environment({}, tmp_path, tmp_path, "host", 1), options)
    answer = connections.get(uri, {}, SILENT)
    route.paused.wait()
    connections.close()
    buffer = memoryview(bytearray(1 << 20))
    codes = []
    with answer:
        try:
            while answer.readinto(buffer):
                pass
        except PassingFault as fault:
            codes.append(fault.code)
    route.go.set()
    assert "timeout" not in codes
