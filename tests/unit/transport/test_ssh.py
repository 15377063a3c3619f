"""rsync over ssh against a real sshd: names, folders, resume, refusals, and what is said when it does not work."""

from __future__ import annotations

import fcntl
import os
import pty
import shlex
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dm.errors import DmError, MachineFailed, Malformed, Refused, SourceFailed
from dm.plumbing.transport.connections import HttpOptions
from dm.plumbing.transport.protocol import Fetched
from dm.plumbing.transport.ssh import SshAddress, SshFetcher, read_ssh_address
from dm.plumbing.transport.ssh_command import DEFAULT_SSH_COMMAND, split_ssh_command
from tests.fixtures.commands import find_sizes
from tests.fixtures.fetching import QUICK, digests_of, fetch, make_environment, measured, names_in
from tests.fixtures.homes import CHECKOUT
from tests.fixtures.machine import MakeTmpfs, needs
from tests.fixtures.sinks import RecordingProgress, RecordingTask
from tests.fixtures.sshd import Sshd

_PATIENCE_S = 60.0
_BODY_BYTES = 12 << 20
#: What an rsync that goes on may send again: what was under way (ssh lets 2 MiB), and its blocks.
_AGAIN_BYTES = 3 << 20


def make_fetcher(sshd: Sshd, *, command: str | None = None, options: HttpOptions = QUICK, **more: str) -> SshFetcher:
    needs("rsync")
    environment = make_environment(sshd.home, **{"PATH": os.environ["PATH"], **more})
    return SshFetcher(environment, sshd.ssh_command if command is None else command, options)


@pytest.fixture
def fetcher(sshd: Sshd) -> SshFetcher:
    return make_fetcher(sshd)


@pytest.fixture
def served(tmp_path: Path) -> Path:
    folder = tmp_path / "served"
    folder.mkdir()
    return folder


def failure(fetcher: SshFetcher, uri: str, folder: Path, kind: type[DmError] = SourceFailed) -> DmError:
    """The error of a fetch that has to fail, which leaves nothing."""
    with pytest.raises(kind) as caught:
        fetch(fetcher, uri, folder)
    assert type(caught.value) is kind
    assert 1 == len(caught.value.message.splitlines())
    assert caught.value.hint
    assert [] == names_in(folder)
    return caught.value


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "it never came"
        time.sleep(0.01)


def read_all(root: Path) -> dict[str, object]:
    """Everything below a folder: bytes of files, texts of links, None for folders."""
    found: dict[str, object] = {}
    for path in root.rglob("*"):
        name = os.fsdecode(os.fsencode(path.relative_to(root)))
        found[name] = os.readlink(path) if path.is_symlink() else None if path.is_dir() else path.read_bytes()
    return found


# The URI


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("ssh://h/a/b.nc", SshAddress("h", None, b"/a/b.nc", False)),
        ("sshfs://Example.org:2222/a%20b/%C3%A4#v1", SshAddress("Example.org", 2222, b"/a b/\xc3\xa4", False)),
        ("rsync://h/a/b/?format=nc", SshAddress("h", None, b"/a/b", True)),
        ("ssh://[::1]:22/a", SshAddress("::1", 22, b"/a", False)),
        ("ssh://h:/a", SshAddress("h", None, b"/a", False)),
        ("ssh://h/~/a//b", SshAddress("h", None, b"./a//b", False)),
        ("ssh://h/%7E/a", SshAddress("h", None, b"./a", False)),
        ("ssh://h/~", SshAddress("h", None, b".", True)),
        ("ssh://h/~/", SshAddress("h", None, b".", True)),
        ("ssh://h/./~ada/x", SshAddress("h", None, b"/./~ada/x", False)),
        ("ssh://h/%FF%0A%3F%23", SshAddress("h", None, b"/\xff\n?#", False)),
    ],
)
def test_a_uri_names_host_port_and_path(uri: str, expected: SshAddress) -> None:
    assert expected == read_ssh_address(uri)


@pytest.mark.parametrize(
    ("uri", "fault"),
    [
        ("ssh:/a", "it names no host"),
        ("ssh:///a", "it names no host"),
        ("ssh://h", "it names no path"),
        ("ssh://h//", "it names no path"),
        ("ssh://h:0/a", "'0' is no port"),
        ("ssh://h:22x/a", "'22x' is no port"),
        ("ssh://h:99999/a", "'99999' is no port"),
        ("ssh://ada@h/a", "it has a user in it"),
        ("ssh://h/~ada/a", "another user's home cannot be named"),
        ("ssh://h/a%00", "its path holds a NUL"),
    ],
)
def test_a_malformed_uri_is_said_to_be_one(uri: str, fault: str) -> None:
    with pytest.raises(SourceFailed) as caught:
        read_ssh_address(uri)
    assert f": {fault}" in caught.value.message
    assert (caught.value.code, bool(caught.value.hint)) == ("uri-malformed", True)


