"""The git transport: one commit's files, brought here without its history.

The plan of one fetch: ask the server for the one commit (depth 1); where it does not hand that out alone, for all it
has; index the pack that arrived, check the tree, write the folder. A repository on this machine is read where it is.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dm.environment import Environment
from dm.errors import DmError, Refused, SourceFailed
from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.fs.publish import ensure_folder, remove_tree
from dm.plumbing.transport.connections import Connections, HttpOptions, PassingFault
from dm.plumbing.transport.git.checkout import CheckedOut, check_out, name_some
from dm.plumbing.transport.git.faults import GitFault, NotHandedOut
from dm.plumbing.transport.git.links import Link, SocketLink, SshLink
from dm.plumbing.transport.git.objects import Objects, find_commit, find_tree
from dm.plumbing.transport.git.remote import Remote, read_remote
from dm.plumbing.transport.git.tree import list_entries
from dm.plumbing.transport.patience import persevere
from dm.plumbing.transport.protocol import Fetched, FetchRequest
from dm.progress import Progress, Task

if TYPE_CHECKING:
    from dulwich.client import GitClient
    from dulwich.protocol import Protocol

    from dm.plumbing.transport.git.wire import Received


class GitFetcher:
    """The git transport, by dulwich: over git, http(s), ssh and from repositories on this machine.

    What arrives is a folder without ``.git``, with modes and links as they are recorded; submodules are empty folders
    and told. Nothing of the repository is run or obeyed. ``options`` are the limits of the http transport, which hold
    here as well; ``ssh_command`` is what is run for ssh, split as a shell splits words.
    """

    schemes = frozenset({"git", "ssh+git", "git+ssh", "git+https", "git+http"})

    def __init__(
        self, environment: Environment, options: HttpOptions | None = None, *, ssh_command: str | None = None
    ) -> None:
        self._environment = environment
        self._options = options or HttpOptions()
        self._ssh_command = ssh_command
        #: Of the repositories over http(s); whether it is closed says so of the whole transport.
        self.connections = Connections(environment, self._options)
        self._links: set[Link] = set()
        self._lock = threading.Lock()

    def fetch(self, request: FetchRequest, *, task: Task, progress: Progress) -> Fetched:
        """Make ``request.folder / request.file_name`` of one commit's files (see `protocol.Fetcher`).

        The commit is what ``request.branch`` names, else the URI's fragment, ``version`` or ``ref``, else the default
        branch; ``revision`` of the result says which one it was. Until it is done a pack lies beside, under a private
        name; a fetch that fails or was killed is begun anew.

        Raises `SourceFailed` (codes ``git-not-found``, ``git-no-ref``, ``git-empty``, ``git-lfs``, ``git-corrupt``,
        ``ssh-auth``, ``http-401``, …), `Refused` for what may not be made here, `MachineFailed`.
        """
        remote = read_remote(request.uri)
        target = request.folder / request.file_name
        scratch = request.folder / f"{request.file_name}.pack"
        ensure_folder(request.folder)
        fetched: Fetched | None = None
        try:
            remove_tree(target)
            fetched = _Fetch(self, request, remote, scratch, task, progress).run()
        except GitFault as fault:
            kind = Refused if fault.refused else SourceFailed
            raise kind(f"cannot fetch '{remote.uri}': {fault.reason}", hint=fault.hint, code=fault.code) from fault
        finally:
            remove_tree(scratch)
            if fetched is None:
                remove_tree(target)
        return fetched

    def close(self) -> None:
        """End what is under way in other threads, ssh programs too (see `protocol.Fetcher`)."""
        self.connections.close()
        with self._lock:
            for link in self._links:
                link.interrupt()

    # What a fetch asks of its transport

    def check_open(self) -> None:
        """Raise `PassingFault` when the transport has been closed."""
        if self.connections.closed:
            raise PassingFault("interrupted", hint="run it again", code="interrupted")

    def make_client(self, remote: Remote, progress: Progress) -> GitClient:
        """A client of dulwich's for one fetch from a server."""
        from dm.plumbing.transport.git.wire import LinkClient

        if remote.way == "http":
            from dm.plumbing.transport.git.web_client import WebClient

            return WebClient(remote.path, self.connections, progress)
        if remote.way == "ssh":
            return LinkClient(lambda: self._take_up(self._open_ssh(remote)))
        return LinkClient(lambda: self._take_up(self._open_socket(remote)), lambda wire: _greet(wire, remote))

    def _open_socket(self, remote: Remote) -> Link:
        return SocketLink(remote, self._options, self.connections.sockets)

    def _open_ssh(self, remote: Remote) -> Link:
        from dm.plumbing.transport.ssh_command import split_ssh_command

        words = split_ssh_command(self._ssh_command)
        # In single quotes, as git itself writes it: a login shell or a forge's own parser reads this.
        path = "'" + remote.path.replace("'", "'\\''") + "'"
        return SshLink(words, remote, f"git-upload-pack {path}", self._environment, self._options)

    def _take_up(self, link: Link) -> Link:
        """Remember a link while it is open, so that `close` reaches it."""
        with self._lock:
            self._links = {other for other in self._links if not other.closed}
            self._links.add(link)
            if self.connections.closed:
                link.interrupt()
        return link


