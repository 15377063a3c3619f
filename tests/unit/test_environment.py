from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dm.environment import Environment, Surroundings, format_time, read_clock_ns, read_monotonic_s
from dm.errors import MachineFailed


def make_environment(home: Path, **variables: str) -> Environment:
    return Environment(variables, home, home, "node7", 4711)


def test_the_picture_does_not_move_with_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATAMANIFEST_DIR", "/before")
    monkeypatch.chdir(tmp_path)
    environment = Environment.read()
    monkeypatch.setenv("DATAMANIFEST_DIR", "/after")
    monkeypatch.chdir("/")
    assert "/before" == environment.get("DATAMANIFEST_DIR")
    assert tmp_path == environment.working_folder
    assert (os.getpid(), os.uname().nodename) == (environment.process_id, environment.host_name)


def test_the_home_follows_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tmp_path == Environment.read().home


def test_an_empty_variable_counts_as_unset(tmp_path: Path) -> None:
    environment = make_environment(tmp_path, EMPTY="", FULL="x")
    assert (None, None, "x") == (environment.get("EMPTY"), environment.get("ABSENT"), environment.get("FULL"))


def test_a_working_directory_that_was_removed_is_one_clear_error(tmp_path: Path) -> None:
    code = (
        "import os, sys; os.mkdir('gone'); os.chdir('gone'); os.rmdir(os.getcwd())\n"
        "from dm.environment import Environment\n"
        "from dm.errors import MachineFailed\n"
        "try: Environment.read()\n"
        "except MachineFailed as error: print(error.message, '|', error.hint)\n"
    )
    checkout = str(Path(__file__).resolve().parents[2])
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": checkout}, capture_output=True, text=True
    )
    assert "the working directory no longer exists | cd to one that does\n" == result.stdout
    assert MachineFailed.exit_status == 8


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the XDG variables are Linux's")
def test_the_xdg_variables_name_the_folders(tmp_path: Path) -> None:
    environment = make_environment(
        tmp_path, XDG_DATA_HOME="/x/data", XDG_CACHE_HOME=" /x/cache ", XDG_CONFIG_HOME="/x/config"
    )
    assert Path("/x/data") == environment.user_data_dir
    assert Path("/x/cache") == environment.user_cache_dir
    assert Path("/x/config/datamanifest/config.toml") == environment.user_config_file


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the places below are Linux's")
def test_without_the_xdg_variables_the_folders_lie_in_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    environment = make_environment(tmp_path)
    assert tmp_path / ".local" / "share" == environment.user_data_dir
    assert tmp_path / ".cache" == environment.user_cache_dir
    assert tmp_path / ".config" / "datamanifest" / "config.toml" == environment.user_config_file


def test_times_are_written_in_utc_without_fractions() -> None:
    assert "1970-01-01T00:00:00Z" == format_time(0)
    assert "2026-01-31T12:34:56Z" == format_time(1_769_862_896_999_999_999)


def test_the_clocks_run_forward() -> None:
    first = read_monotonic_s()
    assert first <= read_monotonic_s()
    assert 1_700_000_000_000_000_000 < read_clock_ns()


@pytest.mark.parametrize("name", ["DATAMANIFEST_SCOPE", "DATASETS_TOML", "XDG_CACHE_HOME", "HOME"])
def test_the_surroundings_differ_when_what_decides_differs(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = Surroundings.read()
    monkeypatch.setenv("UNRELATED", "x")
    assert before == Surroundings.read()
    monkeypatch.setenv(name, str(tmp_path))
    assert before != Surroundings.read()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert before != Surroundings.read()


def test_the_surroundings_in_a_removed_directory_are_the_same_clear_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with pytest.raises(MachineFailed, match="the working directory no longer exists"):
        Surroundings.read()
