"""One object: read in pieces, several at once, written and hashed in order; gone on with after a kill.

What makes that safe is the journal beside the partial file (`transport.journal`): it holds the validator of the version
that the bytes are of (ETag, generation). They are gone on with only when the service still describes that version, and
every further piece is asked for of that version; where the service cannot be asked so, it describes the object once
more at the end. To begin anew the journal goes first, then the bytes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from dm.errors import SourceFailed
from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.transport.bucket.address import BucketAddress
from dm.plumbing.transport.bucket.backend import Found
from dm.plumbing.transport.bucket.faults import BucketFault
from dm.plumbing.transport.bucket.source import PIECE_BYTES, PIECES_AHEAD, Source
from dm.plumbing.transport.journal import Journal, journal_path, source_of
from dm.plumbing.transport.partial import SMALL_BYTES, Partial
from dm.progress import Task
from dm.values import Digest


class Arrived(NamedTuple):
    """An object that is here, whole. ``from_cache``: it was before, and its service only confirmed it."""

    digests: dict[str, Digest]
    size_bytes: int
    from_cache: bool


def fetch_object(
    source: Source,
    address: BucketAddress,
    found: Found,
    path: Path,
    algorithms: tuple[str, ...],
    task: Task,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> Arrived:
    """Bring the object ``found`` to ``path``, going on with what lies there.

    ``task`` is advanced by every byte, also by those that were there already. When ``should_stop`` says so it is
    interrupted. Raises `BucketFault` (``changed``,
    ``absent``) when the source has another version by now: then nothing is left at ``path``. Any other failure leaves
    what can be gone on with, or nothing.
    """
    transfer = _Transfer(source, address, found, path, algorithms, task, should_stop)
    try:
        return transfer.run()
    except BucketFault:
        transfer.forget()
        raise
    finally:
        transfer.close()


class _Transfer:
    def __init__(
        self,
        source: Source,
        address: BucketAddress,
        found: Found,
        path: Path,
        algorithms: tuple[str, ...],
        task: Task,
        should_stop: Callable[[], bool],
    ) -> None:
        self._source = source
        self._address = address
        self._found = found
        self._should_stop = should_stop
        self._path = path
        self._algorithms = algorithms
        self._task = task
        self._journal_path = journal_path(path)
        self._journal: Journal | None = None
        self._partial: Partial | None = None
        self._done = False

    def run(self) -> Arrived:
        found = self._found
        partial = self._partial = self._reopen() or self._create()
        self._task.advance(partial.size_bytes)
        # Of a whole one the last byte is asked for again (`Journal.find_usable_bytes`), and no more.
        from_cache = 0 < partial.size_bytes == found.size_bytes - 1 and self._journal is not None
        partial.reserve(found.size_bytes)
        missing = found.size_bytes - partial.size_bytes
        if missing:
            pieces = _Pieces(self._source, self._address, found, partial.size_bytes, self._should_stop)
            try:
                partial.take_in(pieces.readinto, missing, self._make_report(partial))
            finally:
                pieces.close()
        if not self._source.backend.pinned:
            self._check_version()
        digests = partial.digests()
        partial.close()
        self._done = True
        return Arrived(digests, partial.size_bytes, from_cache)

    def close(self) -> None:
        """Close the file; remove it unless it is whole or a later run can go on with it."""
        partial, self._partial = self._partial, None
        if partial is None:
            return
        try:
            partial.close()
        finally:
            if not self._done and (self._journal is None or not partial.size_bytes):
                self._remove()

    def forget(self) -> None:
        """What is here is of another version than the source has."""
        if self._partial is not None:
            self._task.advance(-self._partial.size_bytes)
        self._journal = None
        with machine_errors("remove", self._journal_path):
            self._journal_path.unlink(missing_ok=True)

    def _remove(self) -> None:
        with machine_errors("remove", self._path):
            self._journal_path.unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)

    def _reopen(self) -> Partial | None:
        journal = Journal.read(self._journal_path) if os.path.lexists(self._journal_path) else None
        found = self._found
        if journal is None or journal.validator != found.validator or journal.total != found.size_bytes:
            return None
        uri = self._object_uri
        partial = Partial.reopen(self._path, self._algorithms, lambda size: journal.find_usable_bytes(uri, size))
        if partial is not None:
            self._journal = journal
        return partial

    def _create(self) -> Partial:
        """Begin anew: the old journal goes before the old bytes, the new one comes before the new bytes."""
        with machine_errors("remove", self._journal_path):
            self._journal_path.unlink(missing_ok=True)
        partial = Partial.create(self._path, self._algorithms)
        found = self._found
        # A small object is fetched again as fast as it is gone on with; without a validator it cannot be.
        if found.size_bytes > SMALL_BYTES and found.validator and found.validator.isascii():
            self._journal = Journal(source_of(self._object_uri), found.validator, found.size_bytes)
            self._journal.write(self._journal_path)
        return partial

    @property
    def _object_uri(self) -> str:
        address = self._address
        version = address.version or ""
        return f"{address.scheme}://{address.account or ''}/{address.bucket}/{self._found.key}?{version}"

    def _make_report(self, partial: Partial) -> Callable[[int], None]:
        every_s = self._source.options.flush_every_s
        next_flush_s = monotonic() + every_s

        def report(count: int) -> None:
            nonlocal next_flush_s
            self._task.advance(count)
            if self._journal is not None and monotonic() >= next_flush_s:
                size_bytes = partial.size_bytes
                partial.flush()
                self._journal = self._journal._replace(flushed=size_bytes)
                self._journal.write(self._journal_path)
                next_flush_s = monotonic() + every_s

        return report

    def _check_version(self) -> None:
        now = self._source.describe(self._address._replace(key=self._found.key))
        found = self._found
        if now is None or (now.validator, now.size_bytes) != (found.validator, found.size_bytes):
            raise BucketFault("changed")


class _Pieces:
    """The bytes of an object from an offset on, in order, while the next pieces are on their way."""

    def __init__(
        self, source: Source, address: BucketAddress, found: Found, offset: int, should_stop: Callable[[], bool]
    ) -> None:
        self._should_stop = should_stop
        self._source = source
        self._address = address
        self._found = found
        self._next = offset
        self._coming: deque[Future[bytes]] = deque()
        self._current = memoryview(b"")
        self._held = False  # whether a piece of the budget is in _current

    def readinto(self, view: memoryview) -> int:
        """Fill a buffer; 0 at the end."""
        if not self._current and not self._turn():
            return 0
        count = min(len(view), len(self._current))
        view[:count] = self._current[:count]
        self._current = self._current[count:]
        return count

    def close(self) -> None:
        """Let go of every piece."""
        self._drop_current()
        while self._coming:
            piece = self._coming.popleft()
            piece.cancel()
            self._source.budget.give_back()

    def _turn(self) -> bool:
        self._drop_current()
        while len(self._coming) < PIECES_AHEAD and self._next < self._found.size_bytes:
            # The first one is waited for: whoever waits holds none, so that somebody else always goes on.
            if not self._source.take_budget(self._should_stop, wait=not self._coming):
                break
            length = min(PIECE_BYTES, self._found.size_bytes - self._next)
            try:
                piece = self._source.read_later(self._address, self._found, self._next, length)
            except SourceFailed:
                self._source.budget.give_back()
                raise
            self._coming.append(piece)
            self._next += length
        if not self._coming:
            return False
        data = self._source.take(self._address, self._coming[0], self._should_stop)
        self._coming.popleft()
        self._held = True
        self._current = memoryview(data)
        return True

    def _drop_current(self) -> None:
        self._current = memoryview(b"")
        if self._held:
            self._held = False
            self._source.budget.give_back()
