"""Several processes at once on one manifest, one store, one dataset: nothing is lost, nothing is fetched twice."""

from __future__ import annotations

import hashlib
import shutil
import signal
import socket
import subprocess
import time
import tomllib
from pathlib import Path

import pytest

from dm.plumbing.store.disk import DiskStore
from dm.porcelain.verbs.verify import VerifyOptions
from dm.porcelain.verifying.copies import prepare_copy
from dm.progress import SILENT
from tests.fixtures.commands import (
    Ask,
    StartDm,
    assert_one_error,
    default_copy,
    find_sizes,
    list_litter,
    store_root,
    wait_for,
    write_manifest,
)
from tests.fixtures.homes import Home, RunDm, make_home
from tests.fixtures.servers import HttpServer
from tests.fixtures.stores import blob_id, publish

COUNT = 8


def test_eight_adds_at_once_are_eight_entries(
    start_dm: StartDm, ask: Ask, project: Path, home: Home, http_server: HttpServer
) -> None:
    path = write_manifest(project, "[old]\nskip_download = true  # stays\n")
    uris = [http_server.put(f"/{number}.txt", str(number), bytes_per_s=10) for number in range(COUNT)]
    started = [start_dm("add", uri, "--name", f"d{number}") for number, uri in enumerate(uris)]
    assert [0] * COUNT == [wait_for(process)[0] for process in started]
    found = tomllib.loads(path.read_text())
    assert {"_META", "old", *(f"d{number}" for number in range(COUNT))} == set(found)
    for number in range(COUNT):
        assert f"sha256:{hashlib.sha256(str(number).encode()).hexdigest()}" == found[f"d{number}"]["checksum"]
    assert "skip_download = true  # stays\n" in path.read_text()
    state = tomllib.loads((project / ".datamanifest-state.toml").read_text())
    assert {f"127.0.0.1/{number}.txt" for number in range(COUNT)} == set(state["datasets"])
    assert [1] * COUNT == [http_server.count(f"/{number}.txt") for number in range(COUNT)]
    assert {"clean", "skipped"} == {each["state"] for each in ask("status").outcomes}
    assert [] == list_litter(home, project)


def test_eight_adds_of_one_name_leave_one(start_dm: StartDm, project: Path, http_server: HttpServer) -> None:
    path = write_manifest(project)
    uris = [http_server.put(f"/{number}.txt", str(number)) for number in range(COUNT)]
    started = [start_dm("add", uri, "--name", "one") for uri in uris]
    results = [wait_for(process)[0] for process in started]
    assert [0, *[6] * (COUNT - 1)] == sorted(results)
    winner = uris[results.index(0)]
    assert winner == tomllib.loads(path.read_text())["one"]["uri"]


def test_eight_fetches_of_one_dataset_are_one_request(
    start_dm: StartDm, project: Path, home: Home, http_server: HttpServer
) -> None:
    write_manifest(project, f'[a]\nuri = "{http_server.put("/a.txt", b"a" * 20_000, bytes_per_s=20_000)}"\n')
    started = [start_dm("fetch", "a") for _ in range(COUNT)]
    results = [wait_for(process) for process in started]
    assert [0] * COUNT == [status for status, _, _ in results], results
    assert 1 == http_server.count("/a.txt")
    assert 1 == sum(stdout.startswith("ok ") for _, stdout, _ in results)
    assert b"a" * 20_000 == default_copy(home, "127.0.0.1/a.txt").read_bytes()
    # Whoever waits says so, after a second.
    assert not any("Traceback" in stderr for _, _, stderr in results)
    assert [] == list_litter(home, project)


def test_eight_fetches_of_eight_datasets_record_eight(
    start_dm: StartDm, ask: Ask, project: Path, home: Home, http_server: HttpServer
) -> None:
    tables = [f'[d{n}]\nuri = "{http_server.put(f"/{n}.txt", str(n), bytes_per_s=10)}"\n' for n in range(COUNT)]
    path = write_manifest(project, *tables)
    started = [start_dm("fetch", f"d{number}") for number in range(COUNT)]
    assert [0] * COUNT == [wait_for(process)[0] for process in started]
    found = tomllib.loads(path.read_text())
    assert COUNT == sum("checksum" in found[f"d{number}"] for number in range(COUNT))
    state = tomllib.loads((project / ".datamanifest-state.toml").read_text())
    assert COUNT == len(state["datasets"])
    assert ["clean"] * COUNT == [each["state"] for each in ask("status").outcomes]


