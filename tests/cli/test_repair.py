"""`dm verify --repair`: what is broken is mended from any sound copy, the bad bytes are kept, the rest is left."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from dm.plumbing.hashing import blake3_of
from dm.plumbing.store.disk import DiskStore
from dm.plumbing.store.publication import Publication
from dm.porcelain.mending import Mender
from dm.porcelain.verbs.verify import VerifyOptions
from dm.porcelain.verifying.stores import verify_store
from dm.values import Digest, Outcome
from tests.cli.test_verify import copy_of, fetched, overwrite, store_folder
from tests.fixtures.archives import make_archive, read_tree
from tests.fixtures.commands import (
    NO_RETRIES,
    Ask,
    StartDm,
    default_copy,
    snapshot,
    store_root,
    wait_for,
    write_manifest,
)
from tests.fixtures.homes import Home, RunDm
from tests.fixtures.servers import HttpServer
from tests.fixtures.stores import rot


def break_link(path: Path, data: bytes) -> None:
    """Other bytes at a path, the object untouched."""
    path.unlink()
    path.write_bytes(data)


def quarantine(home: Home) -> list[bytes]:
    folder = store_root(home) / ".dm" / "quarantine"
    return [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "note.tmp"]


def test_a_file_is_mended_from_its_object_without_a_request(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    fetched(project, http_server, run_dm, "a", "b")
    asked = http_server.count("/a.bin")
    break_link(copy_of(home, "a"), b"wrong")
    answer = ask("verify", "--repair")
    assert (0, "mended", 100) == (answer.status, answer.outcomes[0]["code"], answer.outcomes[0]["bytes"])
    assert b"a" * 100 == copy_of(home, "a").read_bytes()
    assert asked == http_server.count("/a.bin")
    assert b"wrong" in quarantine(home)
    assert 0 == ask("verify").status
    assert "clean" == ask("status", "a").only["state"]


def test_a_file_whose_object_is_bad_too_is_mended_from_its_source(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    fetched(project, http_server, run_dm, "a")
    overwrite(copy_of(home, "a"), b"X")
    answer = ask("verify", "--repair")
    assert (0, "mended from its source") == (answer.status, answer.only["message"])
    assert b"a" * 100 == copy_of(home, "a").read_bytes()
    assert 0 == ask("verify", "--all").status


def test_a_file_in_place_of_a_folder_is_damage_and_mended(
    home: Home, project: Path, http_server: HttpServer, ask: Ask
) -> None:
    uri = http_server.put("/set.zip", make_archive("zip", [("x.bin", b"x"), ("sub/y.bin", b"y")]))
    write_manifest(project, f'[set]\nuri = "{uri}"\nextract = true\n')
    assert 0 == ask("fetch").status
    copy = default_copy(home, "127.0.0.1/set")
    before = read_tree(copy)
    shutil.rmtree(copy)
    copy.write_bytes(b"no folder")
    answer = ask("verify", "set")
    assert (4, "content-mismatch") == (answer.status, answer.only["code"])
    assert (0, "mended") == (lambda answer: (answer.status, answer.only["code"]))(ask("verify", "--repair", "set"))
    assert before == read_tree(copy)
    assert b"no folder" in quarantine(home)
    assert "clean" == ask("status").only["state"]


def test_what_cannot_be_mended_is_told_and_exit_4(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    fetched(project, http_server, run_dm, "a")
    overwrite(copy_of(home, "a"), b"X")
    http_server.routes.pop("/a.bin")
    answer = ask("verify", "--repair", env={"DATAMANIFEST_HTTP_RETRIES": "0"})
    assert 4 == answer.status
    assert "no sound copy is in reach" in answer.only["message"]
    assert copy_of(home, "a").read_bytes().startswith(b"X")


def test_a_folder_is_mended_path_by_path(home: Home, tmp_path: Path, run_dm: RunDm, ask: Ask) -> None:
    folder = store_folder(home, run_dm, tmp_path)
    good = read_tree(folder)
    untouched = (folder / "sub" / "c").stat().st_ino
    break_link(folder / "a", b"wrong")
    (folder / "sub" / "b").unlink()
    (folder / "extra").write_bytes(b"extra")
    answer = ask("verify", folder, "--repair")
    assert (0, "mended") == (answer.status, answer.only["code"])
    assert good == read_tree(folder)
    assert untouched == (folder / "sub" / "c").stat().st_ino
    assert {b"wrong", b"extra"} <= set(quarantine(home))
    assert (folder / ".complete").is_file()


def test_a_folder_with_modes_links_and_types_is_mended(home: Home, tmp_path: Path, run_dm: RunDm, ask: Ask) -> None:
    staged = tmp_path / "staged"
    (staged / "empty").mkdir(parents=True)
    (staged / "run.sh").write_text("#!/bin/sh\n")
    (staged / "run.sh").chmod(0o755)
    (staged / "link").symlink_to("run.sh")
    (staged / "plain").write_text("plain")
    target = store_root(home) / "datasets" / "tools"
    assert 0 == run_dm("publish", staged, target, "--root", store_root(home)).returncode
    good = read_tree(target)
    (target / "run.sh").chmod(0o444)
    (target / "link").unlink()
    (target / "link").symlink_to("elsewhere")
    (target / "empty").rmdir()
    (target / "plain").unlink()
    (target / "plain").mkdir()
    (target / "plain" / "mine").write_text("mine")
    answer = ask("verify", target, "--repair")
    assert 0 == answer.status, answer
    assert good == read_tree(target)
    assert 0 == ask("verify", target).status


def test_a_bad_object_is_replaced_in_every_copy_that_linked_to_it(
    home: Home, tmp_path: Path, project: Path, run_dm: RunDm, ask: Ask
) -> None:
    write_manifest(project)
    folder = store_folder(home, run_dm, tmp_path)
    other = store_root(home) / "datasets" / "second"
    digest = ask("verify", folder).only["digest"]
    shutil.copytree(store_root(home), tmp_path / "usb")
    assert 0 == run_dm("update-ref", digest, "datasets/second", "--root", store_root(home)).returncode
    os.makedirs(other / "sub")
    for name in ("a", "sub/b", "sub/c"):
        os.link(folder / name, other / name)
    (other / ".complete").touch()
    overwrite(folder / "sub" / "b", b"X")
    environment = {"DATAMANIFEST_CACHE_DIR": str(tmp_path / "usb")}
    answer = ask("verify", "--all", "--repair", env=environment)
    assert 0 == answer.status, answer
    assert "content of sub/b" == (folder / "sub" / "b").read_text() == (other / "sub" / "b").read_text()
    assert 0 == ask("verify", "--all").status


def test_a_good_copy_that_another_tool_replaced_is_never_overwritten_with_the_old(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    fetched(project, http_server, run_dm, "a")
    import hashlib

    manifest = project / "datamanifest.toml"
    old, new = (hashlib.sha256(data).hexdigest() for data in (b"a" * 100, b"newer"))
    manifest.write_text(manifest.read_text().replace(old, new))
    break_link(copy_of(home, "a"), b"newer")
    answer = ask("verify", "--repair")
    assert (0, "updated") == (answer.status, answer.only["state"])
    assert b"newer" == copy_of(home, "a").read_bytes()
    assert [] == quarantine(home)


def test_without_a_contract_only_what_is_named_is_mended(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    fetched(project, http_server, run_dm, "a")
    manifest = project / "datamanifest.toml"
    manifest.write_text("\n".join(line for line in manifest.read_text().splitlines() if "checksum" not in line))
    break_link(copy_of(home, "a"), b"edited")
    answer = ask("verify", "--repair")
    assert (4, "it has no contract and is mended only by name: dm verify --repair a") == (
        answer.status, answer.only["hint"],
    )  # fmt: skip
    assert b"edited" == copy_of(home, "a").read_bytes()
    assert 0 == ask("verify", "--repair", "a").status
    assert b"a" * 100 == copy_of(home, "a").read_bytes()


def test_another_projects_copy_that_only_differs_from_its_ref_is_left_by_all(
    home: Home, tmp_path: Path, project: Path, run_dm: RunDm, ask: Ask
) -> None:
    write_manifest(project)
    folder = store_folder(home, run_dm, tmp_path)
    break_link(folder / "a", b"edited")
    before = snapshot(folder)
    answer = ask("verify", "--all", "--repair")
    assert 4 == answer.status
    assert before == snapshot(folder)


def test_a_stray_marker_and_dead_work_are_tidied_up(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    fetched(project, http_server, run_dm, "a")
    stray = copy_of(home, "gone").with_name("gone.bin.complete")
    stray.touch()
    dead = store_root(home) / ".dm" / "partial" / "work-7"
    dead.mkdir()
    (store_root(home) / ".dm" / "locks" / "work-7").touch()
    assert 0 == ask("verify", "--all", "--repair").status
    assert not stray.exists() and not dead.exists()


def test_a_whole_copy_without_its_marker_is_marked_and_another_is_not(
    home: Home, tmp_path: Path, project: Path, run_dm: RunDm, ask: Ask
) -> None:
    write_manifest(project)
    folder = store_folder(home, run_dm, tmp_path)
    (folder / ".complete").unlink()
    assert 0 == ask("verify", "--all").status
    assert not (folder / ".complete").exists()
    answer = ask("verify", "--all", "--repair")
    assert ["marked as complete: its bytes are what its ref says"] == [
        each["message"] for each in answer.outcomes if each.get("code") == "mended"
    ]
    assert (folder / ".complete").is_file()
    (folder / ".complete").unlink()
    break_link(folder / "a", b"edited")
    assert 4 == ask("verify", "--all", "--repair").status
    assert not (folder / ".complete").exists()
    assert b"edited" == (folder / "a").read_bytes()


def test_an_object_that_no_copy_needs_is_put_aside_when_it_is_damaged(
    home: Home, tmp_path: Path, project: Path, run_dm: RunDm, ask: Ask
) -> None:
    write_manifest(project)
    store_folder(home, run_dm, tmp_path)
    wrong = store_root(home) / ".dm" / "objects" / "ab" / ("c" * 62)
    wrong.parent.mkdir(exist_ok=True)
    wrong.write_bytes(b"not what its name says")
    assert 4 == ask("verify", "--all").status
    answer = ask("verify", "--all", "--repair")
    [told] = [each["message"] for each in answer.outcomes if each.get("code") == "mended"]
    assert told.startswith("put aside: no copy needs it; its bytes are kept at ")
    assert not wrong.exists() and b"not what its name says" in quarantine(home)
    assert 0 == ask("verify", "--all").status


def test_a_whole_copy_that_lacks_its_marker_is_marked_when_it_is_named(
    home: Home, tmp_path: Path, run_dm: RunDm, ask: Ask
) -> None:
    folder = store_folder(home, run_dm, tmp_path)
    (folder / ".complete").unlink()
    answer = ask("verify", folder, "--repair")
    assert (0, "ok") == (answer.status, answer.only["status"])
    assert (folder / ".complete").is_file()


@pytest.mark.parametrize("named", [True, False])
def test_a_datasets_copy_that_is_right_gets_the_marker_that_it_lacks(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask, named: bool
) -> None:
    """A kill in a repair, right after the new took the place of the bad, leaves it so."""
    fetched(project, http_server, run_dm, "a", "b")
    marker = copy_of(home, "a").with_name("a.bin.complete")
    marker.unlink()
    assert "partial" == ask("status", "a").only["state"]
    assert 0 == ask("verify", "--repair", "--dry-run").status
    assert not marker.exists()
    answer = ask("verify", "--repair", *(["a"] if named else []))
    assert (0, ["mended"]) == (answer.status, [each["code"] for each in answer.outcomes if "code" in each])
    assert {"clean"} == {each["state"] for each in ask("status").outcomes}
    assert (b"", b"a" * 100) == (marker.read_bytes(), copy_of(home, "a").read_bytes())


def test_a_bad_object_is_replaced_in_other_copies_too_when_one_dataset_is_mended(
    home: Home, tmp_path: Path, project: Path, run_dm: RunDm, ask: Ask
) -> None:
    write_manifest(project)
    folder = store_folder(home, run_dm, tmp_path)
    digest = ask("verify", folder).only["digest"]
    shutil.copytree(store_root(home), tmp_path / "usb")
    other = store_root(home) / "datasets" / "second"
    assert 0 == run_dm("update-ref", digest, "datasets/second", "--root", store_root(home)).returncode
    assert 0 == run_dm("checkout-object", digest, other, "--root", store_root(home)).returncode
    (other / ".complete").touch()
    assert (folder / "a").stat().st_ino == (other / "a").stat().st_ino
    overwrite(folder / "a", b"X")
    break_link(other / "sub" / "b", b"edited by its project")
    answer = ask("verify", folder, "--repair", env={"DATAMANIFEST_CACHE_DIR": str(tmp_path / "usb")})
    assert (0, f"mended 1 path from sound copies, also in '{other}'") == (
        answer.status, answer.only["message"].partition(";")[0],
    )  # fmt: skip
    assert "content of a" == (folder / "a").read_text() == (other / "a").read_text()
    assert "edited by its project" == (other / "sub" / "b").read_text()


def test_all_looks_at_the_stores_of_single_datasets_too(
    tmp_path: Path, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    uri = http_server.put("/a.bin", b"a" * 100)
    write_manifest(project, f'[a]\nuri = "{uri}"\nstorage_path = "data/$key"\n')
    assert 0 == run_dm("fetch").returncode
    [stored] = [path for path in (project / "data" / ".dm" / "objects").rglob("*") if path.is_file()]
    overwrite(stored, b"X")
    assert "object-damaged" in {item.get("code") for item in ask("verify", "--all").outcomes}


def test_a_copy_that_another_repair_mended_meanwhile_stays(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm
) -> None:
    fetched(project, http_server, run_dm, "a")
    copy = copy_of(home, "a")
    break_link(copy, b"wrong")
    store = DiskStore(store_root(home))
    name = store.ref_name(copy)
    ref = store.read_ref(name)
    assert ref is not None and ref.digest is not None
    mended = [Mender([store]).mend_copy(store, name, ref, ref.digest) for _ in range(2)]
    assert [1, 0] == [each.paths for each in mended]
    assert [b"wrong"] == [data for data in quarantine(home) if data]


def test_what_cannot_be_put_in_its_place_leaves_the_old_copy_there(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    fetched(project, http_server, run_dm, "a")
    copy = copy_of(home, "a")
    uri = http_server.put("/a.bin", b"new")
    digest = Digest.of_blob(blake3_of(b"new"))
    folder = DiskStore(store_root(home)).object_path(digest).parent
    folder.write_bytes(b"")
    (project / "datamanifest.toml").write_text(f'[a]\nuri = "{uri}"\n')
    assert 6 == ask("fetch", "--force", "a").status
    assert (b"a" * 100, []) == (copy.read_bytes(), quarantine(home))
    folder.unlink()
    assert 0 == ask("fetch", "--force", "a").status
    assert (b"new", b"a" * 100) == (copy.read_bytes(), b"".join(quarantine(home)))


def test_a_copy_that_appears_beside_a_stray_marker_keeps_it(tmp_path: Path) -> None:
    store = DiskStore(tmp_path / "root")
    store.prepare()
    for name in ("a", "b"):
        store.root.joinpath(f"{name}.complete").touch()
    (tmp_path / "staged").write_bytes(b"b")

    def publish(outcome: Outcome) -> None:
        if outcome.name.endswith("a.complete"):
            store.publish([Publication(tmp_path / "staged", store.root / "b")])

    outcomes = verify_store(store, VerifyOptions(repair=True), mender=Mender([store]), report=publish)
    assert ["mended", "marker-stray"] == [each.code for each in outcomes[:2]]
    assert ("absent", "complete") == (store.state_of(store.root / "a"), store.state_of(store.root / "b"))
    assert not (store.root / "a.complete").exists()


def test_what_goes_wrong_in_mending_hides_no_damage(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    fetched(project, http_server, run_dm, "a")
    break_link(copy_of(home, "a"), b"wrong")
    (store_root(home) / ".dm" / "locks" / "repair").mkdir()
    answer = ask("verify", "--repair", "a")
    assert (4, "content-mismatch") == (answer.status, answer.only["code"])
    assert re.fullmatch("its bytes are .*; cannot lock '.*/repair': .*", answer.only["message"])


def test_a_folder_of_which_something_cannot_be_mended_is_as_complete_as_it_was(tmp_path: Path) -> None:
    store = DiskStore(tmp_path / "root")
    (tmp_path / "staged").mkdir()
    for name in ("a", "b"):
        (tmp_path / "staged" / name).write_text(name)
    [published] = store.publish([Publication(tmp_path / "staged", store.root / "x")])
    assert published.digest is not None
    ref = store.read_ref("x")
    assert ref is not None
    break_link(store.root / "x" / "a", b"wrong")
    overwrite(store.root / "x" / "b", b"X")
    mended = Mender([store]).mend_copy(store, "x", ref, published.digest)
    assert (1, ["b"]) == (mended.paths, [each.path for each in mended.left])
    assert ("complete", "a") == (store.state_of(store.root / "x"), (store.root / "x" / "a").read_text())


def test_a_failure_that_something_else_mends_meanwhile_is_none(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, start_dm: StartDm
) -> None:
    fetched(project, http_server, run_dm, "a")
    copy, store = copy_of(home, "a"), DiskStore(store_root(home))
    overwrite(copy, b"X")
    http_server.routes.pop("/a.bin")
    shutil.rmtree(store.meta / "aliases")  # what the copy should be is known by its sha256 only
    with store.lock_copy(copy):
        process = start_dm("verify", "--repair", "a", env=NO_RETRIES)
        assert process.stderr is not None
        assert str(copy) in process.stderr.readline()  # it waits for who has the copy in hand
        overwrite(copy, b"a")
    status, stdout, stderr = wait_for(process)
    assert (0, True) == (status, "something else mended it meanwhile" in stdout), (stdout, stderr)


@pytest.mark.parametrize(
    "words", [("verify", "--repair"), ("fetch", "--force", "a"), ("gone", "fetch", "--force", "a")], ids="".join
)
def test_what_rotted_unseen_is_not_put_back_in_its_own_place(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, words: tuple[str, ...]
) -> None:
    """The stat cache vouches for the object, of which the copy is a link: what the source gave did not matter."""
    fetched(project, http_server, run_dm, "a")
    copy, data = copy_of(home, "a"), b"a" * 100
    rotten = DiskStore(store_root(home)).object_path(Digest.of_blob(blake3_of(data)))
    rot(rotten, copy, database=home.cache / "datamanifest" / "stat-v1.db")
    assert 4 == run_dm("verify").returncode
    if words[0] == "gone":
        lose(copy)
        words = words[1:]
    assert 0 == run_dm(*words).returncode
    assert data == copy.read_bytes()
    assert 0 == run_dm("verify", "--all").returncode


# What is gone -----------------------------------------------------------------------------------------------------


def lose(copy: Path) -> None:
    """Take a copy away, as a hand does: its ref stays, and the marker beside a file."""
    copy.chmod(0o755)
    shutil.rmtree(copy) if copy.is_dir() else copy.unlink()


def test_copies_that_are_gone_come_back_from_their_objects_without_a_request(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    fetched(project, http_server, run_dm, "a", "b")
    asked = http_server.count("/a.bin")
    lose(copy_of(home, "a"))
    assert ["missing", "clean"] == [each["state"] for each in ask("verify").outcomes]
    planned = ask("verify", "--repair", "--dry-run").outcomes[0]
    assert ("skipped", "would-mend") == (planned["status"], planned["code"])
    assert not copy_of(home, "a").exists()
    answer = ask("verify", "--repair")
    assert (0, "mended") == (answer.status, answer.outcomes[0]["code"])
    assert b"a" * 100 == copy_of(home, "a").read_bytes()
    assert asked == http_server.count("/a.bin")
    assert 0 == ask("verify", "--all").status
    assert ["clean", "clean"] == [each["state"] for each in ask("status").outcomes]


def test_a_folder_that_is_gone_comes_back_by_its_path_whole_or_not_at_all(
    home: Home, tmp_path: Path, run_dm: RunDm, ask: Ask
) -> None:
    folder = store_folder(home, run_dm, tmp_path)
    good = read_tree(folder)
    lose(folder)
    assert 3 == ask("verify", folder).status
    bad = DiskStore(store_root(home)).object_path(Digest.of_blob(blake3_of(b"content of sub/b")))
    overwrite(bad, b"X")
    answer = ask("verify", folder, "--repair")
    assert (3, "missing") == (answer.status, answer.only["code"])
    assert not folder.exists()
    bad.unlink()
    bad.write_bytes(b"content of sub/b")
    answer = ask("verify", folder.parent, "--repair")
    assert (0, "mended") == (answer.status, answer.only["code"])
    assert good == read_tree(folder)
    assert "complete" == DiskStore(store_root(home)).state_of(folder)


def test_what_is_gone_and_was_never_here_or_is_of_another_content_is_not_brought_back(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    fetched(project, http_server, run_dm, "a", "b")
    manifest = project / "datamanifest.toml"
    text = manifest.read_text()
    old = text.partition('checksum = "')[2].partition('"')[0]
    manifest.write_text(text.replace(old, f"sha256:{'0' * 64}"))
    lose(copy_of(home, "a"))
    lose(copy_of(home, "b"))
    assert 0 == ask("prune", "--gone", "--grace", "0").status
    manifest.write_text(f'{manifest.read_text()}\n[c]\nuri = "{http_server.put("/c.bin", b"c")}"\n')
    answer = ask("verify", "--repair")
    assert (0, ["missing"] * 3) == (answer.status, [each["state"] for each in answer.outcomes])
    assert not copy_of(home, "a").exists()
    assert (3, "missing") == ((answer := ask("verify", "--repair", "a")).status, answer.only["code"])


def test_a_whole_store_that_is_repaired_says_which_copies_are_gone_and_leaves_them_gone(
    home: Home, tmp_path: Path, run_dm: RunDm, ask: Ask
) -> None:
    """Somebody may have wanted it so; what a project declares comes back with its project."""
    folder = store_folder(home, run_dm, tmp_path)
    lose(folder)
    answer = ask("verify", store_root(home), "--repair")
    [told] = [each for each in answer.outcomes if each.get("code") == "copy-missing"]
    assert 0 == answer.status
    assert f"dm verify --repair {folder}" in told["message"]
    assert not folder.exists()
