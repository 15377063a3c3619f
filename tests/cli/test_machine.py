"""The machine fails: disk full, no permission, a read-only store. Exit 8, one line, nothing half-written."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dm.plumbing.store.disk import DiskStore
from tests.fixtures.archives import make_archive
from tests.fixtures.commands import (
    Ask,
    assert_one_error,
    default_copy,
    list_litter,
    snapshot,
    store_root,
    write_manifest,
)
from tests.fixtures.homes import CHECKOUT, COMMAND_TIMEOUT_S, Home, RunDm
from tests.fixtures.machine import MakeTmpfs, needs, needs_root, skip_or_fail
from tests.fixtures.servers import HttpServer
from tests.fixtures.users import OTHER_USER

# Disk full -------------------------------------------------------------------------------------------------------


def fill(folder: Path, *, leave_bytes: int) -> Path:
    """Fill a file system but for so many bytes; return the file that does it."""
    ballast = folder / "ballast"
    status = os.statvfs(folder)
    with ballast.open("wb") as file:
        file.write(bytes(status.f_bavail * status.f_frsize - leave_bytes))
    return ballast


@pytest.mark.parametrize("kind", ["file", "archive", "many"])
def test_a_full_store_is_exit_8_and_room_mends_it(
    run_dm: RunDm, ask: Ask, project: Path, http_server: HttpServer, small_tmpfs: MakeTmpfs, kind: str
) -> None:
    disk = small_tmpfs(8 << 20)
    data = os.urandom(2 << 20)
    if kind == "archive":
        uri, extra = (
            http_server.put("/a.zip", make_archive("zip", [("x.bin", data), ("y.bin", data[:9])])),
            "extract = true\n",
        )
    else:
        uri, extra = http_server.put("/a.bin", data), ""
    tables = [f'[a]\nuri = "{uri}"\n{extra}']
    if kind == "many":
        tables = [f'[d{n}]\nuri = "{http_server.put(f"/{n}.bin", data[n:])}"\n' for n in range(6)]
    path = write_manifest(project, *tables)
    before = path.read_bytes()
    ballast = fill(disk, leave_bytes=(1 << 20))
    variables = {"DATAMANIFEST_DATA_DIR": str(disk / "store")}
    for _ in range(2):
        answer = ask("fetch", env=variables)
        assert 8 == answer.status, answer
        assert {"disk-full"} == {each["code"] for each in answer.outcomes}
        assert all("disk full" in each["message"] for each in answer.outcomes)
        assert before == path.read_bytes()
        assert not (project / ".datamanifest-state.toml").exists()
        datasets = disk / "store" / "datasets"
        assert [] == [each for each in datasets.rglob("*") if each.is_file() and not each.name.endswith(".lock")]
    if kind != "many":
        assert "disk full" in assert_one_error(run_dm("fetch", env=variables), 8)
    ballast.unlink()
    if kind == "many":
        disk2 = {each["name"]: each["status"] for each in ask("fetch", "d0", "d1", env=variables).outcomes}
        assert {"d0": "ok", "d1": "ok"} == disk2
    else:
        assert 0 == ask("fetch", env=variables).status
    name = "d0" if kind == "many" else "a"
    assert 0 == ask("verify", name, env=variables).status


def test_a_full_store_that_has_data_keeps_it(
    run_dm: RunDm, ask: Ask, project: Path, http_server: HttpServer, small_tmpfs: MakeTmpfs
) -> None:
    disk = small_tmpfs(4 << 20)
    variables = {"DATAMANIFEST_DATA_DIR": str(disk)}
    path = write_manifest(project, f'[a]\nuri = "{http_server.put("/a.bin", os.urandom(100_000))}"\n')
    assert 0 == ask("fetch", env=variables).status
    fill(disk, leave_bytes=4096)
    before = path.read_bytes()
    uri = http_server.put("/b.bin", os.urandom(1_000_000))
    assert "disk full" in assert_one_error(run_dm("add", uri, "--name", "b", env=variables), 8)
    assert before == path.read_bytes()
    assert ["clean"] == [each["state"] for each in ask("status", env=variables).outcomes]
    assert 0 == run_dm("verify", env=variables).returncode


def test_a_full_project_disk_leaves_the_manifest_whole(
    run_dm: RunDm, ask: Ask, http_server: HttpServer, small_tmpfs: MakeTmpfs
) -> None:
    disk = small_tmpfs(256 << 10)
    project = disk / "project"
    project.mkdir()
    path = write_manifest(project, f'[a]\nuri = "{http_server.put("/a.bin", b"a")}"\n')
    before = path.read_bytes()
    ballast = fill(disk, leave_bytes=0)
    done = run_dm("fetch", cwd=project)
    assert 8 == done.returncode and "disk full" in done.stderr and "Traceback" not in done.stderr
    assert before == path.read_bytes()
    assert [] == [each for each in os.listdir(project) if each.endswith(".tmp")]
    ballast.unlink()
    assert 0 == ask("fetch", cwd=project).status
    assert b"checksum" in path.read_bytes()
    assert 1 == http_server.count("/a.bin")


# Read-only -------------------------------------------------------------------------------------------------------


@pytest.fixture
def make_read_only(tmp_path: Path) -> Iterator[object]:
    """Mount a folder read-only over itself; undone after the test."""
    needs_root()
    mounted: list[Path] = []

    def make(folder: Path) -> None:
        mount = needs("mount")
        subprocess.run([mount, "--bind", str(folder), str(folder)], check=True, timeout=60)
        mounted.append(folder)
        subprocess.run([mount, "-o", "remount,bind,ro", str(folder)], check=True, timeout=60)

    yield make
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=False, timeout=60)


def test_a_read_only_store_can_be_used_and_not_written(
    run_dm: RunDm, ask: Ask, project: Path, home: Home, http_server: HttpServer, make_read_only: object
) -> None:
    write_manifest(
        project,
        f'[a]\nuri = "{http_server.put("/a.bin", b"a")}"\n',
    )
    assert 0 == ask("fetch").status
    make_read_only(store_root(home))  # type: ignore[operator]
    with (project / "datamanifest.toml").open("a") as manifest:
        manifest.write(f'\n[b]\nuri = "{http_server.put("/b.bin", b"b")}"\n')
    before = (project / "datamanifest.toml").read_bytes()
    assert (0, "unchanged") == (lambda answer: (answer.status, answer.only["status"]))(ask("fetch", "a"))
    assert (0, 0) == (ask("verify", "a").status, run_dm("path", "a").returncode)
    message = assert_one_error(run_dm("fetch", "b"), 8)
    assert "read-only" in message and str(store_root(home)) in message
    assert before == (project / "datamanifest.toml").read_bytes()
    assert 0 == http_server.count("/b.bin")
    assert {"a": "clean", "b": "missing"} == {each["name"]: each["state"] for each in ask("status").outcomes}
    done = run_dm("rm", "a", "--delete")
    assert 8 == done.returncode and "read-only" in done.stderr
    assert default_copy(home, "127.0.0.1/a.bin").exists()
    assert before == (project / "datamanifest.toml").read_bytes(), "what cannot be deleted stays declared"


@pytest.mark.parametrize("left_out", ["nothing", "ref", "marker and ref", ".dm"])
def test_a_store_that_may_only_be_read_serves_as_a_pool(
    run_dm: RunDm, ask: Ask, project: Path, home: Home, http_server: HttpServer, make_read_only: object, left_out: str
) -> None:
    uri = http_server.put("/a.bin", b"a")
    write_manifest(project, f'[a]\nuri = "{uri}"\n')
    assert 0 == ask("fetch").status
    copy, meta = default_copy(home, "127.0.0.1/a.bin"), store_root(home) / ".dm"
    (project / ".datamanifest-state.toml").unlink()
    if "ref" in left_out:
        (meta / "refs" / "datasets" / "127.0.0.1" / "a.bin").unlink()
    if "marker" in left_out:
        copy.with_name(f"{copy.name}.complete").unlink()
    if left_out == ".dm":
        shutil.rmtree(meta)
    make_read_only(store_root(home))  # type: ignore[operator]
    assert ["untracked"] == [each["state"] for each in ask("status").outcomes]
    assert (0, "unchanged") == (lambda answer: (answer.status, answer.only["status"]))(ask("fetch"))
    assert f"{copy}\n" == run_dm("path", "a").stdout
    for command in ("verify", "refresh", "pin", "unlock --dry-run", "verify --repair"):
        words = command.split(" ")
        assert 0 == ask(words[0], "a", *words[1:]).status, command
    assert "clean" == ask("status").only["state"]
    assert 1 == http_server.count("/a.bin")


def test_where_a_store_may_only_be_read_the_way_to_go_on_using_it_is_named(
    run_dm: RunDm, ask: Ask, project: Path, home: Home, http_server: HttpServer, make_read_only: object, tmp_path: Path
) -> None:
    write_manifest(project, f'[a]\nuri = "{http_server.put("/a.bin", b"a")}"\n')
    assert 0 == ask("fetch").status
    make_read_only(store_root(home))  # type: ignore[operator]
    uri = http_server.put("/b.bin", b"b")
    done = run_dm("add", uri, "--name", "b")
    assert 8 == done.returncode
    words = shlex.split(done.stderr.split("and dm ")[1].split(" still reads it")[0])
    assert ["config", "set", "datasets_pools", str(store_root(home) / "datasets")] == words
    assert 0 == run_dm(*words).returncode
    assert 0 == run_dm("config", "set", "--global", "data", tmp_path / "mine").returncode
    assert 0 == ask("add", uri, "--name", "b").status
    answer = ask("fetch")
    assert (0, {"unchanged"}) == (answer.status, {each["status"] for each in answer.outcomes})
    assert (1, 1) == (http_server.count("/a.bin"), http_server.count("/b.bin"))


def test_a_store_that_may_only_be_read_does_not_keep_dedup_from_the_others(
    ask: Ask, project: Path, home: Home, make_read_only: object
) -> None:
    write_manifest(project, "")
    for root in (store_root(home), home.cache / "datamanifest"):
        store = DiskStore(root)
        for name in ("one", "two"):
            path = store.root / "datasets" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"same" * 4000)
            path.with_name(f"{name}.complete").touch()
        store.prepare()
    make_read_only(store_root(home))  # type: ignore[operator]
    answer = ask("dedup")
    assert 8 == answer.status
    assert [str(store_root(home))] == [each["name"] for each in answer.outcomes if each["status"] == "failed"]
    [one, two] = (os.stat(home.cache / "datamanifest" / "datasets" / name) for name in ("one", "two"))
    assert one.st_ino == two.st_ino


def test_a_read_only_project_can_be_looked_at(
    run_dm: RunDm, ask: Ask, project: Path, http_server: HttpServer, make_read_only: object
) -> None:
    uri = http_server.put("/a.bin", b"a")
    write_manifest(project, f'[a]\nuri = "{uri}"\n')
    ask("fetch")
    make_read_only(project)  # type: ignore[operator]
    before = snapshot(project)
    for command in ("status", "verify", "list", "fetch"):
        assert 0 == ask(command).status, command
    assert (0, 0) == (run_dm("path", "a").returncode, run_dm("show", "a").returncode)
    assert "read-only" in assert_one_error(run_dm("rm", "a"), 8)
    assert "read-only" in assert_one_error(run_dm("init", "new"), 8)
    done = run_dm("add", http_server.put("/b.bin", b"b"))
    assert 8 == done.returncode and "read-only" in done.stderr
    assert before == snapshot(project)


# Permission ------------------------------------------------------------------------------------------------------


def as_other(home: Home, project: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `dm` as a user to whom permissions apply: root without its capabilities, since the checkout may be root's."""
    needs_root()
    powerless = [needs("setpriv"), "--bounding-set=-all", "--inh-caps=-all"]
    return subprocess.run(
        [*powerless, sys.executable, "-m", "dm", *arguments],
        cwd=project,
        env={**home.variables(), **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_TIMEOUT_S,
    )


def give_away(folder: Path, *, mode: int = 0o755) -> None:
    """Let everything there be another user's, readable for all."""
    needs_root()
    for path in (*folder.rglob("*"), folder):
        os.chown(path, OTHER_USER, OTHER_USER, follow_symlinks=False)
    folder.chmod(mode)


def test_no_permission_in_the_store_is_exit_8(home: Home, project: Path, http_server: HttpServer) -> None:
    write_manifest(project, f'[a]\nuri = "{http_server.put("/a.bin", b"a")}"\n')
    give_away(home.data)
    before = snapshot(project, home.data)
    message = assert_one_error(as_other(home, project, "fetch"), 8)
    assert "permission denied" in message and str(home.data) in message
    assert before == snapshot(project, home.data)
    assert 0 == http_server.count("/a.bin")


def test_no_permission_in_the_project_is_exit_8(home: Home, project: Path, http_server: HttpServer) -> None:
    write_manifest(project, "[a]\nskip_download = true\n")
    give_away(project)
    before = snapshot(project)
    uri = http_server.put("/a.bin", b"a")
    done = as_other(home, project, "add", uri, "--name", "b")
    assert (8, "") == (done.returncode, done.stdout)
    # That it could not be recorded either is warned of; the one error is that it could not be declared.
    errors = [line for line in done.stderr.splitlines() if line.startswith("dm: error: ")]
    assert 1 == len(errors) and "permission denied" in errors[0] and str(project) in errors[0]
    assert before == snapshot(project)


@pytest.mark.parametrize("closed", ["file", "folder"])
def test_a_copy_in_a_pool_that_may_not_be_read_is_passed_over(
    home: Home, project: Path, http_server: HttpServer, tmp_path: Path, closed: str
) -> None:
    uri = http_server.put("/a.bin", b"a")
    write_manifest(project, f'[a]\nuri = "{uri}"\nchecksum = "sha256:{hashlib.sha256(b"a").hexdigest()}"\n')
    pool = tmp_path / "pool"
    copy = pool / "127.0.0.1" / "a.bin"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"a")
    give_away(pool)
    (copy if closed == "file" else copy.parent).chmod(0o700)
    done = as_other(home, project, "status", DATAMANIFEST_DATASETS_POOLS=str(pool))
    assert (0, True) == (done.returncode, done.stdout.startswith("missing")), done
    done = as_other(home, project, "fetch", DATAMANIFEST_DATASETS_POOLS=str(pool))
    assert 0 == done.returncode, done.stderr
    assert (closed == "file") == (f"passing over '{copy}'" in done.stderr), done.stderr
    assert b"a" == default_copy(home, "127.0.0.1/a.bin").read_bytes()
    default_copy(home, "127.0.0.1/a.bin").unlink()
    done = as_other(home, project, "verify", "--all", "--repair", DATAMANIFEST_DATASETS_POOLS=str(pool))
    assert 0 == done.returncode and b"a" == default_copy(home, "127.0.0.1/a.bin").read_bytes(), done


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_object_of_another_store_that_may_not_be_read_is_passed_over(
    ask: Ask, home: Home, project: Path, http_server: HttpServer, tmp_path: Path, kind: str
) -> None:
    data = make_archive("zip", [("x.bin", b"x")])
    entry = f'[a]\nuri = "{http_server.put("/a.zip", data)}"\n' + ("extract = true\n" if kind == "folder" else "")
    path = write_manifest(project, entry)
    root = tmp_path / "theirs"
    assert 0 == ask("fetch", env={"DATAMANIFEST_DATA_DIR": str(root)}).status
    path.write_text(path.read_text() + 'key = "mine.zip"\n')
    give_away(root)
    for each in root.glob(".dm/objects/*/*"):
        each.chmod(0o400)
    done = as_other(home, project, "fetch", DATAMANIFEST_CACHE_DIR=str(root))
    assert 0 == done.returncode, done.stderr
    assert "permission denied; looking further" in done.stderr
    assert 2 == http_server.count("/a.zip")


