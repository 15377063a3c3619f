"""`dm unlock` and `dm lock`: a private copy that may be edited, and back; a shared copy never becomes writable."""

from __future__ import annotations

import hashlib
import os
import shutil
import tomllib
from pathlib import Path

import pytest

from dm.plumbing.fs.extents import share_blocks
from tests.fixtures.archives import read_tree
from tests.fixtures.commands import Answer, Ask, default_copy, list_litter, snapshot, store_root, write_manifest
from tests.fixtures.homes import Home, RunDm
from tests.fixtures.machine import MakeImage
from tests.fixtures.servers import HttpServer
from tests.fixtures.stores import rot

BODY = b"these are the right bytes\n" * 20
EDIT = b"these are mine\n"
CONFIG = '[_STORAGE]\nproject = "paper"\n'


def own_copy(home: Home, key: str) -> Path:
    """Where a dataset lies in the scope of the project ``paper``."""
    return store_root(home) / "paper" / "datasets" / key


class Place:
    """A project called ``paper`` with one file, fetched into the shared scope."""

    def __init__(self, ask: Ask, project: Path, home: Home, server: HttpServer) -> None:
        self.ask, self.project, self.home, self.server = ask, project, home, server
        self.uri = server.put("/a.bin", BODY)
        self.manifest = write_manifest(project, CONFIG, f'[a]\nuri = "{self.uri}"\n')
        self.shared = default_copy(home, "127.0.0.1/a.bin")
        self.own = own_copy(home, "127.0.0.1/a.bin")
        assert 0 == ask("fetch").status

    def unlock(self) -> Answer:
        answer = self.ask("unlock", "a")
        assert (0, "ok", str(self.own)) == (answer.status, answer.only["status"], answer.only["path"])
        return answer

    def recorded(self) -> str:
        state = tomllib.loads((self.project / ".datamanifest-state.toml").read_text())
        return str(state["datasets"]["127.0.0.1/a.bin"]["storage_path"])


@pytest.fixture
def place(ask: Ask, project: Path, home: Home, http_server: HttpServer) -> Place:
    return Place(ask, project, home, http_server)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def aside(home: Home) -> list[bytes]:
    """The files in the quarantine, without notes and markers."""
    found = (store_root(home) / ".dm" / "quarantine").rglob("*")
    return [each.read_bytes() for each in found if each.is_file() and each.suffix not in (".tmp", ".complete")]


def test_the_private_copy_is_writable_and_recorded_and_the_shared_one_stays_as_it_was(
    place: Place, ask: Ask, run_dm: RunDm
) -> None:
    before = snapshot(place.shared.parent)
    message = place.unlock().only["message"]
    assert "unlocked: a private copy that you may edit" == message
    assert (BODY, 0o644, 1) == (place.own.read_bytes(), mode(place.own), place.own.stat().st_nlink)
    assert before == snapshot(place.shared.parent)
    assert f"{place.own}\n" == run_dm("path", "a").stdout
    assert str(place.own) == place.recorded()
    assert 0 == run_dm("verify").returncode
    assert "unchanged" == ask("fetch").only["status"]
    told = ask("status").only
    assert ("relocated", "unlocked") == (told["state"], told["code"])
    assert "dm lock a" in told["hint"]
    assert 1 == run_dm("status").stdout.count("dm lock a"), "one way out is told once"
    assert "unlocked: a (dm lock NAME makes it read-only again)" in run_dm("list").stderr
    assert ask("show", "a").document["dataset"]["unlocked"]
    assert [] == list_litter(place.home, place.project)


