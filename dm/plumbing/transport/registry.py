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

__all__ = ["Fetchers", "HttpOptions", "find_fetcher"]


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
            **dict.fromkeys(("ssh", "sshfs", "rsync"), make_ssh),
            **dict.fromkeys(("s3", "gs", "gcs", "az", "abfs", "abfss", "adl", "gdrive"), make_bucket),
            **dict.fromkeys(("git", "git+http", "git+https", "git+ssh", "ssh+git"), make_git),
        }
        self._made: dict[str, Fetcher] = {}
        self._lock = threading.Lock()

    @property
    def schemes(self) -> tuple[str, ...]:
        """Every scheme that some transport serves, sorted."""
        return tuple(sorted(self._makers))

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
    scheme = find_scheme(uri)
    known = ", ".join(fetchers.schemes)
    if scheme is None:
        message = f"cannot fetch '{describe_uri(uri)}': it has no scheme"
        raise SourceFailed(message, hint=f"known are {known}; a file of this machine is file:///…", code="no-scheme")
    fetcher = fetchers.get(scheme)
    if fetcher is None:
        from difflib import get_close_matches

        message = f"cannot fetch '{describe_uri(uri)}': no transport for '{scheme}'"
        near = get_close_matches(scheme, fetchers.schemes, n=1, cutoff=0.75)
        hint = f"did you mean '{near[0]}'?" if near else f"known are {known}"
        raise SourceFailed(message, hint=hint, code="unknown-scheme")
    return fetcher
