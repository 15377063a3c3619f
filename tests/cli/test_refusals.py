"""What fails and what is refused: one line, the right exit, nothing published, nothing registered, nothing touched."""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.fixtures.archives import make_tar, make_zip, read_tree, tar_member, zip_member
from tests.fixtures.commands import (
    NO_RETRIES,
    Ask,
    assert_one_error,
    default_copy,
    list_litter,
    snapshot,
    store_root,
    write_manifest,
)
from tests.fixtures.homes import Home, RunDm
from tests.fixtures.servers import HttpServer

# Sources that fail -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["add", "fetch"])
@pytest.mark.parametrize("fault", ["404", "500", "503", "drop", "truncated", "refused", "nowhere"])
def test_a_source_that_fails_is_exit_5_in_one_line(
    run_dm: RunDm, project: Path, home: Home, http_server: HttpServer, command: str, fault: str
) -> None:
    uri = http_server.put("/a.txt", b"a" * 100_000)
    if fault == "drop":
        http_server.drop("/a.txt", times=100)
    elif fault == "truncated":
        http_server.truncate("/a.txt", 40_000, times=100)
    elif fault == "refused":
        uri = "http://127.0.0.1:9/a.txt"
    elif fault == "nowhere":
        uri = "http://nowhere.invalid/a.txt"
    else:
        http_server.fail("/a.txt", int(fault), times=100)
    path = write_manifest(project, *([f'[a]\nuri = "{uri}"\n'] if command == "fetch" else []))
    before = path.read_bytes()
    words = ["fetch"] if command == "fetch" else ["add", uri, "--name", "a"]
    messages = set()
    for _ in range(2):
        message = assert_one_error(run_dm(*words, env=NO_RETRIES), 5)
        assert "a.txt" in message
        assert fault not in ("404", "500", "503") or fault in message
        messages.add(message)
        assert before == path.read_bytes()
        assert not (project / ".datamanifest-state.toml").exists()
        place = default_copy(home, "")
        assert not place.exists() or [] == [each for each in place.rglob("*") if each.is_file()]
    if fault != "truncated":
        assert 1 == len(messages)
        assert [] == [name for name in list_litter(home, project) if not name.endswith(".tmp")]


def test_a_server_that_recovers_is_no_failure(ask: Ask, project: Path, http_server: HttpServer) -> None:
    write_manifest(project, f'[a]\nuri = "{http_server.put("/a.txt", "a")}"\n')
    http_server.fail("/a.txt", 503, times=1)
    assert (0, 2) == (ask("fetch").status, http_server.count("/a.txt"))


def test_a_redirect_to_a_file_is_refused(run_dm: RunDm, project: Path, tmp_path: Path, http_server: HttpServer) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    uri = http_server.redirect("/a.txt", f"file://{secret}")
    path = write_manifest(project)
    before = path.read_bytes()
    assert "file" in assert_one_error(run_dm("add", uri), 6)
    assert before == path.read_bytes()


def test_userinfo_in_a_uri_is_refused_and_not_repeated(run_dm: RunDm, project: Path, http_server: HttpServer) -> None:
    path = write_manifest(project)
    before = path.read_bytes()
    uri = http_server.put("/a.txt", "a").replace("http://", "http://user:hunter2@")
    done = run_dm("add", uri)
    assert done.returncode in (6, 7)
    assert "hunter2" not in done.stdout + done.stderr
    assert before == path.read_bytes() and [] == http_server.requests


# Wrong bytes -----------------------------------------------------------------------------------------------------


def test_a_wrong_checksum_is_exit_4_twice_in_a_row_the_same(
    run_dm: RunDm, project: Path, home: Home, http_server: HttpServer
) -> None:
    uri = http_server.put("/a.txt", "other bytes")
    path = write_manifest(project, f'[a]\nuri = "{uri}"\nchecksum = "sha256:{"0" * 64}"\n')
    before, said = path.read_bytes(), []
    for _ in range(2):
        done = run_dm("fetch")
        found = hashlib.sha256(b"other bytes").hexdigest()
        message = assert_one_error(done, 4)
        assert "'a'" in message and f"sha256:{found}" in message and "0" * 64 in message
        said.append(done.stderr)
        assert before == path.read_bytes()
        assert [".dm"] == os.listdir(store_root(home))
        objects = store_root(home) / ".dm" / "objects"
        assert [] == [each for each in objects.rglob("*") if each.is_file()]
        assert not (project / ".datamanifest-state.toml").exists()
        assert [] == list_litter(home, project)
        assert 3 == run_dm("path", "a").returncode
    assert said[0] == said[1]


