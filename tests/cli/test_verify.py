"""`dm verify`: every byte is read, what differs is named, nothing else is reported, and no data is changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from dm.plumbing.hashing import blake3_of
from tests.fixtures.commands import (
    Answer,
    Ask,
    assert_one_error,
    default_copy,
    snapshot,
    store_root,
    write_manifest,
)
from tests.fixtures.homes import Home, RunDm
from tests.fixtures.servers import HttpServer


def fetched(project: Path, server: HttpServer, run_dm: RunDm, *names: str) -> None:
    tables = [f'[{name}]\nuri = "{server.put(f"/{name}.bin", name.encode() * 100)}"\n' for name in names]
    write_manifest(project, *tables)
    assert 0 == run_dm("fetch").returncode


def copy_of(home: Home, name: str) -> Path:
    return default_copy(home, f"127.0.0.1/{name}.bin")


def overwrite(path: Path, data: bytes) -> None:
    """Other bytes of the same size and time, in the same file."""
    about = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(data)
    path.chmod(0o444)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def store_folder(home: Home, run_dm: RunDm, tmp_path: Path) -> Path:
    """A folder of three files, published into the store."""
    staged = tmp_path / "staged"
    (staged / "sub").mkdir(parents=True)
    for name in ("a", "sub/b", "sub/c"):
        (staged / name).write_text(f"content of {name}")
    target = store_root(home) / "datasets" / "folder"
    done = run_dm("publish", staged, target, "--root", store_root(home))
    assert 0 == done.returncode, done.stderr
    return target


@pytest.mark.parametrize("command", ["verify", "fetch"])
def test_a_file_where_the_contract_is_a_folder_is_told_as_that(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, command: str
) -> None:
    fetched(project, http_server, run_dm, "a")
    manifest = project / "datamanifest.toml"
    lines = [line for line in manifest.read_text().splitlines() if not line.startswith("checksum")]
    manifest.write_text("\n".join([*lines, f'digest = "blake3-tree:{"a" * 64}"']) + "\n")
    done = run_dm(command, "a")
    assert 4 == done.returncode
    found = f"blake3:{blake3_of(b'a' * 100).hex()}"
    assert f"its bytes are {found}, the manifest says blake3-tree:{'a' * 64}" in done.stderr


def test_a_changed_byte_is_found_though_size_and_times_are_as_before(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    fetched(project, http_server, run_dm, "a", "b")
    overwrite(copy_of(home, "a"), b"A")
    answer = ask("verify")
    assert 4 == answer.status
    assert {"a": "failed", "b": "ok"} == {item["name"]: item["status"] for item in answer.outcomes}


def test_a_path_is_compared_with_its_ref_without_a_manifest(
    home: Home, tmp_path: Path, run_dm: RunDm, ask: Ask
) -> None:
    folder = store_folder(home, run_dm, tmp_path)
    assert "ok" == ask("verify", folder).only["status"]
    assert "ok" == ask("verify", folder / "sub" / "b").only["status"]
    (folder / "sub" / "b").unlink()
    (folder / "new").write_text("new")
    overwrite(folder / "a", b"X")
    answer = ask("verify", folder)
    found = {(each["path"], each["how"]) for each in answer.only["differences"]}
    assert (4, {("a", "changed"), ("new", "added"), ("sub/b", "lost")}) == (answer.status, found)


def test_a_folder_that_was_copied_from_elsewhere_is_verified_by_its_refs(
    home: Home, tmp_path: Path, run_dm: RunDm, ask: Ask
) -> None:
    store_folder(home, run_dm, tmp_path)
    elsewhere = tmp_path / "usb"
    shutil.copytree(store_root(home), elsewhere)
    assert 0 == ask("verify", elsewhere).status
    overwrite(elsewhere / "datasets" / "folder" / "a", b"X")
    answer = ask("verify", elsewhere)
    assert 4 == answer.status
    [failed] = [item for item in answer.outcomes if item["status"] == "failed"]
    assert ("datasets/folder", [{"path": "a", "how": "changed"}]) == (failed["name"], failed["differences"])


def test_all_finds_a_damaged_object_and_names_the_copies_that_need_it(
    home: Home, tmp_path: Path, project: Path, run_dm: RunDm, ask: Ask
) -> None:
    folder = store_folder(home, run_dm, tmp_path)
    write_manifest(project)
    objects = [path for path in (store_root(home) / ".dm" / "objects").rglob("*") if path.is_file()]
    [damaged] = [path for path in objects if path.read_bytes() == b"content of sub/c"]
    overwrite(damaged, b"X")
    answer = ask("verify", "--all")
    assert 4 == answer.status
    codes = {item["code"] for item in answer.outcomes if item["status"] == "failed"}
    assert "object-damaged" in codes
    [told] = [item for item in answer.outcomes if item["code"] == "object-damaged"]
    assert "it is needed by datasets/folder" in told["message"]
    assert folder.is_dir()


def test_all_tells_what_is_untidy_without_failing(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    fetched(project, http_server, run_dm, "a", "b")
    copy_of(home, "a").unlink()
    (copy_of(home, "gone").parent / "gone.bin.complete").touch()
    answer = ask("verify", "--all")
    codes = {item.get("code") for item in answer.outcomes}
    assert {"copy-missing", "marker-stray"} <= codes
    assert 0 == answer.status


def test_all_reports_nothing_of_a_sound_store(
    project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    fetched(project, http_server, run_dm, "a", "b")
    answer = ask("verify", "--all")
    assert 0 == answer.status
    assert {"ok"} == {item["status"] for item in answer.outcomes}


def test_verify_changes_no_data_and_records_when_it_looked(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm
) -> None:
    fetched(project, http_server, run_dm, "a")
    overwrite(copy_of(home, "a"), b"X")
    datasets = store_root(home) / "datasets"
    before = snapshot(datasets, project)
    assert 4 == run_dm("verify").returncode
    assert before == snapshot(datasets, project)


def test_older_than_passes_over_what_was_read_lately(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    fetched(project, http_server, run_dm, "a", "b")
    ref = store_root(home) / ".dm" / "refs" / copy_of(home, "a").relative_to(store_root(home))
    words = ref.read_text().split()
    words[3] = "2020-01-01T00:00:00Z"
    ref.write_text(" ".join(words) + "\n")
    assert ["a"] == [item["name"] for item in ask("verify", "--older-than", "30d").outcomes]
    assert [] == ask("verify", "--older-than", "30d").outcomes
    assert "2020" not in ref.read_text()


def test_no_time_begins_nothing_and_says_so(
    project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    fetched(project, http_server, run_dm, "a", "b")
    answer = ask("verify", "--max-time", "0")
    assert (0, {"time-up"}) == (answer.status, {item["code"] for item in answer.outcomes})


def test_the_contract_is_computed_when_it_is_asked_for(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    fetched(project, http_server, run_dm, "a")
    assert 0 == ask("verify", "--contract").status
    assert 2 == run_dm("verify", "--contract", "--quick").returncode


def test_quick_says_what_it_did_not_read(project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask) -> None:
    fetched(project, http_server, run_dm, "a")
    ask("verify")
    message = ask("verify", "--quick").only["message"]
    assert "bytes not read" in message


def test_a_path_that_no_store_knows_is_exit_3(tmp_path: Path, run_dm: RunDm) -> None:
    (tmp_path / "mine").write_text("mine")
    done = run_dm("verify", tmp_path / "mine")
    assert 3 == done.returncode
    assert "no store knows" in done.stderr


def test_all_goes_without_names(project: Path, run_dm: RunDm) -> None:
    write_manifest(project)
    assert 2 == run_dm("verify", "--all", "a").returncode


def test_no_time_leaves_objects_unread_and_says_how_many(
    home: Home, tmp_path: Path, project: Path, run_dm: RunDm, ask: Ask
) -> None:
    write_manifest(project)
    folder = store_folder(home, run_dm, tmp_path)
    overwrite(folder / "sub" / "c", b"X")
    answer = ask("verify", "--all", "--max-time", "0")
    assert 0 == answer.status
    [told] = [item for item in answer.outcomes if (item["path"] or "").endswith(".dm/objects")]
    assert ("skipped", "time-up") == (told["status"], told["code"])
    assert told["message"].startswith("5 of 5 objects (")
    assert told["message"].endswith("bytes) are still to be read: the time is up; called again, it goes on there")
    assert 4 == ask("verify", "--all").status


def test_all_within_a_time_goes_on_where_it_stopped(
    home: Home, tmp_path: Path, project: Path, run_dm: RunDm, ask: Ask
) -> None:
    write_manifest(project)
    store_folder(home, run_dm, tmp_path)
    objects = sorted(path for path in (store_root(home) / ".dm" / "objects").rglob("*") if path.is_file())
    record = store_root(home) / ".dm" / "looked"
    record.write_text(f"2020-01-01T00:00:00Z 2026-01-01T00:00:00Z {objects[2].parent.name}{objects[2].name}\n")
    answer = ask("verify", "--all", "--max-time", "1h")
    assert (0, "3 objects are sound, 2 were read by an earlier call") == (answer.status, told_of_objects(home, answer))
    assert "2026-01-01T00:00:00Z - -\n" == record.read_text()
    assert "5 objects are sound" == told_of_objects(home, ask("verify", "--all", "--max-time", "1h"))


def told_of_objects(home: Home, answer: Answer) -> str:
    [told] = [item["message"] for item in answer.outcomes if item["path"] == str(store_root(home))]
    return str(told)


def test_older_than_passes_over_objects_that_were_all_read_lately(
    home: Home, tmp_path: Path, project: Path, run_dm: RunDm, ask: Ask
) -> None:
    write_manifest(project)
    folder = store_folder(home, run_dm, tmp_path)
    record = store_root(home) / ".dm" / "looked"
    assert 0 == ask("verify", "--all").status
    whole = record.read_text().split()[0]
    overwrite(folder / "sub" / "c", b"X")
    answer = ask("verify", "--all", "--older-than", "30d")
    assert (0, f"its objects are not read again: all were since {whole}") == (
        answer.status, told_of_objects(home, answer),
    )  # fmt: skip
    record.write_text("2020-01-01T00:00:00Z - -\n")
    for _ in range(2):  # a look that found damage does not count
        assert 4 == ask("verify", "--all", "--older-than", "30d").status
        assert record.read_text().startswith("2020")


def test_all_quick_says_what_it_did_not_read(
    home: Home, tmp_path: Path, project: Path, run_dm: RunDm, ask: Ask
) -> None:
    write_manifest(project)
    store_folder(home, run_dm, tmp_path)
    for path in (store_root(home) / ".dm" / "objects").rglob("*"):
        os.utime(path, ns=(1, 1))  # as if it was written long ago
    assert 0 == ask("verify", "--all").status
    told = told_of_objects(home, ask("verify", "--all", "--quick"))
    assert told.startswith("5 objects are sound; ")
    assert told.endswith(" bytes not read: their stat data are unchanged")


@pytest.mark.parametrize("command", [("verify",), ("verify", "--all"), ("prune",), ("dedup", "--dry-run")])
def test_a_store_that_is_not_there_is_not_found_to_be_well(
    run_dm: RunDm, project: Path, command: tuple[str, ...]
) -> None:
    message = assert_one_error(run_dm(*command, "--root", "nowhere"), 3)
    assert f"there is no store at '{project / 'nowhere'}'" == message


def test_a_length_of_time_has_no_end(ask: Ask, project: Path) -> None:
    write_manifest(project)
    assert 0 == ask("verify", "--older-than", f"{10**14}d").status
    assert 0 == ask("verify", "--all", "--older-than", f"{10**14}d").status


def test_a_store_that_was_copied_without_some_of_its_own_folders_is_verified(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    fetched(project, http_server, run_dm, "a")
    shutil.rmtree(store_root(home) / ".dm" / "objects")
    answer = ask("verify", store_root(home))
    assert (0, ["ok", "ok"]) == (answer.status, [each["status"] for each in answer.outcomes])
    shutil.rmtree(store_root(home) / ".dm" / "refs")
    assert 0 == ask("verify", "--max-time", "5s", store_root(home)).status


def test_a_name_that_is_no_text_is_said_once(project: Path, run_dm: RunDm) -> None:
    write_manifest(project)
    done = run_dm("verify", os.fsdecode(b"\xff"))
    assert (3, "dm: error: no dataset '\\udcff'") == (done.returncode, done.stderr.splitlines()[0])
