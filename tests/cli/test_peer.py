"""``datamanifest-dm``, as another tool of the family calls it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from dm.version import __version__
from tests.fixtures.archives import make_archive
from tests.fixtures.commands import NO_RETRIES, assert_one_error, default_copy, snapshot, write_manifest
from tests.fixtures.homes import CHECKOUT, COMMAND_TIMEOUT_S, Home, RunDm, RunInterpreter
from tests.fixtures.servers import HttpServer

Done = subprocess.CompletedProcess[str]
RunAsPeer = Callable[..., Done]

PROGRAM = [sys.executable, "-m", "dm.porcelain.cli.peer"]
BODY = b"year,co2\n1959,315.98\n"


@pytest.fixture
def run_as_peer(run_interpreter: RunInterpreter, home: Home) -> RunAsPeer:
    """Run ``datamanifest-dm ARGUMENTS…`` from a folder that is not the project's."""

    def run(*arguments: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Done:
        return run_interpreter("-m", "dm.porcelain.cli.peer", *map(str, arguments), cwd=cwd or home.path, env=env)

    return run


def read_state(project: Path) -> dict[str, object]:
    path = project / ".datamanifest-state.toml"
    return tomllib.loads(path.read_text())["datasets"] if path.exists() else {}


def test_the_program_is_installed_under_its_name() -> None:
    scripts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["scripts"]
    assert "dm.porcelain.cli.peer:main" == scripts["datamanifest-dm"]


def test_it_has_the_contracts_options_and_no_others(run_as_peer: RunAsPeer) -> None:
    done = run_as_peer("fetch", "--help")
    options = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  -")]
    assert (0, ["--datasets-toml", "--datasets-folder", "-h,"]) == (done.returncode, options)
    assert f"datamanifest-dm {__version__}\n" == run_as_peer("--version").stdout
    assert "fetch" in run_as_peer("--help").stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fetch", "sst"], "missing option '--datasets-toml'"),
        (["fetch", "--datasets-toml", "x"], "missing argument 'NAME'"),
        (["fetch", "a", "b", "--datasets-toml", "x"], "got unexpected extra argument (b)"),
        (["fetch", "a", "--datasets-toml", "x", "--force"], "no such option"),
        (["download", "a"], "no such command 'download'"),
    ],
)
def test_another_call_is_exit_2(run_as_peer: RunAsPeer, words: list[str], message: str) -> None:
    assert message in assert_one_error(run_as_peer(*words), 2)


def test_without_a_folder_it_fetches_as_dm_does_and_prints_the_path(
    run_as_peer: RunAsPeer, run_dm: RunDm, home: Home, project: Path, http_server: HttpServer
) -> None:
    uri = http_server.put("/sst.csv", BODY)
    manifest = write_manifest(project, f'[sst]\nuri = "{uri}"\naliases = ["sea"]\n')
    done = run_as_peer("fetch", "sst", "--datasets-toml", manifest)
    path = default_copy(home, "127.0.0.1/sst.csv")
    assert (0, f"{path}\n", "") == (done.returncode, done.stdout, done.stderr)
    assert BODY == path.read_bytes()
    assert "checksum" in tomllib.loads(manifest.read_text())["sst"]
    assert ["127.0.0.1/sst.csv"] == list(read_state(project))
    assert f"{path}\n" == run_as_peer("fetch", "sea", "--datasets-toml", "../project/datamanifest.toml").stdout
    assert 1 == http_server.count("/sst.csv")
    assert 0 == run_dm("status", "--exit-code").returncode


