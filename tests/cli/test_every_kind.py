"""One manifest with a dataset of every kind: fetched, loaded, verified, fetched again without work.

Every source is a real one on loopback: HTTP, git's daemon, http backend and sshd, rsync over ssh, an S3 server, this
machine's files, R. Only Julia is a stand-in, which does what its line of code would.
"""

from __future__ import annotations

import os
import pickle
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import dm
from dm.environment import Environment
from tests.fixtures.archives import make_archive
from tests.fixtures.commands import NO_RETRIES, Ask, list_litter, write_manifest
from tests.fixtures.git_servers import GitDaemon, GitHttp, Repository
from tests.fixtures.homes import Home, RunDm
from tests.fixtures.machine import needs
from tests.fixtures.relay import Relay
from tests.fixtures.seaweed import Bucket
from tests.fixtures.servers import HttpServer
from tests.fixtures.sshd import Sshd

TABLE = b"a,b\n1,2\n3,4\n"
COLUMNS = {"a": [1, 3], "b": [2, 4]}
VALUE = {"a": (1, 2)}

OWN = """
from pathlib import Path

def log(word):
    with open(Path(__file__).with_name("runs.log"), "a") as file:
        file.write(word + "\\n")

def conventional(download_path, key, version):
    log("own")
    Path(download_path).write_text(f"{key} {version}")

def explicit(path, *, rows, where):
    log("explicit")
    print("what a fetcher prints is no result")
    folder = Path(path)
    (folder / "sub").mkdir(parents=True)
    (folder / "rows.json").write_text(str(rows))
    (folder / "sub" / "where.txt").write_text(where)

def read(path):
    log("loader")
    return "read by the project's own loader: " + Path(path).read_text()
"""

IN_R = """
get <- function(download_path, requires_paths, version) {
  cat("r\\n", file = "runs.log", append = TRUE)
  lines <- unlist(lapply(requires_paths, readLines))
  writeLines(c(paste("version", version), lines), download_path)
}
"""

#: Does what ``make(; to)`` of the manifest would do in Julia, with the call as `dm` hands it over.
JULIA = """#!{python}
import os, pathlib
lines = open(os.environ["DATAMANIFEST_CALL"], encoding="utf-8").read().splitlines()
assert lines[lines.index("sname") + 1] == "smake"
with open("runs.log", "a") as log:
    log.write("julia\\n")
pathlib.Path(lines[lines.index("sto") + 1][1:]).write_text("by a stand-in for Julia")
"""

#: Another tool, for a language that `dm` has no runtime for: called as the contract says.
PEER = """#!/bin/sh
set -e
test "$1 $3 $5" = "fetch --datasets-toml --datasets-folder"
echo peer >> runs.log
mkdir -p "$6/made"
printf 'by a peer' > "$6/made/$2.txt"
: > "$6/made/$2.txt.complete"
"""

SCRIPT = """
import os, sys, zipfile
with open("runs.log", "a") as log:
    log.write("shell\\n")
target, *sources = sys.argv[1:]
if target.endswith(".zip"):
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("made/by shell.txt", "unpacked")
else:
    with open(target, "w") as file:
        file.write("".join(open(source).read() for source in sources))
"""


class Scene(NamedTuple):
    """The sources of one manifest, and what each dataset must be: a file's bytes, or a folder's files."""

    tables: list[str]
    expected: dict[str, bytes | dict[str, bytes]]
    variables: dict[str, str]
    count_requests: Callable[[], dict[str, object]]


