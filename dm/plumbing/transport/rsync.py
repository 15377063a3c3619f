"""rsync's own language: which words it is called with, how it tells its progress, what its last words mean.

Nothing is run here. Sources: rsync(1); errcode.h of rsync for its exit statuses; ssh(1), which ends with 255.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import NamedTuple

from dm.errors import DmError, SourceFailed
from dm.plumbing.fs.machine import AnyPath, machine_failed
from dm.plumbing.transport.connections import PassingFault
from dm.values import printable

#: Bytes that neither a shell nor rsync's own matching of names gives a meaning to.
_PLAIN_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+,@%=:")
_PATTERN_BYTES = frozenset(b"*?[")
#: Begins the line in which a file's size is told.
_SIZE_MARK = "dm-size:"
#: What ssh says and what it means: marks, code, hint, and how often it is tried again (None: as often as may be).
_SSH_FAULTS: tuple[tuple[tuple[str, ...], str, str, int | None], ...] = (
    (
        ("Host key verification failed", "REMOTE HOST IDENTIFICATION HAS CHANGED"),
        "ssh-host-key",
        "run 'ssh {host}' once by hand and compare its key with the one that its keeper gives",
        0,
    ),
    (
        ("Permission denied (", "Too many authentication failures"),
        "ssh-auth",
        "try 'ssh {host}' by hand; a key goes into ssh-agent (ssh-add), user and key file into ~/.ssh/config",
        0,
    ),
    (
        ("Bad configuration option", "unknown option", "Bad owner or permissions", "terminating, "),
        "ssh-config",
        "check 'ssh_command' and ~/.ssh/config",
        0,
    ),
    (
        ("Temporary failure in name resolution", "try again later"),
        "unknown-host",
        "is this machine online?",
        2,
    ),
    (
        ("Could not resolve hostname",),
        "unknown-host",
        "check the host in the 'uri', or name it in ~/.ssh/config",
        0,
    ),
    (
        ("ssh: connect to host", "kex_exchange_identification", "Connection timed out during banner exchange"),
        "cannot-connect",
        "is {host} up, and can it be reached from this machine? try 'ssh {host}' by hand",
        2,
    ),
)
#: Ends of rsync that may pass: a connection that broke (10, 12), timeouts (30, 35), and whatever ssh ends with (255).
_PASSING_STATUSES = frozenset((10, 12, 30, 35, 255))
#: What only follows from something that was said before.
_NOISE = ("rsync error:", "rsync: connection unexpectedly closed")
_BROKEN = frozenset((errno.EPIPE, errno.ECONNRESET))
#: What rsync was doing when the other side failed; everything else is done here.
_DONE_THERE = ("link_stat", "change_dir", "readlink_stat", "send_files", "opendir", "read errors", "symlink has no")


class Abilities(NamedTuple):
    """What this machine's rsync can do. ``secluded``: pass names past the other side's shell (3.0); ``progress``: tell
    the bytes of the whole (3.1); ``nanoseconds``: compare times exactly (3.1.3).
    """

    secluded: bool
    progress: bool
    nanoseconds: bool

    @classmethod
    def read(cls, lines: Sequence[str]) -> Abilities:
        """From what ``rsync --version`` says: ``rsync  version 3.2.7  protocol version 31``; the least of all when it
        says something else, as the openrsync of macOS does.
        """
        for line in lines:
            words = line.split()
            if words[:2] == ["rsync", "version"] and len(words) > 3 and words[3] == "protocol":
                numbers = words[2].lstrip("v").split(".")
                version = tuple(int(number) if number.isdecimal() else 0 for number in numbers[:3])
                return cls(version >= (3, 0), version >= (3, 1), version >= (3, 1, 3))
        return cls(False, False, False)


def is_plain(path: bytes) -> bool:
    """Whether a path means itself to every shell, so that it need not be kept from the other side's."""
    return _PLAIN_BYTES.issuperset(path)


