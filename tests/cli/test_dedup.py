"""`dm dedup`: equal files share their bytes afterwards, and say the same."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dm.plumbing.store.disk import DiskStore
from tests.fixtures.commands import Ask, default_copy, snapshot, store_root, write_manifest
from tests.fixtures.homes import Home, RunDm
from tests.fixtures.machine import MakeImage, needs
from tests.fixtures.servers import HttpServer
from tests.fixtures.stores import blob_id, rot

BYTES = b"the same in both\n" * 1000


def peer_copy(home: Home, key: str, data: bytes) -> Path:
    """A copy as another tool leaves it: writable, marked, without a ref."""
    path = default_copy(home, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.with_name(f"{path.name}.complete").touch()
    return path


def fetched(home: Home, project: Path, http_server: HttpServer, run_dm: RunDm) -> Path:
    uri = http_server.put("/a.bin", BYTES)
    write_manifest(project, f'[a]\nuri = "{uri}"\n')
    assert 0 == run_dm("fetch").returncode
    return default_copy(home, "127.0.0.1/a.bin")


def blocks(*paths: Path) -> int:
    return len({path.stat().st_ino for path in paths})


def test_a_copy_that_another_tool_made_is_joined_with_ours(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    own = fetched(home, project, http_server, run_dm)
    other = peer_copy(home, "elsewhere/b.bin", BYTES)
    before = snapshot(home.data)
    told = ask("dedup", "--dry-run")
    assert before == snapshot(home.data)
    assert [(str(other), len(BYTES))] == [(item["path"], item["bytes"]) for item in told.outcomes]
    done = ask("dedup")
    assert [(str(other), len(BYTES))] == [(item["path"], item["bytes"]) for item in done.outcomes]
    assert BYTES == other.read_bytes() == own.read_bytes()
    assert 1 == blocks(own, other)
    assert 0 == run_dm("verify").returncode
    assert [] == ask("dedup").outcomes


def test_two_copies_of_other_tools_are_joined_and_folders_too(home: Home, project: Path, ask: Ask) -> None:
    write_manifest(project)
    one = peer_copy(home, "x/one.bin", BYTES)
    folder = default_copy(home, "x/folder")
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "two.bin").write_bytes(BYTES)
    (folder / ".complete").touch()
    done = ask("dedup", "--root", store_root(home))
    assert len(BYTES) == sum(item["bytes"] for item in done.outcomes)
    assert 1 == blocks(one, folder / "sub" / "two.bin")
    assert BYTES == (folder / "sub" / "two.bin").read_bytes()


def test_unmarked_files_other_content_and_executables_stay_apart(home: Home, project: Path, ask: Ask) -> None:
    write_manifest(project)
    peer_copy(home, "x/one.bin", BYTES)
    peer_copy(home, "x/other.bin", BYTES[::-1])
    loose = default_copy(home, "x/loose.bin")
    loose.write_bytes(BYTES)
    script = peer_copy(home, "x/run.sh", BYTES)
    script.chmod(0o755)
    before = snapshot(home.data)
    assert [] == ask("dedup", "--root", store_root(home)).outcomes
    assert before == snapshot(home.data)


def test_a_pool_is_joined_only_when_it_is_named(
    home: Home, project: Path, tmp_path: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    own = fetched(home, project, http_server, run_dm)
    pool = tmp_path / "pool"
    pool.mkdir()
    (pool / "mine.bin").write_bytes(BYTES)
    assert [] == ask("dedup").outcomes
    assert [str(pool / "mine.bin")] == [item["path"] for item in ask("dedup", "--include-pool", pool).outcomes]
    assert 1 == blocks(own, pool / "mine.bin")


def test_a_damaged_object_is_told_and_nothing_is_joined_with_it(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    own = fetched(home, project, http_server, run_dm)
    other = peer_copy(home, "elsewhere/b.bin", BYTES)
    own.chmod(0o644)
    with own.open("r+b") as file:
        file.write(b"X")
    own.unlink()
    own.write_bytes(BYTES)
    answer = ask("dedup")
    assert 4 == answer.status
    assert BYTES == other.read_bytes()


def put_other_tools_copies(root: Path, data: bytes) -> list[Path]:
    """Two copies of the same bytes as another tool leaves them, below a store without objects."""
    paths = [root / "datasets" / name for name in ("one.bin", "two.bin")]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.with_name(f"{path.name}.complete").touch()
    (root / ".dm").mkdir()
    (root / ".dm" / "format").write_text("dm store 1\n")
    return paths


def test_clones_keep_mode_and_times_and_are_known_as_joined(
    image_file_system: MakeImage, home: Home, project: Path, ask: Ask
) -> None:
    root = image_file_system("btrfs") / "root"
    write_manifest(project)
    paths = put_other_tools_copies(root, BYTES)
    for path in paths:
        os.utime(path, ns=(10**18, 10**18))
    environment = {"DATAMANIFEST_DATA_DIR": str(root)}
    done = ask("dedup", env=environment)
    assert len(BYTES) == sum(item["bytes"] for item in done.outcomes)
    assert {(0o644, 10**18)} == {(path.stat().st_mode & 0o777, path.stat().st_mtime_ns) for path in paths}
    assert [] == ask("dedup", env=environment).outcomes


@pytest.mark.parametrize(("data", "is_joined"), [(b"small", False), (BYTES * 20, True)])
def test_what_clones_share_nothing_of_stays_and_what_is_compressed_is_joined_once(
    image_file_system: MakeImage, project: Path, ask: Ask, data: bytes, is_joined: bool
) -> None:
    root = image_file_system("btrfs") / "root"
    root.mkdir()
    subprocess.run([needs("chattr"), "+c", str(root)], check=True)
    write_manifest(project)
    put_other_tools_copies(root, data)
    environment = {"DATAMANIFEST_DATA_DIR": str(root)}
    told = ask("dedup", "--dry-run", env=environment)
    assert len(data) * is_joined == sum(item["bytes"] for item in told.outcomes)
    assert 2 * is_joined == len(told.outcomes)
    ask("dedup", env=environment)
    assert [] == ask("dedup", "--dry-run", env=environment).outcomes


def test_good_bytes_never_give_way_to_an_object_that_rotted_unseen(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    own = fetched(home, project, http_server, run_dm)
    other = peer_copy(home, "elsewhere/b.bin", BYTES)
    rot(
        DiskStore(store_root(home)).object_path(blob_id(BYTES)),
        own,
        database=home.cache / "datamanifest" / "stat-v1.db",
    )
    assert "clean" == ask("status", "a").only["state"]  # unseen indeed
    answer = ask("dedup")
    assert (4, "object-damaged") == (answer.status, answer.only["code"])
    assert BYTES == other.read_bytes()


def test_what_no_link_can_join_is_not_promised(home: Home, project: Path, ask: Ask) -> None:
    """Executable files are never hard-linked: where there are no clones each keeps its bytes."""
    write_manifest(project)
    for key in ("x/one.sh", "x/two.sh"):
        peer_copy(home, key, BYTES).chmod(0o755)
    before = snapshot(home.data)
    assert [] == ask("dedup", "--dry-run", env={"DATAMANIFEST_LINK": "hardlink"}).outcomes
    assert [] == ask("dedup", env={"DATAMANIFEST_LINK": "hardlink"}).outcomes
    assert before == snapshot(home.data)