def test_an_edit_is_told_left_by_fetch_and_accepted_by_pin(place: Place, ask: Ask, run_dm: RunDm) -> None:
    place.unlock()
    place.own.write_bytes(EDIT)
    told = ask("status").only
    assert ("modified", "unlocked", "unlocked and edited") == (told["state"], told["code"], told["message"])
    assert "dm pin a accepts the edit, dm fetch --force a puts it aside and fetches again" == told["hint"]
    fetched = ask("fetch")
    assert (0, "skipped", "modified") == (fetched.status, fetched.only["status"], fetched.only["state"])
    assert "unlocked and edited: left as it is" == fetched.only["message"]
    assert 4 == ask("verify").status
    assert EDIT == place.own.read_bytes() and BODY == place.shared.read_bytes()
    assert 0 == run_dm("pin", "a").returncode
    assert f'checksum = "sha256:{hashlib.sha256(EDIT).hexdigest()}"' in place.manifest.read_text()
    assert "relocated" == ask("status").only["state"]
    locked = ask("lock", "a")
    assert (0, str(place.own), "locked: read-only") == (locked.status, locked.only["path"], locked.only["message"])
    assert (EDIT, 0o444) == (place.own.read_bytes(), mode(place.own))
    assert BODY == place.shared.read_bytes()
    assert 0 == run_dm("verify", "--all").returncode
    objects = [path.stat().st_ino for path in (store_root(place.home) / ".dm" / "objects").rglob("*") if path.is_file()]
    assert place.own.stat().st_ino in objects or place.own.stat().st_nlink == 1


def test_an_edit_without_a_record_is_not_gone_past(place: Place, ask: Ask) -> None:
    place.unlock()
    place.own.write_bytes(EDIT)
    (place.project / ".datamanifest-state.toml").unlink()
    assert ("skipped", str(place.own)) == (ask("fetch").only["status"], ask("fetch").only["path"])
    assert "modified" == ask("status").only["state"]
    assert "skipped" == ask("refresh").only["status"]
    assert 0 == ask("pin", "a").status
    assert str(place.own) == place.recorded()


def test_an_edit_that_nobody_accepted_is_not_locked(place: Place, ask: Ask, run_dm: RunDm) -> None:
    place.unlock()
    place.own.write_bytes(EDIT)
    done = run_dm("lock", "a")
    assert 4 == done.returncode
    assert "cannot lock 'a': its bytes are sha256:" in done.stderr
    assert "hint: dm pin a accepts the edit, dm fetch --force a puts it aside and fetches again" in done.stderr
    assert (EDIT, 0o644) == (place.own.read_bytes(), mode(place.own))


def test_force_puts_the_edit_aside_and_the_shared_copy_is_used_again(place: Place, ask: Ask, run_dm: RunDm) -> None:
    place.unlock()
    place.own.write_bytes(EDIT)
    answer = ask("fetch", "--force", "a")
    assert (0, str(place.shared)) == (answer.status, answer.only["path"])
    assert [EDIT] == aside(place.home)
    assert not place.own.exists()
    assert ("clean", BODY) == (ask("status").only["state"], Path(run_dm("path", "a").stdout.strip()).read_bytes())
    assert 0 == run_dm("verify", "--all").returncode


def test_an_unedited_copy_gives_way_to_the_shared_one(place: Place, ask: Ask, run_dm: RunDm) -> None:
    before = snapshot(store_root(place.home) / "datasets")
    place.unlock()
    answer = ask("lock", "a")
    assert (0, str(place.shared)) == (answer.status, answer.only["path"])
    assert "the private copy gave way to this one" == answer.only["message"]
    assert not place.own.exists() and not place.own.with_name("a.bin.complete").exists()
    assert before == snapshot(store_root(place.home) / "datasets")
    assert "clean" == ask("status").only["state"]
    assert "unlocked" not in run_dm("list").stderr
    assert [] == list_litter(place.home, place.project)
    assert [] == [each["code"] for each in ask("verify", "--all").outcomes if "code" in each]


def test_it_is_locked_where_it_is_when_the_shared_copy_is_gone(place: Place, ask: Ask, run_dm: RunDm) -> None:
    place.unlock()
    place.shared.unlink()
    place.shared.with_name("a.bin.complete").unlink()
    assert 0 == ask("lock", "a").status
    assert (BODY, 0o444) == (place.own.read_bytes(), mode(place.own))
    assert 0 == run_dm("verify", "a").returncode
    assert "unchanged" == ask("lock", "a").only["status"]


def test_what_a_kill_left_without_a_marker_is_completed_by_the_same_call(
    place: Place, ask: Ask, run_dm: RunDm
) -> None:
    place.unlock()
    place.own.with_name("a.bin.complete").unlink()  # as a kill right before it leaves the copy
    state = place.project / ".datamanifest-state.toml"
    state.write_text(state.read_text().replace(str(place.own), str(place.shared)))
    assert (0, "unchanged") == (lambda answer: (answer.status, answer.only["status"]))(ask("unlock", "a"))
    assert f"{place.own}\n" == run_dm("path", "a").stdout
    assert "relocated" == ask("status").only["state"]
    place.own.write_bytes(EDIT)
    assert 4 == ask("verify", "a").status
    assert (EDIT, BODY) == (place.own.read_bytes(), place.shared.read_bytes())


