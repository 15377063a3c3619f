"""`import dm` gives what the command line gives."""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dm
from dm.environment import Environment
from tests.fixtures.commands import Ask, default_copy, store_root, write_manifest
from tests.fixtures.forks import CHECKOUT
from tests.fixtures.homes import COMMAND_TIMEOUT_S, Home, RunDm
from tests.fixtures.servers import HttpServer


def test_the_module_fetches_finds_and_verifies(
    here: Path, ask: Ask, home: Home, http_server: HttpServer, capfd: pytest.CaptureFixture[str]
) -> None:
    write_manifest(
        here, f'[a]\nuri = "{http_server.put("/a.txt", "a")}"\n', f'[b]\nuri = "{http_server.put("/b", "b")}"\n'
    )
    one = dm.fetch("a")
    assert default_copy(home, "127.0.0.1/a.txt") == dm.path("a") == one.path
    with open(one) as file:
        assert "a" == file.read()
    assert ("a", "ok") == (one.name, one.status)
    assert ["clean", "missing"] == [each.state for each in dm.status()]
    assert ["unchanged", "ok"] == [each.status for each in dm.fetch()]
    assert ["ok", "ok"] == [each.status for each in dm.verify()]
    assert ["b"] == [each.name for each in dm.fetch(["b"])]
    assert [] == dm.fetch([])
    assert ("", "") == capfd.readouterr(), "the library is mute"
    for command, outcomes in (("status", dm.status()), ("verify", dm.verify()), ("fetch", dm.fetch())):
        told = ask(command).outcomes
        fields = [(each["name"], each["status"], each["path"], each["state"], each["digest"]) for each in told]
        assert fields == [(o.name, o.status, str(o.path), o.state, str(o.digest)) for o in outcomes]


def test_errors_come_by_kind(here: Path, http_server: HttpServer) -> None:
    uri = http_server.put("/a.txt", "a")
    write_manifest(
        here,
        f'[gone]\nuri = "{http_server.url}/gone"\n',
        f'[wrong]\nuri = "{uri}"\nkey = "w"\nchecksum = "sha256:{"0" * 64}"\n',
        f'[unsafe]\nuri = "{uri}"\nkey = "../x"\n',
        f'[symbol]\nuri = "{uri}"\nkey = "s"\nstore = "$nowhere"\n',
    )
    for name, kind, status in (
        ("gone", dm.SourceFailed, 5), ("wrong", dm.ContentMismatch, 4), ("unsafe", dm.Refused, 6),
        ("symbol", dm.Malformed, 7), ("nobody", dm.NotFound, 3),
    ):  # fmt: skip
        with pytest.raises(kind) as caught:
            dm.fetch(name)
        assert (kind, status) == (type(caught.value), caught.value.exit_status)
        assert isinstance(caught.value, dm.DmError)
    with pytest.raises(dm.NotFound):
        dm.path("gone")
    with pytest.raises(dm.DmError) as several:
        dm.fetch()
    assert 4 == several.value.exit_status
    assert ["failed"] * 4 == [each.status for each in several.value.outcomes]  # type: ignore[attr-defined]
    assert ["failed"] * 4 == [each.status for each in dm.fetch(check=False)]
    failed = dm.fetch("gone", check=False)
    with pytest.raises(TypeError):
        os.fspath(failed)


def test_no_manifest_is_not_found(here: Path) -> None:
    with pytest.raises(dm.NotFound):
        dm.status()
    (here / "datamanifest.toml").write_text("[a\n")
    with pytest.raises(dm.Malformed) as caught:
        dm.status()
    assert str(caught.value).startswith(f"{here / 'datamanifest.toml'}:1: ")


def test_several_manifests_are_open_at_once_each_with_its_own_configuration(
    environment: Environment, project: Path, tmp_path: Path, http_server: HttpServer
) -> None:
    uri = http_server.put("/a.txt", "a")
    write_manifest(project, f'[a]\nuri = "{uri}"\n')
    other = tmp_path / "other"
    other.mkdir()
    write_manifest(other, '[_STORAGE]\nscope = "mine"\n', f'[a]\nuri = "{uri}"\nkey = "k"\n')
    with (
        dm.Manifest.open(project, environment=environment) as first,
        dm.Manifest.open(other / "datamanifest.toml", environment=environment) as second,
    ):
        assert (["a"], project / "datamanifest.toml") == (first.names, first.path)
        # Later changes do not move an open session.
        write_manifest(other, '[_STORAGE]\nscope = "late"\n', f'[a]\nuri = "{uri}"\nkey = "k"\n')
        paths = [os.fspath(manifest.fetch("a")) for manifest in (first, second)]
    assert "/mine/datasets/k" in paths[1] and "/mine/" not in paths[0]