@pytest.fixture
def scene(
    project: Path,
    tmp_path: Path,
    http_server: HttpServer,
    git_daemon: GitDaemon,
    git_http: GitHttp,
    repository: Repository,
    sshd: Sshd,
    bucket: Bucket,
) -> Iterator[Scene]:
    for tool in ("Rscript", "rsync", "git"):
        needs(tool)
    (project / "own.py").write_text(OWN)
    (project / "get.R").write_text(IN_R)
    (project / "make data.py").write_text(SCRIPT)
    (project / "mine").mkdir()
    (project / "mine" / "notes.md").write_text("# my own\n")
    programs = tmp_path / "julia here"
    programs.mkdir()
    (programs / "julia").write_text(JULIA.format(python=sys.executable))
    (programs / "datamanifest-fortran").write_text(PEER)
    for program in programs.iterdir():
        program.chmod(0o755)

    commit = repository.commit({"t.csv": TABLE, "sub/x.txt": b"x\n"})
    repository.tag("v1", commit)
    repository.commit({"t.csv": b"a,b\n", "later.txt": b"later\n"})
    served = sshd.home / "ser ved"
    served.mkdir()
    (served / "far away.csv").write_bytes(TABLE)
    (served / "folder").mkdir()
    (served / "folder" / "f.txt").write_text("f\n")
    local = tmp_path / "local folder"
    local.mkdir()
    (local / "l.csv").write_bytes(TABLE)
    s3_object = bucket.put("one/t.csv", TABLE)
    for name in ("p/a.txt", "p/deep/b.txt"):
        bucket.put(name, name.encode())
    archive = [("t.csv", TABLE), ("deep/x.txt", b"x\n")]
    tree = {"t.csv": TABLE, "deep/x.txt": b"x\n"}
    tagged = {"t.csv": TABLE, "sub/x.txt": b"x\n"}
    shell = f"'{sys.executable}' 'make data.py'"

    datasets: list[tuple[str, str, bytes | dict[str, bytes]]] = [
        ("http", f'uri = "{http_server.put("/t.csv", TABLE)}"\nversion = "v3"', TABLE),
        (
            "md5",
            f'uri = "{http_server.put("/m.json", b"[1]")}"\nchecksum = "md5:35dba5d75538a9bbe0b4da4422759a0e"',
            b"[1]",
        ),
        (
            "uris",
            'uris = ["{}", "{}"]'.format(http_server.put("/many/x/1.txt", "1"), http_server.put("/many/y/2.txt", "2")),
            {"x/1.txt": b"1", "y/2.txt": b"2"},
        ),
        ("zip", f'uri = "{http_server.put("/a.zip", make_archive("zip", archive))}"\nextract = true', tree),
        ("tar", f'uri = "{http_server.put("/b.tar.gz", make_archive("tar.gz", archive))}"\nextract = true', tree),
        ("file", f'uri = "{(local / "l.csv").as_uri()}"\nkey = "here/l.csv"', TABLE),
        ("file_folder", f'uri = "{local.as_uri()}"\nkey = "here/folder"', {"l.csv": TABLE}),
        ("git", f'uri = "{git_daemon.uri("r.git")}"\nbranch = "v1"', tagged),
        ("git_http", f'uri = "git+{git_http.uri("r.git")}"\nbranch = "{commit}"\nkey = "git/http"', tagged),
        ("git_file", f'uri = "{repository.path.as_uri()}"\nbranch = "v1"\nkey = "git/file"', tagged),
        ("git_ssh", f'uri = "{sshd.uri(repository.path, scheme="git+ssh")}"\nbranch = "v1"\nkey = "git/ssh"', tagged),
        ("ssh", f'uri = "{sshd.uri("/~/ser ved/far away.csv")}"', TABLE),
        ("rsync", f'uri = "{sshd.uri("/~/ser ved/folder", scheme="rsync")}"', {"f.txt": b"f\n"}),
        ("s3", f'uri = "{s3_object}"', TABLE),
        (
            "s3_prefix",
            f'uri = "{bucket.uri}p/"\nkey = "bucket/p"',
            {"a.txt": b"p/a.txt", "deep/b.txt": b"p/deep/b.txt"},
        ),
        (
            "shell",
            f'key = "made/shell.txt"\nrequires = ["http", "own"]\nshell = "{shell} $download_path $path_http $path_2"',
            TABLE + b"made/own.txt v9",
        ),
        (
            "shell_zip",
            f'key = "made/s.zip"\nextract = true\nshell = "{shell} $download_path"',
            {"made/by shell.txt": b"unpacked"},
        ),
        ("own", 'key = "made/own.txt"\nversion = "v9"\nfetcher = "own:conventional"', b"made/own.txt v9"),
        (
            "explicit",
            """key = "made/$odd name"
fetcher = { ref = "own:explicit", args = ["$download_path"], kwargs = { rows = [1, 2], where = "$key" } }""",
            {"rows.json": b"[1, 2]", "sub/where.txt": b"made/$odd name"},
        ),
        (
            "r",
            'key = "made/r.txt"\nversion = "7"\nrequires = ["own"]\n_LANG.r.fetcher = "get:get"',
            b"version 7\nmade/own.txt v9\n",
        ),
        (
            "julia",
            'key = "made/julia.txt"\n_LANG.julia.fetcher = { ref = "grids:make", kwargs = { to = "$download_path" } }',
            b"by a stand-in for Julia",
        ),
        (
            "chain",
            f'key = "made/chain.txt"\nrequires = ["r"]\nloader = "own:read"\nshell = "{shell} $download_path $path_r"',
            b"version 7\nmade/own.txt v9\n",
        ),
        ("peer", 'key = "made/peer.txt"\n_LANG.fortran.fetcher = "grids:make"', b"by a peer"),
        ("pickled", f'uri = "{http_server.put("/v.pkl", pickle.dumps(VALUE))}"', pickle.dumps(VALUE)),
        ("unchecked", f'uri = "{http_server.put("/changes.txt", "now")}"\nskip_checksum = true', b"now"),
        ("managed", f'uri = "{http_server.put("/managed.txt", "m")}"\nstorage_path = "kept/$key"', b"m"),
        ("placed", f'uri = "{http_server.put("/placed.txt", "p")}"\nstorage_path = "here/placed.txt"', b"p"),
        ("mine", 'storage_path = "mine/notes.md"\nskip_download = true', b"# my own\n"),
    ]
    tables = [f"[{name}]\n{lines}\n" for name, lines, _ in datasets]
    tables.append(f'[lazy]\nuri = "{http_server.put("/lazy.csv", TABLE)}"\nlazy_access = true\n')
    with Relay(bucket.server.port) as relay:
        variables = {
            **bucket.variables,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{relay.port}",
            "DATAMANIFEST_SSH_COMMAND": sshd.ssh_command,
            "PATH": f"{programs}:{os.environ['PATH']}",
            **NO_RETRIES,
        }

        def count_requests() -> dict[str, object]:
            log = project / "runs.log"
            return {
                "http": [received.target for received in http_server.requests],
                "git": git_daemon.relay.connections,
                "git over http": len(git_http.requests),
                "ssh": sshd.relay.connections,
                "s3": relay.sent_bytes,
                "code": len(log.read_text().splitlines()) if log.exists() else 0,
            }

        yield Scene(tables, {name: content for name, _, content in datasets}, variables, count_requests)