def test_said_twice_it_is_unchanged(place: Place, ask: Ask) -> None:
    place.unlock()
    inode = place.own.stat().st_ino
    again = ask("unlock", "a").only
    assert ("unchanged", "it is unlocked already") == (again["status"], again["message"])
    assert inode == place.own.stat().st_ino
    assert "it is not unlocked" == [ask("lock", "a"), ask("lock", "a")][1].only["message"]


@pytest.mark.parametrize("word", ["unlock", "lock"])
def test_a_dry_run_writes_nothing(place: Place, ask: Ask, word: str) -> None:
    if word == "lock":
        place.unlock()
    before = snapshot(place.home.data, place.project)
    answer = ask(word, "a", "--dry-run")
    assert (0, "ok") == (answer.status, answer.only["status"])
    assert "would" in answer.only["message"]
    assert before == snapshot(place.home.data, place.project)


def test_a_folder_keeps_its_links_and_execute_bits(
    ask: Ask, run_dm: RunDm, project: Path, home: Home, http_server: HttpServer
) -> None:
    (project / "src" / "sub").mkdir(parents=True)
    (project / "src" / "run.sh").write_text("#!/bin/sh\n")
    (project / "src" / "run.sh").chmod(0o755)
    (project / "src" / "sub" / "b.txt").write_text("b")
    (project / "src" / "link").symlink_to("sub/b.txt")
    packed = Path(shutil.make_archive(str(project / "packed"), "gztar", project / "src"))
    uri = http_server.put("/set.tar.gz", packed.read_bytes())
    write_manifest(project, CONFIG, f'[set]\nuri = "{uri}"\nextract = true\n')
    assert 0 == run_dm("fetch").returncode
    shared = default_copy(home, "127.0.0.1/set")
    before = read_tree(shared)
    assert 0 == run_dm("unlock", "set").returncode
    own = own_copy(home, "127.0.0.1/set")
    assert (0o755, 0o644) == (mode(own / "run.sh"), mode(own / "sub" / "b.txt"))
    assert "sub/b.txt" == os.readlink(own / "link")
    assert before == read_tree(shared)
    assert 0 == run_dm("verify").returncode
    (own / "sub" / "b.txt").write_text("edited")
    (own / "new.txt").write_text("new")
    differences = ask("verify", "set").only["differences"]
    found = sorted((each["path"], each["how"]) for each in differences)
    assert [("new.txt", "added"), ("sub/b.txt", "changed")] == found
    assert 4 == run_dm("lock", "set").returncode
    assert 0 == run_dm("pin", "set").returncode
    assert 0 == run_dm("lock", "set").returncode
    assert (0o555, 0o444) == (mode(own / "run.sh"), mode(own / "sub" / "b.txt"))
    assert 0 == run_dm("verify", "--all").returncode
    assert before == read_tree(shared)


def test_a_place_in_the_project_becomes_private_where_it_is(
    ask: Ask, run_dm: RunDm, project: Path, http_server: HttpServer
) -> None:
    uri = http_server.put("/a.bin", BODY)
    write_manifest(project, f'[a]\nuri = "{uri}"\nstorage_path = "data/$key"\n')
    assert 0 == run_dm("fetch").returncode
    copy = project / "data" / "127.0.0.1" / "a.bin"
    answer = ask("unlock", "a")
    assert (0, str(copy)) == (answer.status, answer.only["path"])
    assert (0o644, 1, BODY) == (mode(copy), copy.stat().st_nlink, copy.read_bytes())
    told = ask("status", "a").only
    assert ("clean", "unlocked") == (told["state"], told["code"])
    copy.write_bytes(EDIT)
    objects = [path.read_bytes() for path in (project / "data" / ".dm" / "objects").rglob("*") if path.is_file()]
    assert EDIT not in objects
    assert ("skipped", "modified") == (ask("fetch").only["status"], ask("fetch").only["state"])
    assert 0 == run_dm("fetch", "--force", "a").returncode
    assert (BODY, "clean") == (copy.read_bytes(), ask("status", "a").only["state"])
    assert "code" not in ask("status", "a").only