def test_eight_projects_that_share_a_store_fetch_once(
    start_dm: StartDm, run_dm: RunDm, tmp_path: Path, http_server: HttpServer
) -> None:
    uri = http_server.put("/a.txt", b"a" * 20_000, bytes_per_s=20_000)
    folders = []
    for number in range(COUNT):
        folder = tmp_path / f"project{number}"
        folder.mkdir()
        write_manifest(folder, f'[a]\nuri = "{uri}"\n')
        folders.append(folder)
    started = [start_dm("fetch", cwd=folder) for folder in folders]
    assert [0] * COUNT == [wait_for(process)[0] for process in started]
    assert 1 == http_server.count("/a.txt")
    assert {0} == {run_dm("verify", cwd=folder).returncode for folder in folders}
    assert 1 == len({(folder / "datamanifest.toml").read_text() for folder in folders})


def test_a_waiting_command_names_the_holder_and_goes_on(
    start_dm: StartDm, project: Path, http_server: HttpServer
) -> None:
    uri = http_server.put("/a.txt", b"a" * 1000, pause_at=500)
    write_manifest(project, f'[a]\nuri = "{uri}"\n')
    first = start_dm("fetch")
    assert http_server.routes["/a.txt"].paused.wait(60)
    second = start_dm("fetch")
    assert second.stderr is not None
    line = second.stderr.readline()
    assert "waiting" in line and str(first.pid) in line
    http_server.routes["/a.txt"].go.set()
    assert (0, 0) == (wait_for(first)[0], wait_for(second)[0])
    assert 1 == http_server.count("/a.txt")


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
@pytest.mark.parametrize("json", [False, True])
def test_a_signal_ends_a_fetch_that_goes_on_next_time(
    start_dm: StartDm, ask: Ask, project: Path, home: Home, http_server: HttpServer,
    number: int, status: int, word: str, json: bool,
) -> None:  # fmt: skip
    body = bytes(range(256)) * 20_000
    good, slow = http_server.put("/good.txt", "good"), http_server.put("/slow.bin", body, pause_at=3_000_000)
    path = write_manifest(project, f'[good]\nuri = "{good}"\n', f'[slow]\nuri = "{slow}"\n')
    process = start_dm("fetch", *(["--json"] if json else []))
    assert http_server.routes["/slow.bin"].paused.wait(60)
    # Published and its lock released: from then on it is recorded whatever comes.
    good_copy = default_copy(home, "127.0.0.1/good.txt")
    while good_copy.with_name("good.txt.lock").exists() or not good_copy.with_name("good.txt.complete").exists():
        assert process.poll() is None
        time.sleep(0.01)
    # What the server sent is on its way; `dm` may have a last MiB of it in hand.
    while max(find_sizes(store_root(home) / ".dm" / "partial", "**"), default=0) < 1_900_000:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    code, stdout, stderr = wait_for(process)
    assert status == code
    assert word in stderr and "Traceback" not in stderr
    assert not json or f'"exit": {status}' in stdout
    # Locks are released, what was done is recorded, what had arrived is kept.
    assert not [each for each in home.data.rglob("*.lock") if ".dm" not in each.parts]
    assert "sha256:" + hashlib.sha256(b"good").hexdigest() in path.read_text()
    http_server.routes["/slow.bin"].go.set()
    http_server.forget_requests()
    answer = ask("fetch")
    assert (0, ["unchanged", "ok"]) == (answer.status, [each["status"] for each in answer.outcomes])
    ranges = [request.range for request in http_server.received("/slow.bin")]
    assert 1 == len(ranges) and ranges[0] is not None and int(ranges[0][6:-1]) >= 1_900_000
    assert body == default_copy(home, "127.0.0.1/slow.bin").read_bytes()
    assert [] == list_litter(home, project)


