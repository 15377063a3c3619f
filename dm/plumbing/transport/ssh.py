"""ssh, sshfs, rsync: a file or a folder of another machine, brought by rsync over ssh.

rsync writes in place, so that what arrived before a kill or a lost connection is there for the next try; then it sends
what differs and compares the whole by a checksum of its own with what the other side read, so that two versions of a
source are never stitched together. Who one is over there, keys, ports and jump hosts are what ~/.ssh/config says.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

from dm.environment import Environment, read_monotonic_s
from dm.errors import DmError, Refused, SourceFailed
from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.fs.publish import ensure_folder, remove_tree
from dm.plumbing.fs.walk import Entry, scan_tree
from dm.plumbing.hashing import MultiHasher
from dm.plumbing.transport.address import describe_uri
from dm.plumbing.transport.command import Finished, Stopped, run_command
from dm.plumbing.transport.connections import HttpOptions, PassingFault
from dm.plumbing.transport.download import give_up
from dm.plumbing.transport.file import check_inner_link
from dm.plumbing.transport.journal import journal_path
from dm.plumbing.transport.partial import Partial
from dm.plumbing.transport.patience import persevere
from dm.plumbing.transport.protocol import Fetched, FetchRequest
from dm.plumbing.transport.rsync import (
    Abilities,
    Saying,
    Scene,
    is_not_a_folder,
    is_plain,
    judge,
    make_words,
    read_line,
)
from dm.plumbing.transport.ssh_command import is_safe_host, split_ssh_command
from dm.progress import Progress, Task
from dm.values import printable

#: What rsync would read from the environment and that changes which files are meant, or where they are written.
_UNWANTED_VARIABLES = ("RSYNC_OLD_ARGS", "RSYNC_PROTECT_ARGS", "RSYNC_PARTIAL_DIR", "RSYNC_ICONV", "RSYNC_RSH")
_INSTALL_HINT = "install rsync 3: apt install rsync, dnf install rsync, brew install rsync"
#: Ends of rsync that were reached over a connection that worked.
_CONNECTED_STATUSES = frozenset((0, 23, 24))
#: Lines that are kept of what is said beside the progress.
_LINES_MAX = 200
#: How often it is looked whether a turn has come or `close` was called, seconds.
_LOOK_S = 0.1
#: How long an rsync that outlived its `dm` is waited for: it ends when it next has something to say. Seconds.
_ORPHAN_S = 30.0
_ORPHAN_NOTED_S = 1.0
_LAST_CHILD_S = 3.0


class SshAddress(NamedTuple):
    """What a URI names: ``host`` as ssh knows it, its ``port`` where the URI has one, the ``path`` for rsync (from the
    root, or ``./…`` from the home), and whether it can only be a folder.
    """

    host: str
    port: int | None
    path: bytes
    is_folder: bool


class SshFetcher:
    """The transport for ssh, sshfs and rsync, which all mean rsync over ssh.

    ``ssh_command`` is the user's command in place of ssh, split as a shell splits words. rsync and ssh get the
    environment's variables with ``LC_ALL=C``, and share the terminal of `dm` where it has one, so that ssh can ask for
    a passphrase or a second factor; the first connection to a host goes alone, so that it is asked once about the
    host. Without a terminal ssh gives up at once instead of asking. ``options`` bound the tries.
    """

    schemes = frozenset({"ssh", "sshfs", "rsync"})

    def __init__(
        self, environment: Environment, ssh_command: str | None = None, options: HttpOptions | None = None
    ) -> None:
        self.options = options or HttpOptions()
        variables = {name: value for name, value in environment.variables.items() if name not in _UNWANTED_VARIABLES}
        self._variables = {**variables, "LC_ALL": "C"}
        self._ssh_command = ssh_command
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._abilities: Abilities | None = None
        self._known_hosts: dict[tuple[str, int | None], _FirstAlone] = {}

    def fetch(self, request: FetchRequest, *, task: Task, progress: Progress) -> Fetched:
        """Bring what ``request.uri`` names (see `protocol.Fetcher`): a file, hashed when it is whole, or a folder.

        Raises `SourceFailed` when the URI is malformed, rsync or ssh is missing on either side, the host cannot be
        reached or does not let the user in, nothing is there, or the last try failed; `Refused` for a host that would
        be an option, a device, a fifo, a socket, a link that leads out of a folder; `MachineFailed` when the disk will
        not take it; `Malformed` for an ``ssh_command`` that cannot be split.
        """
        address = read_ssh_address(request.uri)
        self.make_ssh_words(address.port)  # before anything is made
        ensure_folder(request.folder)
        with self._hold(request.folder / request.file_name, progress) as lock:
            transfer = _Transfer(self, request, address, task, lock=lock)

            def explain(fault: PassingFault, tries: int) -> DmError:
                return give_up(request, fault, tries=tries, resumable=transfer.is_begun())

            try:
                return persevere(
                    self,
                    transfer.attempt,
                    give_up=explain,
                    progress=progress,
                    count_bytes=lambda: transfer.farthest_bytes,
                )
            except BaseException:
                transfer.tidy()
                raise

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed.is_set()

    def wait(self, seconds: float) -> None:
        """Sleep, or until `close`."""
        self._closed.wait(seconds)

    def close(self) -> None:
        """End every rsync that is under way (see `protocol.Fetcher`)."""
        self._closed.set()

    def make_ssh_words(self, port: int | None) -> list[str]:
        """The words that reach a host. A ``-p`` in the user's own command beats the URI's port: ssh takes the first."""
        words = split_ssh_command(self._ssh_command)
        return words if port is None else [*words, "-p", str(port)]

    def enter(self, address: SshAddress) -> AbstractContextManager[Callable[[], None]]:
        """Connect to a host: the first connection goes alone, until what is given is called."""
        with self._lock:
            gate = self._known_hosts.setdefault((address.host, address.port), _FirstAlone())
        return gate.enter(self._closed)

    def find_abilities(self, folder: Path) -> Abilities:
        """What this machine's rsync can do, asked once. Raises `SourceFailed` when there is none."""
        with self._lock:
            if self._abilities is None:
                told = self.run(["rsync", "--version"], folder=folder)
                self._abilities = Abilities.read(told.lines)
            return self._abilities

    def run(self, words: Sequence[str], *, folder: Path, **options: object) -> Finished:
        """Run rsync on the user's terminal. Raises as `run_command` does, in words about rsync."""
        try:
            return run_command(
                words,
                folder=folder,
                variables=self._variables,
                should_stop=self._closed.is_set,
                own_group=False,
                **options,  # type: ignore[arg-type]
            )
        except Stopped as error:
            raise PassingFault("interrupted", hint="run it again", code="interrupted") from error
        except SourceFailed as error:
            raise SourceFailed(error.message, hint=_INSTALL_HINT, code="rsync-missing") from error

    @contextmanager
    def _hold(self, target: Path, progress: Progress) -> Iterator[int]:
        """A lock on ``target`` that lives as long as any rsync that writes to it, also when `dm` was killed meanwhile.

        Waits for such an orphan: it ends when it next wants to tell its progress. Raises `SourceFailed` when it stays.
        """
        path = journal_path(target)
        with machine_errors("write", path):
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            waited_s = 0.0
            while not _try_lock(lock):
                if self.closed or waited_s >= _ORPHAN_S:
                    raise SourceFailed(
                        f"cannot fetch to '{target}': an rsync of an earlier run still writes to it",
                        hint="end it, or wait until it ends, then try again",
                        code="transfer-running",
                    )
                self.wait(_LOOK_S)
                before_s, waited_s = waited_s, waited_s + _LOOK_S
                if before_s < _ORPHAN_NOTED_S <= waited_s:
                    progress.note(f"waiting for an rsync of an earlier run that still writes to '{target.name}'")
            yield lock
        finally:
            os.close(lock)
            _remove_lock(path)