@pytest.mark.parametrize("folder_name", ["there", "a b $HOME 'é'", "~x"])
def test_with_a_folder_the_copy_lands_there_by_key_in_the_peers_shape(
    run_as_peer: RunAsPeer, home: Home, project: Path, http_server: HttpServer, folder_name: str
) -> None:
    tables = [
        f'[sst]\nuri = "{http_server.put("/d/sst.csv", BODY)}"\nversion = "v2"\n',
        f'[zip]\nuri = "{http_server.put("/a.zip", make_archive("zip", [("x.csv", BODY)]))}"\nextract = true\n',
    ]
    manifest = write_manifest(project, *tables)
    before = snapshot(project)
    folder = home.path / folder_name
    for name, key, marker in (
        ("sst", "127.0.0.1/d/sst.csv#v2", "127.0.0.1/d/sst.csv#v2.complete"),
        ("zip", "127.0.0.1/a", "127.0.0.1/a/.complete"),
    ):
        done = run_as_peer("fetch", name, "--datasets-toml", manifest, "--datasets-folder", folder_name)
        assert (0, f"{folder / key}\n") == (done.returncode, done.stdout), done.stderr
        assert 0 == (folder / marker).stat().st_size
    assert BODY == (folder / "127.0.0.1/d/sst.csv#v2").read_bytes() == (folder / "127.0.0.1/a/x.csv").read_bytes()
    assert not default_copy(home, "127.0.0.1").exists()
    kept = {name: found for name, found in snapshot(project).items() if "/.datamanifest" not in name}
    assert (before, {}) == (kept, read_state(project))


PLACES = {
    "storage_path": 'storage_path = "kept/sst.csv"',
    "managed": 'storage_path = "kept/$key"',
    "store": 'store = "$cache"',
    "scope": 'scope = "mine"',
}


@pytest.mark.parametrize("place", PLACES)
def test_with_a_folder_a_place_that_the_manifest_gives_is_no_other(
    run_as_peer: RunAsPeer, home: Home, project: Path, http_server: HttpServer, place: str
) -> None:
    manifest = write_manifest(project, f'[sst]\nuri = "{http_server.put("/sst.csv", BODY)}"\n{PLACES[place]}\n')
    wanted = home.path / "there" / "127.0.0.1" / "sst.csv"
    for _ in range(2):
        done = run_as_peer("fetch", "sst", "--datasets-toml", manifest, "--datasets-folder", "there")
        assert (0, f"{wanted}\n") == (done.returncode, done.stdout), done.stderr
        assert BODY == wanted.read_bytes()
        assert wanted.with_name("sst.csv.complete").exists()
    assert 1 == http_server.count("/sst.csv")


def test_with_a_folder_what_is_here_already_is_not_fetched_again(
    run_as_peer: RunAsPeer, run_dm: RunDm, home: Home, project: Path, http_server: HttpServer
) -> None:
    manifest = write_manifest(
        project, f'[sst]\nuri = "{http_server.put("/sst.csv", BODY)}"\n', '[own]\nstorage_path = "own"\n'
    )
    (project / "own").mkdir()
    (project / "own" / "a.txt").write_text("mine")
    assert 0 == run_dm("fetch", "sst").returncode
    state = read_state(project)
    done = run_as_peer("fetch", "sst", "--datasets-toml", manifest, "--datasets-folder", "there")
    assert (0, BODY) == (done.returncode, Path(done.stdout.strip()).read_bytes())
    assert (1, state) == (http_server.count("/sst.csv"), read_state(project))
    assert 0 == run_dm("status", "sst", "--exit-code").returncode


