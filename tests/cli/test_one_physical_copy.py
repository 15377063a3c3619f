"""The same content in another scope, project, version, name or store: linked, never fetched or stored again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from tests.fixtures.archives import make_archive, read_tree
from tests.fixtures.commands import Ask, default_copy, store_root, write_manifest
from tests.fixtures.homes import Home, RunDm
from tests.fixtures.machine import MakeTmpfs
from tests.fixtures.servers import HttpServer

DATA = os.urandom(300_000)
SHA256 = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


def count_bytes(*folders: Path) -> int:
    """The bytes of the regular files below folders, those of a hard-linked file once (as ``du`` counts)."""
    files = {}
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                status = path.stat()
                files[status.st_dev, status.st_ino] = status.st_size
    return sum(files.values())


@pytest.mark.parametrize(
    "fields",
    [
        'uri = "{url}/other.bin"',
        'uri = "{url}/a.bin"\nkey = "elsewhere/a.bin"',
        'uri = "{url}/a.bin#v2"',
        'uri = "{url}/a.bin"\nversion = "2"',
        'uri = "{url}/a.bin"\nkey = "again"\nscope = "mine"',
        'uri = "{url}/a.bin"\nkey = "again"\nstore = "$cache"',
        'uri = "{url}/a.bin"\nkey = "again"\nstore = "$repo"',
        'uri = "{url}/a.bin"\nkey = "again"\nstorage_path = "$repo/kept/$key"',
    ],
    ids=["another source", "another key", "another fragment", "version", "scope", "cache", "repo", "a path of its own"],
)
def test_a_second_place_of_a_file_is_a_link_without_a_request(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask, fields: str
) -> None:
    uri = http_server.put("/a.bin", DATA)
    write_manifest(project, f'[a]\nuri = "{uri}"\nchecksum = "{SHA256}"\n')
    assert 0 == ask("fetch").status
    asked, stored = len(http_server.requests), count_bytes(home.path, project)
    with (project / "datamanifest.toml").open("a") as manifest:
        manifest.write(f'\n[b]\n{fields.format(url=http_server.url)}\nchecksum = "{SHA256}"\n')
    answer = ask("fetch", "b")
    assert (0, "linked") == (answer.status, answer.only["message"])
    path = Path(answer.only["path"])
    assert DATA == path.read_bytes() and path != default_copy(home, "127.0.0.1/a.bin")
    assert asked == len(http_server.requests)
    assert count_bytes(home.path, project) - stored < 20_000, "refs, state and stat cache alone"
    assert {"clean"} == {each["state"] for each in ask("status").outcomes}
    assert 0 == ask("verify", "--all").status


@pytest.mark.parametrize("field", ['scope = "mine"', 'store = "$cache"', 'store = "$repo"'])
def test_a_copy_of_the_same_key_elsewhere_is_used_where_it_is(
    project: Path, http_server: HttpServer, ask: Ask, field: str
) -> None:
    uri = http_server.put("/a.bin", DATA)
    write_manifest(project, f'[a]\nuri = "{uri}"\nchecksum = "{SHA256}"\n')
    first = ask("fetch").only["path"]
    write_manifest(project, f'[b]\nuri = "{uri}"\nchecksum = "{SHA256}"\n{field}\n')
    answer = ask("fetch")
    assert (0, "unchanged", first) == (answer.status, answer.only["status"], answer.only["path"])
    assert 1 == http_server.count("/a.bin")


@pytest.mark.parametrize("field", ["", 'scope = "theirs"\n', 'version = "3"\n'])
def test_another_project_gets_a_link_without_a_request(
    home: Home, project: Path, tmp_path: Path, http_server: HttpServer, ask: Ask, field: str
) -> None:
    uri = http_server.put("/a.bin", DATA)
    write_manifest(project, f'[a]\nuri = "{uri}"\n')
    assert 0 == ask("fetch").status
    other = tmp_path / "other"
    other.mkdir()
    write_manifest(other, f'[mine]\nuri = "{uri}"\nchecksum = "{SHA256}"\n{field}')
    asked, stored = len(http_server.requests), count_bytes(home.path)
    answer = ask("fetch", cwd=other)
    assert (0, asked) == (answer.status, len(http_server.requests))
    assert DATA == Path(answer.only["path"]).read_bytes()
    assert count_bytes(home.path) - stored < 20_000


@pytest.mark.parametrize("field", ['key = "b.zip"', 'key = "b.zip"\nscope = "mine"', 'key = "b.zip"\nstore = "$cache"'])
def test_a_second_place_of_a_folder_is_links_without_a_request(
    home: Home, project: Path, http_server: HttpServer, ask: Ask, field: str
) -> None:
    archive = make_archive("zip", [(f"sub/{number}.bin", DATA[number:]) for number in range(5)])
    uri = http_server.put("/a.zip", archive)
    path = write_manifest(project, f'[a]\nuri = "{uri}"\nextract = true\n')
    first = Path(ask("fetch").only["path"])
    declared = path.read_text().split("[a]\n")[1]
    asked, stored = len(http_server.requests), count_bytes(home.path)
    path.write_text(f"{path.read_text()}\n[b]\n{declared.strip()}\n{field}\n")
    answer = ask("fetch", "b")
    assert (0, "linked", asked) == (answer.status, answer.only["message"], len(http_server.requests))
    second = Path(answer.only["path"])
    assert first != second and read_tree(first) == read_tree(second)
    assert count_bytes(home.path) - stored < 30_000
    assert 0 == ask("verify", "--all").status


def test_what_arrives_under_another_name_without_a_checksum_is_stored_once(
    home: Home, project: Path, http_server: HttpServer, ask: Ask
) -> None:
    uris = [http_server.put(f"/{name}.bin", DATA) for name in ("a", "b", "c")]
    write_manifest(project, *[f'[d{number}]\nuri = "{uri}"\n' for number, uri in enumerate(uris)])
    assert 0 == ask("fetch").status
    assert count_bytes(store_root(home)) < len(DATA) + 20_000


def test_a_place_of_the_users_gets_bytes_of_its_own_without_a_request(
    home: Home, project: Path, http_server: HttpServer, ask: Ask
) -> None:
    uri = http_server.put("/a.bin", DATA)
    write_manifest(
        project,
        f'[a]\nuri = "{uri}"\nchecksum = "{SHA256}"\n',
    )
    assert 0 == ask("fetch").status
    with (project / "datamanifest.toml").open("a") as manifest:
        manifest.write(f'\n[b]\nuri = "{uri}"\nchecksum = "{SHA256}"\nkey = "b"\nstorage_path = "mine.bin"\n')
    asked = len(http_server.requests)
    answer = ask("fetch", "b")
    assert (0, asked) == (answer.status, len(http_server.requests))
    about = (project / "mine.bin").stat()
    assert (1, 0o200) == (about.st_nlink, about.st_mode & 0o200), "what is written to there changes no object"


def test_a_store_on_another_file_system_is_copied_from_without_a_request(
    home: Home, project: Path, http_server: HttpServer, ask: Ask, small_tmpfs: MakeTmpfs
) -> None:
    disk = small_tmpfs(4 << 20)
    uri = http_server.put("/a.bin", DATA)
    write_manifest(project, f'[a]\nuri = "{uri}"\nchecksum = "{SHA256}"\n')
    assert 0 == ask("fetch").status
    asked = len(http_server.requests)
    with (project / "datamanifest.toml").open("a") as manifest:
        manifest.write(f'\n[b]\nuri = "{uri}"\nchecksum = "{SHA256}"\nkey = "b"\nstore = "$cache"\n')
    answer = ask("fetch", "b", env={"DATAMANIFEST_CACHE_DIR": str(disk)})
    assert (0, asked) == (answer.status, len(http_server.requests)), answer
    assert DATA == (disk / "datasets" / "b").read_bytes()


def test_an_object_that_is_gone_from_a_folders_tree_sends_fetch_to_the_source(
    home: Home, project: Path, http_server: HttpServer, ask: Ask
) -> None:
    uri = http_server.put("/a.zip", make_archive("zip", [("x.bin", DATA), ("y.bin", DATA[:9])]))
    path = write_manifest(project, f'[a]\nuri = "{uri}"\nextract = true\n')
    first = Path(ask("fetch").only["path"])
    declared = path.read_text().split("[a]\n")[1]
    for each in (store_root(home) / ".dm" / "objects").rglob("*"):
        if each.is_file() and each.stat().st_size == 9:
            each.unlink()
    for scope in ("mine", "yours"):
        path.write_text(f'{path.read_text()}\n[{scope}]\n{declared.strip()}\nkey = "{scope}.zip"\n')
    answer = ask("fetch", "mine")
    assert (0, 2) == (answer.status, http_server.count("/a.zip")), answer
    assert "looking further" in answer.stderr
    assert read_tree(first) == read_tree(Path(answer.only["path"]))
    assert "linked" == ask("fetch", "yours").only["message"], "what arrived made the store whole again"


def test_a_folder_for_a_place_of_the_users_is_writable_and_its_own(
    home: Home, project: Path, http_server: HttpServer, ask: Ask
) -> None:
    uri = http_server.put("/a.zip", make_archive("zip", [("sub/x.bin", DATA), ("y.bin", DATA[:9])]))
    path = write_manifest(project, f'[a]\nuri = "{uri}"\nextract = true\n')
    first = Path(ask("fetch").only["path"])
    declared = path.read_text().split("[a]\n")[1]
    path.write_text(f'{path.read_text()}\n[b]\n{declared.strip()}\nkey = "b"\nstorage_path = "mine"\n')
    answer = ask("fetch", "b")
    assert (0, 1) == (answer.status, http_server.count("/a.zip"))
    assert {**read_tree(project / "mine"), ".complete": ("100644", b"")} == read_tree(first)
    for name in ("sub/x.bin", "y.bin"):
        about = (project / "mine" / name).stat()
        assert (1, 0o200) == (about.st_nlink, about.st_mode & 0o200)


def test_show_says_what_a_copy_takes_for_itself(
    project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    uri = http_server.put("/a.bin", DATA)
    tables = [f'[{name}]\nuri = "{uri}"\nkey = "{name}"\nchecksum = "{SHA256}"\n' for name in ("a", "b")]
    write_manifest(project, *tables)
    assert 0 == ask("fetch", "a").status
    assert (len(DATA), len(DATA)) == tuple(ask("show", "a").document["dataset"][each] for each in ("bytes", "disk"))
    assert None is ask("show", "b").document["dataset"]["disk"]
    assert 0 == ask("fetch").status
    assert [0, 0] == [ask("show", name).document["dataset"]["disk"] for name in ("a", "b")]
    assert "disk: 0" in run_dm("show", "b").stdout