class _FirstAlone:
    """Lets one at a time through until one got somewhere; from then on all at once."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._turn = threading.Lock()

    @contextmanager
    def enter(self, closed: threading.Event) -> Iterator[Callable[[], None]]:
        """Wait for the turn; what is given opens the way for all. Leaving without it is the next one's turn."""
        has_turn = False
        while not (self._open.is_set() or has_turn or closed.is_set()):
            has_turn = self._turn.acquire(timeout=_LOOK_S)
        try:
            yield self._open.set
        finally:
            if has_turn:
                self._turn.release()


class _Transfer:
    """One fetch over its tries. Used by one thread."""

    def __init__(
        self, fetcher: SshFetcher, request: FetchRequest, address: SshAddress, task: Task, *, lock: int
    ) -> None:
        self.farthest_bytes = 0
        self._fetcher = fetcher
        self._request = request
        self._address = address
        self._task = task
        self._lock = lock
        self._target = request.folder / request.file_name
        self._subject = describe_uri(request.uri)
        self._told_bytes = 0
        self._lines: list[str] = []
        self._is_folder = False
        self._special: str | None = None

    def attempt(self) -> Fetched:
        """Have rsync bring what is missing. Raises `PassingFault` where another try may help."""
        if self._address.is_folder or (self._target.is_dir() and not self._target.is_symlink()):
            finished = self._run_rsync(folder=True)
            if self._address.is_folder or not is_not_a_folder(self._lines):
                return self._take_folder(finished)
        finished = self._run_rsync(folder=False)
        if self._is_folder:
            return self._take_folder(self._run_rsync(folder=True))
        return self._take_file(finished)

    def is_begun(self) -> bool:
        """Whether something is here that a later run can go on from."""
        if self._target.is_dir():
            return any(path.is_file() for path in self._target.rglob("*"))
        return self._target.is_file() and self._target.stat().st_size > 0

    def tidy(self) -> None:
        """Remove what a failed transfer left, where it holds nothing."""
        if not self.is_begun():
            remove_tree(self._target)

    def _make_way(self, *, folder: bool) -> None:
        """Nothing but a folder, or a file of our own, may lie there: rsync writes into it, and a file may have another
        name elsewhere.
        """
        with machine_errors("read", self._target), suppress(FileNotFoundError):
            about = os.lstat(self._target)
            if folder:
                usable = stat.S_ISDIR(about.st_mode)
            else:
                usable = stat.S_ISREG(about.st_mode) and about.st_nlink == 1
            if not usable:
                remove_tree(self._target)

    def _run_rsync(self, *, folder: bool) -> Finished:
        fetcher, address = self._fetcher, self._address
        with machine_errors("use", self._request.folder):
            target = os.path.abspath(self._target)
        abilities = fetcher.find_abilities(self._request.folder)
        if not is_plain(address.path) and not abilities.secluded:
            message = f"cannot fetch '{self._subject}': this machine's rsync is too old for such a path"
            raise SourceFailed(message, hint=_INSTALL_HINT, code="rsync-old")
        self._make_way(folder=folder)
        ssh_words = fetcher.make_ssh_words(address.port)
        words = make_words(ssh_words, address.host, address.path, target, folder=folder, abilities=abilities)
        self._lines.clear()
        self._is_folder, self._special = False, None
        with fetcher.enter(address) as let_others:

            def take(line: str) -> None:
                saying = read_line(line)
                if saying.done_bytes is not None or saying.total_bytes is not None:
                    let_others()
                self._take(line, saying)

            finished = fetcher.run(words, folder=self._request.folder, take_line=take, keep_open=[self._lock])
            if finished.status in _CONNECTED_STATUSES:
                let_others()
        return finished

    def _take(self, line: str, saying: Saying) -> None:
        if saying.done_bytes is not None:
            self._task.advance(saying.done_bytes - self._told_bytes)
            self._told_bytes = saying.done_bytes
            self.farthest_bytes = max(self.farthest_bytes, saying.done_bytes)
            line = saying.rest
        if saying.total_bytes is not None:
            self._task.resize(saying.total_bytes)
        elif line.strip() and len(self._lines) < _LINES_MAX:
            self._lines.append(line)
        self._is_folder = self._is_folder or saying.is_folder
        self._special = self._special or saying.special

    def _check(self, finished: Finished) -> None:
        if self._special is not None:
            self._refuse_special(self._special)
        if finished.status == 0:
            return
        program = self._fetcher.make_ssh_words(None)[0]
        raise judge(finished.status, self._lines, Scene(self._subject, self._address.host, program, self._target))

    def _refuse_special(self, name: str) -> NoReturn:
        remove_tree(self._target)
        message = f"cannot fetch '{self._subject}': '{printable(name)}' is neither a file nor a folder"
        raise Refused(message, hint="datasets hold files, folders and links only", code="special-file")

    def _take_file(self, finished: Finished) -> Fetched:
        self._check(finished)
        partial = Partial.reopen(self._target, self._request.algorithms, lambda size_bytes: size_bytes)
        if partial is None:
            return self._take_empty_file()
        try:
            self._tell_all(partial.size_bytes)
            return Fetched(self._target, partial.digests(), partial.size_bytes)
        finally:
            partial.close()

    def _take_empty_file(self) -> Fetched:
        with machine_errors("read", self._target):
            about = os.lstat(self._target)
        if not stat.S_ISREG(about.st_mode) or about.st_size:
            message = f"cannot fetch '{self._subject}': what rsync left in '{self._target}' is no file of its own"
            raise SourceFailed(message, hint="does another program write there? try again", code="rsync-failed")
        hasher = MultiHasher(self._request.algorithms)
        self._tell_all(0)
        return Fetched(self._target, hasher.digests(), 0)

    def _take_folder(self, finished: Finished) -> Fetched:
        self._check(finished)
        try:
            entries = scan_tree(self._target)
            for entry in entries:
                if entry.kind == "link":
                    self._check_link(entry)
        except Refused:
            remove_tree(self._target)
            raise
        size_bytes = sum(entry.size for entry in entries if entry.kind == "file")
        self._tell_all(size_bytes)
        return Fetched(self._target, {}, size_bytes)

    def _check_link(self, entry: Entry) -> None:
        path = os.fsencode(self._target) + b"/" + entry.name
        with machine_errors("read", path):
            text = os.readlink(path)
        check_inner_link(entry.name, text, os.fsdecode(entry.name))

    def _tell_all(self, size_bytes: int) -> None:
        self._task.resize(size_bytes)
        self._task.advance(size_bytes - self._told_bytes)
        self._told_bytes = size_bytes