def test_other_content_in_the_folder_is_refused_and_stays(
    run_as_peer: RunAsPeer, run_dm: RunDm, home: Home, project: Path, http_server: HttpServer
) -> None:
    manifest = write_manifest(project, f'[sst]\nuri = "{http_server.put("/sst.csv", BODY)}"\n')
    assert 0 == run_dm("fetch").returncode
    there = home.path / "there" / "127.0.0.1" / "sst.csv"
    there.parent.mkdir(parents=True)
    there.write_bytes(b"other")
    assert_one_error(run_as_peer("fetch", "sst", "--datasets-toml", manifest, "--datasets-folder", "there"), 6)
    assert b"other" == there.read_bytes()


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["fetch", "sts", "--datasets-toml", "{manifest}"], 3, "no dataset 'sts'"),
        (["fetch", "sst", "--datasets-toml", "{manifest}.none"], 3, "datamanifest.toml.none"),
        (["fetch", "gone", "--datasets-toml", "{manifest}"], 5, "404"),
        (["fetch", "wrong", "--datasets-toml", "{manifest}"], 4, "checksum"),
        (["fetch", "lazy", "--datasets-toml", "{manifest}"], 3, "'lazy' has no copy: opened in place by its loader"),
        (["fetch", "code", "--datasets-toml", "{manifest}"], 6, "would run"),
    ],
)
def test_it_fails_with_dms_exit_statuses_and_one_line(
    run_as_peer: RunAsPeer, project: Path, http_server: HttpServer, words: list[str], status: int, message: str
) -> None:
    uri = http_server.put("/sst.csv", BODY)
    manifest = write_manifest(
        project,
        f'[sst]\nuri = "{uri}"\n',
        f'[gone]\nuri = "{http_server.url}/gone.csv"\n',
        f'[wrong]\nuri = "{http_server.put("/wrong.csv", BODY)}"\nchecksum = "sha256:{"0" * 64}"\n',
        f'[lazy]\nuri = "{uri}?y"\nkey = "lazy.csv"\nlazy_access = true\n',
        '[code]\nkey = "code.txt"\nshell = "touch ran $download_path"\n',
    )
    done = run_as_peer(*[word.format(manifest=manifest) for word in words], env=NO_RETRIES)
    assert message in assert_one_error(done, status)
    assert not (project / "ran").exists()


def test_code_runs_when_the_user_allowed_it_and_what_it_prints_is_not_the_answer(
    run_as_peer: RunAsPeer, run_dm: RunDm, home: Home, project: Path
) -> None:
    (project / "own.py").write_text(
        "def get(download_path):\n print('chatter')\n open(download_path, 'w').write('x')\n"
    )
    manifest = write_manifest(
        project,
        '[shell]\nkey = "a.txt"\nshell = "sh -c \'echo chatter; echo x > $download_path\'"\n',
        '[own]\nkey = "b.txt"\nfetcher = "own:get"\n',
    )
    assert 0 == run_dm("trust", "--yes").returncode
    for name, key in (("shell", "a.txt"), ("own", "b.txt")):
        done = run_as_peer("fetch", name, "--datasets-toml", manifest, "--datasets-folder", "there")
        assert (0, f"{home.path / 'there' / key}\n") == (done.returncode, done.stdout), done.stderr


def test_who_is_called_calls_no_other_tool(run_as_peer: RunAsPeer, project: Path, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "datamanifest-cobol"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\ntouch ran\n")
    program.chmod(0o755)
    manifest = write_manifest(project, '[sst]\nkey = "a.txt"\n_LANG.cobol.fetcher = "m:f"\n')
    env = {"PATH": f"{program.parent}:{os.environ['PATH']}", "DATAMANIFEST_TRUST": "1"}
    done = run_as_peer("fetch", "sst", "--datasets-toml", manifest, env=env)
    assert (5, "") == (done.returncode, done.stdout)
    assert "a fetcher in cobol, for which there is no runtime here" in done.stderr
    assert not (project / "ran").exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_as_it_ends_dm(
    home: Home, project: Path, http_server: HttpServer, number: signal.Signals, status: int
) -> None:
    uri = http_server.put("/sst.csv", BODY * 50_000, pause_at=100_000)
    route = http_server.routes["/sst.csv"]
    manifest = write_manifest(project, f'[sst]\nuri = "{uri}"\n')
    process = subprocess.Popen(
        [*PROGRAM, "fetch", "sst", "--datasets-toml", str(manifest)],
        cwd=home.path,
        env=home.variables(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert route.paused.wait(COMMAND_TIMEOUT_S)
        process.send_signal(number)
        stdout, _ = process.communicate(timeout=COMMAND_TIMEOUT_S)
    finally:
        route.go.set()
        process.kill()
    assert (status, "") == (process.returncode, stdout)
