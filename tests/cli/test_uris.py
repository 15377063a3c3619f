"""Several URIs that become one folder: side by side, each gone on from by itself, one failing alone."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from dm.environment import Environment
from dm.errors import ContentMismatch
from dm.porcelain.materialize import FetchOptions, materialize
from dm.porcelain.project import Project
from dm.values import Digest
from tests.fixtures.archives import read_tree
from tests.fixtures.commands import (
    NO_RETRIES,
    Ask,
    StartDm,
    default_copy,
    find_sizes,
    kill,
    list_litter,
    list_paths,
    wait_for,
    write_manifest,
)
from tests.fixtures.homes import Home
from tests.fixtures.servers import HttpServer

LARGE = 1 << 20


def declare(name: str, uris: list[str], *more: str) -> str:
    listed = ", ".join(f'"{uri}"' for uri in uris)
    return f"[{name}]\nuris = [{listed}]\n" + "\n".join(more) + "\n"


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_extract_beside_a_list_is_refused_and_nothing_is_asked(
    ask: Ask, project: Path, home: Home, http_server: HttpServer
) -> None:
    uris = [http_server.put(f"/set/{name}.zip", "no archive is looked at") for name in "ab"]
    write_manifest(project, declare("set", uris, "extract = true"))
    answer = ask("fetch")
    assert (7, "contradiction") == (answer.status, answer.only["code"])
    assert [] == http_server.requests
    assert [] == list_litter(home, project)


def test_files_of_one_folder_are_asked_for_side_by_side(
    ask: Ask, project: Path, home: Home, http_server: HttpServer
) -> None:
    count = 6
    uris = []
    for number in range(count):
        uris.append(http_server.put(f"/set/{number}.bin", bytes([number]) * 200_000, pause_at=1))

    def let_go_when_all_wait() -> None:
        for route in list(http_server.routes.values()):
            route.paused.wait()
        for route in list(http_server.routes.values()):
            route.go.set()

    helper = threading.Thread(target=let_go_when_all_wait, daemon=True)
    helper.start()
    write_manifest(project, declare("set", uris))
    assert 0 == ask("fetch", "--jobs", str(count)).status  # none of them ends before all have begun
    found = read_files(default_copy(home, "127.0.0.1/set"))
    assert {f"{number}.bin": bytes([number]) * 200_000 for number in range(count)} == {
        name: data for name, data in found.items() if name != ".complete"
    }
    assert [1] * count == [http_server.count(f"/set/{number}.bin") for number in range(count)]
    assert [] == list_litter(home, project)


def test_one_job_asks_for_one_file_at_a_time(ask: Ask, project: Path, http_server: HttpServer) -> None:
    uris = [http_server.put(f"/set/{number}.txt", str(number)) for number in range(5)]
    write_manifest(project, declare("set", uris))
    assert 0 == ask("fetch", "--jobs", "1").status
    assert [f"/set/{number}.txt" for number in range(5)] == [each.path for each in http_server.requests]
    assert 1 == http_server.count_connections()


@pytest.mark.parametrize("pinned", [True, False])
def test_after_a_kill_no_finished_file_is_sent_again(
    start_dm: StartDm, ask: Ask, project: Path, home: Home, http_server: HttpServer, pinned: bool
) -> None:
    data = {f"/set/{number}.bin": os.urandom(LARGE) for number in range(4)}
    uris = [http_server.put(path, body) for path, body in data.items()]
    last = http_server.routes["/set/3.bin"]
    last.pause_at = LARGE // 2
    contents = hashlib.sha256(b"".join(data.values())).hexdigest()
    write_manifest(project, declare("set", uris, f'checksum = "sha256:{contents}"' if pinned else ""))
    process = start_dm("fetch", "--jobs", "2")
    last.paused.wait()
    while len(list_paths(home.path, "**/arrived.json")) < 3 or not any(find_sizes(home.path, "**/files/3/data")):
        assert process.poll() is None
        time.sleep(0.01)
    kill(process)
    last.pause_at = None
    last.go.set()
    http_server.forget_requests()
    assert 0 == ask("fetch").status
    again = {path: http_server.received(path) for path in data}
    if pinned:  # the contract vouches for what came: nobody is asked
        assert [0, 0, 0] == [len(again[path]) for path in list(data)[:3]]
    else:  # the server is asked whether it is still the same, and for one byte of it
        assert [[f"bytes={LARGE - 1}-"]] * 3 == [[each.range for each in again[path]] for path in list(data)[:3]]
    assert [True] == [each.range is not None for each in again["/set/3.bin"]]
    found = read_files(default_copy(home, "127.0.0.1/set"))
    assert list(data.values()) == [found[f"{number}.bin"] for number in range(4)]
    assert [] == list_litter(home, project)


def test_one_file_that_fails_keeps_the_others_for_the_next_run(
    ask: Ask, project: Path, home: Home, http_server: HttpServer
) -> None:
    bodies = [b"a" * 1000, b"b" * 1000, b"c" * 1000, b"d" * 1000]
    uris = [http_server.put(f"/set/{name}.txt", body) for name, body in zip("abcd", bodies, strict=True)]
    http_server.fail("/set/b.txt", 404)
    http_server.fail("/set/c.txt", 404)
    digest = hashlib.sha256(b"".join(bodies)).hexdigest()
    write_manifest(project, declare("set", uris, f'checksum = "{digest}"'))
    answer = ask("fetch", env=NO_RETRIES)
    assert (5, "failed") == (answer.status, answer.only["status"])
    assert f"'{uris[1]}'" in answer.only["message"]
    assert answer.only["message"].endswith("(and 1 more of 4 files failed)")
    assert not default_copy(home, "127.0.0.1/set").exists()
    http_server.forget_requests()
    assert 0 == ask("fetch").status
    assert {"/set/b.txt", "/set/c.txt"} == {each.path for each in http_server.requests}
    assert [] == list_litter(home, project)


def test_what_was_kept_and_is_of_an_older_state_is_asked_for_anew_in_the_same_run(
    ask: Ask, project: Path, home: Home, http_server: HttpServer
) -> None:
    uris = [http_server.put("/set/a.txt", "old"), http_server.put("/set/b.txt", "b")]
    http_server.fail("/set/b.txt", 404)
    digest = hashlib.sha256(b"newb").hexdigest()
    write_manifest(project, declare("set", uris, f'checksum = "{digest}"'))
    assert 5 == ask("fetch", env=NO_RETRIES).status
    http_server.change("/set/a.txt", b"new")
    assert 0 == ask("fetch").status
    assert b"new" == (default_copy(home, "127.0.0.1/set") / "a.txt").read_bytes()
    # What is wrong anew is wrong, and nothing of it stays.
    http_server.change("/set/a.txt", b"newer")
    assert (4, "checksum-mismatch") == ((answer := ask("fetch", "--force")).status, answer.only["code"])
    assert [] == list_litter(home, project)


def test_files_of_several_transports_become_one_folder(
    ask: Ask, project: Path, home: Home, tmp_path: Path, http_server: HttpServer
) -> None:
    mine = tmp_path / "my files"
    (mine / "sub" / "deep").mkdir(parents=True)
    (mine / "one.txt").write_text("one")
    (mine / "sub" / "deep" / "two.txt").write_text("two")
    (mine / "sub" / "link").symlink_to("deep/two.txt")
    uris = [
        http_server.put("/x/three.txt", "three"),
        f"file://{quote(str(mine))}/one.txt",
        f"file://{quote(str(mine))}/sub",  # a folder stays one
    ]
    write_manifest(project, declare("set", uris, 'key = "mixed"'))
    assert 0 == ask("fetch").status
    tree = read_tree(default_copy(home, "mixed"))
    names = {name for name in tree if Path(name).suffix or Path(name).name == "link"}
    assert {"three.txt", "one.txt", "two.txt", "link"} == {Path(name).name for name in names if ".complete" not in name}
    assert "one" == (mine / "one.txt").read_text()
    assert 1 == (mine / "one.txt").stat().st_nlink
    assert "clean" == ask("verify").only["state"]


def test_publishers_digests_are_held_against_each_file_as_it_arrives(
    project: Path, home: Home, http_server: HttpServer
) -> None:
    uris = [http_server.put("/set/a.txt", "a"), http_server.put("/set/b.txt", "b")]
    write_manifest(project, declare("set", uris), f'[one]\nuri = "{http_server.put("/one.txt", "1")}"\n')
    right = {uri: Digest("md5", hashlib.md5(body).hexdigest()) for uri, body in zip(uris, (b"a", b"b"), strict=True)}
    wrong = {**right, uris[1]: Digest("md5", "0" * 32), f"{http_server.url}/one.txt": Digest("sha1", "0" * 40)}
    surroundings = Environment.read()._replace(variables=home.variables(), home=home.path, working_folder=project)
    opened = Project.open(surroundings)
    datasets = list(opened.manifest.datasets.values())
    failed = materialize(opened, datasets, FetchOptions(expected=wrong)).outcomes
    assert [4, 4] == [outcome.exit_status for outcome in failed]
    assert isinstance(failed[0].error, ContentMismatch)
    told = "'b.txt' of 'set' is not what its publisher says: the source gave md5:"
    assert str(failed[0].message).startswith(told) and str(failed[0].message).endswith(f"says md5:{'0' * 32}")
    assert "'one.txt' of 'one' is not what its publisher says: " in str(failed[1].message)
    http_server.forget_requests()
    outcomes = materialize(opened, datasets, FetchOptions(expected=right)).outcomes
    assert ["ok", "ok"] == [outcome.status for outcome in outcomes]
    opened.close()
    assert 0 == http_server.count("/set/a.txt")  # its publisher vouches for what the first run brought
    assert [] == list_litter(home, project)


def test_ctrl_c_between_files_ends_promptly_and_keeps_what_came(
    start_dm: StartDm, ask: Ask, project: Path, home: Home, http_server: HttpServer
) -> None:
    import signal

    uris = [http_server.put(f"/set/{number}.bin", os.urandom(LARGE)) for number in range(3)]
    route = http_server.routes["/set/1.bin"]
    route.pause_at = LARGE // 2
    write_manifest(project, declare("set", uris))
    process = start_dm("fetch", "--jobs", "1")
    route.paused.wait()
    process.send_signal(signal.SIGINT)
    assert 130 == wait_for(process)[0]
    assert 0 == http_server.count("/set/2.bin")
    route.pause_at = None
    route.go.set()
    http_server.forget_requests()
    assert 0 == ask("fetch").status
    assert [f"bytes={LARGE - 1}-"] == [each.range for each in http_server.received("/set/0.bin")]
    assert [] == list_litter(home, project)