def read_ssh_address(uri: str) -> SshAddress:
    """What ``ssh://host[:port]/path`` names (RFC 3986; the path as rsync has it, percent escapes decoded to bytes).

    The path is from the root; ``/~/data`` is ``data`` in the home over there, ``/~`` the home itself. A path that ends
    in ``/`` is a folder. A query and a fragment do not belong to it. Raises `SourceFailed` for a URI without host or
    path, a port that is none, a user, another user's home, a NUL; `Refused` for a host that ssh would take for an
    option or that is no host's name.
    """
    from urllib.parse import unquote_to_bytes

    subject = f"cannot fetch '{describe_uri(uri)}'"

    def malformed(fault: str, hint: str = "write ssh://host/path/from/the/root") -> SourceFailed:
        return SourceFailed(f"{subject}: {fault}", hint=hint, code="uri-malformed")

    rest = uri.partition(":")[2].partition("#")[0].partition("?")[0]
    if not rest.startswith("//"):
        raise malformed("it names no host")
    authority, slash, path_text = rest[2:].partition("/")
    if "@" in authority:
        raise malformed("it has a user in it", "set 'User' for the host in ~/.ssh/config")
    host, port = _split_port(authority)
    if port is not None and not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise malformed(f"'{printable(port)}' is no port")
    if not host:
        raise malformed("it names no host")
    if not is_safe_host(host):
        raise Refused(
            f"{subject}: '{printable(host)}' is no name of a host",
            hint="name the host as ssh knows it; an alias goes into ~/.ssh/config",
            code="host-unsafe",
        )
    path = unquote_to_bytes(slash + path_text)
    if b"\0" in path:
        raise malformed("its path holds a NUL")
    return SshAddress(host, None if port is None else int(port), *_read_path(path, malformed))