def test_doctor_tells_that_the_stat_cache_cannot_be_kept(home: Home, project: Path, ask: Ask) -> None:
    write_manifest(project)
    (home.data / "datamanifest").mkdir()
    give_away(home.cache)
    done = as_other(home, project, "doctor", "--json")
    found = {each["topic"]: each["verdict"] for each in json.loads(done.stdout)["findings"]}
    assert (0, "note") == (done.returncode, found["stat cache"]), done.stdout
    give_away(home.cache, mode=0o777)
    done = as_other(home, project, "doctor", "--json")
    assert "ok" == {each["topic"]: each["verdict"] for each in json.loads(done.stdout)["findings"]}["stat cache"]


def test_what_the_state_cannot_record_is_not_half_done(
    ask: Ask, home: Home, project: Path, http_server: HttpServer
) -> None:
    """In a project that this user may not write to data is unlocked and locked, and refresh says that it cannot."""
    write_manifest(project, f'[a]\nuri = "{http_server.put("/a.bin", b"a")}"\n')
    assert 0 == ask("fetch").status
    (project / ".datamanifest-state.toml").unlink()
    give_away(project)
    before = snapshot(project)
    assert "permission denied" in assert_one_error(as_other(home, project, "refresh"), 8)
    done = as_other(home, project, "unlock", "a")
    assert 0 == done.returncode and "permission denied" in done.stderr, done.stderr
    private = Path(as_other(home, project, "path", "a").stdout.strip())
    assert 0o200 == private.stat().st_mode & 0o200
    assert private != default_copy(home, "127.0.0.1/a.bin")
    assert 0 == as_other(home, project, "lock", "a").returncode
    assert not private.exists()
    assert str(default_copy(home, "127.0.0.1/a.bin")) == as_other(home, project, "path", "a").stdout.strip()
    assert before == snapshot(project)


