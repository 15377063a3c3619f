"""`dm pin`: what is on disk becomes the contract, and only that entry's digests change."""

from __future__ import annotations

import hashlib
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.cli.test_machine import fill
from tests.fixtures.archives import read_tree
from tests.fixtures.commands import Ask, default_copy, snapshot, write_manifest
from tests.fixtures.homes import Home, RunDm
from tests.fixtures.machine import MakeTmpfs
from tests.fixtures.servers import HttpServer


def entry(project: Path, name: str) -> dict[str, str]:
    table: dict[str, str] = tomllib.loads((project / "datamanifest.toml").read_text())[name]
    return table


def edit(copy: Path, data: bytes) -> None:
    copy.unlink()
    copy.write_bytes(data)


def fetched(project: Path, http_server: HttpServer, run_dm: RunDm, extra: str = "") -> None:
    uri = http_server.put("/sst.bin", b"first")
    write_manifest(project, f'# kept\n[sst]\nuri = "{uri}"  # kept too\n{extra}')
    assert 0 == run_dm("fetch").returncode


def test_an_edit_that_was_meant_is_accepted(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    fetched(project, http_server, run_dm)
    edit(default_copy(home, "127.0.0.1/sst.bin"), b"second")
    assert 4 == run_dm("verify").returncode
    answer = ask("pin", "sst")
    assert (0, "ok", "clean") == (answer.status, answer.only["status"], answer.only["state"])
    assert f"sha256:{hashlib.sha256(b'second').hexdigest()}" == entry(project, "sst")["checksum"]
    assert 0 == run_dm("verify").returncode
    assert "clean" == ask("status", "sst").only["state"]
    assert 2 == (project / "datamanifest.toml").read_text().count("kept")


def test_the_declared_algorithm_is_kept(home: Home, project: Path, http_server: HttpServer, run_dm: RunDm) -> None:
    fetched(project, http_server, run_dm, f'checksum = "md5:{hashlib.md5(b"first").hexdigest()}"\n')
    edit(default_copy(home, "127.0.0.1/sst.bin"), b"second")
    assert 0 == run_dm("pin", "sst").returncode
    assert f"md5:{hashlib.md5(b'second').hexdigest()}" == entry(project, "sst")["checksum"]


def test_the_older_spelling_gives_way(home: Home, project: Path, http_server: HttpServer, run_dm: RunDm) -> None:
    fetched(project, http_server, run_dm, f'sha256 = "{hashlib.sha256(b"first").hexdigest()}"\n')
    edit(default_copy(home, "127.0.0.1/sst.bin"), b"second")
    assert 0 == run_dm("pin", "sst").returncode
    assert f"sha256:{hashlib.sha256(b'second').hexdigest()}" == entry(project, "sst")["checksum"]
    assert "sha256" not in entry(project, "sst")


def test_a_folder_gets_both_digests(project: Path, run_dm: RunDm, ask: Ask) -> None:
    (project / "data").mkdir()
    (project / "data" / "a.txt").write_text("a")
    write_manifest(project)
    assert 0 == run_dm("add", "data").returncode
    before = entry(project, "data")
    (project / "data" / "b.txt").write_text("b")
    assert 0 == run_dm("pin", "data").returncode
    after = entry(project, "data")
    assert before["digest"] != after["digest"] and before["checksum"] != after["checksum"]
    assert "clean" == ask("status", "data").only["state"]
    assert {"a.txt", "b.txt"} == set(read_tree(project / "data"))


def test_what_is_pinned_already_is_unchanged(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    fetched(project, http_server, run_dm)
    before = (project / "datamanifest.toml").read_bytes()
    assert "unchanged" == ask("pin", "sst").only["status"]
    assert before == (project / "datamanifest.toml").read_bytes()


def test_the_dry_run_names_both_digests_and_writes_nothing(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    fetched(project, http_server, run_dm)
    edit(default_copy(home, "127.0.0.1/sst.bin"), b"second")
    before = snapshot(home.data, project)
    message = ask("pin", "sst", "--dry-run").only["message"]
    assert hashlib.sha256(b"first").hexdigest() in message and hashlib.sha256(b"second").hexdigest() in message
    assert before == snapshot(home.data, project)


def test_a_dataset_that_is_not_there_is_exit_3(project: Path, run_dm: RunDm) -> None:
    write_manifest(project, '[sst]\nuri = "https://example.invalid/sst.nc"\n')
    done = run_dm("pin", "sst")
    assert 3 == done.returncode
    assert "'sst' is not there" in done.stderr


def test_one_with_skip_checksum_is_refused(project: Path, http_server: HttpServer, run_dm: RunDm) -> None:
    fetched(project, http_server, run_dm, "skip_checksum = true\n")
    done = run_dm("pin", "sst")
    assert 6 == done.returncode
    assert "cannot pin 'sst': it says 'skip_checksum'" in done.stderr


def test_names_are_asked_for(project: Path, run_dm: RunDm) -> None:
    write_manifest(project)
    assert 2 == run_dm("pin").returncode


@pytest.mark.needs_root
def test_a_copy_in_a_store_that_cannot_be_written_to_is_pinned(
    small_tmpfs: MakeTmpfs, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    folder = small_tmpfs(4 << 20)
    environment = {"DATAMANIFEST_DATA_DIR": str(folder / "store")}
    uris = [http_server.put(f"/{name}.bin", name.encode()) for name in ("a", "b")]
    write_manifest(project, *(f'[{name}]\nuri = "{uri}"\n' for name, uri in zip("ab", uris, strict=True)))
    assert 0 == run_dm("fetch", env=environment).returncode
    write_manifest(project, *(f'[{name}]\nuri = "{uri}"\n' for name, uri in zip("ab", uris, strict=True)))
    (project / ".datamanifest-state.toml").unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)

    answer = ask("pin", "a", "b", env=environment)

    assert (0, ["ok", "ok"]) == (answer.status, [each["status"] for each in answer.outcomes]), answer.stderr
    assert ["clean", "clean"] == [each["state"] for each in ask("status", env=environment).outcomes]


@pytest.mark.needs_root
def test_on_a_full_disk_it_says_what_was_pinned_all_the_same(
    project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask, small_tmpfs: MakeTmpfs
) -> None:
    disk = small_tmpfs(1 << 20)
    variables = {"DATAMANIFEST_DATA_DIR": str(disk / "store")}
    uri = http_server.put("/sst.bin", b"first")
    write_manifest(project, f'[sst]\nuri = "{uri}"\n')
    assert 0 == run_dm("fetch", env=variables).returncode
    edit(disk / "store" / "datasets" / "127.0.0.1" / "sst.bin", b"second")
    ballast = fill(disk, leave_bytes=0)
    answer = ask("pin", "sst", env=variables)
    new = f"sha256:{hashlib.sha256(b'second').hexdigest()}"
    assert (8, new) == (answer.status, entry(project, "sst")["checksum"])
    assert f"'sst' is pinned as {new}" in answer.only["message"]
    assert "disk full" in answer.only["message"]
    ballast.unlink()
    assert 0 == run_dm("verify", env=variables).returncode