@pytest.mark.parametrize("host", ["-oProxyCommand=touch x", "-h", "a b", "h;x", "$(x)", "h'", "a\\b", "ä"])
def test_a_host_that_is_no_name_is_refused(host: str) -> None:
    with pytest.raises(Refused, match="is no name of a host") as caught:
        read_ssh_address(f"ssh://{host}/a")
    assert ("host-unsafe", 6) == (caught.value.code, caught.value.exit_status)


# The command


def test_without_a_command_it_is_ssh_that_gives_up_a_silent_host() -> None:
    assert list(DEFAULT_SSH_COMMAND) == split_ssh_command(None)
    assert "ssh" == DEFAULT_SSH_COMMAND[0]


def test_the_command_is_split_as_a_shell_splits_words_and_nothing_is_expanded() -> None:
    assert ["my ssh", "-o", "X=$HOME", "~", "*", "a'b"] == split_ssh_command("'my ssh' -o X='$HOME' ~ * a\\'b")


@pytest.mark.parametrize("text", ["ssh 'geheim", "ssh geheim\\", " ", "''"])
def test_a_command_that_cannot_be_split_is_malformed_and_not_shown(tmp_path: Path, text: str) -> None:
    fetcher = SshFetcher(make_environment(tmp_path), text)
    with pytest.raises(Malformed) as caught:
        fetch(fetcher, "ssh://h/x", tmp_path / "part")
    assert "'ssh_command'" in caught.value.message
    assert "geheim" not in caught.value.message + str(caught.value.hint)
    assert ("ssh-command", 7, False) == (caught.value.code, caught.value.exit_status, (tmp_path / "part").exists())


def test_every_word_of_the_command_reaches_ssh_as_it_is(sshd: Sshd, served: Path, tmp_path: Path) -> None:
    wrapper = tmp_path / "my ssh's"
    wrapper.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$1" "$LC_ALL" "$RSYNC_OLD_ARGS" > {tmp_path}/seen\nshift\nexec "$@"\n'
    )
    wrapper.chmod(0o755)
    (served / "x").write_bytes(b"1")
    odd = "$(touch pwned); `touch pwned` 'a' \"b\" \\"
    command = f"{shlex.join([str(wrapper), odd])} {sshd.ssh_command}"
    fetcher = make_fetcher(sshd, command=command, RSYNC_OLD_ARGS="1", LC_ALL="de_DE.UTF-8")
    assert b"1" == fetch(fetcher, sshd.uri(served / "x"), tmp_path / "part").path.read_bytes()
    assert [odd, "C", ""] == (tmp_path / "seen").read_text().splitlines()
    assert [] == list(tmp_path.rglob("pwned"))


def test_the_port_of_the_uri_is_asked(sshd: Sshd, served: Path, tmp_path: Path) -> None:
    (served / "x").write_bytes(b"1")
    fetcher = make_fetcher(sshd, command=sshd.ssh_command_without_port)
    assert b"1" == fetch(fetcher, sshd.uri(served / "x"), tmp_path / "part").path.read_bytes()


@pytest.mark.parametrize("scheme", ["ssh", "sshfs", "rsync", "SSH"])
def test_all_schemes_mean_rsync_over_ssh(
    sshd: Sshd, fetcher: SshFetcher, served: Path, tmp_path: Path, scheme: str
) -> None:
    (served / "x").write_bytes(b"1")
    uri = sshd.uri(served / "x", scheme=scheme)
    assert digests_of(b"1") == measured(fetch(fetcher, uri, tmp_path / "part"))
    assert ["rsync --server --sender"] == [line[:23] for line in sshd.commands]


# Names

NAMES = [
    b"a b",
    b"$(touch pwned)",
    b"`touch pwned`",
    b";touch pwned",
    b"&& touch pwned #",
    b"'\"\\",
    b"-e touch",
    b"--help",
    b"a*b?[c]",
    b"new\nline",
    b"tab\tesc\x1b",
    b"~",
    b"host:path",
    b"::module",
    b"\xff\xfe",
    "grüße €".encode(),
    b"!history",
    b"{a,b}",
    b" lead and trail ",
    b".hidden",
]


