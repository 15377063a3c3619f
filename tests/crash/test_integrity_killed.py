"""Repair, dedup and prune that are killed, beside each other, on a full disk, or stopped by Ctrl-C: no byte is lost."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dm.plumbing.fs.temporary import is_temporary
from dm.plumbing.store.disk import DiskStore, StoreOptions
from dm.plumbing.store.refs import Ref
from dm.porcelain.verifying.stores import verify_store
from dm.values import Digest
from tests.cli.test_machine import fill
from tests.fixtures.commands import (
    Ask,
    StartDm,
    default_copy,
    kill_when,
    list_paths,
    store_root,
    wait_for,
    write_manifest,
)
from tests.fixtures.homes import Home
from tests.fixtures.machine import MakeTmpfs
from tests.fixtures.servers import HttpServer
from tests.fixtures.stores import blob_id, publish

KILLS = 20
FILES = 150


def make_store(root: Path) -> DiskStore:
    return DiskStore(root, options=StoreOptions(link=("hardlink",), durable=False))


def publish_folder(store: DiskStore, name: str) -> dict[str, bytes]:
    """A folder of 150 files in a store; returns their bytes by path."""
    model = {f"sub{number % 5}/{number}.bin": b"%d\n" % number * 500 for number in range(FILES)}
    publish(store, name, model)
    return model


def spoil(store: DiskStore, path: Path, data: bytes, bad: bytes) -> None:
    """Other bytes in a file and in the object that it is a link of, and in nothing else: a repair may have linked them
    to the object of another store.
    """
    place = store.object_path(blob_id(data))
    for each in (place, path):
        each.unlink()
    place.write_bytes(bad)
    os.link(place, path)


def kill_at(process: subprocess.Popen[str], folder: Path, pattern: str, changes: int) -> bool:
    """Kill a command in the middle of its work: after so many changes of how many paths match below a folder."""

    def count() -> int:
        return len(list_paths(folder, pattern))

    before = count()
    return kill_when(process, lambda: abs(count() - before) >= changes)


def run(start: Callable[[], subprocess.Popen[str]]) -> None:
    status, stdout, stderr = wait_for(start())
    assert 0 == status, (stdout, stderr)


def read_files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".complete"
    }


def list_leftovers(root: Path) -> list[Path]:
    """Work that is under way, and temporary files outside the quarantine."""
    found = [path for path in (root / ".dm" / "partial").iterdir() if path.is_dir() and any(path.iterdir())]
    return found + [path for path in (root / "datasets").rglob("*") if is_temporary(path.name)]


def failures(store: DiskStore) -> list[str]:
    return [f"{each.name}: {each.message}" for each in verify_store(store) if each.failed]


@pytest.mark.parametrize("everything", [False, True])
def test_a_kill_in_a_repair_loses_nothing_and_the_next_one_completes(
    home: Home, project: Path, start_dm: StartDm, everything: bool
) -> None:
    write_manifest(project)
    root = store_root(home)
    store = make_store(root)
    model = publish_folder(store, "datasets/set")
    publish_folder(make_store(home.cache / "datamanifest"), "datasets/set")
    folder = root / "datasets" / "set"
    rng = random.Random(1)

    def damage(round: int) -> dict[str, bytes]:
        bad = {path: b"bad %d " % round + data for path, data in model.items() if rng.random() < 0.6}
        for path, data in bad.items():
            if everything or rng.random() < 0.5:
                spoil(store, folder / path, model[path], data)
            else:
                (folder / path).unlink()
                (folder / path).write_bytes(data)
        if not everything:
            (folder / f"added{round}").write_bytes(b"added %d" % round)
        return bad

    def start() -> subprocess.Popen[str]:
        return start_dm("verify", "--repair", "--all" if everything else folder)

    killed = 0
    for round in range(KILLS):
        bad = damage(round)
        killed += kill_at(start(), root / ".dm", "quarantine/*", rng.randrange(1, len(bad)))
        kept = {path.read_bytes() for path in (root / ".dm" / "quarantine").rglob("*") if path.is_file()}
        found = read_files(folder)
        for path, data in model.items():
            assert found.get(path) in (data, bad.get(path), None), path
            assert path in found or bad.get(path) in kept or path not in bad, f"{path} is lost"
            assert path not in bad or bad[path] in kept or found[path] == bad[path], f"the bad bytes of {path} are lost"
        assert everything or b"added %d" % round in kept or (folder / f"added{round}").exists()
        if not (folder / ".complete").exists():
            assert "complete" != store.state_of(folder)
        status, stdout, stderr = wait_for(start())
        assert 0 == status, (round, stdout, stderr)
        assert model == read_files(folder)
        if everything and "complete" != store.state_of(folder):
            assert 0 == wait_for(start())[0]  # it was marked last of all
        assert "complete" == store.state_of(folder)
        assert [] == list_leftovers(root)
    assert killed, "no kill came in the middle of a repair"
    assert [] == failures(store)


def test_a_kill_in_a_dedup_changes_no_byte_and_the_next_one_completes(
    home: Home, project: Path, start_dm: StartDm, ask: Ask
) -> None:
    write_manifest(project)
    root = store_root(home)
    (root / "datasets").mkdir(parents=True)
    rng = random.Random(2)
    expected: dict[str, bytes] = {}

    def add(round: int) -> None:
        for number in range(30):
            data = b"%d %d\n" % (round, number // 3) * 700
            path = root / "datasets" / f"{round}-{number}.bin"
            path.write_bytes(data)
            path.with_name(f"{path.name}.complete").touch()
            expected[path.name] = data

    def check() -> None:
        found = {path.name: path.read_bytes() for path in (root / "datasets").iterdir() if path.suffix == ".bin"}
        assert expected == found

    def start() -> subprocess.Popen[str]:
        return start_dm("dedup")

    killed = 0
    for round in range(KILLS):
        add(round)
        killed += kill_at(start(), root / ".dm", "objects/*/*", rng.randrange(1, 10))
        check()
        status, stdout, stderr = wait_for(start())
        assert 0 == status, (stdout, stderr)
        check()
        assert [] == list_leftovers(root)
    assert killed, "no kill came in the middle of a dedup"
    assert [] == ask("dedup").outcomes
    assert 10 * KILLS == len({path.stat().st_ino for path in (root / "datasets").glob("*.bin")})
    assert [] == failures(make_store(root))


def test_a_kill_in_a_prune_removes_nothing_that_is_reached_and_the_next_one_completes(
    home: Home, project: Path, tmp_path: Path, start_dm: StartDm, ask: Ask
) -> None:
    write_manifest(project)
    root = store_root(home)
    store = make_store(root)
    model = publish_folder(store, "datasets/set")
    reached = {digest for digest, _ in store.list_objects()}
    rng = random.Random(3)

    def add(round: int) -> None:
        folder = tmp_path / "more"
        for number in range(150):
            folder.mkdir(exist_ok=True)
            (folder / str(number)).write_bytes(b"%d %d" % (round, number))
        store.ingest(folder)
        shutil.rmtree(folder)

    def start() -> subprocess.Popen[str]:
        return start_dm("prune", "--grace", "0")

    killed = 0
    for round in range(KILLS):
        add(round)
        killed += kill_at(start(), root / ".dm", "objects/*/*", rng.randrange(1, 150))
        assert reached <= {digest for digest, _ in store.list_objects()}
        status, stdout, stderr = wait_for(start())
        assert 0 == status, (stdout, stderr)
        assert reached == {digest for digest, _ in store.list_objects()}
    assert killed, "no kill came in the middle of a prune"
    assert model == read_files(root / "datasets" / "set")
    assert [] == failures(store)


def test_two_repairs_at_once_mend_it_once_and_agree(
    home: Home, project: Path, start_dm: StartDm, ask: Ask
) -> None:
    write_manifest(project)
    root = store_root(home)
    store = make_store(root)
    model = publish_folder(store, "datasets/set")
    publish_folder(make_store(home.cache / "datamanifest"), "datasets/set")
    folder = root / "datasets" / "set"
    for round in range(5):
        for path in list(model)[::2]:
            spoil(store, folder / path, model[path], b"bad %d %s" % (round, path.encode()))
        words = ("verify", "--all", "--repair") if round % 2 else ("verify", folder, "--repair")
        both = [start_dm(*words) for _ in range(2)]
        for process in both:
            status, stdout, stderr = wait_for(process)
            assert 0 == status, (round, stdout, stderr)
        assert model == read_files(folder)
        kept = {path.read_bytes() for path in (root / ".dm" / "quarantine").rglob("*") if path.is_file()}
        assert {b"bad %d %s" % (round, path.encode()) for path in list(model)[::2]} <= kept
    assert [] == failures(store)
    assert [] == list_leftovers(root)


def test_prune_beside_fetch_never_fails_a_fetch(
    home: Home, project: Path, http_server: HttpServer, start_dm: StartDm, ask: Ask
) -> None:
    names = [f"d{number}" for number in range(12)]
    tables = [f'[{name}]\nuri = "{http_server.put(f"/{name}.bin", name.encode() * 5000)}"\n' for name in names]
    write_manifest(project, *tables)
    assert 0 == ask("fetch").status
    for _ in range(6):
        for name in names:
            copy = default_copy(home, f"127.0.0.1/{name}.bin")
            copy.unlink()
            copy.with_name(f"{copy.name}.complete").unlink()
            (store_root(home) / ".dm" / "refs" / copy.relative_to(store_root(home))).unlink()
        both = [start_dm("fetch"), start_dm("prune", "--grace", "0")]
        for process in both:
            status, stdout, stderr = wait_for(process)
            assert 0 == status, (stdout, stderr)
        for name in names:
            assert name.encode() * 5000 == default_copy(home, f"127.0.0.1/{name}.bin").read_bytes()
        assert 0 == ask("verify", "--all").status


def test_ctrl_c_ends_a_verify_in_the_middle_of_a_file(
    home: Home, project: Path, start_dm: StartDm
) -> None:
    """The file is a sparse one of 1 TiB, which takes minutes to read: only an interruption ends it."""
    write_manifest(project)
    copy = store_root(home) / "datasets" / "huge"
    copy.parent.mkdir(parents=True)
    with copy.open("wb") as file:
        file.truncate(1 << 40)
    make_store(store_root(home)).write_ref("datasets/huge", Ref(Digest.parse(f"blake3:{'0' * 64}"), 1 << 40, 1))
    process = start_dm("verify", copy)
    while True:
        assert process.poll() is None, process.communicate()
        words = Path(f"/proc/{process.pid}/io").read_text().split()
        if int(words[words.index("rchar:") + 1]) > 200_000_000:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    status, stdout, stderr = wait_for(process)
    assert (130, "") == (status, stdout)
    assert "Traceback" not in stderr


# A full disk -----------------------------------------------------------------------------------------------------


@pytest.mark.needs_root
def test_a_full_disk_in_a_repair_loses_nothing_and_room_mends_it(
    home: Home, project: Path, tmp_path: Path, ask: Ask, small_tmpfs: MakeTmpfs
) -> None:
    write_manifest(project)
    disk = small_tmpfs(4 << 20)
    root = disk / "store"
    model = publish_folder(make_store(root), "datasets/set")
    spare = tmp_path / "spare"
    publish_folder(make_store(spare), "datasets/set")
    folder = root / "datasets" / "set"
    for path in model:
        (folder / path).chmod(0o644)
        (folder / path).write_bytes(b"bad " + path.encode())
    ballast = fill(disk, leave_bytes=64 << 10)
    variables = {"DATAMANIFEST_DATA_DIR": str(root), "DATAMANIFEST_CACHE_DIR": str(spare)}
    for _ in range(2):
        answer = ask("verify", folder, "--repair", env=variables)
        assert answer.status in (4, 8), answer
        assert "disk full" in str(answer.document)
        kept = {path.read_bytes() for path in (root / ".dm" / "quarantine").rglob("*") if path.is_file()}
        found = read_files(folder)
        for path, data in model.items():
            assert b"bad " + path.encode() in {*kept, found.get(path)}
            assert found.get(path) in (data, b"bad " + path.encode(), None)
    ballast.unlink()
    assert 0 == ask("verify", folder, "--repair", env=variables).status
    assert model == read_files(folder)
    assert 0 == ask("verify", "--all", "--repair", env=variables).status
    assert 0 == ask("verify", "--all", env=variables).status


@pytest.mark.needs_root
def test_a_full_disk_in_a_dedup_changes_no_byte(
    project: Path, ask: Ask, small_tmpfs: MakeTmpfs
) -> None:
    write_manifest(project)
    disk = small_tmpfs(4 << 20)
    root = disk / "store"
    (root / "datasets").mkdir(parents=True)
    data = os.urandom(600_000)
    for name in ("a", "b", "c"):
        (root / "datasets" / name).write_bytes(data)
        (root / "datasets" / f"{name}.complete").touch()
    ballast = fill(disk, leave_bytes=300_000)
    variables = {"DATAMANIFEST_DATA_DIR": str(root)}
    for _ in range(2):
        answer = ask("dedup", "--root", root, env=variables)
        assert 8 == answer.status, answer
        assert "disk full" in str(answer.document)
        assert [data] * 3 == [(root / "datasets" / name).read_bytes() for name in ("a", "b", "c")]
        assert [] == list_leftovers(root)
    ballast.unlink()
    assert 0 == ask("dedup", "--root", root, env=variables).status
    assert 1 == len({(root / "datasets" / name).stat().st_ino for name in ("a", "b", "c")})