def test_a_copy_in_no_store_too(ask: Ask, run_dm: RunDm, project: Path, http_server: HttpServer) -> None:
    uri = http_server.put("/a.bin", BODY)
    write_manifest(project, f'[a]\nuri = "{uri}"\nstorage_path = "data/$key.d/x"\n')
    assert 0 == run_dm("fetch").returncode
    copy = Path(run_dm("path", "a").stdout.strip())
    copy.chmod(0o444)
    assert 0 == run_dm("unlock", "a").returncode
    assert (0o644, "unlocked") == (mode(copy), ask("status", "a").only["code"])
    copy.write_bytes(EDIT)
    assert 4 == run_dm("lock", "a").returncode
    copy.write_bytes(BODY)
    assert 0 == run_dm("lock", "a").returncode
    assert 0o444 == mode(copy)
    assert "code" not in ask("status", "a").only


def test_a_place_outside_is_refused(run_dm: RunDm, project: Path, tmp_path: Path, http_server: HttpServer) -> None:
    uri = http_server.put("/a.bin", BODY)
    write_manifest(project, f'[a]\nuri = "{uri}"\nstorage_path = "$DEPOT/$key"\n')
    depot = {"DEPOT": str(tmp_path / "depot"), "DATAMANIFEST_TRUST": "1"}
    assert 0 == run_dm("fetch", env=depot).returncode
    done = run_dm("unlock", "a", env=depot)
    assert 6 == done.returncode
    assert "is not in the project, and its place has no scopes" in done.stderr
    assert "hint: copy it to where you want to change it" in done.stderr


def test_what_the_user_manages_is_theirs_already(ask: Ask, project: Path) -> None:
    (project / "mine.csv").write_text("1\n")
    write_manifest(project, '[mine]\nstorage_path = "mine.csv"\n\n[other]\nskip_download = true\n')
    before = snapshot(project)
    first, second = ask("unlock", "mine", "other").outcomes
    assert ("unchanged", "it is yours already: dm never makes it read-only") == (first["status"], first["message"])
    assert "skipped" == second["status"]
    assert "it is yours: dm never makes it read-only" == ask("lock", "mine").only["message"]
    assert before == snapshot(project)


def test_what_is_not_there_and_what_is_damaged_is_not_unlocked(place: Place, run_dm: RunDm) -> None:
    place.shared.chmod(0o644)
    place.shared.write_bytes(EDIT)
    done = run_dm("unlock", "a")
    assert 4 == done.returncode and "cannot unlock 'a': its bytes are sha256:" in done.stderr
    assert "dm verify --repair a mends it" in done.stderr
    place.shared.unlink()
    done = run_dm("unlock", "a")
    assert 3 == done.returncode and "'a' is not there" in done.stderr
    assert 3 == run_dm("lock", "a").returncode
    assert not place.own.exists()


