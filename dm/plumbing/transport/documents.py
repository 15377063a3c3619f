"""Small documents over http(s): what services answer when they are asked, held in memory.

The same connections, logins, redirect rules and patience as for downloads; what comes is bounded in size.
"""

from __future__ import annotations

from typing import NamedTuple

from dm.environment import Environment
from dm.errors import DmError, SourceFailed
from dm.plumbing.transport.address import describe_uri
from dm.plumbing.transport.connections import Answer, Connections, HttpOptions, PassingFault
from dm.plumbing.transport.patience import persevere
from dm.plumbing.transport.status import explain_status
from dm.progress import Progress

#: The largest JSON document that is read: a record of 100,000 files is about this long.
JSON_BYTES_MAX = 32 << 20
_PIECE_BYTES = 64 << 10


class Head(NamedTuple):
    """The beginning of a document, and whether that is all of it."""

    data: bytes
    whole: bool


class Documents:
    """Asks for documents. One per session; `close` it when the last answer is there."""

    def __init__(self, environment: Environment, options: HttpOptions | None = None) -> None:
        self._connections = Connections(environment, options or HttpOptions())

    def read_json(self, uri: str, *, service: str, progress: Progress) -> object:
        """The JSON document at ``uri``, as `json.loads` gives it; ``service`` is named where it is none.

        Raises `SourceFailed`: ``http-<status>`` for an answer of 4xx, ``record-malformed`` for what is no JSON or
        longer than 32 MiB, and as downloads do when the last try failed; `Refused` for an unsafe redirect.
        """
        head = self._read(uri, JSON_BYTES_MAX, "application/json", progress)
        if not head.whole:
            reason = f"it is longer than {JSON_BYTES_MAX >> 20} MiB"
        else:
            import json

            try:
                return json.loads(head.data)
            except (ValueError, RecursionError):
                is_page = head.data.lstrip()[:1] == b"<"
                reason = "it is a web page, not JSON" if is_page else "it is not JSON"
        raise SourceFailed(
            f"cannot read the answer of {service} for '{describe_uri(uri)}': {reason}",
            hint="try again later; the files themselves can be added by their URIs",
            code="record-malformed",
        )

    def read_head(self, uri: str, *, limit_bytes: int, progress: Progress) -> Head:
        """At most the first ``limit_bytes`` of the document at ``uri``. Raises as `read_json` does."""
        return self._read(uri, limit_bytes, "*/*", progress)

    def close(self) -> None:
        """Let go of the connections."""
        self._connections.close()

    def _read(self, uri: str, limit_bytes: int, accept: str, progress: Progress) -> Head:
        def attempt() -> Head:
            with self._connections.get(uri, {"Accept": accept}, progress) as answer:
                if answer.status != 200:
                    raise explain_status(answer, uri)
                return _take_in(answer, limit_bytes)

        def give_up(fault: PassingFault, tries: int) -> DmError:
            times = f" ({tries} tries)" if tries > 1 else ""
            message = f"cannot fetch '{describe_uri(uri)}': {fault.reason}{times}"
            return SourceFailed(message, hint=fault.hint or "try again later", code=fault.code)

        return persevere(self._connections, attempt, give_up=give_up, progress=progress)


def _take_in(answer: Answer, limit_bytes: int) -> Head:
    """Read a body up to its end or the limit. Raises `PassingFault` for one that is cut short."""
    expected = answer.length_bytes
    pieces: list[bytes] = []
    size = 0
    buffer = memoryview(bytearray(_PIECE_BYTES))
    while size <= limit_bytes:
        count = answer.readinto(buffer)
        if not count:
            if expected is not None and size < expected:
                reason = f"{answer.host} closed the connection after {size:,} of {expected:,} bytes"
                raise PassingFault(reason, code="truncated")
            return Head(b"".join(pieces), whole=True)
        pieces.append(bytes(buffer[:count]))
        size += count
    return Head(b"".join(pieces)[:limit_bytes], whole=False)
