"""What a clone puts in the place of a file that `dm` reads by itself: a device or a fifo is read by nobody."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fixtures.commands import assert_one_error, write_manifest
from tests.fixtures.homes import RunDm

#: Files beside a manifest that are read unasked. Git keeps links, so a clone may bring one to a device.
NAMES = [
    ".datamanifest-state.toml",
    ".datamanifest/state.toml",
    ".datamanifest/config.toml",
    "pyproject.toml",
    "Project.toml",
    "cached.toml",
]


@pytest.mark.parametrize("kind", ["device", "fifo"])
@pytest.mark.parametrize("name", NAMES)
def test_a_device_or_fifo_beside_the_manifest_is_refused_and_not_read(
    run_dm: RunDm, project: Path, name: str, kind: str
) -> None:
    write_manifest(project, '[a]\nuri = "https://data.example/a.csv"\n')
    path = project / name
    put(path, kind)
    done = run_dm("status")
    assert 6 == done.returncode
    assert f"cannot read '{path}': it is no file" in done.stderr


@pytest.mark.parametrize("kind", ["device", "fifo"])
def test_validate_and_init_wait_for_none_either(run_dm: RunDm, project: Path, kind: str) -> None:
    path = write_manifest(project)
    put(project / ".datamanifest-state.toml", kind)
    error = assert_one_error(run_dm("validate"), 6)
    assert f"cannot read '{project / '.datamanifest-state.toml'}': it is no file" == error
    path.unlink()
    (project / ".datamanifest-state.toml").unlink()
    put(project / ".gitignore", kind)
    assert_one_error(run_dm("init"), 6)
    assert not path.exists()


@pytest.mark.parametrize("kind", ["device", "fifo"])
def test_a_copy_that_is_a_device_or_fifo_is_refused_and_not_read(run_dm: RunDm, project: Path, kind: str) -> None:
    (project / "source.txt").write_text("1")
    uri = (project / "source.txt").as_uri()
    write_manifest(project, f'[a]\nuri = "{uri}"\nkey = "a.txt"\nstore = "$repo"\n')
    assert 0 == run_dm("fetch").returncode
    path = project / "datasets" / "a.txt"
    path.unlink()
    put(path, kind)
    for command in ("status", "fetch", "verify"):
        done = run_dm(command)
        assert 6 == done.returncode, (command, done.stdout, done.stderr)
        assert f"cannot read '{path}': it is neither a file nor a folder" in done.stderr


def put(path: Path, kind: str) -> None:
    path.parent.mkdir(exist_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
