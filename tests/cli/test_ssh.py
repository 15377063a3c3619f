"""Datasets of another machine: whole commands against a real sshd, over rsync."""

from __future__ import annotations

import hashlib
import os
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.fixtures.archives import FORMATS, make_archive, read_tree
from tests.fixtures.commands import (
    NO_RETRIES,
    Ask,
    StartDm,
    assert_one_error,
    default_copy,
    find_sizes,
    kill,
    list_litter,
    write_manifest,
)
from tests.fixtures.homes import Home, RunDm
from tests.fixtures.machine import needs
from tests.fixtures.sshd import Sshd

_PATIENCE_S = 120.0
_BODY_BYTES = 12 << 20
#: Names that mean something to a shell, to rsync or to ssh, and that a key may have.
NAMES = ["a b.nc", "$(touch pwned).nc", "it's; touch pwned.nc", "-e touch.nc", "data[1]*?.nc", "ä\\b&.nc"]


@pytest.fixture
def served(sshd: Sshd) -> Path:
    """A folder in the home over there: what lies in it has a short key."""
    needs("rsync")
    folder = sshd.home / "ser ved"
    folder.mkdir()
    return folder


@pytest.fixture
def reach(sshd: Sshd) -> dict[str, str]:
    """The environment with which a command reaches the server."""
    return {"DATAMANIFEST_SSH_COMMAND": sshd.ssh_command, **NO_RETRIES}


def remote(path: Path) -> str:
    """A path of the test as a URI has it: below the home over there."""
    return "/~/" + "/".join(path.parts[path.parts.index("ser ved") :])


def key_of(path: Path) -> str:
    return "127.0.0.1" + quote(remote(path))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "it never came"
        time.sleep(0.01)


def test_files_with_any_name_are_added_fetched_and_verified(
    ask: Ask, project: Path, home: Home, sshd: Sshd, served: Path, reach: dict[str, str], tmp_path: Path
) -> None:
    write_manifest(project)
    for number, name in enumerate(NAMES):
        (served / name).write_bytes(name.encode())
        answer = ask("add", sshd.uri(remote(served / name)), "--name", f"d{number}", env=reach)
        place = default_copy(home, key_of(served / name))
        assert (0, "ok", str(place)) == (answer.status, answer.only["status"], answer.only["path"])
        assert name.encode() == place.read_bytes()
    manifest = tomllib.loads((project / "datamanifest.toml").read_text())
    expected = [f"sha256:{hashlib.sha256(name.encode()).hexdigest()}" for name in NAMES]
    assert expected == [manifest[f"d{number}"]["checksum"] for number in range(len(NAMES))]
    sshd.relay.connections = 0
    assert ["unchanged"] * len(NAMES) == [each["status"] for each in ask("fetch", env=reach).outcomes]
    assert 0 == ask("verify", env=reach).status
    assert 0 == sshd.relay.connections
    assert [] == [*tmp_path.rglob("pwned"), *list_litter(home, project)]


def test_a_folder_with_any_names_is_fetched_with_its_modes_and_links(
    ask: Ask, project: Path, home: Home, sshd: Sshd, served: Path, reach: dict[str, str], tmp_path: Path
) -> None:
    folder = served / "run $1; x"
    (folder / "sub dir").mkdir(parents=True)
    for name in NAMES:
        (folder / "sub dir" / name).write_bytes(name.encode())
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("sub dir/a b.nc")
    (folder / "empty").mkdir()
    write_manifest(project, f'[run]\nuri = "{sshd.uri(remote(folder), scheme="sshfs")}"\n')
    assert "ok" == ask("fetch", env=reach).only["status"]
    place = default_copy(home, key_of(folder))
    expected, found = read_tree(folder), read_tree(place)
    assert set(expected) | {".complete"} == set(found) | {".complete"}
    assert {name.encode() for name in NAMES} == {path.read_bytes() for path in (place / "sub dir").iterdir()}
    assert ("sub dir/a b.nc", True) == (os.readlink(place / "link"), bool((place / "run.sh").stat().st_mode & 0o100))
    entry = tomllib.loads((project / "datamanifest.toml").read_text())["run"]
    assert entry["digest"].startswith("blake3-tree:")
    assert 0 == ask("verify", env=reach).status
    assert [] == [*tmp_path.rglob("pwned"), *list_litter(home, project)]