#: Datasets that code of the manifest brings.
BY_CODE = {"shell", "shell_zip", "own", "explicit", "r", "julia", "peer", "chain"}
#: Never compared with anything: what is told of them is ``skipped``.
SKIPPED = {"unchecked", "mine", "lazy"}
#: Kept in the project, out of another one's sight.
IN_THE_PROJECT = {"managed", "placed"}


def read_copy(path: Path) -> bytes | dict[str, bytes]:
    """A file's bytes, or the bytes of every file in a folder; the marker is not one of them."""
    if path.is_file():
        return path.read_bytes()
    files = [each for each in path.rglob("*") if each.is_file() and each != path / ".complete"]
    return {each.relative_to(path).as_posix(): each.read_bytes() for each in files}


def test_one_manifest_with_a_dataset_of_every_kind(
    run_dm: RunDm, ask: Ask, home: Home, project: Path, scene: Scene
) -> None:
    manifest = write_manifest(project, *scene.tables)
    names = [*scene.expected, "lazy"]

    # Nobody has allowed its code yet: what a plain source brings comes all the same, and nothing else runs.
    answer = ask("fetch", env=scene.variables)
    assert 6 == answer.status
    codes = {each["name"]: each.get("code") for each in answer.outcomes if each["status"] == "failed"}
    assert BY_CODE == set(codes), codes
    assert {"untrusted", "requires-failed"} == set(codes.values())
    assert 0 == scene.count_requests()["code"]

    # Allowed: everything is here.
    assert 0 == run_dm("trust", "--yes", env=scene.variables).returncode
    answer = ask("fetch", env=scene.variables)
    failures = [each for each in answer.outcomes if each["status"] == "failed"]
    assert ([], 0) == (failures, answer.status), answer.stderr
    status = {each["name"]: each["status"] for each in answer.outcomes}
    assert set(names) == set(status)
    assert dict.fromkeys(BY_CODE, "ok") == {name: status[name] for name in BY_CODE}
    paths = {each["name"]: Path(each["path"]) for each in answer.outcomes if each["path"]}
    copies = {name: read_copy(paths[name]) for name in scene.expected if name in paths}
    assert {name: content for name, content in scene.expected.items() if name != "mine"} == copies
    assert {"own", "explicit", "shell", "r", "julia", "peer"} == set((project / "runs.log").read_text().splitlines())

    # Pinned, recorded, clean, verified.
    tables = tomllib.loads(manifest.read_text())
    pinned = {name for name in names if "checksum" in tables[name] or "digest" in tables[name]}
    assert set(names) - SKIPPED == pinned
    answer = ask("status", env=scene.variables)
    states = {each["name"]: each["state"] for each in answer.outcomes}
    assert {name: "skipped" if name in SKIPPED else "clean" for name in names} == states
    answer = ask("verify", env=scene.variables)
    assert (0, set()) == (answer.status, {each["name"] for each in answer.outcomes if each["status"] == "failed"})

    # Again: nothing is asked of anybody, nothing is run, nothing changes.
    before, requests = manifest.read_bytes(), scene.count_requests()
    answer = ask("fetch", env=scene.variables)
    again = {each["name"]: each["status"] for each in answer.outcomes}
    expected = {name: "skipped" if name in ("mine", "lazy") else "unchanged" for name in names}
    assert (0, expected) == (answer.status, again)
    assert (before, requests) == (manifest.read_bytes(), scene.count_requests())
    assert 0 == run_dm("status", "--exit-code", env=scene.variables).returncode
    litter = [each for each in list_litter(home, project) if "/trust/" not in each]
    assert [] == litter


