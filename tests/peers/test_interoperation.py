"""`dm` and the Python peer at work on the same manifests, stores and state files.

The peer is the real one, run as a user runs it. Both fetch from a server that counts: whatever the other has fetched is
found, not fetched again.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.homes import COMMAND_TIMEOUT_S, Home, RunDm
from tests.fixtures.servers import HttpServer, Route

RunPeer = Callable[..., "subprocess.CompletedProcess[str]"]

TABLE = "year,co2\n1959,315.98\n1960,316.91\n"


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with HttpServer() as server:
        yield server


@pytest.fixture
def run_peer(peer_executable: Path, home: Home, project: Path) -> RunPeer:
    """Run ``datamanifest ARGUMENTS…`` in the test's project and home."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(peer_executable), *arguments],
            cwd=project,
            env={**home.variables(), **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )

    return run


def make_zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("stations.csv", "id,name\n1,Mauna Loa\n")
        archive.writestr("daily/1959.csv", TABLE)
        archive.writestr("daily/1960.csv", TABLE.replace("1959", "1961"))
        archive.writestr("README", "")
    return stream.getvalue()


#: Datasets of each shape: one file, an archive that becomes a folder, several files in one folder.
SHAPES = {
    "file": ['uri = "{url}/series/co2.csv"'],
    "archive": ['uri = "{url}/series/stations.zip"', "extract = true"],
    "folder": ['uris = ["{url}/grid/a/x.csv", "{url}/grid/b/x.csv"]'],
}
#: Where fetched data goes: by default (each tool has a place of its own), or one explicit folder for both.
PLACES = {
    "default": "",
    "datasets_dir": '[_STORAGE]\ndatasets_dir = "datasets_here"\n',
}


def serve_all(server: HttpServer) -> None:
    server.put("/series/co2.csv", TABLE)
    server.put("/series/stations.zip", make_zip())
    server.put("/grid/a/x.csv", "a\n")
    server.put("/grid/b/x.csv", "b\n")


def write_manifest(project: Path, server: HttpServer, shapes: dict[str, list[str]], *, storage: str = "") -> Path:
    tables = [f"[{name}]\n" + "\n".join(lines).replace("{url}", server.url) + "\n" for name, lines in shapes.items()]
    manifest = project / "datamanifest.toml"
    manifest.write_text("\n".join(["[_META]\nschema = 1\n", storage, *tables]))
    return manifest


def read_toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text())


def read_peer_state(project: Path) -> dict[str, Any]:
    """The state file, wherever the two have it, as it is on disk."""
    places = (project / ".datamanifest" / "state.toml", project / ".datamanifest-state.toml")
    present = [path for path in places if path.exists()]
    assert 1 == len(present), f"state files: {present}"
    return read_toml(present[0])


def expect_ok(result: subprocess.CompletedProcess[str]) -> str:
    assert 0 == result.returncode, f"{result.args}: exit {result.returncode}\n{result.stdout}{result.stderr}"
    return result.stdout


def locate_with_dm(run_dm: RunDm, name: str) -> Path:
    return Path(expect_ok(run_dm("path", name)).rstrip("\n"))


def flip_a_bit(path: Path) -> None:
    """Change one byte of a file, or of a folder's first file, under whatever mode it has."""
    target = path if path.is_file() else next(p for p in sorted(path.rglob("*.csv")) if p.is_file())
    data = bytearray(target.read_bytes())
    data[0] ^= 1
    target.chmod(0o644)
    target.unlink()  # not through the link: another name's bytes are not this test's business
    target.write_bytes(data)


# --- what dm fetched, the peer finds -------------------------------------------------------------------------------


