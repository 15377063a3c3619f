"""Whole commands that are killed with SIGKILL, and what the next one makes of what they left."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import time
from io import BytesIO
from pathlib import Path

import pytest

from tests.fixtures.commands import (
    Ask,
    StartDm,
    default_copy,
    find_sizes,
    kill,
    kill_when,
    list_litter,
    store_root,
    write_manifest,
)
from tests.fixtures.homes import Home, RunDm
from tests.fixtures.servers import HttpServer

FILES = 4_000


@pytest.fixture(scope="module")
def many() -> bytes:
    """A tar of 4,000 small files in 160 folders."""
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(FILES):
            data = b"%d\n" % number * 3
            member = tarfile.TarInfo(f"set/{number % 160:03}/{number}.txt")
            member.size = len(data)
            archive.addfile(member, BytesIO(data))
    return buffer.getvalue()


def _count(folder: Path, *, below: str) -> int:
    return sum(len(names) for path, _, names in os.walk(folder) if below in path)


@pytest.mark.parametrize("moment", ["unpacking", "storing", "published"])
def test_a_kill_while_an_archive_becomes_a_folder_never_leaves_a_part_for_the_whole(
    start_dm: StartDm, ask: Ask, run_dm: RunDm, project: Path, home: Home, http_server: HttpServer,
    many: bytes, moment: str,
) -> None:  # fmt: skip
    uri = http_server.put("/many.tar", many)
    path = write_manifest(project, f'[many]\nuri = "{uri}"\nextract = true\n')
    before = path.read_bytes()
    copy, meta = default_copy(home, "127.0.0.1/many"), store_root(home) / ".dm"
    process = start_dm("fetch")
    moments = {
        "unpacking": lambda: _count(meta / "partial", below="/tree/") >= FILES // 3,
        "storing": lambda: _count(meta / "objects", below="/objects/") >= FILES // 4,
        "published": copy.exists,
    }
    kill_when(process, moments[moment])
    # Whatever is there now, and however far it came before it was killed: it is whole or not taken for the dataset.
    if (copy / ".complete").exists():
        assert FILES == sum(len(names) for _, _, names in os.walk(copy)) - 1
    else:
        assert 3 == run_dm("path", "many").returncode
        assert ask("status").only["state"] in ("missing", "partial")
        assert before == path.read_bytes()
    answer = ask("fetch")
    assert (0, str(copy)) == (answer.status, answer.only["path"])
    assert FILES == sum(len(names) for _, _, names in os.walk(copy)) - 1
    assert b"3999\n" * 3 == (copy / "set" / f"{3999 % 160:03}" / "3999.txt").read_bytes()
    verified = ask("verify", "many")
    assert (0, "ok", FILES) == (verified.status, verified.only["status"], len(list(copy.rglob("*.txt"))))
    assert "clean" == ask("status").only["state"]
    assert [] == list_litter(home, project)
    assert b"blake3-tree:" in path.read_bytes()
    # What was fetched whole is not asked for again: at most the archive itself, once more.
    assert http_server.count("/many.tar") <= 2
    shutil.rmtree(store_root(home))  # 32,000 names are much for pytest to keep


def test_a_download_killed_at_40_percent_asks_for_the_rest_only(
    start_dm: StartDm, ask: Ask, run_dm: RunDm, project: Path, home: Home, http_server: HttpServer
) -> None:
    body = os.urandom(40_000_000)
    uri = http_server.put("/data.bin", body, pause_at=16_000_000)
    path = write_manifest(project, f'[data]\nuri = "{uri}"\n')
    before = path.read_bytes()
    process = start_dm("fetch")
    assert http_server.routes["/data.bin"].paused.wait(60)
    partial = store_root(home) / ".dm" / "partial"
    # What the server sent is on its way through the sockets.
    assert kill_when(process, lambda: max(find_sizes(partial, "**"), default=0) > 8_000_000)
    http_server.routes["/data.bin"].go.set()
    copy = default_copy(home, "127.0.0.1/data.bin")
    assert not copy.exists() and not copy.with_name("data.bin.complete").exists()
    assert before == path.read_bytes() and not (project / ".datamanifest-state.toml").exists()
    assert ("missing", 3) == (ask("status").only["state"], run_dm("path", "data").returncode)
    http_server.forget_requests()
    answer = ask("fetch")
    assert (0, "") == (answer.status, answer.stderr), "the next run waits for nobody's lock"
    ranges = [request.range for request in http_server.received("/data.bin")]
    assert 1 == len(ranges) and ranges[0] is not None
    first = int(ranges[0].removeprefix("bytes=").removesuffix("-"))
    assert 8_000_000 < first <= 16_000_000
    assert hashlib.sha256(body).digest() == hashlib.sha256(copy.read_bytes()).digest()
    assert 0 == run_dm("verify", "data").returncode
    assert [] == list_litter(home, project)
    assert [] == list((store_root(home) / ".dm" / "partial").iterdir())


def test_a_source_that_changed_after_a_kill_is_fetched_whole(
    start_dm: StartDm, ask: Ask, project: Path, home: Home, http_server: HttpServer
) -> None:
    old, new = os.urandom(4_000_000), os.urandom(4_000_000)
    uri = http_server.put("/data.bin", old, pause_at=2_000_000)
    write_manifest(project, f'[data]\nuri = "{uri}"\n')
    process = start_dm("fetch")
    assert http_server.routes["/data.bin"].paused.wait(60)
    kill(process)
    http_server.routes["/data.bin"].go.set()
    http_server.change("/data.bin", new)
    assert 0 == ask("fetch").status
    assert new == default_copy(home, "127.0.0.1/data.bin").read_bytes()
    assert [] == list_litter(home, project)


@pytest.mark.parametrize("round_number", range(6))
def test_a_kill_at_any_moment_leaves_whole_copies_or_none(
    start_dm: StartDm, ask: Ask, project: Path, home: Home, http_server: HttpServer, round_number: int
) -> None:
    count = 60
    bodies = {f"d{number}": os.urandom(2_000) for number in range(count)}
    tables = [f'[{name}]\nuri = "{http_server.put(f"/{name}.bin", body)}"\n' for name, body in bodies.items()]
    write_manifest(project, *tables)
    process = start_dm("fetch", "--jobs", "4")
    asked = 1 + round_number * 12
    while len(http_server.requests) < asked and process.poll() is None:
        time.sleep(0.001)
    kill(process)
    for name, body in bodies.items():
        copy = default_copy(home, f"127.0.0.1/{name}.bin")
        if copy.exists():
            assert body == copy.read_bytes()
    answer = ask("fetch")
    assert {"ok", "unchanged"} >= {each["status"] for each in answer.outcomes}, answer
    assert 0 == answer.status
    assert {"clean"} == {each["state"] for each in ask("status").outcomes}
    assert 0 == ask("verify").status
    for name, body in bodies.items():
        assert body == default_copy(home, f"127.0.0.1/{name}.bin").read_bytes()
    assert [] == list_litter(home, project)


def test_a_killed_add_declares_nothing_and_can_be_said_again(
    start_dm: StartDm, ask: Ask, project: Path, home: Home, http_server: HttpServer
) -> None:
    uri = http_server.put("/a.bin", b"a" * 1_000_000, pause_at=500_000)
    path = write_manifest(project)
    before = path.read_bytes()
    process = start_dm("add", uri, "--name", "a")
    assert http_server.routes["/a.bin"].paused.wait(60)
    kill(process)
    http_server.routes["/a.bin"].go.set()
    assert before == path.read_bytes()
    assert 0 == ask("add", uri, "--name", "a").status
    assert "clean" == ask("status").only["state"]
    assert [] == list_litter(home, project)