def test_every_kind_is_read_by_load(home: Home, project: Path, scene: Scene, run_dm: RunDm) -> None:
    write_manifest(project, *scene.tables)
    assert 0 == run_dm("trust", "--yes", env=scene.variables).returncode
    assert 0 == run_dm("fetch", env=scene.variables).returncode
    variables = {**home.variables(), **scene.variables}
    environment = Environment(variables, home.path, project, os.uname().nodename, os.getpid())
    with dm.Manifest.open(environment=environment) as manifest:
        for name in ("http", "file", "ssh", "s3", "lazy"):
            assert (name, COLUMNS) == (name, manifest.load(name).to_dict("list"))
        assert [1] == manifest.load("md5")
        assert "made/own.txt v9" == manifest.load("own")
        assert "version 7\nmade/own.txt v9\n" == manifest.load("r")
        assert "read by the project's own loader: version 7\nmade/own.txt v9\n" == manifest.load("chain")
        assert "# my own\n" == manifest.load("mine")
        assert VALUE == manifest.load("pickled")


def test_another_checkout_takes_every_pinned_kind_from_the_store(
    ask: Ask, run_dm: RunDm, home: Home, project: Path, scene: Scene, tmp_path: Path
) -> None:
    """The same manifest elsewhere, with the same store: neither a request nor a run of code, and no trust is needed."""
    manifest = write_manifest(project, *scene.tables)
    assert 0 == run_dm("fetch", "--trust", env=scene.variables).returncode
    requests = scene.count_requests()
    clone = tmp_path / "clone"
    clone.mkdir()
    (clone / manifest.name).write_bytes(manifest.read_bytes())
    named = [name for name in scene.expected if name not in SKIPPED | IN_THE_PROJECT]
    answer = ask("fetch", *named, env=scene.variables, cwd=clone)
    failures = [each for each in answer.outcomes if each["status"] == "failed"]
    assert ([], 0) == (failures, answer.status)
    assert requests == scene.count_requests()
    for each in answer.outcomes:
        assert (each["name"], scene.expected[each["name"]]) == (each["name"], read_copy(Path(each["path"])))
