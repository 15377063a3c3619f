"""What a person sees: bars on the terminal, and results beside them, each whole and where it was sent."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.commands import write_manifest
from tests.fixtures.homes import Home
from tests.fixtures.servers import HttpServer

#: The program, but for bars that are drawn at once, not only for work that takes its time.
PROGRAM = """
import sys
from dm.porcelain.cli import progress_bars
progress_bars.BAR_DELAY_S = 0.0
from dm.__main__ import main
sys.exit(main())
"""
NAMES = [f"d{number}" for number in range(12)]


@pytest.fixture
def declared(project: Path, http_server: HttpServer) -> None:
    entries = [f'[{name}]\nuri = "{http_server.put(f"/{name}.txt", name)}"\n' for name in NAMES]
    write_manifest(project, *entries)


def run_on_terminal(home: Home, project: Path, *words: str, stdout: int | None = None) -> tuple[int, bytes]:
    """(exit status, what the terminal got) of a command whose stderr, and unless given its stdout, is a terminal."""
    leader, follower = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=project,
        env={**home.variables(), "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=follower if stdout is None else stdout,
        stderr=follower,
    )
    os.close(follower)
    seen = b""
    try:
        while piece := os.read(leader, 65536):
            seen += piece
    except OSError:  # EIO: nobody holds the other end any more
        pass
    finally:
        os.close(leader)
    return process.wait(), seen


@pytest.mark.usefixtures("declared")
@pytest.mark.parametrize("words", [("fetch", "--json"), ("fetch",)])
def test_results_that_are_sent_to_a_file_get_there_while_bars_are_drawn(
    home: Home, project: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    results = tmp_path / "results"
    with open(results, "wb") as file:
        status, seen = run_on_terminal(home, project, *words, stdout=file.fileno())
    assert 0 == status and "━".encode() in seen
    text = results.read_text()
    if "--json" in words:
        assert sorted(NAMES) == sorted(outcome["name"] for outcome in json.loads(text)["outcomes"])
        assert b"outcomes" not in seen
    else:
        assert sorted(NAMES) == sorted(line.split()[1] for line in text.splitlines())


@pytest.mark.usefixtures("declared")
def test_results_on_a_terminal_are_lines_above_the_bars(home: Home, project: Path) -> None:
    status, seen = run_on_terminal(home, project, "fetch")
    assert 0 == status and "━".encode() in seen
    # Each begins where a line begins, or where one was cleared: not behind a bar, which the next bar would clear.
    plain = re.sub(r"\x1b\[[0-9;]*m", "", seen.decode())
    begun = re.findall(r"(?:^|\n|\x1b\[2K)ok +(\S+)", plain)
    assert sorted(NAMES) == sorted(begun)