@pytest.mark.parametrize("place", sorted(PLACES))
@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_the_peer_finds_what_dm_fetched_without_a_download(
    shape: str, place: str, server: HttpServer, project: Path, run_dm: RunDm, run_peer: RunPeer
) -> None:
    serve_all(server)
    write_manifest(project, server, {"data": SHAPES[shape]}, storage=PLACES[place])
    expect_ok(run_dm("fetch"))
    fetched = locate_with_dm(run_dm, "data")
    server.forget_requests()

    expect_ok(run_peer("download", "data"))

    assert [] == server.requests
    assert fetched == Path(expect_ok(run_peer("path", "data")).strip())


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_the_peer_finds_what_dm_fetched_even_without_a_state_file(
    shape: str, server: HttpServer, project: Path, run_dm: RunDm, run_peer: RunPeer
) -> None:
    serve_all(server)
    write_manifest(project, server, {"data": SHAPES[shape]})
    expect_ok(run_dm("fetch"))
    fetched = locate_with_dm(run_dm, "data")
    for state in (project / ".datamanifest" / "state.toml", project / ".datamanifest-state.toml"):
        state.unlink(missing_ok=True)
    server.forget_requests()

    expect_ok(run_peer("download", "data"))

    assert [] == server.requests
    assert fetched == Path(expect_ok(run_peer("path", "data")).strip())


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_the_peer_verifies_what_dm_fetched_and_pinned(
    shape: str, server: HttpServer, project: Path, run_dm: RunDm, run_peer: RunPeer
) -> None:
    """One explicit `datasets_dir`: the peer looks at the place of the directive only."""
    serve_all(server)
    manifest = write_manifest(project, server, {"data": SHAPES[shape]}, storage=PLACES["datasets_dir"])
    expect_ok(run_dm("fetch"))
    assert read_toml(manifest)["data"]["checksum"].startswith("sha256:")

    expect_ok(run_peer("verify"))
    flip_a_bit(locate_with_dm(run_dm, "data"))
    damaged = run_peer("verify")

    assert 1 == damaged.returncode
    assert "MISMATCH: data" in damaged.stderr


# --- what the peer fetched, dm finds -------------------------------------------------------------------------------


@pytest.mark.parametrize("place", sorted(PLACES))
@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_dm_finds_and_verifies_what_the_peer_fetched(
    shape: str, place: str, server: HttpServer, project: Path, run_dm: RunDm, run_peer: RunPeer
) -> None:
    serve_all(server)
    write_manifest(project, server, {"data": SHAPES[shape]}, storage=PLACES[place])
    expect_ok(run_peer("download", "data"))
    fetched = Path(expect_ok(run_peer("path", "data")).strip())
    if shape == "archive":
        assert not (fetched / ".complete").exists(), "the peer leaves an extracted folder without a marker"
    server.forget_requests()

    expect_ok(run_dm("fetch"))

    assert [] == server.requests
    assert fetched == locate_with_dm(run_dm, "data")
    expect_ok(run_dm("verify", "data"))
    if place == "datasets_dir":  # by default the peer's place is not dm's: the status says "relocated"
        expect_ok(run_dm("status", "--exit-code"))
    flip_a_bit(fetched)
    assert 4 == run_dm("verify", "data").returncode


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_dm_finds_what_the_peer_fetched_without_the_peers_state(
    shape: str, server: HttpServer, project: Path, run_dm: RunDm, run_peer: RunPeer
) -> None:
    serve_all(server)
    write_manifest(project, server, {"data": SHAPES[shape]})
    expect_ok(run_peer("download", "data"))
    fetched = Path(expect_ok(run_peer("path", "data")).strip())
    (project / ".datamanifest" / "state.toml").unlink()
    store = fetched.parents[1 if shape == "folder" else 2]
    lies_there = sorted(store.rglob("*"))
    server.forget_requests()

    expect_ok(run_dm("fetch"))
    expect_ok(run_dm("fetch"))  # now by its record

    assert [] == server.requests
    assert fetched == locate_with_dm(run_dm, "data")
    assert lies_there == sorted(store.rglob("*")), "a read pool is not written to"


def test_dm_does_not_take_the_peers_damaged_copy(
    server: HttpServer, project: Path, run_dm: RunDm, run_peer: RunPeer
) -> None:
    serve_all(server)
    write_manifest(project, server, {"data": SHAPES["archive"]}, storage=PLACES["datasets_dir"])
    expect_ok(run_peer("download", "data"))
    fetched = Path(expect_ok(run_peer("path", "data")).strip())
    flip_a_bit(fetched)
    damaged = {path: path.read_bytes() for path in fetched.rglob("*") if path.is_file()}

    refused = run_dm("fetch", "data")

    assert 6 == refused.returncode, refused.stderr  # unmarked, and not what the manifest says: not ours to replace
    assert damaged == {path: path.read_bytes() for path in fetched.rglob("*") if path.is_file()}
    expect_ok(run_dm("fetch", "--force", "data"))
    expect_ok(run_peer("verify"))


# --- one manifest, one state, in turns -----------------------------------------------------------------------------

#: What a manifest of several tools holds, and what neither may drop.
SHARED = """\
[_META]
schema = 1

[_STORAGE]
datasets_dir = "datasets_here"
project = "shared-project"

[_STORAGE._HOST."cluster*"]
datasets_dir = "/scratch/elsewhere"

[_FUTURE]
anything = [1, 2, { deep = "x" }]

[_LANG.julia.loaders]
nc = "Rasters:Raster"

[_SAVERS]
grid = "formats:save"
hgt = { ref = "formats:write", args = ["$value", "$path"], kwargs = { level = 9 } }

["jesstierney/lgmDA"]
uri = "https://example.org/jesstierney/lgmDA.git"
skip_download = true
storage_path = "by_hand"
aliases = ["lgm"]
future_field = { kept = true }

["jesstierney/lgmDA"._LANG.julia]
loader = "LGM:load"
"""