def test_an_archive_and_several_files_come_over_ssh(
    ask: Ask, project: Path, home: Home, sshd: Sshd, served: Path, reach: dict[str, str]
) -> None:
    archive_format = next(iter(FORMATS))
    archive = served / f"a.{archive_format}"
    archive.write_bytes(make_archive(archive_format, [("in/x.txt", b"x")]))
    for name in ("one", "two"):
        (served / name).write_text(name)
    uris = ", ".join(f'"{sshd.uri(remote(served / name), scheme="rsync")}"' for name in ("one", "two"))
    write_manifest(
        project,
        f'[packed]\nuri = "{sshd.uri(remote(archive))}"\nextract = true\nkey = "packed.{archive_format}"\n',
        f'[several]\nuris = [{uris}]\nkey = "several"\n',
    )
    answer = ask("fetch", env=reach)
    assert (0, ["ok", "ok"]) == (answer.status, [each["status"] for each in answer.outcomes])
    places = {each["name"]: Path(each["path"]) for each in answer.outcomes}
    assert b"x" == (places["packed"] / "in" / "x.txt").read_bytes()
    assert ["one", "two"] == [(places["several"] / name).read_text() for name in ("one", "two")]
    assert [] == list_litter(home, project)


def test_a_wrong_key_is_one_line_and_changes_nothing(
    run_dm: RunDm, project: Path, home: Home, sshd: Sshd, served: Path
) -> None:
    (served / "x").write_text("x")
    manifest = write_manifest(project, f'[x]\nuri = "{sshd.uri(remote(served / "x"))}"\n')
    before = manifest.read_bytes()
    command = f"{sshd.ssh_command_with_key(sshd.make_key('other'))}"
    done = run_dm("fetch", "x", env={"DATAMANIFEST_SSH_COMMAND": command, **NO_RETRIES})
    message = assert_one_error(done, 5).removeprefix("'x': ")
    assert message.startswith(f"cannot fetch '{sshd.uri(remote(served / 'x'))}': ")
    assert message.endswith("Permission denied (publickey)")
    assert "ssh-agent" in done.stderr
    assert before == manifest.read_bytes()
    assert [] == list_litter(home, project)


def test_other_bytes_than_declared_are_not_published(
    ask: Ask, project: Path, home: Home, sshd: Sshd, served: Path, reach: dict[str, str]
) -> None:
    (served / "x").write_text("x")
    write_manifest(project, f'[x]\nuri = "{sshd.uri(remote(served / "x"))}"\nchecksum = "sha256:{"0" * 64}"\n')
    answer = ask("fetch", env=reach)
    assert (4, "checksum-mismatch") == (answer.status, answer.only["code"])
    assert not default_copy(home, key_of(served / "x")).exists()
    assert [] == list_litter(home, project)


