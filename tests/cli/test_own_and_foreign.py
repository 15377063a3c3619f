"""Whose bytes are whose: a copy of another source is not handed out, a file of the user's is not taken over."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.fixtures.commands import Ask, default_copy, snapshot, write_manifest
from tests.fixtures.homes import Home, RunDm
from tests.fixtures.servers import HttpServer

ONE, TWO = b"one\n", b"two\n"


def _checksum(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _declare(project: Path, uri: str, *fields: str) -> None:
    write_manifest(project, f'[x]\nuri = "{uri}"\n' + "".join(f"{field}\n" for field in fields))


@pytest.fixture
def uris(http_server: HttpServer) -> tuple[str, str]:
    return http_server.put("/d.csv?id=1", ONE), http_server.put("/d.csv?id=2", TWO)


@pytest.mark.parametrize("field", ["", "skip_checksum = true"])
def test_a_source_that_was_changed_is_fetched_and_the_old_copy_is_not_handed_out(
    run_dm: RunDm, ask: Ask, project: Path, uris: tuple[str, str], field: str
) -> None:
    _declare(project, uris[0], field)
    assert 0 == run_dm("fetch").returncode
    _declare(project, uris[1], field)

    assert 3 == run_dm("path", "x").returncode
    assert 0 == ask("fetch").status
    assert TWO == Path(run_dm("path", "x").stdout.strip()).read_bytes()


def test_a_copy_that_was_recorded_for_an_older_checksum_is_not_handed_out(
    run_dm: RunDm, project: Path, uris: tuple[str, str]
) -> None:
    _declare(project, uris[0], f'checksum = "{_checksum(ONE)}"')
    assert 0 == run_dm("fetch").returncode
    _declare(project, uris[1], f'checksum = "{_checksum(TWO)}"')

    assert 3 == run_dm("path", "x").returncode
    assert 4 == run_dm("verify", "x").returncode


def test_verify_of_what_only_another_project_fetched_says_that_it_is_not_there(
    run_dm: RunDm, project: Path, tmp_path: Path, uris: tuple[str, str]
) -> None:
    _declare(project, uris[0])
    assert 0 == run_dm("fetch").returncode
    other = tmp_path / "other"
    other.mkdir()
    _declare(other, uris[1])

    assert 3 == run_dm("verify", "x", cwd=other).returncode


@pytest.mark.parametrize("inside", [True, False])
def test_a_file_that_the_user_managed_once_is_neither_marked_nor_deleted(
    run_dm: RunDm, project: Path, tmp_path: Path, uris: tuple[str, str], inside: bool
) -> None:
    mine = (project if inside else tmp_path) / "mine" / "d.csv"
    mine.parent.mkdir()
    mine.write_bytes(ONE)
    checksum = f'checksum = "{_checksum(ONE)}"'
    _declare(project, uris[0], f'local_path = "{mine}"', checksum)
    assert 0 == run_dm("fetch").returncode
    _declare(project, uris[0], checksum)
    before = snapshot(mine.parent)

    assert str(mine) == run_dm("path", "x").stdout.strip()
    assert 0 == run_dm("fetch").returncode
    removed = run_dm("rm", "--delete", "x")

    assert (0, True) == (removed.returncode, "stays" in removed.stdout)
    assert before == snapshot(mine.parent)
    assert not (project / ".dm").exists()


def test_a_state_that_names_a_stores_own_files_is_passed_over(
    run_dm: RunDm, home: Home, project: Path, uris: tuple[str, str]
) -> None:
    _declare(project, uris[0], f'checksum = "{_checksum(ONE)}"')
    assert 0 == run_dm("fetch").returncode
    copy = default_copy(home, "127.0.0.1/d.csv")
    state = project / ".datamanifest-state.toml"
    state.write_text(state.read_text().replace(str(copy), str(home.data / "datamanifest" / ".dm" / "format")))

    assert str(copy) == run_dm("path", "x").stdout.strip()
    assert 0 == run_dm("fetch").returncode
    assert 0 == run_dm("rm", "--delete", "x").returncode
    assert (home.data / "datamanifest" / ".dm" / "format").is_file()


def test_a_file_that_the_user_manages_shares_no_bytes_with_an_object(
    run_dm: RunDm, home: Home, project: Path, http_server: HttpServer, uris: tuple[str, str]
) -> None:
    checksum = f'checksum = "{_checksum(ONE)}"'
    elsewhere = http_server.put("/elsewhere.csv", ONE)
    _declare(project, uris[0], checksum, f'[y]\nuri = "{elsewhere}"\nstorage_path = "here/d.csv"\n{checksum}')
    assert 0 == run_dm("fetch", "x").returncode
    assert 0 == run_dm("fetch", "y").returncode
    own = project / "here" / "d.csv"

    assert 1 == own.stat().st_nlink
    own.chmod(0o644)
    own.write_bytes(TWO)
    assert ONE == default_copy(home, "127.0.0.1/d.csv").read_bytes()


def test_what_lies_at_an_untrusted_place_is_not_marked_there(
    run_dm: RunDm, project: Path, tmp_path: Path, uris: tuple[str, str]
) -> None:
    place = tmp_path / "elsewhere"
    place.mkdir()
    (place / "d.csv").write_bytes(ONE)
    fields = (f'key = "d.csv"\nstorage_path = "{place}/$key"', f'checksum = "{_checksum(ONE)}"')
    _declare(project, uris[0], *fields)
    before = snapshot(place)

    assert 6 == run_dm("fetch").returncode
    assert before == snapshot(place)

    (place / "d.csv.complete").write_bytes(b"")
    before = snapshot(place)
    assert 0 == run_dm("fetch").returncode
    assert 0 == run_dm("verify").returncode
    assert 0 == run_dm("rm", "--delete", "x").returncode
    assert before == snapshot(place)