def test_a_manifest_that_cannot_be_read_is_exit_8(home: Home, project: Path) -> None:
    path = write_manifest(project)
    give_away(project)
    path.chmod(0o600)
    for command in ("status", "fetch", "list"):
        message = assert_one_error(as_other(home, project, command), 8)
        assert str(path) in message and "permission denied" in message


def test_what_another_user_fetched_can_be_used(ask: Ask, home: Home, project: Path, http_server: HttpServer) -> None:
    write_manifest(project, f'[a]\nuri = "{http_server.put("/a.bin", b"a")}"\n')
    assert 0 == ask("fetch").status
    give_away(home.data)
    give_away(project)
    for command in ("fetch", "status", "verify", "path"):
        done = as_other(home, project, command, "a")
        assert (0, "") == (done.returncode, done.stderr), command
    assert 1 == http_server.count("/a.bin")


def test_what_may_not_be_deleted_stays_declared(ask: Ask, home: Home, project: Path, http_server: HttpServer) -> None:
    write_manifest(project, f'[a]\nuri = "{http_server.put("/a.bin", b"a")}"\n')
    assert 0 == ask("fetch").status
    give_away(home.data)
    before = snapshot(project, home.data)
    message = assert_one_error(as_other(home, project, "rm", "--delete", "a"), 8)
    assert "permission denied" in message
    assert before == snapshot(project, home.data)
    assert 0 == as_other(home, project, "rm", "a").returncode