def test_a_killed_fetch_goes_on_where_it_was(
    ask: Ask, start_dm: StartDm, project: Path, home: Home, sshd: Sshd, served: Path, reach: dict[str, str]
) -> None:
    body = os.urandom(_BODY_BYTES)
    (served / "big file").write_bytes(body)
    write_manifest(project, f'[big]\nuri = "{sshd.uri(remote(served / "big file"))}"\n')
    sshd.relay.stall_at = _BODY_BYTES // 2

    def find_arrived_bytes() -> int:
        return sum(find_sizes(home.data / "datamanifest" / ".dm", "partial/*"))

    process = start_dm("fetch", env=reach)
    assert sshd.relay.stalled.wait(_PATIENCE_S)
    wait_until(lambda: find_arrived_bytes() > _BODY_BYTES // 4)
    kill(process)
    sshd.relay.stall_at = None
    sshd.relay.go.set()
    sshd.relay.sent_bytes = 0
    assert "ok" == ask("fetch", env=reach).only["status"]
    assert body == default_copy(home, key_of(served / "big file")).read_bytes()
    # The rsync that the kill left behind may have taken in what was under way.
    assert sshd.relay.sent_bytes < _BODY_BYTES * 3 // 4
    assert [] == list_litter(home, project)


def test_a_source_that_changed_after_a_kill_arrives_as_it_is_now(
    ask: Ask, start_dm: StartDm, project: Path, home: Home, sshd: Sshd, served: Path, reach: dict[str, str]
) -> None:
    body = os.urandom(_BODY_BYTES)
    (served / "x").write_bytes(body)
    write_manifest(project, f'[x]\nuri = "{sshd.uri(remote(served / "x"))}"\n')
    sshd.relay.stall_at = _BODY_BYTES // 2
    process = start_dm("fetch", env=reach)
    assert sshd.relay.stalled.wait(_PATIENCE_S)
    kill(process)
    sshd.relay.stall_at = None
    sshd.relay.go.set()
    changed = b"other" + body[5 : _BODY_BYTES // 2] + os.urandom(_BODY_BYTES // 2)
    (served / "x").write_bytes(changed)
    assert "ok" == ask("fetch", env=reach).only["status"]
    assert changed == default_copy(home, key_of(served / "x")).read_bytes()


def test_the_command_may_stand_in_the_users_config(
    run_dm: RunDm, ask: Ask, project: Path, sshd: Sshd, served: Path
) -> None:
    (served / "x").write_text("x")
    write_manifest(project, f'[x]\nuri = "{sshd.uri(remote(served / "x"))}"\n')
    assert 0 == run_dm("config", "set", "--global", "ssh_command", sshd.ssh_command).returncode
    assert "ok" == ask("fetch", env=NO_RETRIES).only["status"]


@pytest.mark.parametrize("where", ["manifest", "checkout"])
def test_a_cloned_project_cannot_set_the_command(
    ask: Ask, run_dm: RunDm, project: Path, home: Home, sshd: Sshd, served: Path, tmp_path: Path, where: str
) -> None:
    (served / "x").write_text("x")
    evil = tmp_path / "evil"
    evil.write_text(f"#!/bin/sh\ntouch {tmp_path}/pwned\n")
    evil.chmod(0o755)
    setting = f'ssh_command = "{evil}"\n'
    dataset = f'[x]\nuri = "ssh://127.0.0.1:1{quote(remote(served / "x"))}"\n'
    if where == "manifest":
        write_manifest(project, f"[_STORAGE]\n{setting}", dataset)
    else:
        write_manifest(project, dataset)
        (project / ".datamanifest").mkdir()
        (project / ".datamanifest" / "config.toml").write_text(setting)
    answer = ask("fetch", env=NO_RETRIES)
    assert (5, "cannot-connect") == (answer.status, answer.only["code"])  # plain ssh was asked, and nobody is there
    for command in (["status"], ["list"], ["verify"], ["resolve-config", "--explain", "ssh_command"]):
        run_dm(*command)
    assert [] == list(tmp_path.rglob("pwned"))
    refused = run_dm("config", "set", "ssh_command", str(evil))
    assert "'ssh_command' is read from the environment and the user's config only" in assert_one_error(
        refused, refused.returncode
    )


def test_a_host_that_would_be_an_option_is_refused(
    ask: Ask, project: Path, reach: dict[str, str], tmp_path: Path
) -> None:
    write_manifest(project, f'[x]\nuri = "ssh://-oProxyCommand=touch {tmp_path}/pwned/x"\nkey = "x"\n')
    answer = ask("fetch", env=reach)
    assert 6 == answer.status, answer
    assert [] == list(tmp_path.rglob("pwned"))
