"""A fetch of a repository that is killed with SIGKILL, and the next one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dm.plumbing.transport.git.fetcher import GitFetcher
from dm.plumbing.transport.protocol import FetchRequest
from tests.fixtures.fetching import QUICK, make_environment, names_in
from tests.fixtures.git_servers import GitDaemon, Repository
from tests.fixtures.homes import CHECKOUT
from tests.fixtures.sinks import RecordingProgress, RecordingTask
from tests.fixtures.sshd import Sshd

LONG = os.urandom(4 << 20)
FETCH = """
import os, sys
from pathlib import Path
from dm.plumbing.transport.git.fetcher import GitFetcher
from dm.plumbing.transport.protocol import FetchRequest
from tests.fixtures.fetching import QUICK, make_environment
from tests.fixtures.sinks import RecordingProgress, RecordingTask
home = Path(sys.argv[1])
fetcher = GitFetcher(make_environment(home, PATH=os.environ["PATH"]), QUICK, ssh_command=sys.argv[3])
request = FetchRequest(sys.argv[2], home / "part", "tree", ("blake3",))
fetcher.fetch(request, task=RecordingTask(), progress=RecordingProgress())
"""


@pytest.mark.parametrize("server", ["git_daemon", "sshd"])
def test_after_a_kill_it_is_begun_anew_and_nothing_stays_behind(
    repository: Repository, tmp_path: Path, request: pytest.FixtureRequest, server: str
) -> None:
    commit = repository.commit({"n": LONG, "deep/m": b"x"})
    running: GitDaemon | Sshd = request.getfixturevalue(server)
    if isinstance(running, Sshd):
        uri, command = running.uri(repository.path), running.ssh_command
    else:
        uri, command = running.uri("r.git"), "ssh"
    relay = running.relay
    relay.stall_at = len(LONG) // 2
    process = subprocess.Popen([sys.executable, "-c", FETCH, str(tmp_path), uri, command], cwd=CHECKOUT)
    try:
        assert relay.stalled.wait(120)
        while not names_in(tmp_path / "part") and process.poll() is None:
            time.sleep(0.01)  # what was sent is on its way
    finally:
        process.kill()
        process.wait()
    assert ["tree.pack"] == names_in(tmp_path / "part")
    relay.stall_at = None
    relay.go.set()
    fetcher = GitFetcher(make_environment(tmp_path, PATH=os.environ["PATH"]), QUICK, ssh_command=command)
    again = FetchRequest(uri, tmp_path / "part", "tree", ("blake3",))
    fetched = fetcher.fetch(again, task=RecordingTask(), progress=RecordingProgress())
    assert (commit, LONG) == (fetched.revision, (fetched.path / "n").read_bytes())
    assert (["tree"], ["deep", "n"]) == (names_in(tmp_path / "part"), names_in(fetched.path))
