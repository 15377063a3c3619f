"""git over http(s), by the connections that every other download uses: their proxies, logins, certificates, limits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from dulwich.client import AbstractHttpGitClient

from dm.plumbing.transport.connections import Answer, Connections, PassingFault
from dm.plumbing.transport.git.faults import GitFault, explain
from dm.progress import Progress

_LISTING = "info/refs?service=git-upload-pack"
_SERVICE = "git-upload-pack"
_LISTING_TYPE = "application/x-git-upload-pack-advertisement"
#: Statuses that may pass: what the http transport takes for such, too.
_PASSING_STATUSES = frozenset({408, 425, 429})
_ERROR_BYTES_MAX = 65520


class WebClient(AbstractHttpGitClient):
    """dulwich's smart HTTP client over `Connections`. One fetch each; closed by `close`.

    Only the repository's own two addresses are ever asked, whatever a server offers beside.
    """

    def __init__(self, url: str, connections: Connections, progress: Progress) -> None:
        super().__init__(url, thin_packs=False, quiet=True)
        self._connections = connections
        self._progress_sink = progress
        self._encrypted = url.partition(":")[0].lower() == "https"
        self._replies: list[_Reply] = []

    def close(self) -> None:
        """Let go of answers that were not read to their end."""
        for reply in self._replies:
            reply.close()

    def _http_request(
        self,
        url: str,
        headers: dict[str, str] | None = None,
        data: bytes | Iterator[bytes] | None = None,
        raise_for_status: bool = True,
    ) -> tuple[Any, Callable[[int], bytes]]:
        # GitHub and others speak git only to what calls itself git.
        sent = {**(headers or {}), "User-Agent": f"git/{self._connections.options.user_agent}", "Pragma": "no-cache"}
        may_log_in = url.partition(":")[0].lower() == "https" or not self._encrypted
        if data is None and url.endswith("/" + _LISTING):
            reply = _Reply(self._connections.get(url, sent, self._progress_sink), url)
        elif data is not None and url.endswith("/" + _SERVICE):
            body = data if isinstance(data, bytes) else b"".join(data)
            sent.pop("Content-Length", None)
            reply = _Reply(
                self._connections.post(url, sent, body, self._progress_sink, may_log_in=may_log_in), url
            )
        else:
            hint = "ask the keeper of the server"
            raise GitFault("its server sends elsewhere for the data, which is not followed", hint=hint)
        self._replies.append(reply)
        _check_status(reply.answer)
        if data is None:
            _check_speaks_git(reply)
        else:
            reply.raise_error()
        return reply, reply.read


class _Reply:
    """An answer in the shape that dulwich reads: exact reads, its type, where it was redirected to."""

    def __init__(self, answer: Answer, url: str) -> None:
        self.answer = answer.__enter__()
        self.content_type = answer.headers.get("Content-Type", "")
        self.redirect_location = answer.uri if answer.uri != url else ""
        self._head = b""
        self._closed = False

    def read(self, size: int) -> bytes:
        """``size`` bytes, fewer at the end."""
        data, self._head = self._head[:size], self._head[size:]
        if len(data) == size:
            return data
        buffer = bytearray(size - len(data))
        view = memoryview(buffer)
        count = 0
        while count < len(buffer):
            got = self.answer.readinto(view[count:])
            if not got:
                break
            count += got
        return data + bytes(view[:count])

    def raise_error(self) -> None:
        """Raise what the server says when its answer is an error and nothing else (gitprotocol-pack(5), ``ERR``)."""
        self._head = self.read(8)
        if self._head[4:8] == b"ERR " and re.fullmatch(rb"[0-9a-f]{4}", self._head[:4]):
            told = self.read(min(int(self._head[:4], 16), _ERROR_BYTES_MAX))[8:]
            raise explain(told.decode("utf-8", "replace"), self.answer.host)

    def close(self) -> None:
        """Give the connection back, or close it."""
        if not self._closed:
            self._closed = True
            self.answer.__exit__(None, None, None)


def _check_status(answer: Answer) -> None:
    status, host = answer.status, answer.host
    if status == 200:
        return
    reason = f"{host} answered {status} {answer.reason}".rstrip()
    if status >= 500 or status in _PASSING_STATUSES:
        raise PassingFault(reason, hint="the server is in trouble, or busy: try again later", code=f"http-{status}")
    if status in (404, 410):
        hint = "check the 'uri'; a private repository may look like one that is not there"
        raise GitFault(f"there is no such repository: {reason}", hint=hint, code="git-not-found")
    if status in (401, 403):
        name = host.partition(":")[0]
        hint = f"a login for '{name}' goes into ~/.netrc; some hosts answer so for a missing repository, too"
        raise GitFault(reason, hint=hint, code=f"http-{status}")
    if status == 407:
        hint = "the proxy wants a login: http://user:password@proxy in https_proxy"
        raise GitFault(reason, hint=hint, code=f"http-{status}")
    raise GitFault(reason, hint="open the 'uri' in a browser to see what the server has to say", code=f"http-{status}")


def _check_speaks_git(reply: _Reply) -> None:
    kind = reply.content_type.partition(";")[0].strip()
    if kind == _LISTING_TYPE:
        return
    hint = "check the 'uri'; a plain file server has to run 'git http-backend' to serve repositories"
    reason = f"{reply.answer.host} serves no repository there that dm can fetch"
    raise GitFault(reason, hint=hint, code="git-not-found")
