"""The contract between tools from both ends: `dm` asks a peer on PATH, and the peer that answers is `dm` itself."""

from __future__ import annotations

import os
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from tests.fixtures.commands import Ask, default_copy, list_litter, write_manifest
from tests.fixtures.homes import Home, RunDm
from tests.fixtures.machine import needs


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder for PATH: the shell's own tools, no Rscript and no other interpreter of a manifest's language."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("sh", "env", "cat", "touch", "sed", "uname", "rm"):
        found = shutil.which(name)
        if found:
            (folder / name).symlink_to(found)
    return folder


def put_program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def put_dm_as_peer(folder: Path, name: str, *, path: str = "$PATH") -> None:
    """``datamanifest-dm`` under another name, with the rest of what it gets as it is."""
    put_program(folder, name, f'#!/bin/sh\nPATH="{path}" exec "{sys.executable}" -m dm.porcelain.cli.peer "$@"\n')


R_PROJECT = """[base]
storage_path = "base.txt"
skip_download = true

[sst]
key = "made here/sst é.txt"
requires = ["base"]

[sst._LANG.r]
fetcher = "get:get"
"""


def make_r_project(project: Path) -> Path:
    (project / "base.txt").write_text("base\n")
    (project / "get.R").write_text(
        "get <- function(download_path, requires_paths, key)\n"
        "  writeLines(c(key, readLines(requires_paths)), download_path)\n"
    )
    return write_manifest(project, R_PROJECT)


def test_dm_asks_dm_for_what_only_the_other_one_can_run(
    run_dm: RunDm, ask: Ask, home: Home, project: Path, programs: Path
) -> None:
    needs("Rscript")
    make_r_project(project)
    put_dm_as_peer(programs, "datamanifest-r", path=os.environ["PATH"])
    assert 0 == run_dm("trust", "--yes").returncode
    env = {"PATH": str(programs)}
    outcome = ask("fetch", "sst", env=env)
    assert 0 == outcome.status, outcome
    path = default_copy(home, "made here/sst é.txt")
    assert "made here/sst é.txt\nbase\n" == path.read_text(encoding="utf-8")
    assert path.with_name("sst é.txt.complete").exists()
    state = tomllib.loads((project / ".datamanifest-state.toml").read_text(encoding="utf-8"))
    assert {"made here/sst é.txt": str(path)} == {key: each["storage_path"] for key, each in state["datasets"].items()}
    assert "checksum" in tomllib.loads((project / "datamanifest.toml").read_text(encoding="utf-8"))["sst"]
    again = ask("fetch", "sst", env={"PATH": ""})
    assert (0, "unchanged") == (again.status, again.only["status"])
    assert 0 == run_dm("verify").returncode
    assert [] == [each for each in list_litter(home, project) if "/trust/" not in each]


def test_the_same_manifest_runs_r_where_it_is(run_dm: RunDm, home: Home, project: Path) -> None:
    needs("Rscript")
    make_r_project(project)
    done = run_dm("fetch", "--trust")
    assert 0 == done.returncode, done.stderr
    assert "made here/sst é.txt\nbase\n" == default_copy(home, "made here/sst é.txt").read_text(encoding="utf-8")


def test_a_julia_peer_on_path_is_asked_where_julia_is_not(
    run_dm: RunDm, home: Home, project: Path, programs: Path
) -> None:
    write_manifest(project, '[sst]\nkey = "x/sst.txt"\n[sst._LANG.julia]\nfetcher = "Mod:get"\n')
    put_program(
        programs,
        "datamanifest-julia",
        f"""#!{sys.executable}
import pathlib, sys
assert sys.argv[1:3] == ["fetch", "sst"] and sys.argv[3] == "--datasets-toml" and sys.argv[5] == "--datasets-folder"
path = pathlib.Path(sys.argv[6], "x", "sst.txt")
path.parent.mkdir(parents=True)
path.write_text("by Julia")
path.with_name("sst.txt.complete").touch()
print("chatter")
""",
    )
    assert 6 == run_dm("fetch", env={"PATH": str(programs)}).returncode
    done = run_dm("fetch", "--trust", env={"PATH": str(programs)})
    assert 0 == done.returncode, done.stderr
    assert "chatter" not in done.stdout
    assert "by Julia" == default_copy(home, "x/sst.txt").read_text()
    assert [] == list_litter(home, project)


def test_two_tools_that_each_have_only_the_other_end_with_an_error(
    run_dm: RunDm, project: Path, programs: Path
) -> None:
    write_manifest(project, '[sst]\nkey = "x/sst.txt"\n[sst._LANG.julia]\nfetcher = "Mod:get"\n')
    put_dm_as_peer(programs, "datamanifest-julia")
    done = run_dm("fetch", env={"PATH": str(programs), "DATAMANIFEST_TRUST": "1"})
    assert 5 == done.returncode
    assert "'datamanifest-julia' could not fetch 'sst': dm: error: cannot fetch 'sst': its only source" in done.stderr


def test_the_python_peer_of_today_has_no_such_command_and_is_named(
    run_dm: RunDm, project: Path, programs: Path, peer_executable: Path
) -> None:
    write_manifest(project, '[sst]\nkey = "x/sst.txt"\n[sst._LANG.julia]\nfetcher = "Mod:get"\n')
    put_program(programs, "datamanifest", f'#!/bin/sh\nexec "{peer_executable}" "$@"\n')
    done = run_dm("fetch", "--trust", env={"PATH": str(programs)})
    assert 5 == done.returncode
    assert "'datamanifest' could not fetch 'sst'" in done.stderr
    assert "hint: install the language itself, or a peer whose 'fetch' knows --datasets-toml" in done.stderr
