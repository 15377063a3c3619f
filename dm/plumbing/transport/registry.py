"""Which transport serves a URI. A transport is made on first use, so that a command pays for what it fetches."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from dm.environment import Environment
from dm.errors import SourceFailed
from dm.plumbing.transport.address import describe_uri, find_scheme
from dm.plumbing.transport.file import FileFetcher
from dm.plumbing.transport.protocol import Fetcher
from dm.plumbing.transport.web import HttpFetcher, HttpOptions

__all__ = ["SCHEMES", "Fetchers", "HttpOptions", "check_uri", "find_fetcher"]

_SSH = ("ssh", "sshfs", "rsync")
_BUCKETS = ("s3", "gs", "gcs", "az", "abfs", "abfss", "adl", "gdrive")
_GIT = ("git", "git+http", "git+https", "git+ssh", "ssh+git")
#: Every scheme that some transport serves, sorted.
SCHEMES = tuple(sorted(("http", "https", "file", *_SSH, *_BUCKETS, *_GIT)))


class Fetchers:
    """The transports of one session: one of each, shared by all threads, closed together.

    ``http`` sets the limits of http(s), git and rsync; ``ssh_command`` is what is run to reach another machine.
    Leaving the `with` block (or `close`) closes every transport that was made and ends what is under way in other
    threads.
    """

    def __init__(
        self, environment: Environment, *, http: HttpOptions | None = None, ssh_command: str | None = None
    ) -> None:
        def make_http() -> Fetcher:
            return HttpFetcher(environment, http or HttpOptions())

        def make_git() -> Fetcher:
            from dm.plumbing.transport.git.fetcher import GitFetcher

            return GitFetcher(environment, http or HttpOptions(), ssh_command=ssh_command)

        def make_bucket() -> Fetcher:
            from dm.plumbing.transport.bucket import BucketFetcher

            return BucketFetcher(environment, http or HttpOptions())

        def make_ssh() -> Fetcher:
            from dm.plumbing.transport.ssh import SshFetcher

            return SshFetcher(environment, ssh_command, http)

        self._makers: dict[str, Callable[[], Fetcher]] = {
            "http": make_http,
            "https": make_http,
            "file": FileFetcher,
            **dict.fromkeys(_SSH, make_ssh),
            **dict.fromkeys(_BUCKETS, make_bucket),
            **dict.fromkeys(_GIT, make_git),
        }
        self._made: dict[str, Fetcher] = {}
        self._lock = threading.Lock()

    @property
    def schemes(self) -> tuple[str, ...]:
        """Every scheme that some transport serves, sorted."""
        return SCHEMES

    def get(self, scheme: str) -> Fetcher | None:
        """The transport of a scheme, made now when it was not there; None when no transport serves it."""
        maker = self._makers.get(scheme)
        if maker is None:
            return None
        with self._lock:
            if scheme not in self._made:
                fetcher = maker()
                self._made.update(dict.fromkeys(fetcher.schemes, fetcher))
            return self._made[scheme]

    def close(self) -> None:
        """Close every transport that was made."""
        with self._lock:
            for fetcher in {id(fetcher): fetcher for fetcher in self._made.values()}.values():
                fetcher.close()
            self._made.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def find_fetcher(uri: str, fetchers: Fetchers) -> Fetcher:
    """The transport that serves ``uri``.

    Raises `SourceFailed` that names the scheme and those that are known; never skips a URI silently.
    """
    fetcher = fetchers.get(_find_known_scheme(uri))
    assert fetcher is not None
    return fetcher


def check_uri(uri: str) -> None:
    """Raise what fetching ``uri`` would raise for its form alone: `find_fetcher`'s, and what a repository or an object
    is not named by. Nothing is asked of anybody.
    """
    scheme = _find_known_scheme(uri)
    if scheme in _GIT:
        from dm.plumbing.transport.git.remote import read_remote

        read_remote(uri)
    elif scheme in _BUCKETS:
        from dm.plumbing.transport.bucket.address import BucketAddress
        from dm.plumbing.transport.bucket.services import find_service

        BucketAddress.parse(uri)
        find_service(uri, scheme)


def _find_known_scheme(uri: str) -> str:
    """The scheme of a URI, which some transport serves. Raises `SourceFailed` otherwise."""
    scheme = find_scheme(uri)
    known = ", ".join(SCHEMES)
    if scheme is None:
        message = f"cannot fetch '{describe_uri(uri)}': it has no scheme"
        raise SourceFailed(message, hint=f"known are {known}; a file of this machine is file:///…", code="no-scheme")
    if scheme not in SCHEMES:
        from difflib import get_close_matches

        message = f"cannot fetch '{describe_uri(uri)}': no transport for '{scheme}'"
        near = get_close_matches(scheme, SCHEMES, n=1, cutoff=0.75)
        hint = f"did you mean '{near[0]}'?" if near else f"known are {known}"
        raise SourceFailed(message, hint=hint, code="unknown-scheme")
    return scheme