def escape_patterns(path: bytes) -> bytes:
    """A path that rsync takes for itself: it matches the parts that hold ``*``, ``?`` or ``[`` against what is there,
    and takes a backslash for one only in those.
    """
    return b"/".join(_escape_part(part) for part in path.split(b"/"))


def _escape_part(part: bytes) -> bytes:
    if _PATTERN_BYTES.isdisjoint(part):
        return part
    for character in (b"\\", b"*", b"?", b"["):
        part = part.replace(character, b"\\" + character)
    return part


def quote_shell_words(words: Sequence[str]) -> str:
    """The value of ``rsync -e`` for these words: split at blanks; a quote inside quotes is written twice."""
    return " ".join(word if word and is_plain(os.fsencode(word)) else _quote(word) for word in words)


def _quote(word: str) -> str:
    doubled = word.replace("'", "''")
    return f"'{doubled}'"


def make_words(
    ssh_words: Sequence[str], host: str, path: bytes, target: str, *, folder: bool, abilities: Abilities
) -> list[str]:
    """rsync and its arguments for bringing ``path`` of ``host`` to ``target``.

    Written in place, so that what has arrived stays when it ends early; the next time only what differs is sent, and
    the whole is compared by its checksum with what the other side read (``--ignore-times``: also where size and time
    agree). Of a folder, what has its size and time, to the nanosecond, is taken for the same; what is not there any
    more is removed. A file that is a link is followed; links in a folder stay links. Whatever the source's modes, what
    arrives can be read and written by its owner.
    """
    words = ["rsync", "--inplace", "--executability", "--chmod=Du+rwx,Fu+rw"]
    if folder:
        words += ["--recursive", "--links", "--times", "--delete", "--force"]
        if abilities.nanoseconds:
            words.append("--modify-window=-1")
    else:
        words += ["--copy-links", "--ignore-times", f"--out-format={_SIZE_MARK}%l"]
    if abilities.progress:
        words += ["--info=progress2", "--outbuf=L"]
    if not is_plain(path):
        words.append("--protect-args")
        path = escape_patterns(path)
    source = f"{f'[{host}]' if ':' in host else host}:{os.fsdecode(path)}{'/' if folder else ''}"
    return [*words, "-e", quote_shell_words(ssh_words), "--", source, f"{target}/" if folder else target]


class Saying(NamedTuple):
    """What a line of rsync tells: the bytes that are there by now, the size of the whole, that the source is a folder,
    or the name of something special that was passed over. ``rest`` is what somebody else said on the same line.
    """

    done_bytes: int | None = None
    total_bytes: int | None = None
    is_folder: bool = False
    special: str | None = None
    rest: str = ""


def read_line(line: str) -> Saying:
    """Read a line of rsync's: ``1,409,024  46%    1.34MB/s    0:00:01``, a size, something that was passed over."""
    line = line.strip()
    if line.startswith(_SIZE_MARK):
        size = line.removeprefix(_SIZE_MARK)
        return Saying(total_bytes=int(size)) if size.isdecimal() else Saying()
    if line.startswith("skipping directory "):
        return Saying(is_folder=True)
    if line.startswith("skipping non-regular file "):
        return Saying(special=line.removeprefix("skipping non-regular file ").strip('"'))
    words = line.split(maxsplit=4)
    if len(words) >= 4 and words[1].endswith("%") and words[1][:-1].isdecimal() and words[2].endswith("/s"):
        count = words[0].replace(",", "").replace(".", "")
        if count.isdecimal():
            # What ssh says comes on the same line: the progress has no end of its own.
            rest = words[4] if len(words) > 4 else ""
            return Saying(done_bytes=int(count), rest=rest.partition(")")[2] if rest.startswith("(xfr#") else rest)
    return Saying()


def is_not_a_folder(lines: Sequence[str]) -> bool:
    """Whether what was asked for as a folder is none."""
    return any(_find_errno(line) == errno.ENOTDIR and "change_dir" in line for line in lines)


class Scene(NamedTuple):
    """Where a call of rsync failed: ``subject`` is what cannot be fetched, as messages show it; ``host`` the other
    side; ``program`` the first of ssh's words; ``target`` the path here.
    """

    subject: str
    host: str
    program: str
    target: AnyPath