def test_a_folder_that_may_not_be_looked_into_does_not_end_the_look_at_a_store(
    ask: Ask, home: Home, project: Path, http_server: HttpServer
) -> None:
    """``lost+found`` at the top of a disk, and what members of a group keep to themselves."""
    write_manifest(project, f'[a]\nuri = "{http_server.put("/a.bin", b"a" * 9000)}"\n')
    assert 0 == ask("fetch").status
    closed = store_root(home) / "lost+found"
    closed.mkdir()
    give_away(closed, mode=0o700)
    twin = default_copy(home, "elsewhere/b.bin")
    twin.parent.mkdir()
    twin.write_bytes(b"a" * 9000)
    twin.with_name(f"{twin.name}.complete").touch()
    done = as_other(home, project, "verify", "--all", "--json")
    told = {each["path"]: each.get("code") for each in json.loads(done.stdout)["outcomes"]}
    assert (0, "folder-closed", "ref-missing") == (done.returncode, told[str(closed)], told[str(twin)]), done.stderr
    done = as_other(home, project, "dedup")
    assert 0 == done.returncode, done.stderr
    assert str(twin) in done.stdout


def test_a_folder_that_lies_too_deep_does_not_end_the_look_at_a_store(
    ask: Ask, home: Home, project: Path, http_server: HttpServer
) -> None:
    write_manifest(project, f'[a]\nuri = "{http_server.put("/a.bin", b"a" * 9000)}"\n')
    assert 0 == ask("fetch").status
    script = "import os, sys; os.chdir(sys.argv[1]); [(os.mkdir('d' * 200), os.chdir('d' * 200)) for _ in range(30)]"
    subprocess.run([sys.executable, "-c", script, str(store_root(home) / "datasets")], check=True, timeout=60)
    answer = ask("verify", "--all")
    told = [each.get("code") for each in answer.outcomes]
    assert (0, [None, "folder-closed", None, None]) == (answer.status, told)
    assert 0 == ask("dedup").status
    assert "problem" not in {each["verdict"] for each in ask("doctor").document["findings"]}