def test_a_flip_that_stat_data_do_not_show_is_not_copied(place: Place, run_dm: RunDm) -> None:
    status = place.shared.stat()
    place.shared.chmod(0o644)
    place.shared.write_bytes(BODY.swapcase())
    place.shared.chmod(0o444)
    os.utime(place.shared, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert 4 == run_dm("unlock", "a").returncode
    assert not place.own.exists()


def test_what_lies_at_the_private_place_is_not_overwritten(place: Place, run_dm: RunDm) -> None:
    place.own.parent.mkdir(parents=True)
    place.own.write_bytes(b"somebody's")
    done = run_dm("unlock", "a")
    assert 6 == done.returncode and f"'{place.own}' holds data that is not its" in done.stderr
    assert b"somebody's" == place.own.read_bytes()


def test_dedup_and_repair_leave_it_alone_and_verify_knows_it(place: Place, ask: Ask, run_dm: RunDm) -> None:
    place.unlock()
    assert [] == ask("dedup").outcomes
    assert 1 == place.own.stat().st_nlink
    place.own.write_bytes(EDIT)
    assert 4 == run_dm("verify", "--repair").returncode
    told = [each for each in ask("verify", "--root", store_root(place.home)).outcomes if each.get("code")]
    assert [("unlocked", "modified", "skipped")] == [(each["code"], each["state"], each["status"]) for each in told]
    assert 0 == run_dm("verify", "--root", store_root(place.home), "--repair").returncode
    assert 0 == run_dm("prune", "--grace", "0").returncode
    assert (EDIT, BODY) == (place.own.read_bytes(), place.shared.read_bytes())


def test_a_note_on_a_copy_that_is_gone_is_told_and_tidied(place: Place, ask: Ask, run_dm: RunDm) -> None:
    place.unlock()
    place.own.unlink()
    place.own.with_name("a.bin.complete").unlink()
    told = [each["code"] for each in ask("verify", "--root", store_root(place.home)).outcomes if "code" in each]
    assert ["copy-missing", "leftover"] == sorted(told)
    assert 0 == run_dm("verify", "--root", store_root(place.home), "--repair").returncode
    assert [] == list((store_root(place.home) / ".dm" / "unlocked").iterdir())
    assert "clean" == (ask("refresh"), ask("status"))[1].only["state"]


def test_rm_delete_removes_it_and_its_note(place: Place, run_dm: RunDm) -> None:
    place.unlock()
    assert 0 == run_dm("rm", "--delete", "a").returncode
    assert not place.own.exists() and BODY == place.shared.read_bytes()
    assert [] == list((store_root(place.home) / ".dm" / "unlocked").iterdir())


def test_without_a_checksum_it_is_unlocked_and_locked_too(
    ask: Ask, run_dm: RunDm, project: Path, home: Home, http_server: HttpServer
) -> None:
    uri = http_server.put("/a.bin", BODY)
    write_manifest(project, CONFIG, f'[a]\nuri = "{uri}"\nskip_checksum = true\n')
    assert 0 == run_dm("fetch").returncode
    assert 0 == run_dm("unlock", "a").returncode
    own = own_copy(home, "127.0.0.1/a.bin")
    own.write_bytes(EDIT)
    assert ("skipped", str(own)) == (ask("status").only["state"], ask("fetch").only["path"])
    assert 0 == run_dm("lock", "a").returncode
    assert (EDIT, 0o444) == (own.read_bytes(), mode(own))


def test_the_stores_folder_says_why_files_are_read_only(place: Place) -> None:
    text = (store_root(place.home) / ".dm" / "README").read_text()
    assert "read-only" in text and "dm unlock NAME" in text


@pytest.mark.parametrize("kind", ["btrfs", "ext4"])
def test_the_bytes_are_shared_again_afterwards(
    image_file_system: MakeImage, ask: Ask, run_dm: RunDm, project: Path, http_server: HttpServer, kind: str
) -> None:
    root = image_file_system(kind) / "root"
    env = {"DATAMANIFEST_DATA_DIR": str(root)}
    uri = http_server.put("/a.bin", BODY * 1000)
    write_manifest(project, CONFIG, f'[a]\nuri = "{uri}"\n')
    assert 0 == run_dm("fetch", env=env).returncode
    assert 0 == run_dm("unlock", "a", env=env).returncode
    own = root / "paper" / "datasets" / "127.0.0.1" / "a.bin"
    with own.open("ab") as file:
        file.write(b"more")
    assert 0 == run_dm("pin", "a", env=env).returncode
    assert 0 == run_dm("lock", "a", env=env).returncode
    digest = ask("status", "a", env=env).only["digest"].partition(":")[2]
    found = root / ".dm" / "objects" / digest[:2] / digest[2:]
    assert share_blocks(own, found)
    assert (0o444, BODY * 1000 + b"more") == (mode(own), own.read_bytes())
    assert 0 == run_dm("verify", "--all", env=env).returncode


def test_a_private_copy_gives_way_to_no_shared_one_that_rotted_unseen(place: Place, home: Home) -> None:
    place.unlock()
    objects = [path for path in (store_root(home) / ".dm" / "objects").rglob("*") if path.is_file()]
    rot(place.shared, *objects, database=home.cache / "datamanifest" / "stat-v1.db")
    answer = place.ask("lock", "a")
    assert 4 == answer.status, answer
    assert BODY == place.own.read_bytes()