def without(document: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: table for name, table in document.items() if name not in names}


def test_in_turns_on_one_manifest_and_state_nothing_is_lost_and_nothing_fetched_twice(
    server: HttpServer, project: Path, run_dm: RunDm, run_peer: RunPeer
) -> None:
    manifest = project / "datamanifest.toml"
    manifest.write_text(SHARED)
    (project / "by_hand").mkdir()
    uris = {name: server.put(f"/turns/{name}.csv", f"{name}\n") for name in ("one", "two", "three", "four", "five")}
    uris["packed"] = server.put("/turns/packed.zip", make_zip())

    expect_ok(run_dm("add", uris["one"], "--name", "one"))
    expect_ok(run_peer("add", uris["two"], "--name", "two"))
    expect_ok(run_dm("add", uris["three"], "--name", "three"))
    expect_ok(run_peer("add", uris["packed"], "--name", "packed", "--extract"))
    expect_ok(run_dm("fetch"))
    expect_ok(run_peer("add", uris["four"], "--name", "four"))
    expect_ok(run_dm("add", uris["five"], "--name", "five"))
    expect_ok(run_peer("download", "--all"))
    expect_ok(run_dm("fetch"))

    document = read_toml(manifest)
    assert tomllib.loads(SHARED) == without(document, *uris)
    assert set(uris) == set(document) - set(tomllib.loads(SHARED))
    assert all(document[name]["checksum"].startswith("sha256:") for name in uris)
    state = read_peer_state(project)
    expected = {f"127.0.0.1/turns/{name}.csv" for name in uris if name != "packed"} | {"127.0.0.1/turns/packed.zip"}
    assert expected <= set(state["datasets"])
    assert all((project / state["datasets"][key]["storage_path"]).exists() for key in expected)
    assert dict.fromkeys(uris, 1) == {
        name: server.count(f"/turns/{name}." + ("zip" if name == "packed" else "csv")) for name in uris
    }
    expect_ok(run_dm("verify"))
    expect_ok(run_peer("verify"))


def test_the_peer_keeps_savers_but_those_of_its_own_language(
    server: HttpServer, project: Path, run_dm: RunDm, run_peer: RunPeer
) -> None:
    manifest = project / "datamanifest.toml"
    kept = '[_META]\nschema = 1\n[_SAVERS]\ngrid = "formats:save"\n[_LANG.julia.savers]\ngrid = "Formats:save"\n'
    manifest.write_text(kept + '[_LANG.python.savers]\ngrid = "formats:own"\n')
    expect_ok(run_peer("add", server.put("/savers.csv", "x\n"), "--name", "one"))
    assert tomllib.loads(kept) == without(read_toml(manifest), "one")
    before = manifest.read_text()
    expect_ok(run_dm("add", server.put("/more.csv", "y\n"), "--name", "two"))
    assert manifest.read_text().startswith(before)


def test_an_edit_by_dm_keeps_every_line_that_the_peer_wrote(
    server: HttpServer, project: Path, run_dm: RunDm, run_peer: RunPeer
) -> None:
    serve_all(server)
    manifest = write_manifest(project, server, SHAPES | {"file2": ['uri = "{url}/grid/a/x.csv"', 'key = "k/x.csv"']})
    expect_ok(run_peer("download", "--all"))
    lines = manifest.read_text().splitlines()

    expect_ok(run_dm("add", server.put("/turns/late.csv", "late\n"), "--name", "late"))
    after = manifest.read_text().splitlines()

    remaining = iter(after)
    assert all(line in remaining for line in lines), "\n".join(after)


def test_the_peer_moves_the_state_file_and_dm_goes_on_in_the_new_place(
    server: HttpServer, project: Path, run_dm: RunDm, run_peer: RunPeer
) -> None:
    write_manifest(project, server, {})
    for name in ("one", "two", "three"):
        server.put(f"/turns/{name}.csv", name)
    expect_ok(run_dm("add", f"{server.url}/turns/one.csv", "--name", "one"))
    assert (project / ".datamanifest-state.toml").exists()

    expect_ok(run_peer("add", f"{server.url}/turns/two.csv", "--name", "two"))
    assert not (project / ".datamanifest-state.toml").exists()
    expect_ok(run_dm("add", f"{server.url}/turns/three.csv", "--name", "three"))

    assert not (project / ".datamanifest-state.toml").exists()
    assert {f"127.0.0.1/turns/{name}.csv" for name in ("one", "two", "three")} == set(
        read_peer_state(project)["datasets"]
    )