def test_prune_leaves_a_store_where_a_tree_may_not_be_read(
    ask: Ask, home: Home, project: Path, http_server: HttpServer
) -> None:
    uri = http_server.put("/a.zip", make_archive("zip", [("x.bin", b"x"), ("y.bin", b"y")]))
    write_manifest(project, f'[a]\nuri = "{uri}"\nextract = true\n')
    assert 0 == ask("fetch").status
    store = DiskStore(store_root(home))
    [(_, ref)] = store.list_refs()
    assert ref.digest is not None
    tree = store.object_path(ref.digest)
    give_away(tree.parent)
    tree.chmod(0o400)
    before = snapshot(home.data)
    done = as_other(home, project, "prune", "--grace", "0")
    assert 8 == done.returncode and "permission denied" in done.stderr and "--repair" not in done.stderr, done.stderr
    assert before == snapshot(home.data)


def test_doctor_goes_on_where_the_store_may_not_be_looked_into(
    ask: Ask, home: Home, project: Path, http_server: HttpServer
) -> None:
    write_manifest(project, f'[a]\nuri = "{http_server.put("/a.bin", b"a")}"\n')
    assert 0 == ask("fetch").status
    give_away(store_root(home) / ".dm" / "partial", mode=0o700)
    done = as_other(home, project, "doctor", "--json")
    problems = [each for each in json.loads(done.stdout)["findings"] if each["verdict"] == "problem"]
    assert (8, 1) == (done.returncode, len(problems)), done.stderr
    assert "partial': permission denied" in problems[0]["text"]
    assert problems[0]["hint"]


