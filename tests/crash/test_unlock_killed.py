"""`dm unlock` and `dm lock` that are killed with SIGKILL: every copy is whole, no lock stays, the next call ends it."""

from __future__ import annotations

import os
import stat
import tarfile
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pytest

from tests.fixtures.commands import (
    Ask,
    StartDm,
    default_copy,
    kill_when,
    list_litter,
    list_paths,
    store_root,
    write_manifest,
)
from tests.fixtures.homes import Home, RunDm
from tests.fixtures.servers import HttpServer

FILES = 2_000
SHARE = 'project = "paper"\n'


def _list_files(copy: Path) -> dict[str, os.stat_result]:
    found = {}
    for folder, _, names in os.walk(copy):
        for name in names:
            path = Path(folder, name)
            if name != ".complete":
                found[path.relative_to(copy).as_posix()] = path.stat()
    return found


def _assert_whole(copy: Path) -> None:
    assert FILES == len(_list_files(copy))
    for number in range(FILES):
        assert b"%d\n" % number == (copy / f"{number}.txt").read_bytes()


def _count_writable(copy: Path) -> int:
    """How many files of a copy may be written to; also while a command puts others in their place."""
    count = 0
    for path in list_paths(copy, "**"):
        with suppress(FileNotFoundError):
            mode = path.lstat().st_mode
            count += stat.S_ISREG(mode) and mode & 0o200 != 0 and path.name != ".complete"
    return count


@pytest.fixture
def source(project: Path) -> Path:
    """A folder of many small files of somebody's, to be fetched."""
    path = project.parent / "many.tar"
    with tarfile.open(path, "w") as archive:
        for number in range(FILES):
            data = b"%d\n" % number
            member = tarfile.TarInfo(f"{number}.txt")
            member.size = len(data)
            archive.addfile(member, BytesIO(data))
    return path


def _declare(project: Path, server: HttpServer, source: Path, extra: str = "") -> None:
    uri = server.put("/many.tar", source.read_bytes())
    write_manifest(project, f'[_STORAGE]\n{SHARE}\n[many]\nuri = "{uri}"\nextract = true\n{extra}')


@pytest.mark.parametrize("moment", ["staging", "noted", "there"])
def test_a_killed_unlock_leaves_a_whole_private_copy_or_none(
    start_dm: StartDm, ask: Ask, run_dm: RunDm, project: Path, home: Home, http_server: HttpServer, source: Path,
    moment: str,
) -> None:  # fmt: skip
    _declare(project, http_server, source)
    assert 0 == ask("fetch").status
    shared, own = default_copy(home, "127.0.0.1/many"), store_root(home) / "paper" / "datasets" / "127.0.0.1" / "many"
    meta = store_root(home) / ".dm"
    before = _list_files(shared)
    times = {
        "staging": lambda: len(list_paths(meta / "partial", "**/*.txt")) > FILES // 4,
        "noted": lambda: (meta / "unlocked").is_dir(),
        "there": own.exists,
    }
    kill_when(start_dm("unlock", "many"), times[moment])
    assert {name: each.st_mode for name, each in before.items()} == {
        name: each.st_mode for name, each in _list_files(shared).items()
    }
    if own.exists():
        _assert_whole(own)
    assert 0 == run_dm("verify").returncode
    assert "unchanged" == ask("fetch").only["status"]
    answer = ask("unlock", "many")
    assert (0, "", str(own)) == (answer.status, answer.stderr, answer.only["path"])
    _assert_whole(own)
    assert FILES == _count_writable(own) and 0 == _count_writable(shared)
    assert f"{own}\n" == run_dm("path", "many").stdout
    assert [] == list_litter(home, project)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_killed_unlock_in_place_leaves_every_file_right(
    start_dm: StartDm, ask: Ask, run_dm: RunDm, project: Path, home: Home, http_server: HttpServer, source: Path,
    share: float,
) -> None:  # fmt: skip
    _declare(project, http_server, source, 'storage_path = "data/$key"\n')
    assert 0 == ask("fetch").status
    copy = project / "data" / "127.0.0.1" / "many"
    kill_when(start_dm("unlock", "many"), lambda: _count_writable(copy) > FILES * share)
    _assert_whole(copy)
    assert 0 == run_dm("verify").returncode
    assert 0 == ask("unlock", "many").status
    _assert_whole(copy)
    assert FILES == _count_writable(copy)
    assert all(each.st_nlink == 1 for each in _list_files(copy).values())
    objects = [path.stat() for path in (project / "data" / ".dm" / "objects").rglob("*") if path.is_file()]
    assert all(not each.st_mode & 0o222 for each in objects)
    assert [] == list_litter(home, project)


@pytest.mark.parametrize("shared_is_there", [True, False])
def test_a_killed_lock_leaves_whole_copies_and_the_next_one_ends_it(
    start_dm: StartDm, ask: Ask, run_dm: RunDm, project: Path, home: Home, http_server: HttpServer, source: Path,
    shared_is_there: bool,
) -> None:  # fmt: skip
    _declare(project, http_server, source)
    assert 0 == ask("fetch").status
    shared, own = default_copy(home, "127.0.0.1/many"), store_root(home) / "paper" / "datasets" / "127.0.0.1" / "many"
    assert 0 == run_dm("unlock", "many").returncode
    if not shared_is_there:
        (own / "0.txt").write_bytes(b"edited\n")
        assert 0 == run_dm("pin", "many").returncode
        (own / "0.txt").unlink()
        (own / "0.txt").write_bytes(b"0\n")
        assert 0 == run_dm("pin", "many").returncode
        (shared / ".complete").unlink()
        shared.rename(project.parent / "away")
    is_late = (lambda: not own.exists()) if shared_is_there else (lambda: _count_writable(own) < FILES // 2)
    kill_when(start_dm("lock", "many"), is_late)
    if own.exists():
        _assert_whole(own)
    assert 0 == run_dm("verify").returncode
    answer = ask("lock", "many")
    assert (0, "") == (answer.status, answer.stderr)
    used = Path(run_dm("path", "many").stdout.strip())
    assert (shared if shared_is_there else own) == used
    _assert_whole(used)
    assert 0 == _count_writable(used)
    assert own.exists() is not shared_is_there
    assert 0 == run_dm("verify", "--all", "--repair").returncode
    assert [] == list_litter(home, project)