def test_every_name_arrives_as_a_file_and_none_runs(
    sshd: Sshd, fetcher: SshFetcher, served: Path, tmp_path: Path
) -> None:
    for number, name in enumerate(NAMES):
        (Path(os.fsdecode(os.fsencode(served) + b"/" + name))).write_bytes(name)
        uri = sshd.uri(os.fsencode(served) + b"/" + name)
        assert name == fetch(fetcher, uri, tmp_path / "part" / str(number)).path.read_bytes()
    assert [] == list(tmp_path.rglob("pwned"))
    assert not any("pwned" in line for line in sshd.commands)


def test_a_name_that_looks_like_a_pattern_brings_no_other_file(
    sshd: Sshd, fetcher: SshFetcher, served: Path, tmp_path: Path
) -> None:
    for name in ("a*", "ab", "ac", "[x]", "x", "a?"):
        (served / name).write_text(name)
    for name in ("a*", "[x]", "a?"):
        assert name == fetch(fetcher, sshd.uri(served / name), tmp_path / "part").path.read_text()
    (served / "a*").unlink()
    assert "no-such-file" == failure(fetcher, sshd.uri(served / "a*"), tmp_path / "other").code


def test_a_path_below_the_home(sshd: Sshd, fetcher: SshFetcher, tmp_path: Path) -> None:
    for name in ("x y", "-x", "~"):
        (sshd.home / name).write_text(name)
        uri = sshd.uri("/~/" + name)
        assert name == fetch(fetcher, uri, tmp_path / "part").path.read_text()


def test_a_pattern_and_a_backslash_in_one_name_are_what_rsync_gives_up_on(
    sshd: Sshd, fetcher: SshFetcher, served: Path, tmp_path: Path
) -> None:
    for name in ("a\\*b", "a\\xb", "axb"):
        (served / name).write_text(name)
    try:  # rsync 3.2.5 and later hold what is sent against what was asked for, and read such a name in two ways
        assert "a\\*b" == fetch(fetcher, sshd.uri(served / "a\\*b"), tmp_path / "part").path.read_text()
    except SourceFailed as error:
        assert "rejecting unrequested file-list name" in error.message
        assert [] == names_in(tmp_path / "part")


# Files


def test_a_link_is_followed_to_its_file_and_to_its_folder(
    sshd: Sshd, fetcher: SshFetcher, served: Path, tmp_path: Path
) -> None:
    (served / "folder").mkdir()
    (served / "folder" / "v1").write_text("one")
    (served / "latest").symlink_to("folder/v1")
    (served / "all").symlink_to("folder")
    found = fetch(fetcher, sshd.uri(served / "latest"), tmp_path / "1").path
    assert ("one", False) == (found.read_text(), found.is_symlink())
    assert {"v1": b"one"} == read_all(fetch(fetcher, sshd.uri(served / "all"), tmp_path / "2").path)


@pytest.mark.parametrize(("mode", "executable"), [(0o444, False), (0o755, True), (0o500, True), (0o600, False)])
def test_a_file_keeps_whether_it_can_be_run_and_is_ours_to_write(
    sshd: Sshd, fetcher: SshFetcher, served: Path, tmp_path: Path, mode: int, executable: bool
) -> None:
    (served / "x").write_bytes(b"1")
    (served / "x").chmod(mode)
    found = fetch(fetcher, sshd.uri(served / "x"), tmp_path / "part").path.stat().st_mode
    assert (0o600, executable) == (found & 0o600, bool(found & stat.S_IXUSR))


def test_progress_is_told_in_bytes(sshd: Sshd, fetcher: SshFetcher, served: Path, tmp_path: Path) -> None:
    steps: list[int] = []

    class Task(RecordingTask):
        def advance(self, amount: int) -> None:
            super().advance(amount)
            steps.append(self.done)

    body = os.urandom(_BODY_BYTES)
    (served / "x").write_bytes(body)
    sshd.relay.bytes_per_s = _BODY_BYTES / 2.5
    task = Task()
    fetch(fetcher, sshd.uri(served / "x"), tmp_path / "part", task=task)
    assert (len(body), len(body)) == (task.total, task.done)
    assert any(0 < step < len(body) for step in steps), steps
    assert sorted(steps) == steps


def test_a_fifo_is_refused(sshd: Sshd, fetcher: SshFetcher, served: Path, tmp_path: Path) -> None:
    os.mkfifo(served / "pipe")
    error = failure(fetcher, sshd.uri(served / "pipe"), tmp_path / "part", Refused)
    assert "'pipe' is neither a file nor a folder" in error.message
    assert ("special-file", 6) == (error.code, error.exit_status)


# Folders