class _Fetch:
    """One fetch: what is known of it on its way."""

    def __init__(
        self, owner: GitFetcher, request: FetchRequest, remote: Remote, scratch: Path, task: Task, progress: Progress
    ) -> None:
        self._owner = owner
        self._remote = remote
        self._reference = request.branch or remote.reference
        self._target = request.folder / request.file_name
        self._scratch = scratch
        self._task = task
        self._progress = progress

    def run(self) -> Fetched:
        """Try as often as the limits allow; raise `GitFault` or a `DmError` in the end."""
        connections = self._owner.connections
        return persevere(connections, self._attempt, give_up=self._give_up, progress=self._progress)

    def _give_up(self, fault: PassingFault, tries: int) -> DmError:
        times = f" ({tries} tries)" if tries > 1 else ""
        message = f"cannot fetch '{self._remote.uri}': {fault.reason}{times}"
        return SourceFailed(message, hint=fault.hint or "try again later", code=fault.code)

    def _attempt(self) -> Fetched:
        self._owner.check_open()
        if self._remote.way == "file":
            return self._read_local()
        try:
            received = self._receive(whole=False)
        except NotHandedOut as fault:
            self._progress.note(f"{self._remote.place} gives no single commit away; fetching the whole history")
            try:
                received = self._receive(whole=True)
            except NotHandedOut as second:
                raise second from fault
        return self._unpack(received)

    def _receive(self, *, whole: bool) -> Received:
        from dm.plumbing.transport.git.wire import Sink, receive

        remove_tree(self._scratch)
        count = 0
        client = self._owner.make_client(self._remote, self._progress)
        # The pack of an http repository lies at its URL; the others are asked for a path.
        path = "" if self._remote.way == "http" else self._remote.path
        with machine_errors("write", self._scratch), open(self._scratch, "xb", buffering=0) as file:

            def write(data: bytes) -> int:
                nonlocal count
                self._owner.check_open()
                view = memoryview(data)
                with machine_errors("write", self._scratch):
                    while view:
                        view = view[file.write(view) :]
                count += len(data)
                self._task.advance(len(data))
                return len(data)

            try:
                received = receive(
                    client, self._remote.place, path, self._reference, Sink(write, self._task.describe), whole=whole
                )
            except (DmError, GitFault, PassingFault):
                self._task.advance(-count)
                raise
        self._task.resize(count)
        return received

    def _unpack(self, received: Received) -> Fetched:
        from dm.plumbing.transport.git.pack import PackFile

        self._task.describe("unpacking")
        pack = PackFile.open(self._scratch, algorithm=received.algorithm, should_stop=self._owner.check_open)
        try:
            return self._make_folder(pack, received.wanted.name, report=lambda count: None)
        finally:
            pack.close()

    def _read_local(self) -> Fetched:
        from dm.plumbing.transport.git.local import LocalRepository
        from dm.plumbing.transport.git.wanted import choose

        repository = LocalRepository.open(Path(self._remote.path))
        try:
            wanted = choose(repository.read_references(), self._reference)
            fetched = self._make_folder(repository, wanted.name, report=self._task.advance)
        finally:
            repository.close()
        self._task.resize(fetched.size_bytes)
        return fetched

    def _make_folder(self, objects: Objects, name: str, *, report: Callable[[int], None]) -> Fetched:
        try:
            wanted = bytes.fromhex(name)
        except ValueError as error:
            raise GitFault("its server names no object", code="git-protocol") from error
        if wanted not in objects:
            hint = "check 'branch'; a commit that was pushed over or never pushed is not there any more"
            raise GitFault(f"it has no commit '{name}'", hint=hint, code="git-no-ref")
        commit = find_commit(objects, wanted)
        should_stop = self._owner.check_open
        entries = list_entries(objects, find_tree(objects, commit), should_stop)
        self._task.describe("writing files")
        made: CheckedOut = check_out(objects, entries, self._target, report=report, should_stop=should_stop)
        if made.submodules:
            some = name_some(made.submodules)
            self._progress.warn(f"'{self._remote.uri}': submodules are not fetched, their folders are empty: {some}")
        return Fetched(self._target, {}, made.size_bytes, revision=commit.hex())


def _greet(wire: Protocol, remote: Remote) -> None:
    """The first words to a git daemon (gitprotocol-pack(5), "Git Transport"); the version hides behind two NULs."""
    path = os.fsencode(remote.path)
    host = f"{remote.place}".encode("idna" if remote.host.isascii() is False else "ascii")
    wire.send_cmd(b"git-upload-pack", path, b"host=" + host + b"\0\0version=2\0")


