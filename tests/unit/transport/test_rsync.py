"""rsync's language: the words it gets, what its lines tell, what its last words mean."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dm.errors import DmError, MachineFailed
from dm.plumbing.transport.connections import PassingFault
from dm.plumbing.transport.rsync import (
    Abilities,
    Saying,
    Scene,
    escape_patterns,
    is_plain,
    judge,
    make_words,
    quote_shell_words,
    read_line,
)
from tests.fixtures.machine import needs

ALL = Abilities(True, True, True)
SCENE = Scene("ssh://h/x", "h", "ssh", "/store/part")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("rsync  version 3.0.9  protocol version 30", Abilities(True, False, False)),
        ("rsync  version 3.1.2  protocol version 31", Abilities(True, True, False)),
        ("rsync  version 3.1.3  protocol version 31", ALL),
        ("rsync  version v3.2.7  protocol version 31", ALL),
        ("rsync  version 3.4.1-pre2  protocol version 32", Abilities(True, True, True)),
        ("rsync  version 2.6.9  protocol version 29", Abilities(False, False, False)),
        ("rsync version 2.6.9 compatible", Abilities(False, False, False)),
        ("openrsync: protocol version 29", Abilities(False, False, False)),
    ],
)
def test_what_rsync_can_do_is_read_from_its_version(line: str, expected: Abilities) -> None:
    assert expected == Abilities.read(["", line, "Copyright …"])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dm-size:3000000", Saying(total_bytes=3_000_000)),
        ("      1,409,024  46%    1.34MB/s    0:00:01  ", Saying(done_bytes=1_409_024)),
        ("  3,000,000 100%    1.43MB/s    0:00:02 (xfr#1, to-chk=0/1)", Saying(done_bytes=3_000_000)),
        ("      1.409.024  46%    1,34MB/s    0:00:01", Saying(done_bytes=1_409_024)),
        (
            "      0   0%    0.00kB/s    0:00:00  client_loop: send disconnect: Broken pipe",
            Saying(done_bytes=0, rest="client_loop: send disconnect: Broken pipe"),
        ),
        ("  5 100%    1.4MB/s    0:00:02 (xfr#1, to-chk=0/1)rsync: x", Saying(done_bytes=5, rest="rsync: x")),
        ("skipping directory served", Saying(is_folder=True)),
        ('skipping non-regular file "a b/pipe"', Saying(special="a b/pipe")),
        ("dm-size:x", Saying()),
        ("50 50% of it", Saying()),
        ("Welcome to the machine", Saying()),
    ],
)
def test_lines_tell_of_progress_and_of_what_was_passed_over(line: str, expected: Saying) -> None:
    assert expected == read_line(line)


@pytest.mark.parametrize(
    ("path", "escaped"),
    [
        (b"/a/b", b"/a/b"),
        (b"/a*/b?/[c]", b"/a\\*/b\\?/\\[c]"),
        (b"/a\\b/c\\*", b"/a\\b/c\\\\\\*"),
    ],
)
def test_only_parts_that_hold_a_pattern_are_escaped(path: bytes, escaped: bytes) -> None:
    assert escaped == escape_patterns(path)


@pytest.mark.parametrize(
    "path", [b"/a b", b"/a;b", b"/$x", b"/a\nb", b"/~", b"/a'b", b"/a\xff", b"/a&b", b"/a(b", b"/a!"]
)
def test_a_path_with_a_meaning_is_not_plain(path: bytes) -> None:
    assert not is_plain(path)
    assert "--protect-args" in make_words(["ssh"], "h", path, "/t", folder=False, abilities=ALL)


def test_a_plain_path_asks_nothing_new_of_the_other_side() -> None:
    words = make_words(["ssh"], "h", b"/a/b-c_1.nc", "/t", folder=False, abilities=ALL)
    assert "--protect-args" not in words
    assert ["-e", "ssh", "--", "h:/a/b-c_1.nc", "/t"] == words[-5:]


def test_an_ipv6_host_stands_in_brackets_and_a_folder_ends_in_a_slash() -> None:
    words = make_words(["ssh"], "::1", b"/a", "/t", folder=True, abilities=ALL)
    assert ["--", "[::1]:/a/", "/t/"] == words[-3:]


def test_rsync_splits_the_words_of_ssh_as_they_were(tmp_path: Path) -> None:
    rsync = needs("rsync")
    shell = tmp_path / "a shell's"
    shell.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$OUT"\nexit 9\n')
    shell.chmod(0o755)
    words = [str(shell), "-o", "Proxy Command=a 'b' \"c\" \\ $HOME", "it's", "''", '"', "plain"]
    subprocess.run(
        [rsync, "-e", quote_shell_words(words), "host:x", str(tmp_path)],
        env={**os.environ, "OUT": str(tmp_path / "out")},
        capture_output=True,
        check=False,
    )
    assert words[1:] == (tmp_path / "out").read_text().splitlines()[: len(words) - 1]


MISSING = 'rsync: [sender] link_stat "/x y" failed: No such file or directory (2)'
PARTIAL = "rsync error: some files/attrs were not transferred (see previous errors) (code 23) at main.c(1956)"
CLOSED = "rsync: connection unexpectedly closed (0 bytes received so far) [Receiver]"
UNEXPLAINED = "rsync error: unexplained error (code 255) at io.c(285) [Receiver=3.5.0]"


@pytest.mark.parametrize(
    ("status", "lines", "code", "reason"),
    [
        (
            23,
            [MISSING, PARTIAL, "rsync: [Receiver] write error: Broken pipe (32)"],
            "no-such-file",
            "there is no '/x y' on h",
        ),
        (23, ['rsync: link_stat "/x" failed: No such file or directory (2)'], "no-such-file", "there is no '/x' on h"),
        (
            23,
            ['rsync: [sender] send_files failed to open "/x": Permission denied (13)', PARTIAL],
            "source-permission",
            "'/x' may not be read on h",
        ),
        (23, ['rsync: [sender] read errors mapping "/x": Input/output error (5)'], "rsync-failed", None),
        (
            255,
            ["* Welcome *", "ada@h: Permission denied (publickey).", CLOSED, UNEXPLAINED],
            "ssh-auth",
            "ada@h: Permission denied (publickey)",
        ),
        (255, ["Host key verification failed.", CLOSED], "ssh-host-key", "Host key verification failed"),
        (
            255,
            ["ssh: Could not resolve hostname h: Name or service not known", CLOSED, UNEXPLAINED],
            "unknown-host",
            "ssh: Could not resolve hostname h: Name or service not known",
        ),
        (255, ["/home/a/.ssh/config: line 1: Bad configuration option: x"], "ssh-config", None),
        (
            14,
            ["rsync: [Receiver] Failed to exec ssh: No such file or directory (2)"],
            "program-missing",
            "cannot run 'ssh'",
        ),
        (127, ["sh: 1: rsync: not found", CLOSED], "rsync-missing-there", "h has no rsync"),
        (12, ["zsh:1: command not found: rsync", CLOSED], "rsync-missing-there", "h has no rsync"),
        (
            2,
            ["protocol version mismatch -- is your shell clean?", "rsync error: protocol incompatibility (code 2)"],
            "protocol",
            "h prints something at login, where rsync should answer",
        ),
        (24, ['file has vanished: "/x"'], "source-changing", "the source changed while it was copied"),
        (20, ["rsync error: received SIGINT, SIGTERM, or SIGHUP (code 20)"], "interrupted", "rsync was interrupted"),
        (1, ["rsync: --protect-args: unknown option"], "rsync-failed", "rsync: --protect-args: unknown option"),
        (-9, [], "rsync-failed", "rsync was ended by signal 9"),
        (77, [], "rsync-failed", "rsync ended with status 77"),
    ],
)
def test_last_words_become_one_line(status: int, lines: list[str], code: str, reason: str | None) -> None:
    error = judge(status, lines, SCENE)
    assert isinstance(error, DmError)
    assert (5, code) == (error.exit_status, error.code)
    assert error.message == f"cannot fetch 'ssh://h/x': {reason or lines[0]}"
    assert error.hint and "{" not in error.hint


@pytest.mark.parametrize(
    ("status", "lines", "code", "reason", "limit"),
    [
        (
            255,
            ["ssh: connect to host h port 22: Connection refused", CLOSED, UNEXPLAINED],
            "cannot-connect",
            "ssh: connect to host h port 22: Connection refused",
            2,
        ),
        (255, ["kex_exchange_identification: Connection closed by remote host"], "cannot-connect", None, 2),
        (255, ["ssh: Could not resolve hostname h: Temporary failure in name resolution"], "unknown-host", None, 2),
        (12, ["client_loop: send disconnect: Broken pipe", CLOSED], "connection-lost", None, None),
        (255, ["Timeout, server h not responding.", CLOSED], "connection-lost", None, None),
        (12, [CLOSED], "connection-lost", "the connection to h broke", None),
        (
            255,
            ["client_loop: x", CLOSED, "rsync: [generator] write error: Broken pipe (32)"],
            "connection-lost",
            None,
            None,
        ),
        (30, [], "connection-lost", "the connection to h broke", None),
    ],
)
def test_what_may_pass_is_tried_again(
    status: int, lines: list[str], code: str, reason: str | None, limit: int | None
) -> None:
    fault = judge(status, lines, SCENE)
    assert isinstance(fault, PassingFault)
    assert (reason or lines[0].rstrip('.'), code, limit) == (fault.reason, fault.code, fault.limit)
    assert fault.hint and "{" not in fault.hint


@pytest.mark.parametrize(
    ("line", "code", "reason"),
    [
        ('rsync: [receiver] write failed on "/store/part": No space left on device (28)', "disk-full", "disk full"),
        (
            f'rsync: write failed on "/store/part": Disk quota exceeded ({errno.EDQUOT})',
            "disk-full",
            "disk quota exceeded",
        ),
        ('rsync: [Receiver] mkdir "/store/part" failed: Permission denied (13)', "permission", "permission denied"),
        (
            'rsync: [receiver] open "/store/part" failed: Read-only file system (30)',
            "read-only",
            "read-only file system",
        ),
    ],
)
def test_a_disk_here_that_fails_is_this_machines_fault(line: str, code: str, reason: str) -> None:
    error = judge(11, [line, "rsync error: error in file IO (code 11) at receiver.c(380)"], SCENE)
    assert isinstance(error, MachineFailed)
    assert (f"cannot write '/store/part': {reason}", code) == (error.message, error.code)


def test_control_characters_of_the_other_side_do_not_reach_the_terminal() -> None:
    error = judge(255, ["\x1b]0;title\x07ada@h: Permission denied (publickey)."], SCENE)
    assert r"\x1b]0;title\x07ada@h: Permission denied (publickey)" in str(error)


def test_the_rsync_of_this_machine_knows_every_word_it_gets(tmp_path: Path) -> None:
    rsync = needs("rsync")
    version = subprocess.run([rsync, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()
    source = tmp_path / "a b"
    source.mkdir()
    (source / "x").write_text("x")
    for folder, path in ((True, source), (False, source / "x")):
        words = make_words(
            ["ssh"], "h", os.fsencode(path), str(tmp_path / "to"), folder=folder, abilities=Abilities.read(version)
        )
        # The same call between two folders of this machine: options are checked before the source is looked at.
        local = [rsync, *words[1:-2], f"{path}/" if folder else str(path), words[-1]]
        local.remove("--protect-args")
        done = subprocess.run(local, capture_output=True, text=True, check=False)
        assert (0, "") == (done.returncode, done.stderr)
        if folder:
            shutil.rmtree(tmp_path / "to")
