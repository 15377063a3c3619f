"""http and https: resumed, retried, hashed while it arrives.

Plan of one fetch: `Download` keeps the part that is there and judges answers, `Connections` speaks to servers, and
`patience` says how often to try again, and when. What makes the resume safe is told in `journal`.
"""

from __future__ import annotations

from dm.environment import Environment
from dm.errors import DmError
from dm.plumbing.transport.connections import Connections, HttpOptions, PassingFault
from dm.plumbing.transport.download import Download, give_up
from dm.plumbing.transport.patience import persevere
from dm.plumbing.transport.protocol import Fetched, FetchRequest
from dm.progress import Progress, Task

__all__ = ["HttpFetcher", "HttpOptions"]


class HttpFetcher:
    """The http(s) transport. One shared pool of connections; `fetch` may run in many threads at once.

    Stored bytes are what the server sent: no encoding is asked for, none is undone. Proxies and logins come from the
    environment that is given. A fetch that fails leaves a file that the next one continues, or none at all.
    """

    schemes = frozenset({"http", "https"})

    def __init__(self, environment: Environment, options: HttpOptions | None = None) -> None:
        self._connections = Connections(environment, options or HttpOptions())

    def fetch(self, request: FetchRequest, *, task: Task, progress: Progress) -> Fetched:
        """Download ``request.uri``, going on from what an earlier run left (see `protocol.Fetcher`).

        Raises `SourceFailed` for an answer of 4xx, for the listing of a folder, and when the last try failed;
        `Refused` for a redirect that leaves http; `MachineFailed` when the disk will not take it.
        """
        download = Download(self._connections, request, task, progress)

        def explain(fault: PassingFault, tries: int) -> DmError:
            return give_up(request, fault, tries=tries, resumable=download.resumable)

        try:
            return persevere(
                self._connections,
                download.attempt,
                give_up=explain,
                progress=progress,
                count_bytes=lambda: download.farthest_bytes,
            )
        finally:
            download.close()

    def close(self) -> None:
        """Close all connections and end what is under way (see `protocol.Fetcher`)."""
        self._connections.close()
