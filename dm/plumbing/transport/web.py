"""http and https: resumed, retried, hashed while it arrives.

Plan of one fetch: `Download` keeps the part that is there and judges answers, `Connections` speaks to servers, and here
is the patience: how often to try again, and when. What makes the resume safe is told in `journal`.
"""

from __future__ import annotations

from dm.environment import Environment
from dm.plumbing.transport.connections import Connections, HttpOptions, PassingFault
from dm.plumbing.transport.download import Download, give_up
from dm.plumbing.transport.protocol import Fetched, FetchRequest
from dm.progress import Progress, Task

__all__ = ["HttpFetcher", "HttpOptions"]

#: New bytes that a try must bring to start the count of tries again.
_HEADWAY_BYTES = 1 << 20
#: A wait from this length on is told.
_NOTED_WAIT_S = 1.0


class HttpFetcher:
    """The http(s) transport. One shared pool of connections; `fetch` may run in many threads at once.

    Stored bytes are what the server sent: no encoding is asked for, none is undone. Proxies and logins come from the
    environment that is given. A fetch that fails leaves a file that the next one continues, or none at all.
    """

    schemes = frozenset({"http", "https"})

    def __init__(self, environment: Environment, options: HttpOptions | None = None) -> None:
        self._options = options or HttpOptions()
        self._connections = Connections(environment, self._options)

    def fetch(self, request: FetchRequest, *, task: Task, progress: Progress) -> Fetched:
        """Download ``request.uri``, going on from what an earlier run left (see `protocol.Fetcher`).

        Raises `SourceFailed` for an answer of 4xx, for the listing of a folder, and when the last try failed;
        `Refused` for a redirect that leaves http; `MachineFailed` when the disk will not take it.
        """
        download = Download(self._connections, request, task, progress)
        try:
            failures = tries = 0
            while True:
                tries += 1
                before_bytes = download.farthest_bytes
                try:
                    return download.attempt()
                except PassingFault as fault:
                    if download.farthest_bytes - before_bytes >= _HEADWAY_BYTES:
                        failures = 0
                    failures += 1
                    limit = self._options.retries if fault.limit is None else min(fault.limit, self._options.retries)
                    if failures > limit or self._connections.closed:
                        if self._connections.closed:
                            fault = PassingFault("interrupted", hint="run it again", code="interrupted")
                        raise give_up(request, fault, tries=tries, resumable=download.resumable) from fault
                    wait_s = self._find_wait_s(fault, failures)
                    if wait_s >= _NOTED_WAIT_S:
                        progress.note(f"{fault.reason}; trying again in {wait_s:.0f} s ({failures} of {limit})")
                    self._connections.wait(wait_s)
        finally:
            download.close()

    def close(self) -> None:
        """Close all connections and end what is under way (see `protocol.Fetcher`)."""
        self._connections.close()

    def _find_wait_s(self, fault: PassingFault, failures: int) -> float:
        """Seconds until the next try: twice as long each time, spread so that many clients do not come as one."""
        import random

        if fault.retry_after_s is not None:
            return min(fault.retry_after_s, self._options.retry_after_max_s)
        longest: float = min(self._options.backoff_s * 2 ** (failures - 1), self._options.backoff_max_s)
        return longest * random.uniform(0.5, 1.0)