def test_the_peers_records_of_produced_artifacts_survive_a_write_by_dm(
    server: HttpServer, project: Path, run_dm: RunDm
) -> None:
    write_manifest(project, server, {})
    produced = {
        "ref": "pkg.mod:run",
        "format": "pickle",
        "instances": {"ab" * 32: f"cached/pkg.mod.run/v3/{'ab' * 32}"},
    }
    state = project / ".datamanifest" / "state.toml"
    state.parent.mkdir()
    state.write_text(
        '[_META]\nschema = 5\n\n[datacache."pkg.mod.run@v3"]\nformat = "pickle"\nref = "pkg.mod:run"\n\n'
        f'[datacache."pkg.mod.run@v3".instances]\n{"ab" * 32} = "cached/pkg.mod.run/v3/{"ab" * 32}"\n'
    )

    expect_ok(run_dm("add", server.put("/turns/one.csv", "one"), "--name", "one"))

    assert {"pkg.mod.run@v3": produced} == read_toml(state)["datacache"]
    assert {"127.0.0.1/turns/one.csv"} == set(read_toml(state)["datasets"])


def test_the_peer_is_given_a_checksum_it_can_check_beside_the_folders_digest(
    server: HttpServer, project: Path, run_dm: RunDm, run_peer: RunPeer
) -> None:
    serve_all(server)
    manifest = write_manifest(project, server, {"data": SHAPES["archive"]}, storage=PLACES["datasets_dir"])
    expect_ok(run_dm("fetch"))
    table = read_toml(manifest)["data"]
    assert table["digest"].startswith("blake3-tree:")

    expect_ok(run_peer("update-checksums", "data"))  # it measures the folder its own way and would correct ours

    assert table == read_toml(manifest)["data"]


# --- at the same time ----------------------------------------------------------------------------------------------


Start = Callable[[list[str]], "subprocess.Popen[str]"]
#: What a command takes once nothing holds it up; it ends a hang.
WAIT_TIMEOUT_S = 300.0


@pytest.fixture
def start(project: Path, home: Home) -> Iterator[Start]:
    """Start a command in the test's project and home; what still runs after the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(command: list[str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command,
            cwd=project,
            env=home.variables(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def declare_slow(server: HttpServer, project: Path) -> Route:
    """A pinned dataset whose download stops in the middle until it is let go."""
    body = (TABLE * 5000).encode()
    uri = server.put("/slow.csv", body, pause_at=20_000)
    lines = [f'uri = "{uri}"', f'checksum = "sha256:{hashlib.sha256(body).hexdigest()}"']
    write_manifest(project, server, {"slow": lines}, storage=PLACES["datasets_dir"])
    return server.routes["/slow.csv"]


def test_dm_waits_for_a_peer_that_is_fetching_and_takes_what_it_published(
    server: HttpServer, project: Path, start: Start, run_dm: RunDm, peer_executable: Path
) -> None:
    route = declare_slow(server, project)
    first = start([str(peer_executable), "download", "slow"])
    assert route.paused.wait(timeout=60)
    second = start([sys.executable, "-m", "dm", "fetch", "slow"])
    # The note of whom it waits for comes after a second; then the peer may go on.
    assert second.stderr is not None
    note = second.stderr.readline()
    route.go.set()
    outputs = [first.communicate(timeout=WAIT_TIMEOUT_S), second.communicate(timeout=WAIT_TIMEOUT_S)]

    assert (0, 0) == (first.returncode, second.returncode), outputs
    assert str(first.pid) in note
    assert 1 == server.count("/slow.csv")
    expect_ok(run_dm("verify", "slow"))


def test_the_peer_waits_for_a_dm_that_is_fetching_and_takes_what_it_published(
    server: HttpServer, project: Path, start: Start, run_dm: RunDm, peer_executable: Path
) -> None:
    route = declare_slow(server, project)
    first = start([sys.executable, "-m", "dm", "fetch", "slow"])
    assert route.paused.wait(timeout=60)
    second = start([str(peer_executable), "download", "slow"])
    time.sleep(2)  # the peer says nothing while it waits; had it not waited, it would ask the server now
    assert (None, None) == (first.poll(), second.poll())
    route.go.set()
    outputs = [first.communicate(timeout=WAIT_TIMEOUT_S), second.communicate(timeout=WAIT_TIMEOUT_S)]

    assert (0, 0) == (first.returncode, second.returncode), outputs
    assert 1 == server.count("/slow.csv")
    expect_ok(run_dm("verify", "slow"))
