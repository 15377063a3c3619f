"""The plumbing commands: what they print is a promise."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest
from blake3 import blake3

from tests.fixtures.commands import Ask, assert_one_error, default_copy, list_litter, store_root, write_manifest
from tests.fixtures.homes import Home, RunDm
from tests.fixtures.machine import needs
from tests.fixtures.servers import HttpServer


def blob_id(data: bytes) -> str:
    return blake3(data).hexdigest()


def tree_bytes(*entries: tuple[str, str, int, str]) -> bytes:
    """The bytes of a tree: mode, hex id, size, name of each entry, in order."""
    return b"".join(
        f"{mode} {hexadecimal} {size}\t{name}".encode() + b"\0" for mode, hexadecimal, size, name in entries
    )


def tree_id(data: bytes) -> str:
    return blake3(data, derive_key_context="dm tree v1").hexdigest()


@pytest.fixture
def folder(project: Path) -> Path:
    """A folder with a file, a program, a link, a folder and an empty one."""
    folder = project / "folder"
    (folder / "sub dir" / "empty").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("a.txt")
    (folder / "sub dir" / "é.txt").write_text("accent")
    return folder


EMPTY = tree_id(b"")
SUB = tree_bytes(("040000", EMPTY, 0, "empty"), ("100644", blob_id(b"accent"), 6, "é.txt"))
TOP = tree_bytes(
    ("100644", blob_id(b"a"), 1, "a.txt"),
    ("120000", blob_id(b"a.txt"), 5, "link"),
    ("100755", blob_id(b"#!/bin/sh\n"), 10, "run.sh"),
    ("040000", tree_id(SUB), 6, "sub dir"),
)
TREE = f"blake3-tree:{tree_id(TOP)}"


def test_hash_object_gives_what_b3sum_gives(run_dm: RunDm, project: Path) -> None:
    data = os.urandom(300_000)
    (project / "data").write_bytes(data)
    summed = subprocess.run([needs("b3sum"), "data"], cwd=project, capture_output=True, text=True, check=True)
    done = run_dm("hash-object", "data")
    assert (0, f"blake3:{summed.stdout.split()[0]}\n", "") == (done.returncode, done.stdout, done.stderr)


def test_hash_object_gives_a_digest_a_line(run_dm: RunDm, folder: Path, home: Home) -> None:
    done = run_dm("hash-object", "folder/a.txt", "folder")
    assert f"blake3:{blob_id(b'a')}\n{TREE}\n" == done.stdout
    sha256 = hashlib.sha256(b"a").hexdigest()
    assert f"sha256:{sha256}\n" == run_dm("hash-object", "--algo", "sha256", "folder/a.txt").stdout
    assert (
        f"md5:{hashlib.md5(b'a').hexdigest()}\0" == run_dm("hash-object", "-z", "--algo", "md5", "folder/a.txt").stdout
    )
    assert f"blake3:{blob_id(b'stdin')}\n" == run_dm("hash-object", "--stdin", input="stdin").stdout
    listed = run_dm("hash-object", "--stdin-paths", input="folder/a.txt\nfolder\n")
    assert f"blake3:{blob_id(b'a')}\n{TREE}\n" == listed.stdout
    listed = run_dm("hash-object", "--stdin-paths", "-z", input="folder/a.txt\0folder\0")
    assert f"blake3:{blob_id(b'a')}\0{TREE}\0" == listed.stdout
    assert not store_root(home).exists()


def test_hash_object_refuses_what_it_cannot_mean(run_dm: RunDm, folder: Path) -> None:
    assert "unknown algorithm 'crc32'" in assert_one_error(run_dm("hash-object", "--algo", "crc32", "folder"), 2)
    assert "-w stores" in assert_one_error(run_dm("hash-object", "-w", "--algo", "md5", "folder"), 2)
    assert "'gone' does not exist" == assert_one_error(run_dm("hash-object", "gone"), 3)
    os.mkfifo(folder / "pipe")
    assert "pipe" in assert_one_error(run_dm("hash-object", "folder"), 6)


def test_objects_go_in_and_come_out_again(run_dm: RunDm, ask: Ask, folder: Path, project: Path, home: Home) -> None:
    before = {path: path.lstat() for path in folder.rglob("*")}
    assert f"{TREE}\n" == run_dm("hash-object", "-w", "folder").stdout
    for path, stat in before.items():
        now = path.lstat()
        assert (stat.st_mode, stat.st_mtime_ns, stat.st_nlink, stat.st_ino) == (
            now.st_mode, now.st_mtime_ns, now.st_nlink, now.st_ino,
        ), path  # fmt: skip
    lines = TOP.decode().replace("\0", "\n")
    assert lines == run_dm("ls-tree", TREE).stdout
    assert lines == run_dm("cat-object", TREE).stdout
    assert TOP.decode() == run_dm("ls-tree", "-z", TREE).stdout
    assert lines == run_dm("ls-tree", tree_id(TOP)).stdout
    recursive = [line.split("\t")[1] for line in run_dm("ls-tree", "-r", TREE).stdout.splitlines()]
    assert ["a.txt", "link", "run.sh", "sub dir/é.txt"] == recursive
    entries = ask("ls-tree", TREE).document["entries"]
    assert {"name": "run.sh", "mode": "100755", "id": blob_id(b"#!/bin/sh\n"), "bytes": 10} == entries[2]
    assert "accent" == run_dm("cat-object", f"blake3:{blob_id(b'accent')}").stdout
    done = run_dm("checkout-object", TREE, "out")
    assert f"{project / 'out'}\n" == done.stdout
    assert f"{TREE}\n" == run_dm("hash-object", "out").stdout
    assert "a.txt" == os.readlink(project / "out" / "link")
    assert (project / "out" / "sub dir" / "empty").is_dir()
    answer = ask("checkout-object", f"blake3:{blob_id(b'a')}", "single", "--link", "copy")
    assert ("copy", str(project / "single")) == (answer.document["mode"], answer.only["path"])
    assert [] == list_litter(home, project)


def test_checkout_object_writes_over_nothing(run_dm: RunDm, folder: Path, project: Path) -> None:
    run_dm("hash-object", "-w", "folder")
    (project / "mine").write_text("mine")
    assert "mine" in assert_one_error(run_dm("checkout-object", TREE, "mine"), 6)
    assert "mine" == (project / "mine").read_text()
    nowhere = "blake3:" + "0" * 64
    assert f"no object {nowhere}" in assert_one_error(run_dm("checkout-object", nowhere, "out"), 3)
    assert not (project / "out").exists()


def test_a_damaged_object_is_never_handed_out(run_dm: RunDm, project: Path, home: Home) -> None:
    (project / "data").write_bytes(b"x" * 10_000)
    digest = run_dm("hash-object", "-w", "data").stdout.strip()
    hexadecimal = digest.partition(":")[2]
    stored = store_root(home) / ".dm" / "objects" / hexadecimal[:2] / hexadecimal[2:]
    stat = stored.stat()
    stored.chmod(0o644)
    stored.write_bytes(b"y" + b"x" * 9_999)
    os.utime(stored, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert hexadecimal[:12] in assert_one_error(run_dm("cat-object", digest), 4)
    assert hexadecimal[:12] in assert_one_error(run_dm("checkout-object", digest, "out"), 4)
    assert not (project / "out").exists()


def test_lists_and_totals_of_a_store(run_dm: RunDm, ask: Ask, folder: Path, project: Path, home: Home) -> None:
    assert ("", "") == (run_dm("list-objects").stdout, run_dm("list-refs").stdout)
    assert not store_root(home).exists()
    run_dm("hash-object", "-w", "folder")
    blobs = [b"a", b"a.txt", b"#!/bin/sh\n", b"accent"]
    wanted = {f"blake3:{blob_id(data)}": len(data) for data in blobs}
    wanted |= {f"blake3-tree:{tree_id(data)}": len(data) for data in (b"", SUB, TOP)}
    lines = run_dm("list-objects").stdout.splitlines()
    assert wanted == {digest: int(size) for digest, size in (line.split(" ") for line in lines)}
    identities = [line.split(" ")[0].partition(":")[2] for line in lines]
    assert sorted(identities) == identities
    assert "\0".join(lines) + "\0" == run_dm("list-objects", "-z").stdout
    assert wanted == {each["digest"]: each["bytes"] for each in ask("list-objects").outcomes}
    totals = dict(line.split(" ") for line in run_dm("count-objects").stdout.splitlines())
    sizes = {"blob_bytes": sum(map(len, blobs)), "tree_bytes": len(SUB) + len(TOP)}
    expected = {"blobs": 4, "trees": 3, "refs": 0, **sizes}
    assert expected == {name: int(number) for name, number in totals.items()}
    document = ask("count-objects").document
    assert expected == {name: document[name] for name in expected}


def test_refs_are_pointed_listed_and_removed(run_dm: RunDm, ask: Ask, folder: Path, home: Home) -> None:
    run_dm("hash-object", "-w", "folder")
    assert f"{TREE} x/y\n" == run_dm("update-ref", TREE, "x/y").stdout
    assert f"{TREE} x/y\n" == run_dm("list-refs").stdout
    assert f"{TREE} x/y\0" == run_dm("list-refs", "-z").stdout
    outcome = ask("list-refs").only
    assert ("x/y", str(store_root(home) / "x/y"), TREE) == (outcome["name"], outcome["path"], outcome["digest"])
    line = (store_root(home) / ".dm" / "refs" / "x" / "y").read_text()
    assert f"{TREE} 22 4 - -\n" == line
    assert "no object" in assert_one_error(run_dm("update-ref", "blake3:" + "0" * 64, "x/z"), 3)
    assert "unsafe key" in assert_one_error(run_dm("update-ref", TREE, "../x"), 6)
    assert "unsafe key" in assert_one_error(run_dm("update-ref", TREE, "x/.dm/y"), 6)
    assert "- x/y\n" == run_dm("update-ref", "-d", "x/y").stdout
    assert "" == run_dm("list-refs").stdout
    assert "no ref 'x/y'" in assert_one_error(run_dm("update-ref", "-d", "x/y"), 3)


def test_a_store_elsewhere_is_named_by_root(run_dm: RunDm, project: Path, home: Home) -> None:
    (project / "data").write_text("data")
    digest = run_dm("hash-object", "-w", "--root", "elsewhere", "data").stdout.strip()
    assert (project / "elsewhere" / ".dm" / "format").read_text() == "dm store 1\n"
    assert "*\n" == (project / "elsewhere" / ".dm" / ".gitignore").read_text()
    assert "data" == run_dm("cat-object", "--root", "elsewhere", digest).stdout
    assert "no object" in assert_one_error(run_dm("cat-object", digest), 3)
    assert not store_root(home).exists()


def test_a_store_of_a_later_format_is_left_alone(run_dm: RunDm, project: Path, home: Home) -> None:
    meta = store_root(home) / ".dm"
    meta.mkdir(parents=True)
    (meta / "format").write_text("dm store 2\n")
    (project / "data").write_text("data")
    message = assert_one_error(run_dm("hash-object", "-w", "data"), 7)
    assert "2" in message and str(meta) in message
    assert ["format"] == [path.name for path in meta.iterdir()]


@pytest.mark.parametrize(
    "words",
    [
        ("cat-object", "{}"),
        ("ls-tree", "{}"),
        ("checkout-object", "{}", "here"),
        ("update-ref", "{}", "a"),
        ("verify-path", "data", "--digest", "{}"),
        ("fetch-uri", "file:///data", "here", "--digest", "{}"),
    ],
)
def test_digests_of_the_command_line_are_checked(run_dm: RunDm, project: Path, words: tuple[str, ...]) -> None:
    (project / "data").write_text("data")
    assert "is not a md5 digest" in assert_one_error(run_dm(*[word.format("md5:abc") for word in words]), 2)
    assert "unknown digest algorithm 'crc'" in assert_one_error(run_dm(*[word.format("crc:abc") for word in words]), 2)


def test_a_bare_digest_of_the_command_line_is_a_blobs_id(run_dm: RunDm) -> None:
    assert "not a blake3 digest" in assert_one_error(run_dm("cat-object", "abc"), 2)


def test_resolve_path_says_where_it_belongs_where_it_is_and_why(
    run_dm: RunDm, ask: Ask, project: Path, home: Home, http_server: HttpServer
) -> None:
    write_manifest(project, f'[a]\nuri = "{http_server.put("/a.txt", "a")}"\n')
    place = default_copy(home, "127.0.0.1/a.txt")
    assert f"{place}\n" == run_dm("resolve-path", "a").stdout
    assert "'a' is not there" == assert_one_error(run_dm("resolve-path", "--existing", "a"), 3)
    run_dm("fetch")
    assert f"{place}\n" == run_dm("resolve-path", "--existing", "a").stdout
    lines = run_dm("resolve-path", "--explain", "a", env={"DATAMANIFEST_SCOPE": ""}).stdout.splitlines()
    winners = [line for line in lines if line.startswith("*\t")]
    assert [["*", "composed", str(place)]] == [[*line.split("\t")[:2], line.split("\t")[3]] for line in winners]
    rules = ask("resolve-path", "--explain", "a").document["rules"]
    assert [("composed", True)] == [(rule["rule"], rule["wins"]) for rule in rules if rule["wins"]]
    elsewhere = run_dm("resolve-path", "a", env={"DATAMANIFEST_DATASETS_DIR": "/somewhere/else"}).stdout
    assert "/somewhere/else/127.0.0.1/a.txt\n" == elsewhere


def test_resolve_config_names_the_rung(run_dm: RunDm, ask: Ask, project: Path, home: Home) -> None:
    path = write_manifest(project, '[_STORAGE]\nscope = "manifest"\n')
    (home.config / "datamanifest").mkdir()
    (home.config / "datamanifest" / "config.toml").write_text('scope = "user"\nbig = "/big"\n')
    done = run_dm("resolve-config", "scope")
    value, origin = done.stdout.rstrip("\n").split("\t")
    assert "scope=manifest" == value and str(path) in origin
    lines = run_dm("resolve-config", "--explain", "scope", env={"DATAMANIFEST_SCOPE": "env"}).stdout.splitlines()
    shown = [line.rpartition("\t")[0] for line in lines if not line.rpartition("\t")[0].endswith("=")]
    assert ["*\tscope=env", "-\tscope=manifest", "-\tscope=user"] == shown
    assert "big=/big" in run_dm("resolve-config").stdout
    assert run_dm("resolve-config", "-z", "scope").stdout.endswith("\0")
    settings = ask("resolve-config", "big").document["settings"]
    assert [("big", "/big")] == [(row["name"], row["value"]) for row in settings]
    assert "'nothing' is not set" == assert_one_error(run_dm("resolve-config", "nothing"), 3)


def test_a_setting_with_a_line_end_in_it_looks_like_no_other_setting(run_dm: RunDm, project: Path) -> None:
    path = write_manifest(project, '[_STORAGE]\nmine = "x\\tuser\\nssh_command=y\\u001b[2K"\n')
    origin = f"{path}:5 [_STORAGE]"
    found = run_dm("resolve-config").stdout.splitlines()
    assert [f"mine=x\\tuser\\nssh_command=y\\x1b[2K\t{origin}"] == [line for line in found if "mine" in line]
    assert not [line for line in found if line.startswith("ssh_command=")]
    assert f"mine=x\tuser\nssh_command=y\x1b[2K\t{origin}\0" == run_dm("resolve-config", "-z", "mine").stdout


def test_read_manifest_is_json(run_dm: RunDm, project: Path) -> None:
    path = write_manifest(
        project,
        '[a]\nuri = "https://example.com/a.zip#2"\nextract = true\nnote = "kept"\n',
        '[bad]\nuri = "https://example.com/b"\nkey = "../b"\n',
        "[_OTHER]\nx = 1\n",
    )
    document = json.loads(run_dm("read-manifest").stdout)
    assert (1, str(path)) == (document["format"], document["path"])
    row = document["datasets"]["a"]
    assert ("example.com/a.zip#2", "example.com/a.zip#2.d") == (row["key"], row["landing"])
    assert {"uri": "https://example.com/a.zip#2", "extract": True, "note": "kept"} == row["fields"]
    assert (None, None) == (document["datasets"]["bad"]["key"], document["datasets"]["bad"]["landing"])
    assert "unsafe key" in document["datasets"]["bad"]["fault"]
    assert {"x": 1} == document["structure"]["_OTHER"]


def test_state_is_written_and_read(run_dm: RunDm, ask: Ask, project: Path) -> None:
    write_manifest(project)
    empty = json.loads(run_dm("read-state").stdout)
    assert {"format": 1, "datasets": {}, "datacache": {}} == empty
    digest = "sha256:" + "a" * 64
    rows = [
        {"key": "x/y", "storage_path": "/data/y", "digest": digest},
        {"key": "x/z", "storage_path": "below/z"},
        {"key": "gone", "storage_path": "g"},
    ]
    answer = ask("write-state", input="\n".join(map(json.dumps, rows)) + "\n")
    assert (0, ["x/y", "x/z", "gone"]) == (answer.status, [each["name"] for each in answer.outcomes])
    assert 0 == run_dm("write-state", input='{"key": "gone", "delete": true}\n').returncode
    found = json.loads(run_dm("read-state").stdout)["datasets"]
    assert {"storage_path": "/data/y", "path": "/data/y", "sha256": "a" * 64} == found["x/y"]
    assert {"storage_path": "below/z", "path": str(project / "below/z"), "sha256": None} == found["x/z"]
    assert {"x/y", "x/z"} == set(found)


@pytest.mark.parametrize(
    "line",
    ["nonsense", "[]", '{"key": ""}', '{"key": "x"}', '{"key": "x", "storage_path": "y", "colour": 1}',
     '{"key": "x", "storage_path": "y", "digest": "md5:' + "0" * 32 + '"}',
     '{"key": "x", "storage_path": "y", "digest": "sha256:12"}'],
)  # fmt: skip
def test_write_state_writes_nothing_when_a_line_is_malformed(run_dm: RunDm, project: Path, line: str) -> None:
    write_manifest(project)
    done = run_dm("write-state", input='{"key": "a", "storage_path": "b"}\n' + line + "\n")
    message = assert_one_error(done, 7)
    assert message.startswith("stdin:2: "), message
    assert ["datamanifest.toml"] == [path.name for path in project.iterdir()]


def test_fetch_uri_puts_one_file_in_place(
    run_dm: RunDm, ask: Ask, project: Path, http_server: HttpServer, home: Home
) -> None:
    uri = http_server.put("/a.txt", "abc")
    sha256 = hashlib.sha256(b"abc").hexdigest()
    done = run_dm("fetch-uri", uri, "deep/a.txt")
    assert (0, f"sha256:{sha256}\n") == (done.returncode, done.stdout)
    assert "abc" == (project / "deep" / "a.txt").read_text()
    assert "'deep/a.txt' exists" == assert_one_error(run_dm("fetch-uri", uri, "deep/a.txt"), 6)
    outcome = ask("fetch-uri", uri, "b.txt", "--algo", "md5").only
    assert f"md5:{hashlib.md5(b'abc').hexdigest()}" == outcome["digest"]
    message = assert_one_error(run_dm("fetch-uri", uri, "c.txt", "--digest", "sha256:" + "0" * 64), 4)
    assert f"gave sha256:{sha256}" in message
    assert ["a.txt"] == [path.name for path in (project / "deep").iterdir()]
    assert ["b.txt", "deep"] == sorted(path.name for path in project.iterdir())
    assert [] == list_litter(home, project)


def test_fetch_uri_goes_on_where_it_was(run_dm: RunDm, project: Path, http_server: HttpServer) -> None:
    body = os.urandom(2_000_000)
    uri = http_server.put("/a", body)
    http_server.truncate("/a", 1_000_000)
    done = run_dm("fetch-uri", uri, "a", env={"DATAMANIFEST_HTTP_RETRIES": "0"})
    assert 5 == done.returncode and not (project / "a").exists()
    assert 0 == run_dm("fetch-uri", uri, "a").returncode
    assert body == (project / "a").read_bytes()
    assert http_server.received("/a")[-1].range is not None
    assert ["a"] == [path.name for path in project.iterdir()]


def test_publish_moves_a_staged_entry_into_place(
    run_dm: RunDm, ask: Ask, folder: Path, project: Path, home: Home
) -> None:
    place = store_root(home) / "datasets" / "x" / "folder"
    done = run_dm("publish", "folder", place)
    assert (0, f"{TREE}\n") == (done.returncode, done.stdout)
    assert not folder.exists()
    assert b"" == (place / ".complete").read_bytes()
    assert f"{TREE} datasets/x/folder\n" == run_dm("list-refs").stdout
    assert "ok\n" == run_dm("verify-path", place).stdout
    (project / "file").write_text("one")
    answer = ask("publish", "file", place.with_name("file"))
    assert ("ok", f"blake3:{blob_id(b'one')}") == (answer.only["status"], answer.only["digest"])
    assert b"" == place.with_name("file.complete").read_bytes()
    (project / "file").write_text("one")
    assert "unchanged" == ask("publish", "file", place.with_name("file")).only["status"]
    (project / "file").write_text("two")
    message = assert_one_error(run_dm("publish", "file", place.with_name("file")), 6)
    assert str(place.with_name("file")) in message
    assert ("one", "two") == (place.with_name("file").read_text(), (project / "file").read_text())
    assert "not below the store root" in assert_one_error(run_dm("publish", "file", project / "out"), 2)
    assert "'gone' does not exist" == assert_one_error(run_dm("publish", "gone", place / "x"), 3)


def test_verify_path_names_each_path_that_differs(
    run_dm: RunDm, ask: Ask, folder: Path, project: Path, home: Home
) -> None:
    place = store_root(home) / "datasets" / "folder"
    run_dm("publish", "folder", place)
    place.chmod(0o755)
    for path in ("a.txt", "run.sh"):
        (place / path).chmod(0o755)
    (place / "a.txt").unlink()
    (place / "a.txt").write_text("b")
    (place / "run.sh").chmod(0o644)
    (place / "link").unlink()
    (place / "new\nline").write_text("new")
    done = run_dm("verify-path", place)
    assert 4 == done.returncode
    assert ["added new\\nline", "changed a.txt", "lost link", "mode run.sh"] == sorted(done.stdout.splitlines())
    records = run_dm("verify-path", "-z", place).stdout.split("\0")
    assert ["", "added new\nline", "changed a.txt", "lost link", "mode run.sh"] == sorted(records)
    answer = ask("verify-path", place)
    assert (4, "failed", "content-mismatch") == (answer.status, answer.only["status"], answer.only["code"])
    assert {"path": "a.txt", "how": "changed"} in answer.only["differences"]


def test_verify_path_holds_against_a_given_digest(run_dm: RunDm, folder: Path, project: Path) -> None:
    assert "ok\n" == run_dm("verify-path", "folder", "--digest", TREE).stdout
    sha256 = hashlib.sha256(b"a").hexdigest()
    assert "ok\n" == run_dm("verify-path", "folder/a.txt", "--digest", f"sha256:{sha256}").stdout
    done = run_dm("verify-path", "folder/a.txt", "--digest", "sha256:" + "0" * 64)
    assert (4, "changed .\n") == (done.returncode, done.stdout)
    assert "nothing is known of 'folder'" == assert_one_error(run_dm("verify-path", "folder"), 3)
    assert "'gone' does not exist" == assert_one_error(run_dm("verify-path", "gone"), 3)


def test_names_that_are_not_utf8_are_bytes_everywhere(run_dm: RunDm, ask: Ask, project: Path) -> None:
    folder = project / "bytes"
    folder.mkdir()
    name = os.fsdecode(b"caf\xe9.txt")
    (folder / name).write_text("x")
    digest = run_dm("hash-object", "-w", "bytes").stdout.strip()
    expected = b"100644 " + blob_id(b"x").encode() + b" 1\tcaf\xe9.txt\0"
    assert f"blake3-tree:{tree_id(expected)}" == digest
    assert expected == os.fsencode(run_dm("ls-tree", "-z", digest).stdout)
    entry = ask("ls-tree", digest).document["entries"][0]
    assert "caf\N{REPLACEMENT CHARACTER}.txt" == entry["name"] and "Y2Fm6S50eHQ=" == entry["name_b64"]
    (folder / name).write_text("y")
    answer = ask("verify-path", "bytes", "--digest", digest)
    assert [("changed", "Y2Fm6S50eHQ=")] == [(each["how"], each["path_b64"]) for each in answer.only["differences"]]