def test_add_with_a_wrong_checksum_declares_nothing(
    run_dm: RunDm, project: Path, home: Home, http_server: HttpServer
) -> None:
    uri = http_server.put("/a.txt", "a")
    path = write_manifest(project)
    before = path.read_bytes()
    assert "'a.txt'" in assert_one_error(run_dm("add", uri, "--checksum", "md5:" + "0" * 32, "--name", "a.txt"), 4)
    assert before == path.read_bytes()
    assert [] == list_litter(home, project)


def test_a_wrong_folder_digest_is_exit_4(run_dm: RunDm, project: Path, home: Home, http_server: HttpServer) -> None:
    uri = http_server.put("/a.zip", make_zip(zip_member("x.txt", b"x")))
    path = write_manifest(project, f'[a]\nuri = "{uri}"\nextract = true\ndigest = "blake3-tree:{"0" * 64}"\n')
    before = path.read_bytes()
    for _ in range(2):
        assert "'digest'" in assert_one_error(run_dm("fetch"), 4)
        assert before == path.read_bytes()
        assert not default_copy(home, "127.0.0.1/a").exists()
        assert [] == list_litter(home, project)


# Hostile archives ------------------------------------------------------------------------------------------------

LINK = zip_member("link", b"/etc", mode=stat.S_IFLNK | 0o777)
HOSTILE = {
    "dots.zip": make_zip(zip_member("fine.txt", b"1"), zip_member("../../escaped", b"x")),
    "absolute.zip": make_zip(zip_member("/tmp/dm-test-escaped", b"x")),
    "link-out.zip": make_zip(LINK),
    "through-link.zip": make_zip(zip_member("l", b"..", mode=stat.S_IFLNK | 0o777), zip_member("l/escaped", b"x")),
    "twice.zip": make_zip(zip_member("a", b"1"), zip_member("./a", b"2")),
    "bomb.zip": make_zip(zip_member("zeros", bytes(60_000_000))),
    "marker.zip": make_zip(zip_member(".complete", b"not empty"), zip_member("a", b"1")),
    "dots.tar": make_tar(tar_member("fine.txt", b"1"), tar_member("../escaped", b"x")),
    "absolute.tar": make_tar(tar_member("/tmp/dm-test-escaped", b"x")),
    "link-out.tar": make_tar(tar_member("l", kind=tarfile.SYMTYPE, target="../../../../etc/passwd")),
    "through-link.tar": make_tar(tar_member("l", kind=tarfile.SYMTYPE, target=".."), tar_member("l/escaped", b"x")),
    "hardlink-out.tar": make_tar(tar_member("h", kind=tarfile.LNKTYPE, target="../../secret")),
    "device.tar": make_tar(tar_member("dev", kind=tarfile.CHRTYPE)),
    "fifo.tar.gz": make_tar(tar_member("pipe", kind=tarfile.FIFOTYPE), archive_format="tar.gz"),
    "bomb.tar.xz": make_tar(tar_member("zeros", bytes(60_000_000)), archive_format="tar.xz"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_and_leaves_nothing(
    run_dm: RunDm, project: Path, home: Home, tmp_path: Path, http_server: HttpServer, name: str
) -> None:
    uri = http_server.put(f"/{name}", HOSTILE[name])
    path = write_manifest(project)
    (tmp_path / "secret").write_text("secret")
    before, outside = path.read_bytes(), read_tree(project)
    for _ in range(2):
        assert "'x'" in assert_one_error(run_dm("add", uri, "--extract", "--name", "x"), 6)
        assert before == path.read_bytes()
        assert outside == read_tree(project)
        assert {"home", "project", "secret"} == set(os.listdir(tmp_path))
        assert ("secret", 1) == ((tmp_path / "secret").read_text(), (tmp_path / "secret").stat().st_nlink)
        assert [".dm"] == os.listdir(store_root(home))
        files = [each for each in (store_root(home) / ".dm").rglob("*") if each.is_file()]
        assert {".gitignore", "README", "format"} == {each.name for each in files if each.parent.name != "locks"}
        assert [] == list_litter(home, project)
    assert not Path("/tmp/dm-test-escaped").exists()


@pytest.mark.parametrize("cut", [10, 500, -30])
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_a_truncated_archive_is_no_dataset(
    run_dm: RunDm, project: Path, home: Home, http_server: HttpServer, kind: str, cut: int
) -> None:
    data = os.urandom(5_000)
    whole = make_zip(zip_member("a", data)) if kind == "zip" else make_tar(tar_member("a", data), archive_format=kind)
    uri = http_server.put(f"/a.{kind}", whole[: cut if cut > 0 or kind != "tar" else 5_000])
    path = write_manifest(project)
    before = path.read_bytes()
    done = run_dm("add", uri, "--extract", "--name", "x")
    assert done.returncode in (5, 6, 7), done.stderr
    assert_one_error(done, done.returncode)
    assert before == path.read_bytes()
    assert [".dm"] == os.listdir(store_root(home))
    assert [] == list_litter(home, project)


def test_set_uid_does_not_arrive(ask: Ask, project: Path, http_server: HttpServer) -> None:
    uri = http_server.put("/a.tar", make_tar(tar_member("tool", b"#!", mode=0o6755)))
    write_manifest(project)
    answer = ask("add", uri, "--extract", "--name", "x")
    assert 0o555 == (Path(answer.only["path"]) / "tool").stat().st_mode & 0o7777


def test_the_limits_are_the_users_to_set(ask: Ask, run_dm: RunDm, project: Path, http_server: HttpServer) -> None:
    uri = http_server.put("/bomb.zip", HOSTILE["bomb.zip"])
    path = write_manifest(project, "[_STORAGE]\narchive_max_ratio = 100000\n")
    before = path.read_bytes()
    assert 6 == run_dm("add", uri, "--extract", "--name", "x").returncode
    assert before == path.read_bytes()
    assert 0 == run_dm("config", "set", "--global", "archive_max_ratio", "100000").returncode
    assert 0 == ask("add", uri, "--extract", "--name", "x").status


# Keys and places -------------------------------------------------------------------------------------------------

UNSAFE_KEYS = ["../../escaped", "/etc/escaped", "a/../../b", "a//b", ".", "a/.dm/objects/x", ".DM/format",
               "a.lock", "a/b.complete", "x.tmp/y", "a\\u0000b", "a\\nb", "x" * 241]  # fmt: skip


@pytest.mark.parametrize("key", UNSAFE_KEYS)
def test_a_key_that_escapes_or_is_the_stores_own_is_refused(
    run_dm: RunDm, project: Path, home: Home, tmp_path: Path, http_server: HttpServer, key: str
) -> None:
    good, uri = http_server.put("/good.txt", "good"), http_server.put("/a.txt", "a")
    write_manifest(project, f'[good]\nuri = "{good}"\n')
    assert 0 == run_dm("fetch").returncode
    with (project / "datamanifest.toml").open("a") as manifest:
        manifest.write(f'\n[bad]\nuri = "{uri}"\nkey = "{key}"\n')
    before = snapshot(project, home.data)
    others = sorted(os.listdir(tmp_path))
    commands = [["fetch", "bad"], ["fetch", "--force", "bad"]]
    if key in ("../../escaped", "a/.dm/objects/x"):
        commands += [[command, "bad"] for command in ("verify", "path", "status", "resolve-path", "show")]
    for words in commands:
        assert "unsafe key" in assert_one_error(run_dm(*words), 6), words
    assert before == snapshot(project, home.data)
    assert others == sorted(os.listdir(tmp_path))
    assert 0 == http_server.count("/a.txt")
    # The others go on, and the entry can be taken out.
    done = run_dm("fetch")
    assert 6 == done.returncode and "unchanged good" in done.stdout
    assert 0 == run_dm("list").returncode
    assert 0 == run_dm("rm", "bad", "--delete").returncode
    assert {"_META", "good"} == set(tomllib.loads((project / "datamanifest.toml").read_text()))
    assert (home.data / "datamanifest" / "datasets" / "127.0.0.1" / "good.txt").exists()
    assert others == sorted(os.listdir(tmp_path))


def test_uris_whose_paths_escape_are_refused(
    run_dm: RunDm, project: Path, tmp_path: Path, http_server: HttpServer
) -> None:
    for uri in (f"{http_server.url}/a/../../../etc/x", f"{http_server.url}/.dm/x", f"{http_server.url}/x.complete"):
        write_manifest(project, f'[bad]\nuri = "{uri}"\n')
        assert 6 == run_dm("fetch").returncode, uri


@pytest.mark.parametrize("scope", ["..", "a/b", "datasets", "cached", ".dm", ".hidden"])
def test_a_scope_that_is_no_plain_segment_is_refused(
    run_dm: RunDm, project: Path, http_server: HttpServer, scope: str
) -> None:
    write_manifest(project, f'[a]\nuri = "{http_server.put("/a.txt", "a")}"\nscope = "{scope}"\n')
    done = run_dm("fetch")
    assert done.returncode in (6, 7), done.stderr
    assert scope in assert_one_error(done, done.returncode)
    assert 0 == http_server.count("/a.txt")


def test_a_manifest_may_not_write_outside_unasked(
    run_dm: RunDm, project: Path, tmp_path: Path, http_server: HttpServer
) -> None:
    place = tmp_path / "elsewhere"
    write_manifest(project, f'[a]\nuri = "{http_server.put("/a.txt", "a")}"\nstorage_path = "{place}/$key"\n')
    assert str(place) in assert_one_error(run_dm("fetch"), 6)
    assert not place.exists() and 0 == http_server.count("/a.txt")
    assert 0 == run_dm("config", "set", "--global", "bulk", str(place)).returncode
    assert 0 == run_dm("fetch").returncode
    assert "a" == (place / "127.0.0.1" / "a.txt").read_text()


# What lies at the place ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_the_user_has_at_the_place_is_never_overwritten(
    run_dm: RunDm, ask: Ask, project: Path, home: Home, tmp_path: Path, http_server: HttpServer, kind: str
) -> None:
    write_manifest(project, f'[a]\nuri = "{http_server.put("/a.txt", "theirs")}"\n')
    place = default_copy(home, "127.0.0.1/a.txt")
    place.parent.mkdir(parents=True)
    (tmp_path / "precious").write_text("precious")
    if kind == "file":
        place.write_text("mine")
    elif kind == "folder":
        place.mkdir()
        (place / "notes.txt").write_text("mine")
    else:
        place.symlink_to(tmp_path / "precious")
    before = snapshot(project, home.data)
    message = assert_one_error(run_dm("fetch"), 6)
    assert str(place) in message
    assert before == {name: each for name, each in snapshot(project, home.data).items() if "/.dm" not in name}
    assert ("partial", 3) == (ask("status", "a").only["state"], run_dm("path", "a").returncode)
    done = run_dm("fetch", "--force", "a")
    assert 0 == done.returncode and "is kept at" in done.stderr
    assert "theirs" == place.read_text() and not place.is_symlink()
    kept = read_tree(store_root(home) / ".dm" / "quarantine")
    mine = {"file": ("100644", b"mine"), "folder": ("100644", b"mine"), "link": ("120000", str(tmp_path / "precious"))}
    assert mine[kind] in kept.values()
    assert "precious" == (tmp_path / "precious").read_text()
    assert ("clean", 0) == (ask("status", "a").only["state"], run_dm("verify", "a").returncode)


def test_equal_bytes_without_a_marker_are_adopted(ask: Ask, project: Path, home: Home, http_server: HttpServer) -> None:
    uri = http_server.put("/a.txt", "same")
    write_manifest(project, f'[a]\nuri = "{uri}"\nchecksum = "{hashlib.sha256(b"same").hexdigest()}"\n')
    place = default_copy(home, "127.0.0.1/a.txt")
    place.parent.mkdir(parents=True)
    place.write_text("same")
    assert "unchanged" == ask("fetch").only["status"]
    assert [] == http_server.requests
    assert (b"", "clean") == (place.with_name("a.txt.complete").read_bytes(), ask("status").only["state"])


def test_a_file_at_a_user_managed_place_is_never_overwritten(
    run_dm: RunDm, project: Path, http_server: HttpServer
) -> None:
    uri = http_server.put("/a.txt", "theirs")
    write_manifest(
        project,
        f'[a]\nuri = "{uri}"\nstorage_path = "data/a.txt"\nchecksum = "{hashlib.sha256(b"theirs").hexdigest()}"\n',
    )
    (project / "data").mkdir()
    (project / "data" / "a.txt").write_text("mine")
    assert "data/a.txt" in assert_one_error(run_dm("fetch"), 4)
    assert "mine" == (project / "data" / "a.txt").read_text()
    assert 0 == run_dm("fetch", "--force", "a").returncode
    assert "theirs" == (project / "data" / "a.txt").read_text()
    kept = [each for each in (project / ".datamanifest").rglob("a.txt") if each.is_file()]
    assert ["mine"] == [each.read_text() for each in kept]
    assert ["a.txt"] == os.listdir(project / "data")


def test_two_sources_never_share_a_place(run_dm: RunDm, ask: Ask, project: Path, http_server: HttpServer) -> None:
    one, two = http_server.put("/a?id=1", "one"), http_server.put("/a?id=2", "two")
    path = write_manifest(project, f'[one]\nuri = "{one}"\n', f'[two]\nuri = "{two}"\n',
                          f'[fine]\nuri = "{http_server.put("/f", "f")}"\n')  # fmt: skip
    answer = ask("fetch")
    assert (7, ["failed", "failed", "ok"]) == (answer.status, [each["status"] for each in answer.outcomes])
    assert {"key-collision"} == {each["code"] for each in answer.outcomes[:2]}
    assert all("key" in each["hint"] for each in answer.outcomes[:2])
    assert 0 == http_server.count("/a?id=1") + http_server.count("/a?id=2")
    assert 0 == run_dm("list").returncode == run_dm("show", "one").returncode
    before = path.read_bytes()
    assert "fine" in assert_one_error(run_dm("add", http_server.put("/f?v=2", "g"), "--name", "other"), 7)
    assert before == path.read_bytes()
    assert 0 == run_dm("rm", "two").returncode
    assert 0 == run_dm("fetch", "one").returncode


def test_another_projects_copy_with_other_content_is_gone_around(
    ask: Ask, run_dm: RunDm, project: Path, tmp_path: Path, http_server: HttpServer
) -> None:
    write_manifest(project, f'[a]\nuri = "{http_server.put("/a?id=1", "one")}"\n')
    first = Path(ask("fetch").only["path"])
    other = tmp_path / "other"
    other.mkdir()
    write_manifest(other, f'[a]\nuri = "{http_server.put("/a?id=2", "two")}"\n')
    done = run_dm("fetch", cwd=other)
    assert 0 == done.returncode and "the copy of another source or project" in done.stderr
    second = Path(run_dm("path", "a", cwd=other).stdout.strip())
    assert (first != second, "one", "two") == (True, first.read_text(), second.read_text())
    assert "unchanged" == ask("fetch", cwd=other).only["status"]
    assert (0, 0) == (run_dm("verify").returncode, run_dm("verify", cwd=other).returncode)


def test_zip_names_of_the_test_are_what_they_say() -> None:
    # zipfile cleans names when it reads, not when it writes: the hostile names really are in the archives.
    import io

    with zipfile.ZipFile(io.BytesIO(HOSTILE["dots.zip"])) as archive:
        assert "../../escaped" in archive.namelist()


def test_a_link_that_leads_out_of_a_folder_by_way_of_another_is_refused(
    home: Home, project: Path, tmp_path: Path, run_dm: RunDm
) -> None:
    source = tmp_path / "outside" / "folder"
    source.mkdir(parents=True)
    (source.parent / "secret").write_text("not part of it")
    (source / "here").symlink_to(".")
    (source / "out").symlink_to("here/../secret")  # by its text it stays inside
    write_manifest(project, f'[folder]\nuri = "file://{source}"\n')
    done = run_dm("fetch")
    assert 6 == done.returncode
    assert "the link 'out' leads out of it, to 'here/../secret'" in done.stderr
    assert [] == list_litter(home, project)