def test_a_manifest_in_memory_writes_no_manifest(
    environment: Environment, ask: Ask, project: Path, home: Home, http_server: HttpServer
) -> None:
    uri = http_server.put("/a.txt", "a")
    manifest = dm.Manifest.of({"a": {"uri": uri}}, project_root=project, environment=environment)
    assert manifest.path is None
    assert "missing" == manifest.status("a").state
    assert "ok" == manifest.fetch("a").status
    assert "unchanged" == manifest.fetch("a").status
    assert ("clean", "ok") == (manifest.status("a").state, manifest.verify("a").status)
    assert "a" == manifest.path_of("a").read_text()
    added = manifest.add(http_server.put("/b.txt", "b"), name="b")
    assert (["a", "b"], "b") == (manifest.names, Path(added).read_text())
    manifest.close()
    assert not (project / "datamanifest.toml").exists()
    # The command line finds what the library fetched.
    write_manifest(project, f'[a]\nuri = "{uri}"\n')
    http_server.forget_requests()
    assert "unchanged" == ask("fetch").only["status"]
    assert [] == http_server.requests


def test_add_raises_and_declares_nothing(environment: Environment, project: Path, http_server: HttpServer) -> None:
    path = write_manifest(project)
    before = path.read_bytes()
    with dm.Manifest.open(project, environment=environment) as manifest:
        with pytest.raises(dm.SourceFailed):
            manifest.add(f"{http_server.url}/gone")
        assert before == path.read_bytes()
        assert [] == manifest.names
        assert "ok" == manifest.add(http_server.put("/a.txt", "a"), name="a").status
        assert ["a"] == manifest.names
    assert b"checksum" in path.read_bytes()


def test_a_flipped_bit_is_raised(environment: Environment, project: Path, home: Home, http_server: HttpServer) -> None:
    write_manifest(project, f'[a]\nuri = "{http_server.put("/a.txt", "aaaa")}"\n')
    with dm.Manifest.open(project, environment=environment) as manifest:
        copy = Path(manifest.fetch("a"))
        copy.unlink()
        copy.write_text("aaab")
        with pytest.raises(dm.ContentMismatch):
            manifest.verify("a")
        with pytest.raises(dm.ContentMismatch):
            manifest.fetch("a")
        assert "modified" == manifest.verify("a", check=False).state
        assert "ok" == manifest.fetch("a", force=True).status
        assert "ok" == manifest.verify("a").status
    assert (store_root(home) / ".dm" / "quarantine").is_dir()


def test_outcomes_and_errors_go_from_process_to_process(here: Path, http_server: HttpServer) -> None:
    write_manifest(here, f'[a]\nuri = "{http_server.put("/a.txt", "a")}"\n', '[b]\nuri = "file:///nonexistent/b"\n')
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        answers = pool.apply_async(dm.fetch, (["a"],)).get(COMMAND_TIMEOUT_S)
        assert [("a", "ok", "a")] == [(each.name, each.status, Path(each).read_text()) for each in answers]
        (status,) = pool.apply_async(dm.status, (["a"],)).get(COMMAND_TIMEOUT_S)
        assert dm.status("a") == status
        with pytest.raises(dm.SourceFailed) as one:
            pool.apply_async(dm.fetch, ("b",)).get(COMMAND_TIMEOUT_S)
        assert "no-such-file" == one.value.code
        with pytest.raises(dm.Failed) as several:
            pool.apply_async(dm.fetch, (["a", "b"],)).get(COMMAND_TIMEOUT_S)
    assert (5, ["a", "b"]) == (several.value.exit_status, [each.name for each in several.value.outcomes])
    assert str(several.value).startswith("1 of 2 failed: b: ")


def test_importing_costs_nothing_that_is_not_used(run_dm: RunDm) -> None:
    script = "import sys, dm; print(*sorted({'click', 'rich', 'urllib3', 'sqlite3', 'tomlkit'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "\n" == done.stdout


def test_the_examples_of_the_page_run_as_they_are_printed(
    here: Path, http_server: HttpServer, capfd: pytest.CaptureFixture[str]
) -> None:
    """In their order, in one process. Only the server is another one."""
    for file in (CHECKOUT / "examples" / "data").glob("*.*"):
        http_server.put(f"/{file.name}", file.read_bytes())
    page = (CHECKOUT / "docs" / "python.md").read_text(encoding="utf-8")
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        exec(compile(block.replace("https://example.org", http_server.url), "docs/python.md", "exec"), names)
    assert "bytes would be freed" in capfd.readouterr().out
