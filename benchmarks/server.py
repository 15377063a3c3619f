"""A real nginx on loopback that serves one folder, and tells what it has sent."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import NamedTuple, Self

_CONFIGURATION = """
daemon off; {user} pid {state}/pid; error_log {state}/errors; worker_processes 1;
events {{ worker_connections 256; }}
http {{
  types {{ }} default_type application/octet-stream;
  log_format sent '$status $body_bytes_sent $request_uri $http_range';
  access_log {log};
  client_body_temp_path {state}/body; proxy_temp_path {state}/proxy; fastcgi_temp_path {state}/fastcgi;
  uwsgi_temp_path {state}/uwsgi; scgi_temp_path {state}/scgi;
  sendfile on; tcp_nopush on; keepalive_requests 1000000;
  server {{ listen 127.0.0.1:{port}; root {folder}; {limit} }}
}}
"""


class Sent(NamedTuple):
    """One answered request."""

    status: int
    body_bytes: int
    target: str


class Nginx:
    """Serves ``folder`` until its `with` block ends. ``logged``: keep what was sent; ``rate``: bytes a second."""

    def __init__(self, folder: Path, state: Path, *, logged: bool = False, rate_bytes: int = 0) -> None:
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            raise FileNotFoundError("nginx is not installed (apt-get install nginx-light)")
        state.mkdir(parents=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        self._log = state / "log"
        configuration = state / "nginx.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                user="user root;" if os.geteuid() == 0 else "",
                state=state,
                folder=folder,
                port=port,
                log=f"{self._log} sent" if logged else "off",
                limit=f"limit_rate {rate_bytes};" if rate_bytes else "",
            )
        )
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [program, "-e", str(state / "errors"), "-p", str(state), "-c", str(configuration)]
        )
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.01)
        self.close()
        raise TimeoutError("nginx did not come up")

    def read_sent(self, count: int) -> list[Sent]:
        """The requests answered so far, waiting a while until there are ``count``."""
        for _ in range(500):
            lines = self._log.read_text().splitlines() if self._log.exists() else []
            if len(lines) >= count:
                break
            time.sleep(0.01)
        fields = [line.split(" ", 3) for line in lines]
        return [Sent(int(status), int(size), target) for status, size, target, _ in fields]

    def close(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait(timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