def _split_port(authority: str) -> tuple[str, str | None]:
    """Host without brackets, and what follows its colon."""
    if authority.startswith("["):
        host, _, rest = authority[1:].partition("]")
        return host, rest[1:] if rest.startswith(":") and rest != ":" else None
    host, _, port = authority.partition(":")
    return host, port or None


def _read_path(path: bytes, malformed: Callable[[str], SourceFailed]) -> tuple[bytes, bool]:
    is_folder = path.endswith(b"/")
    stripped = path.rstrip(b"/")
    if not stripped:
        raise malformed("it names no path")
    if stripped == b"/~":
        return b".", True
    if stripped.startswith(b"/~/"):
        return b"./" + stripped[3:].lstrip(b"/"), is_folder
    if stripped.startswith(b"/~"):
        raise malformed("another user's home cannot be named")
    return stripped, is_folder


def _try_lock(descriptor: int) -> bool:
    """Take the lock; False when another process has it. Where there are no locks nobody can be waited for."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _remove_lock(path: Path) -> None:
    """Remove a lock's file, unless an rsync that could not be ended holds it still: what rsync started itself ends a
    moment after it.
    """
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            deadline_s = read_monotonic_s() + _LAST_CHILD_S
            while not _try_lock(descriptor):
                if read_monotonic_s() > deadline_s:
                    return
                time.sleep(_LOOK_S)
            path.unlink()
        finally:
            os.close(descriptor)
