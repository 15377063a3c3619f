"""``dm init``."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.fixtures.commands import Ask, assert_one_error
from tests.fixtures.homes import RunDm


def test_init_writes_a_manifest_and_ignores_what_dm_keeps_beside_it(run_dm: RunDm, ask: Ask, project: Path) -> None:
    done = run_dm("init")
    assert 0 == done.returncode and "datamanifest.toml" in done.stdout
    assert [".datamanifest-state.toml", ".datamanifest/"] == (project / ".gitignore").read_text().splitlines()
    assert [".gitignore", "datamanifest.toml"] == sorted(path.name for path in project.iterdir())
    assert (0, []) == (ask("validate").status, ask("list").outcomes)
    assert "no datasets declared" in run_dm("status").stdout


def test_init_makes_the_folder_that_it_is_given(ask: Ask, project: Path) -> None:
    answer = ask("init", "new/one")
    assert str(project / "new/one/datamanifest.toml") == answer.only["path"]
    assert (project / "new/one/datamanifest.toml").exists() and not (project / "datamanifest.toml").exists()


@pytest.mark.parametrize("name", ["datamanifest.toml", "DataManifest.toml", "datasets.toml", "Datasets.toml"])
def test_init_never_overwrites(run_dm: RunDm, project: Path, name: str) -> None:
    (project / name).write_text("# mine\n")
    assert f"'{project / name}' exists" == assert_one_error(run_dm("init"), 6)
    assert [name] == [path.name for path in project.iterdir()]
    assert "# mine\n" == (project / name).read_text()


def test_init_completes_a_gitignore_and_keeps_its_lines(run_dm: RunDm, project: Path) -> None:
    (project / ".gitignore").write_text("*.pyc\n.datamanifest/")
    assert 0 == run_dm("init").returncode
    assert "*.pyc\n.datamanifest/\n.datamanifest-state.toml\n" == (project / ".gitignore").read_text()


def test_git_sees_the_manifest_and_nothing_else(run_dm: RunDm, project: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    (tmp_path / "a.txt").write_text("a")
    assert 0 == run_dm("init").returncode
    assert 0 == run_dm("add", tmp_path / "a.txt").returncode
    assert 0 == run_dm("config", "set", "--local", "data", "data").returncode
    done = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=all"],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ["?? .gitignore", "?? datamanifest.toml"] == sorted(done.stdout.splitlines())


def test_init_makes_no_other_manifest_than_its_own(run_dm: RunDm, project: Path) -> None:
    error = assert_one_error(run_dm("--manifest", "other.toml", "init"), 2)
    assert "--manifest names a file" in error
    assert [] == list(project.iterdir())