def make_folder(root: Path) -> None:
    (root / "sub dir" / "deep").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "a").write_bytes(b"a" * 1000)
    (root / "sub dir" / "run").write_bytes(b"#!/bin/sh\n")
    (root / "sub dir" / "run").chmod(0o755)
    (root / "sub dir" / "deep" / ".hidden").write_bytes(b"h")
    (root / "sub dir" / "up").symlink_to("../a")
    (root / "dangling").symlink_to("none")
    for name in NAMES:
        Path(os.fsdecode(os.fsencode(root) + b"/sub dir/" + name)).write_bytes(name)


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_folder_arrives_as_a_tree_with_modes_and_inner_links(
    sshd: Sshd, fetcher: SshFetcher, served: Path, tmp_path: Path, slash: str
) -> None:
    make_folder(served)
    task = RecordingTask()
    fetched = fetch(fetcher, sshd.uri(served) + slash, tmp_path / "part", task=task)
    assert read_all(served) == read_all(fetched.path)
    size = sum(len(found) for found in read_all(served).values() if isinstance(found, bytes))
    assert ({}, size, size, size) == (fetched.digests, fetched.size_bytes, task.total, task.done)
    assert fetched.path.joinpath("sub dir", "run").stat().st_mode & stat.S_IXUSR
    assert ["data.bin"] == names_in(tmp_path / "part")


def test_a_folder_that_may_not_be_written_over_there_may_be_written_here(
    sshd: Sshd, fetcher: SshFetcher, served: Path, tmp_path: Path
) -> None:
    (served / "sub").mkdir()
    (served / "sub" / "x").write_bytes(b"1")
    (served / "sub" / "x").chmod(0o444)
    (served / "sub").chmod(0o555)
    found = fetch(fetcher, sshd.uri(served), tmp_path / "part").path / "sub"
    assert (0o700, 0o600) == (found.stat().st_mode & 0o700, (found / "x").stat().st_mode & 0o700)


@pytest.mark.parametrize("text", ["/etc/passwd", "../outside", "sub/../../outside"])
def test_a_link_that_leads_out_of_a_folder_is_refused(
    sshd: Sshd, fetcher: SshFetcher, served: Path, tmp_path: Path, text: str
) -> None:
    (served / "link").symlink_to(text)
    error = failure(fetcher, sshd.uri(served), tmp_path / "part", Refused)
    assert f"cannot copy the link 'link': it leads out of the folder, to '{text}'" == error.message


def test_a_fifo_in_a_folder_is_refused(sshd: Sshd, fetcher: SshFetcher, served: Path, tmp_path: Path) -> None:
    (served / "sub").mkdir()
    os.mkfifo(served / "sub" / "pipe")
    error = failure(fetcher, sshd.uri(served), tmp_path / "part", Refused)
    assert "'sub/pipe' is neither a file nor a folder" in error.message


def test_what_was_a_folder_may_be_a_file_and_back(
    sshd: Sshd, fetcher: SshFetcher, served: Path, tmp_path: Path
) -> None:
    thing = served / "thing"
    thing.mkdir()
    (thing / "x").write_bytes(b"1")
    assert {"x": b"1"} == read_all(fetch(fetcher, sshd.uri(thing), tmp_path / "part").path)
    (thing / "x").unlink()
    thing.rmdir()
    thing.write_bytes(b"file")
    assert b"file" == fetch(fetcher, sshd.uri(thing), tmp_path / "part").path.read_bytes()
    thing.unlink()
    thing.mkdir()
    (thing / "y").write_bytes(b"2")
    assert {"y": b"2"} == read_all(fetch(fetcher, sshd.uri(thing), tmp_path / "part").path)


def test_a_file_named_as_a_folder_is_not_there(sshd: Sshd, fetcher: SshFetcher, served: Path, tmp_path: Path) -> None:
    (served / "x").write_bytes(b"1")
    assert "no-such-file" == failure(fetcher, sshd.uri(served / "x") + "/", tmp_path / "part").code


# Going on