def test_a_source_that_cannot_be_read_is_told(home: Home, project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "secret"
    folder.mkdir()
    (folder / "secret.txt").write_text("secret")
    give_away(folder)
    (folder / "secret.txt").chmod(0o600)
    write_manifest(project, f'[a]\nuri = "file://{folder}/secret.txt"\n')
    done = as_other(home, project, "fetch")
    assert done.returncode in (5, 8)
    assert "secret.txt" in assert_one_error(done, done.returncode)
    assert [] == list_litter(home, project)


# doctor ----------------------------------------------------------------------------------------------------------


def test_doctor_examines_and_finds_what_is_left(
    run_dm: RunDm, ask: Ask, project: Path, home: Home, http_server: HttpServer
) -> None:
    write_manifest(project, f'[a]\nuri = "{http_server.put("/a.bin", b"a" * 1000, pause_at=500)}"\n')
    answer = ask("doctor")
    assert 0 == answer.status
    topics = {finding["topic"] for finding in answer.document["findings"]}
    assert any("version" in topic or "dm" in topic for topic in topics), topics
    assert {"verdict", "topic", "text", "hint"} == set(answer.document["findings"][0])
    http_server.routes["/a.bin"].go.set()
    assert 0 == ask("fetch").status
    text = run_dm("doctor").stdout
    assert "reflink" in text and "hardlink" in text
    if os.geteuid() == 0:
        assert "root" in text


def test_doctor_counts_what_was_put_aside_in_words(
    run_dm: RunDm, project: Path, home: Home, http_server: HttpServer
) -> None:
    write_manifest(project, f'[a]\nuri = "{http_server.put("/a.bin", b"a" * 2048)}"\n')
    place = default_copy(home, "127.0.0.1/a.bin")
    place.parent.mkdir(parents=True)
    for told in ("1 thing put aside", "2 things put aside"):
        place.unlink(missing_ok=True)
        place.write_bytes(b"x" * 3000)
        assert 0 == run_dm("fetch", "--force").returncode
        assert re.search(f": {told}, [0-9.]+ KiB, in ", run_dm("doctor").stdout)


def test_doctor_finds_a_dead_lock(ask: Ask, project: Path, home: Home, http_server: HttpServer) -> None:
    write_manifest(project, f'[a]\nuri = "{http_server.put("/a.bin", b"a")}"\n')
    assert 0 == ask("fetch").status
    lock = default_copy(home, "127.0.0.1/a.bin.lock")
    lock.write_text("999999999 somewhere-else")
    os.utime(lock, (1, 1))
    assert any(str(lock) in str(finding) for finding in ask("doctor").document["findings"])


# demo ------------------------------------------------------------------------------------------------------------


def test_demo_runs_the_main_job_and_leaves_nothing(run_dm: RunDm, home: Home, project: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    before = snapshot(home.path, project)
    done = run_dm("demo", env={"TMPDIR": str(scratch)})
    assert (0, "") == (done.returncode, done.stderr)
    for shown in ("$ dm init", "$ dm add", "$ dm fetch", "(exit 4)", "[mended from its source]", "$ dm count-objects"):
        assert shown in done.stdout, shown
    assert before == snapshot(home.path, project)
    assert [] == os.listdir(scratch)


def test_demo_keeps_its_folder_when_asked(run_dm: RunDm, project: Path) -> None:
    assert 0 == run_dm("demo", "--keep", "kept").returncode
    assert (project / "kept" / "project" / "datamanifest.toml").exists()
    assert 6 == run_dm("demo", "--keep", "kept").returncode


def test_the_program_is_the_module(home: Home, project: Path) -> None:
    program = Path(sys.executable).with_name("dm")
    if not program.exists():
        skip_or_fail("dm is not installed beside this Python")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, env=home.variables())
    assert done.stdout.startswith("dm ")
    assert (CHECKOUT / "dm" / "__main__.py").exists()


@pytest.mark.parametrize("extra", ["", "extract = true\n"])
def test_a_place_of_the_users_on_another_file_system_gets_writable_files(
    ask: Ask, project: Path, http_server: HttpServer, small_tmpfs: MakeTmpfs, extra: str
) -> None:
    disk = small_tmpfs(4 << 20)
    uri = http_server.put("/a.zip", make_archive("zip", [("in/x.bin", b"x")]))
    write_manifest(project, f'[a]\nuri = "{uri}"\n{extra}storage_path = "$mine/a"\n')
    assert 0 == ask("fetch", env={"DATAMANIFEST_MINE_DIR": str(disk)}).status
    file = disk / "a" / "in" / "x.bin" if extra else disk / "a"
    assert 0o200 == file.stat().st_mode & 0o200
    assert ["a"] == sorted(path.name for path in disk.iterdir())


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_place_of_the_users_on_a_full_file_system_keeps_nothing_half_written(
    ask: Ask, project: Path, http_server: HttpServer, small_tmpfs: MakeTmpfs, kind: str
) -> None:
    disk = small_tmpfs(2 << 20)
    if kind == "file":
        uri, extra = http_server.put("/a.bin", os.urandom(3 << 20)), ""
    else:
        members = [(f"{number}.bin", os.urandom(1 << 20)) for number in range(3)]
        uri, extra = http_server.put("/a.zip", make_archive("zip", members)), "extract = true\n"
    write_manifest(project, f'[a]\nuri = "{uri}"\n{extra}storage_path = "$mine/a"\n')
    for _ in range(2):
        answer = ask("fetch", env={"DATAMANIFEST_MINE_DIR": str(disk)})
        assert 8 == answer.status, answer
        assert [] == list(disk.iterdir())