def test_ctrl_c_ends_a_fetch_from_a_server_that_says_nothing(
    start_dm: StartDm, ask: Ask, project: Path, home: Home, http_server: HttpServer
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}/a.txt"
        write_manifest(project, f'[a]\nuri = "{uri}"\n')
        process = start_dm("fetch", env={"DATAMANIFEST_HTTP_TIMEOUT": "3600"})
        silent.settimeout(60)
        connection, _ = silent.accept()
        with connection:
            assert connection.recv(65536).startswith(b"GET /a.txt")
            process.send_signal(signal.SIGINT)
            status, stdout, stderr = wait_for(process)
    assert (130, "") == (status, stdout)
    assert "dm: interrupted; what is done is kept" in stderr and "Traceback" not in stderr
    assert [] == list_litter(home, project)
    write_manifest(project, f'[a]\nuri = "{http_server.put("/a.txt", "1")}"\n')
    assert 0 == ask("fetch").status


def test_what_one_project_has_another_scope_gets_without_a_request(
    ask: Ask, run_dm: RunDm, project: Path, tmp_path: Path, http_server: HttpServer
) -> None:
    body = b"a" * 100_000
    uri = http_server.put("/a.txt", body)
    checksum = f"sha256:{hashlib.sha256(body).hexdigest()}"
    write_manifest(project, f'[a]\nuri = "{uri}"\n')
    first = Path(ask("fetch").only["path"])
    other = tmp_path / "other"
    other.mkdir()
    write_manifest(other, f'[a]\nuri = "{uri}"\nchecksum = "{checksum}"\nscope = "mine"\n')
    http_server.forget_requests()
    # With pools and other roots it is found where it is; another key and scope is linked from the object.
    write_manifest(other, f'[a]\nuri = "{uri}"\nchecksum = "{checksum}"\nscope = "mine"\nkey = "else/where.txt"\n')
    answer = ask("fetch", cwd=other)
    second = Path(answer.only["path"])
    assert (0, "linked") == (answer.status, answer.only["message"])
    assert (body, True) == (second.read_bytes(), second != first)
    assert "/mine/datasets/else/where.txt" in str(second)
    assert [] == http_server.requests
    same_file = second.stat().st_ino == first.stat().st_ino
    assert same_file or run_dm("doctor", "--json").stdout.count("reflink")
    assert 0 == run_dm("verify", "a", cwd=other).returncode


def test_another_root_is_linked_too(ask: Ask, project: Path, tmp_path: Path, http_server: HttpServer) -> None:
    body = b"b" * 1000
    uri = http_server.put("/b.txt", body)
    write_manifest(project, f'[b]\nuri = "{uri}"\n')
    ask("fetch")
    other = tmp_path / "other"
    other.mkdir()
    write_manifest(
        other,
        f'[b]\nuri = "{uri}"\nkey = "x/b.txt"\nstore = "$repo"\n'
        f'checksum = "sha256:{hashlib.sha256(body).hexdigest()}"\n',
    )
    http_server.forget_requests()
    answer = ask("fetch", cwd=other)
    assert (0, str(other / "datasets" / "x" / "b.txt")) == (answer.status, answer.only["path"])
    assert [] == http_server.requests
    assert body == Path(answer.only["path"]).read_bytes()


def test_a_damaged_object_is_not_linked_but_fetched_anew(
    ask: Ask, run_dm: RunDm, project: Path, home: Home, http_server: HttpServer
) -> None:
    body = b"c" * 1000
    uri = http_server.put("/c.txt", body)
    path = write_manifest(project, f'[c]\nuri = "{uri}"\n')
    copy = Path(ask("fetch").only["path"])
    copy.chmod(0o644)
    with copy.open("r+b") as file:
        file.write(b"X")
    for each in (home.data / "datamanifest" / ".dm" / "objects").rglob("*"):
        if each.is_file():
            each.chmod(0o644)
            with each.open("r+b") as file:
                file.write(b"X")
    with path.open("a") as manifest:
        manifest.write('key = "else/c.txt"\n')
    answer = ask("fetch")
    assert (0, 2) == (answer.status, http_server.count("/c.txt"))
    assert body == Path(answer.only["path"]).read_bytes()
    assert 0 == run_dm("verify", "c").returncode