class Interrupted:
    """A fetch that stopped when about ``at`` bytes had arrived, ended by `close` from another thread."""

    def __init__(self, sshd: Sshd, uri: str, folder: Path, *, at: int = _BODY_BYTES // 2) -> None:
        sshd.relay.stall_at, sshd.relay.sent_bytes = at, 0
        fetcher = make_fetcher(sshd)
        errors: list[DmError] = []

        def work() -> None:
            try:
                fetch(fetcher, uri, folder)
            except DmError as error:
                errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        assert sshd.relay.stalled.wait(_PATIENCE_S)
        wait_until(lambda: self._arrived(folder) >= at // 2)
        fetcher.close()
        thread.join(_PATIENCE_S)
        assert not thread.is_alive()
        (self.error,) = errors
        sshd.relay.stall_at = None
        sshd.relay.go.set()
        sshd.relay.sent_bytes = 0

    def _arrived(self, folder: Path) -> int:
        return sum(find_sizes(folder, "**/data.bin*")) + sum(find_sizes(folder, "data.bin/*"))


def test_closing_from_another_thread_ends_it_and_the_next_goes_on_where_it_was(
    sshd: Sshd, fetcher: SshFetcher, served: Path, tmp_path: Path
) -> None:
    body = os.urandom(_BODY_BYTES)
    (served / "x y").write_bytes(body)
    uri, part = sshd.uri(served / "x y"), tmp_path / "part"
    error = Interrupted(sshd, uri, part).error
    assert (f"cannot fetch '{uri}': interrupted", "interrupted") == (error.message, error.code)
    assert "what has arrived is kept: run it again and it goes on from there" == error.hint
    assert ["data.bin"] == names_in(part)
    fetched = fetch(fetcher, uri, part)
    assert digests_of(body) == measured(fetched)
    assert sshd.relay.sent_bytes < _BODY_BYTES // 2 + _AGAIN_BYTES


@pytest.mark.parametrize("change", ["start", "all", "shorter", "longer", "same-size-and-time"])
def test_a_source_that_changed_in_between_is_never_stitched(
    sshd: Sshd, fetcher: SshFetcher, served: Path, tmp_path: Path, change: str
) -> None:
    source = served / "x"
    old = os.urandom(_BODY_BYTES)
    source.write_bytes(old)
    about = source.stat()
    Interrupted(sshd, sshd.uri(source), tmp_path / "part")
    new = {
        "start": b"new" + old[3:],
        "all": os.urandom(_BODY_BYTES),
        "shorter": old[:1000] + b"end",
        "longer": os.urandom(1000) + old,
        "same-size-and-time": old[:-5] + b"other",
    }[change]
    source.write_bytes(new)
    if change == "same-size-and-time":
        os.utime(source, ns=(about.st_atime_ns, about.st_mtime_ns))
    fetched = fetch(fetcher, sshd.uri(source), tmp_path / "part")
    assert new == fetched.path.read_bytes()
    assert digests_of(new) == measured(fetched)


def test_a_whole_file_is_only_confirmed_but_one_of_the_same_size_and_time_is_not_taken_for_it(
    sshd: Sshd, fetcher: SshFetcher, served: Path, tmp_path: Path
) -> None:
    source = served / "x"
    body = os.urandom(_BODY_BYTES)
    source.write_bytes(body)
    fetched = fetch(fetcher, sshd.uri(source), tmp_path / "part")
    sshd.relay.sent_bytes = 0
    assert digests_of(body) == measured(fetch(fetcher, sshd.uri(source), tmp_path / "part"))
    assert sshd.relay.sent_bytes < _AGAIN_BYTES
    when = fetched.path.stat().st_mtime_ns
    other = os.urandom(_BODY_BYTES)
    source.write_bytes(other)
    os.utime(source, ns=(when, when))
    os.utime(fetched.path, ns=(when, when))
    assert digests_of(other) == measured(fetch(fetcher, sshd.uri(source), tmp_path / "part"))


def test_a_lost_connection_is_tried_again_and_goes_on(
    sshd: Sshd, fetcher: SshFetcher, served: Path, tmp_path: Path
) -> None:
    body = os.urandom(_BODY_BYTES)
    (served / "x").write_bytes(body)
    sshd.relay.cut_at = _BODY_BYTES // 2
    task = RecordingTask()
    fetched = fetch(fetcher, sshd.uri(served / "x"), tmp_path / "part", task=task)
    assert digests_of(body) == measured(fetched)
    assert (2, len(body), len(body)) == (sshd.relay.connections, task.total, task.done)
    assert sshd.relay.sent_bytes < _BODY_BYTES + _AGAIN_BYTES


def test_tries_end_and_what_came_is_kept(sshd: Sshd, served: Path, tmp_path: Path) -> None:
    (served / "x").write_bytes(os.urandom(_BODY_BYTES))
    fetcher = make_fetcher(sshd, options=QUICK._replace(retries=0))
    sshd.relay.cut_at = _BODY_BYTES // 2
    with pytest.raises(SourceFailed) as caught:
        fetch(fetcher, sshd.uri(served / "x"), tmp_path / "part")
    assert "connection-lost" == caught.value.code
    assert "what has arrived is kept: run it again and it goes on from there" == caught.value.hint
    assert ["data.bin"] == names_in(tmp_path / "part")


def test_a_folder_goes_on_where_it_was_and_follows_its_source(
    sshd: Sshd, fetcher: SshFetcher, served: Path, tmp_path: Path
) -> None:
    for name in ("a", "b", "c", "d"):
        (served / name).write_bytes(os.urandom(_BODY_BYTES // 4))
    Interrupted(sshd, sshd.uri(served), tmp_path / "part")
    (served / "a").write_bytes(b"changed")
    (served / "c").write_bytes(os.urandom(_BODY_BYTES // 4))
    (served / "b").rename(served / "e")
    expected = read_all(served)
    assert expected == read_all(fetch(fetcher, sshd.uri(served), tmp_path / "part").path)
    sshd.relay.sent_bytes = 0
    assert expected == read_all(fetch(fetcher, sshd.uri(served), tmp_path / "part").path)
    assert sshd.relay.sent_bytes < 100_000


def test_an_rsync_of_a_killed_run_is_waited_for(sshd: Sshd, fetcher: SshFetcher, served: Path, tmp_path: Path) -> None:
    (served / "x").write_bytes(b"1")
    part = tmp_path / "part"
    part.mkdir()
    orphan = os.open(part / "data.bin.resume.tmp", os.O_CREAT | os.O_RDWR)
    fcntl.flock(orphan, fcntl.LOCK_EX)

    class Progress(RecordingProgress):
        def note(self, text: str) -> None:
            super().note(text)
            os.close(orphan)

    progress = Progress()
    assert b"1" == fetch(fetcher, sshd.uri(served / "x"), part, progress=progress).path.read_bytes()
    assert ["waiting for an rsync of an earlier run that still writes to 'data.bin'"] == progress.notes
    assert ["data.bin"] == names_in(part)


def test_an_rsync_of_a_killed_run_that_stays_is_an_error(
    sshd: Sshd, fetcher: SshFetcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dm.plumbing.transport.ssh._ORPHAN_S", 0.3)
    part = tmp_path / "part"
    part.mkdir()
    orphan = os.open(part / "data.bin.resume.tmp", os.O_CREAT | os.O_RDWR)
    fcntl.flock(orphan, fcntl.LOCK_EX)
    with pytest.raises(SourceFailed, match="an rsync of an earlier run still writes to it") as caught:
        fetch(fetcher, sshd.uri("/x"), part)
    assert ("transfer-running", []) == (caught.value.code, sshd.commands)
    assert ["data.bin.resume.tmp"] == names_in(part)
    os.close(orphan)


def test_an_rsync_outlives_a_killed_dm_with_the_lock_and_no_longer(
    sshd: Sshd, fetcher: SshFetcher, served: Path, tmp_path: Path
) -> None:
    body = os.urandom(_BODY_BYTES)
    (served / "x").write_bytes(body)
    sshd.relay.stall_at = _BODY_BYTES // 2
    part = tmp_path / "part"
    process = start_fetch(sshd, sshd.uri(served / "x"), part)
    assert sshd.relay.stalled.wait(_PATIENCE_S)
    wait_until(lambda: (part / "data.bin").exists() and (part / "data.bin").stat().st_size > _BODY_BYTES // 4)
    process.kill()
    process.wait()
    lock = os.open(part / "data.bin.resume.tmp", os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(lock)
    sshd.relay.stall_at = None
    sshd.relay.go.set()
    assert digests_of(body) == measured(fetch(fetcher, sshd.uri(served / "x"), part))
    assert ["data.bin"] == names_in(part)


SCRIPT = """
import os, sys
from pathlib import Path
from dm.environment import Environment
from dm.errors import DmError
from dm.plumbing.transport.protocol import FetchRequest
from dm.plumbing.transport.ssh import SshFetcher
from dm.progress import SILENT, SilentTask
uri, folder, command = sys.argv[1:]
home = Path(folder).parent
fetcher = SshFetcher(Environment(dict(os.environ), home, home, "h", 1), command)
try:
    fetcher.fetch(FetchRequest(uri, Path(folder), "data.bin", ("blake3",)), task=SilentTask(), progress=SILENT)
    print("done")
except DmError as error:
    print(error.code)
"""


def start_fetch(sshd: Sshd, uri: str, folder: Path) -> subprocess.Popen[bytes]:
    """A fetch in a process of its own."""
    words = [sys.executable, "-c", SCRIPT, uri, str(folder), sshd.ssh_command]
    environment = {"PATH": os.environ["PATH"], "HOME": str(sshd.home), "PYTHONPATH": str(CHECKOUT)}
    return subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


# The terminal


def lock_key(sshd: Sshd) -> str:
    """Give the user's key a passphrase; return a command that may ask for it."""
    command = [needs("ssh-keygen"), "-q", "-p", "-P", "", "-N", "open sesame", "-f", str(sshd.user_key)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return sshd.ssh_command.replace("BatchMode=yes", "BatchMode=no")


def test_a_passphrase_can_be_typed_at_the_terminal(sshd: Sshd, served: Path, tmp_path: Path) -> None:
    command = lock_key(sshd)
    (served / "x").write_bytes(b"1")
    environment = {"PATH": os.environ["PATH"], "HOME": str(sshd.home), "PYTHONPATH": str(CHECKOUT)}
    words = [sys.executable, "-c", SCRIPT, sshd.uri(served / "x"), str(tmp_path / "part"), command]
    child, terminal = pty.fork()
    if child == 0:
        os.execve(sys.executable, words, environment)
    said = b""
    answered = False
    while True:
        try:
            said += os.read(terminal, 4096)
        except OSError:  # Linux: the other side is closed
            break
        if b"passphrase for key" in said and not answered:
            os.write(terminal, b"open sesame\n")
            answered = True
        if b"done" in said:
            break
    os.waitpid(child, 0)
    os.close(terminal)
    assert answered, said
    assert b"1" == (tmp_path / "part" / "data.bin").read_bytes()


def test_without_a_terminal_nothing_is_asked_and_nothing_hangs(sshd: Sshd, served: Path, tmp_path: Path) -> None:
    command = lock_key(sshd)
    words = [sys.executable, "-c", SCRIPT, sshd.uri(served / "x"), str(tmp_path / "part"), command]
    environment = {"PATH": os.environ["PATH"], "HOME": str(sshd.home), "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        words,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=_PATIENCE_S,
        check=False,
    )
    assert ("ssh-auth\n", "") == (done.stdout, done.stderr)


def test_the_first_connection_to_a_host_goes_alone(
    sshd: Sshd, fetcher: SshFetcher, served: Path, tmp_path: Path
) -> None:
    for number in range(4):
        (served / str(number)).write_bytes(b"%d" % number)
    sshd.relay.stall_at = 0
    found: dict[int, Fetched] = {}

    def work(number: int) -> None:
        found[number] = fetch(fetcher, sshd.uri(served / str(number)), tmp_path / str(number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    assert sshd.relay.stalled.wait(_PATIENCE_S)
    time.sleep(0.5)  # what would come now, must not
    assert 1 == sshd.relay.connections
    sshd.relay.stall_at = None
    sshd.relay.go.set()
    for thread in threads:
        thread.join()
    assert {number: b"%d" % number for number in range(4)} == {n: each.path.read_bytes() for n, each in found.items()}
    assert 4 == sshd.relay.connections


# What goes wrong


def test_a_missing_source_is_named(sshd: Sshd, fetcher: SshFetcher, served: Path, tmp_path: Path) -> None:
    uri = sshd.uri(served / "no ne")
    error = failure(fetcher, uri, tmp_path / "part")
    assert f"cannot fetch '{uri}': there is no '{served}/no ne' on 127.0.0.1" == error.message
    assert ("no-such-file", "check the 'uri'") == (error.code, error.hint)
    assert "no-such-file" == failure(fetcher, uri + "/", tmp_path / "part").code
    (served / "dangling").symlink_to("none")
    assert "no-such-file" == failure(fetcher, sshd.uri(served / "dangling"), tmp_path / "part").code


def test_a_key_that_is_not_known_over_there(sshd: Sshd, served: Path, tmp_path: Path) -> None:
    command = sshd.ssh_command.replace(str(sshd.user_key), str(sshd.make_key("other")))
    error = failure(make_fetcher(sshd, command=command), sshd.uri(served / "x"), tmp_path / "part")
    assert error.message.endswith("@127.0.0.1: Permission denied (publickey)")
    assert "ssh-auth" == error.code
    assert "try 'ssh 127.0.0.1' by hand; " in str(error.hint)
    assert 1 == sshd.relay.connections


def test_a_host_key_that_changed(sshd: Sshd, served: Path, tmp_path: Path) -> None:
    sshd.known_hosts.write_text(sshd.known_hosts.read_text().replace("AAAA", "AAAB", 1))
    other = sshd.make_key("other").with_suffix(".pub").read_text().split()
    sshd.known_hosts.write_text(f"dm-test-sshd {other[0]} {other[1]}\n")
    error = failure(make_fetcher(sshd), sshd.uri(served / "x"), tmp_path / "part")
    assert ("ssh-host-key", 1) == (error.code, sshd.relay.connections)
    assert error.message.endswith("Host key verification failed")


def test_a_host_that_does_not_exist(sshd: Sshd, tmp_path: Path) -> None:
    fetcher = make_fetcher(sshd, command=sshd.ssh_command_without_port)
    error = failure(fetcher, "ssh://no-such-host.invalid/x", tmp_path / "part")
    assert "Could not resolve hostname no-such-host.invalid" in error.message
    assert "unknown-host" == error.code


def test_a_host_that_does_not_answer(sshd: Sshd, tmp_path: Path) -> None:
    command = sshd.ssh_command_without_port
    error = failure(make_fetcher(sshd, command=command), "ssh://127.0.0.1:1/x", tmp_path / "part")
    assert "connect to host 127.0.0.1 port 1: Connection refused (3 tries)" in error.message
    assert "cannot-connect" == error.code


def test_rsync_missing_here(sshd: Sshd, served: Path, tmp_path: Path) -> None:
    error = failure(make_fetcher(sshd, PATH=str(tmp_path)), sshd.uri(served / "x"), tmp_path / "part")
    assert "cannot run 'rsync': no such file or directory" == error.message
    assert ("rsync-missing", 5) == (error.code, error.exit_status)
    assert "install rsync 3" in str(error.hint)


def test_rsync_missing_over_there(sshd: Sshd, fetcher: SshFetcher, served: Path, tmp_path: Path) -> None:
    sshd.set_path("/nonexistent")
    error = failure(fetcher, sshd.uri(served / "x"), tmp_path / "part")
    assert f"cannot fetch '{sshd.uri(served / 'x')}': 127.0.0.1 has no rsync" == error.message
    assert "rsync-missing-there" == error.code


def test_ssh_missing_here_and_nothing_of_its_words_is_shown(sshd: Sshd, served: Path, tmp_path: Path) -> None:
    fetcher = make_fetcher(sshd, command="no-such-ssh --password geheim")
    error = failure(fetcher, sshd.uri(served / "x"), tmp_path / "part")
    assert f"cannot fetch '{sshd.uri(served / 'x')}': cannot run 'no-such-ssh'" == error.message
    assert ("program-missing", "install OpenSSH, or check 'ssh_command'") == (error.code, error.hint)


def test_a_login_that_prints_something(sshd: Sshd, fetcher: SshFetcher, served: Path, tmp_path: Path) -> None:
    sshd.put_program("rsync", "echo 'Welcome to the cluster, please read the news'; sleep 0.2")
    error = failure(fetcher, sshd.uri(served / "x"), tmp_path / "part")
    assert ("protocol", "a login on 127.0.0.1 must not print anything: see 'ssh 127.0.0.1 true'") == (
        error.code,
        error.hint,
    )


def test_an_old_rsync_brings_plain_paths_without_progress_and_says_no_to_others(
    sshd: Sshd, served: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / "rsync").write_text(
        "#!/bin/sh\n[ \"$1\" = --version ] && { echo 'openrsync: protocol version 29'; exit; }\n"
        'case "$*" in *--info=*|*--outbuf=*|*--protect-args*|*--modify-window=-1*) exit 1;; esac\n'
        f'exec {needs("rsync")} "$@"\n'
    )
    (old / "rsync").chmod(0o755)
    (served / "plain.nc").write_bytes(b"12345")
    (served / "not plain").write_bytes(b"1")
    fetcher = make_fetcher(sshd, PATH=f"{old}:{os.environ['PATH']}")
    task = RecordingTask()
    assert b"12345" == fetch(fetcher, sshd.uri(served / "plain.nc"), tmp_path / "1", task=task).path.read_bytes()
    assert (5, 5) == (task.total, task.done)
    assert {"plain.nc", "not plain"} == set(read_all(fetch(fetcher, sshd.uri(served), tmp_path / "2").path))
    error = failure(fetcher, sshd.uri(served / "not plain"), tmp_path / "3")
    assert error.message.endswith("this machine's rsync is too old for such a path")
    assert "rsync-old" == error.code


def test_a_full_disk_is_this_machines_fault(
    sshd: Sshd, fetcher: SshFetcher, served: Path, small_tmpfs: MakeTmpfs
) -> None:
    (served / "x").write_bytes(os.urandom(_BODY_BYTES))
    disk = small_tmpfs(2 << 20)
    with pytest.raises(MachineFailed) as caught:
        fetch(fetcher, sshd.uri(served / "x"), disk / "part")
    assert (f"cannot write '{disk / 'part' / 'data.bin'}': disk full", "disk-full") == (
        caught.value.message,
        caught.value.code,
    )
