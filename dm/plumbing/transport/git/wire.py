"""Fetching a pack from a server, by dulwich's clients over this package's own ways (`links`, `web_client`).

The only module that runs git's protocol. dulwich's own ways are not used: they know no time limit, read variables and
files of their own accord, and cannot be interrupted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from dulwich.client import GitClient, InvalidWants, TraditionalGitClient
from dulwich.errors import GitProtocolError, HangupException, NotGitRepository
from dulwich.protocol import Protocol

from dm.plumbing.transport.connections import PassingFault
from dm.plumbing.transport.git.faults import MALFORMED_BYTES, GitFault, NotHandedOut, explain
from dm.plumbing.transport.git.links import Link
from dm.plumbing.transport.git.wanted import Wanted, choose, list_prefixes

# The library is mute: without a handler, warnings of dulwich's would come out on stderr.
logging.getLogger("dulwich").addHandler(logging.NullHandler())

#: What a server says of its own work, and what is said of it.
_SAID = ("enumerating", "counting", "compressing")
#: How dulwich's own complaints begin, unlike those that a server sent.
_NOT_GIT = ("Invalid ", "invalid ", "Unexpected ", "unexpected ", "unknown command", "Redirected from")


class Sink(NamedTuple):
    """What takes a pack as it arrives: its bytes, and a word on what the server does meanwhile."""

    write: Callable[[bytes], int]
    describe: Callable[[str], None]


class Received(NamedTuple):
    """What arrived: the hex name that was asked for, and the algorithm of names, sha1 or sha256."""

    wanted: Wanted
    algorithm: str


class LinkClient(TraditionalGitClient):
    """dulwich's client over a `Link`. One fetch each; closed by `close`."""

    def __init__(self, connect: Callable[[], Link], greeting: Callable[[Protocol], None] | None = None) -> None:
        super().__init__(thin_packs=False, quiet=True)
        self._open_link = connect
        self._greeting = greeting
        self._protocol: Protocol | None = None
        self.link: Link | None = None

    def close(self) -> None:
        """Let go of the server."""
        if self._protocol is not None:
            self._protocol.close()

    def _connect(
        self, cmd: bytes, path: str | bytes, protocol_version: int | None = None
    ) -> tuple[Protocol, Callable[[], bool], None]:
        link = self.link = self._open_link()
        self._protocol = _Wire(link)
        self.protocol_version = 2
        if self._greeting is not None:
            self._greeting(self._protocol)
        return self._protocol, _never, None


class _Wire(Protocol):
    """Packet lines over a link, where an error that the server tells is raised wherever it comes."""

    def __init__(self, link: Link) -> None:
        super().__init__(link.read, link.write, link.close)
        self._link = link

    def shutdown_write(self) -> None:
        self._link.end_writing()

    def read_pkt_line(self) -> bytes | None:
        line: bytes | None = super().read_pkt_line()
        if line is not None and line.startswith(b"ERR "):
            raise explain(line[4:].decode("utf-8", "replace"), self._link.place)
        return line


class _NoHistory:
    """What we have already: nothing."""

    shallow: frozenset[bytes] = frozenset()

    def __next__(self) -> None:
        return None

    def ack(self, sha: bytes) -> None:
        """Not told of anything."""

    def nak(self) -> None:
        """Not told of anything."""


def receive(
    client: GitClient, place: str, path: str, reference: str | None, sink: Sink, *, whole: bool
) -> Received:
    """Have one pack sent to ``sink``: of one commit alone, or with ``whole`` of every branch and tag with all history.

    Raises `NotHandedOut` when the server does not hand out the commit alone, `GitFault` and `PassingFault`.
    """
    chosen: list[Wanted] = []
    faults: list[GitFault] = []

    def determine_wants(references: Mapping[bytes, bytes], depth: int | None = None) -> list[bytes]:
        try:
            wanted = choose(references, reference)
        except GitFault as fault:
            # Kept: dulwich still tells the server, which may have hung up, and would raise that instead.
            faults.append(fault)
            raise
        chosen.append(wanted)
        if whole:
            return sorted({value for name, value in references.items() if not name.endswith(b"^{}")})
        return [wanted.name.encode("ascii")]

    def take_words(words: bytes) -> None:
        text = words.decode("utf-8", "replace").strip().lower()
        if text.startswith(_SAID):
            sink.describe(text.partition(":")[0])

    arguments: dict[str, Any] = {"progress": take_words, "ref_prefix": list_prefixes(reference)}
    if not whole:
        arguments["depth"] = 1
    try:
        result = client.fetch_pack(path, determine_wants, _NoHistory(), sink.write, **arguments)  # type: ignore[arg-type]
    except (GitProtocolError, HangupException, NotGitRepository, InvalidWants, *MALFORMED_BYTES) as error:
        if faults:
            raise faults[0] from None
        raise _interpret(error, client, place, chosen) from error
    except GitFault as fault:
        if isinstance(fault, NotHandedOut) or not chosen or chosen[0].advertised or whole:
            raise
        raise NotHandedOut(fault.reason, hint=fault.hint, code=fault.code) from fault
    finally:
        client.close()
    if not chosen:
        raise choose_nothing()
    algorithm = getattr(result, "object_format", None) or "sha1"
    return Received(chosen[0], algorithm)


def choose_nothing() -> GitFault:
    """The fault of a repository without a commit, whose server lists nothing at all."""
    return GitFault("the repository is empty: it has no commit", hint="push a commit to it first", code="git-empty")


def _interpret(error: Exception, client: GitClient, place: str, chosen: list[Wanted]) -> Exception:
    """What an exception of dulwich means."""
    told = str(error)
    link = client.link if isinstance(client, LinkClient) else None
    if isinstance(error, HangupException) or (link is not None and not told):
        told = link.told if link is not None else ""
        if not told:
            if chosen and not chosen[0].advertised:
                return NotHandedOut(f"{place} hung up", code="connection-dropped")
            return PassingFault(f"{place} hung up", code="connection-dropped")
    elif isinstance(error, MALFORMED_BYTES) or told.startswith(_NOT_GIT):
        hint = "check that the 'uri' is that of a repository"
        return GitFault(f"what {place} sends is not git's protocol", hint=hint, code="git-protocol")
    elif "does not match length prefix" in told:
        return PassingFault(f"{place} dropped the connection", code="connection-dropped")
    return explain(told, place)


def _never() -> bool:
    return False