def test_homes_of_their_own_share_nothing(
    run_dm: RunDm, project: Path, tmp_path: Path, http_server: HttpServer
) -> None:
    write_manifest(project, f'[a]\nuri = "{http_server.put("/a.txt", "a")}"\n')
    assert 0 == run_dm("fetch").returncode
    other = make_home(tmp_path / "other home")
    variables = {name: text for name, text in other.variables().items() if name != "PATH"}
    assert 0 == run_dm("fetch", "a", env=variables).returncode
    assert 0 == run_dm("path", "a", env=variables).returncode
    assert_one_error(run_dm("fetch", "nobody", env=variables), 3)


# What is replaced while it is waited for ----------------------------------------------------------------------------


def _wait_for_lock(process: subprocess.Popen[str], copy: Path) -> None:
    """Until a command says that it waits for who has the copy in hand."""
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "waiting" in line and str(copy) in line, line


def test_a_repair_leaves_what_came_after_it_had_judged(home: Home, project: Path, start_dm: StartDm, ask: Ask) -> None:
    write_manifest(project)
    store = DiskStore(store_root(home))
    old = publish(store, "datasets/set", {"a": b"old", "b": b"b"})
    folder = store.root / "datasets" / "set"
    (folder / "a").unlink()
    with store.lock_copy(folder):
        process = start_dm("verify", folder, "--repair")
        _wait_for_lock(process, folder)
        (folder / ".complete").unlink()
        shutil.rmtree(folder)
        new = publish(store, "datasets/set", {"a": b"new"})
    status, stdout, stderr = wait_for(process)
    assert (4, True) == (status, "replaced meanwhile" in stderr), (stdout, stderr)
    assert {b"new"} == {path.read_bytes() for path in folder.rglob("*") if path.stat().st_size}
    ref = store.read_ref(folder)
    assert ref is not None and old != ref.digest == new
    assert 0 == ask("verify", folder).status


def test_a_copy_that_was_removed_is_not_brought_back_by_a_repair_that_waited(
    home: Home, project: Path, start_dm: StartDm
) -> None:
    write_manifest(project)
    store = DiskStore(store_root(home))
    publish(store, "datasets/file", b"data")
    copy = store.root / "datasets" / "file"
    copy.unlink()
    with store.lock_copy(copy):
        process = start_dm("verify", copy, "--repair")
        _wait_for_lock(process, copy)
        store.remove_ref(copy)
    assert 3 == wait_for(process)[0]
    assert not copy.exists() and store.read_ref(copy) is None


@pytest.mark.parametrize("command", ["pin", "verify"])
def test_a_ref_never_speaks_of_bytes_that_were_replaced_before_it_was_written(
    home: Home, project: Path, http_server: HttpServer, start_dm: StartDm, ask: Ask, command: str
) -> None:
    uri = http_server.put("/a.txt", b"first")
    second = hashlib.sha256(b"second").hexdigest()
    write_manifest(project, f'[a]\nuri = "{uri}"\n')
    assert 0 == ask("fetch").status
    copy, store = default_copy(home, "127.0.0.1/a.txt"), DiskStore(store_root(home))
    if command == "verify":  # what it finds was replaced with the right bytes: it takes them in
        write_manifest(project, f'[a]\nuri = "{uri}"\nchecksum = "sha256:{second}"\n')
    copy.unlink()
    copy.write_bytes(b"second")
    with store.lock_copy(copy):
        process = start_dm(command, "a")
        _wait_for_lock(process, copy)
        copy.unlink()
        copy.write_bytes(b"third!")
    wait_for(process)
    ref = store.read_ref(copy)
    assert ref is not None and blob_id(b"first") == ref.digest
    assert 4 == ask("verify").status


def test_a_look_at_a_copy_that_is_removed_meanwhile_leaves_no_ref(tmp_path: Path) -> None:
    store = DiskStore(tmp_path / "root")
    publish(store, "datasets/file", b"data")
    ref = store.read_ref("datasets/file")
    assert ref is not None
    look = prepare_copy(store, "datasets/file", ref, VerifyOptions())
    store.remove_ref("datasets/file")
    assert "ok" == look.run(SILENT).status
    assert store.read_ref("datasets/file") is None