def judge(status: int, lines: Sequence[str], scene: Scene) -> DmError | PassingFault:
    """The error that an end of rsync with ``status`` means, from its and ssh's last ``lines``.

    One line, in their own words where those say most; a `PassingFault` may pass. ssh's words are not shown: they may
    hold a secret.
    """
    told = [printable(line.strip()).rstrip(".") for line in lines if read_line(line) == Saying()]
    told = [line for line in told if not line.startswith(_NOISE) and _find_errno(line) not in _BROKEN]
    for line in told:
        if "Failed to exec" in line:
            hint = "install OpenSSH, or check 'ssh_command'"
            return _failed(scene, f"cannot run '{printable(scene.program)}'", hint, "program-missing")
    # ssh, and whatever else speaks over there: a banner or a warning comes first, the reason last.
    others = [line for line in reversed(told) if not line.startswith("rsync:")]
    if status == 127 or any("rsync" in line and "not found" in line for line in others):
        hint = "have rsync installed on {host}; it has to be on the PATH of a login that runs one command"
        return _failed(scene, f"{scene.host} has no rsync", hint, "rsync-missing-there")
    if any("is your shell clean" in line for line in told):
        hint = "a login on {host} must not print anything: see 'ssh {host} true'"
        return _failed(scene, f"{scene.host} prints something at login, where rsync should answer", hint, "protocol")
    own = [line for line in told if line.startswith("rsync:")]
    for line in own:
        error = _judge_own(line, scene)
        if error is not None:
            return error
    for marks, code, hint, limit in _SSH_FAULTS:
        reason = next((line for line in others if any(mark in line for mark in marks)), None)
        if reason is None:
            continue
        if limit == 0:
            return _failed(scene, reason, hint, code)
        return PassingFault(reason, hint=hint.format(host=scene.host), code=code, limit=limit)
    if status == 24:
        hint = "wait until whoever writes it is done, then try again"
        return _failed(scene, "the source changed while it was copied", hint, "source-changing")
    if status == 20:
        return _failed(scene, "rsync was interrupted", "run it again", "interrupted")
    reason = (own or others or [_describe_end(status)])[0]
    if status in _PASSING_STATUSES:
        reason = (others or own or [f"the connection to {scene.host} broke"])[0]
        return PassingFault(reason, hint=f"try 'ssh {scene.host}' by hand", code="connection-lost")
    return _failed(scene, reason, "try 'rsync' with this source by hand", "rsync-failed")


def _judge_own(line: str, scene: Scene) -> DmError | None:
    """What a line of rsync's own with an errno at its end means."""
    number = _find_errno(line)
    if number is None:
        return None
    name = line.partition('"')[2].rpartition('"')[0]
    if "[sender]" not in line and not any(mark in line for mark in _DONE_THERE):
        return machine_failed(OSError(number, os.strerror(number)), "write", scene.target)
    if number in (errno.ENOENT, errno.ENOTDIR):
        return _failed(scene, f"there is no '{name}' on {scene.host}", "check the 'uri'", "no-such-file")
    if number in (errno.EACCES, errno.EPERM):
        hint = "ask its keeper for access, or set another user in ~/.ssh/config"
        return _failed(scene, f"'{name}' may not be read on {scene.host}", hint, "source-permission")
    return None


def _failed(scene: Scene, reason: str, hint: str, code: str) -> SourceFailed:
    return SourceFailed(f"cannot fetch '{scene.subject}': {reason}", hint=hint.format(host=scene.host), code=code)


def _describe_end(status: int) -> str:
    return f"rsync was ended by signal {-status}" if status < 0 else f"rsync ended with status {status}"


def _find_errno(line: str) -> int | None:
    """The number at the end of ``rsync: … failed: No such file or directory (2)``; the same on all platforms for those
    that are looked at here.
    """
    head, _, number = line.strip().rstrip(")").rpartition(" (")
    return int(number) if head.startswith("rsync") and line.rstrip().endswith(")") and number.isdecimal() else None
