"""One download: tries, the part that is there already, and what an answer has to be to be kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic

from dm.errors import DmError, SourceFailed
from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.transport.address import describe_uri
from dm.plumbing.transport.connections import Answer, Connections, PassingFault
from dm.plumbing.transport.journal import Journal, is_encoded, journal_path
from dm.plumbing.transport.listing import LISTING_HEAD_BYTES, is_listing, is_page_expected, is_web_page
from dm.plumbing.transport.partial import SMALL_BYTES, Partial
from dm.plumbing.transport.protocol import Fetched, FetchRequest
from dm.plumbing.transport.status import explain_status
from dm.progress import Progress, Task


class Download:
    """The state of one download over its tries. Used by one thread; `close` when it is over, however it ended."""

    def __init__(self, connections: Connections, request: FetchRequest, task: Task, progress: Progress) -> None:
        self._connections = connections
        self._request = request
        self._task = task
        self._progress = progress
        self._path = request.folder / request.file_name
        self._journal_path = journal_path(self._path)
        self._journal: Journal | None = None
        self._partial: Partial | None = None
        self._warned = False
        self._written_journal = False
        self._farthest_bytes = 0
        self._from_cache = False
        self._done = False
        self._reopen()

    @property
    def farthest_bytes(self) -> int:
        """The most bytes that were there at any time."""
        return self._farthest_bytes

    @property
    def resumable(self) -> bool:
        """Whether a later run can go on from what is here."""
        return self._written_journal and self._partial is not None and self._partial.size_bytes > 0

    def attempt(self) -> Fetched:
        """Try once: ask for what is missing and take it in.

        Raises `PassingFault` where another try may help, else `SourceFailed`, `Refused` or `MachineFailed`.
        """
        while True:
            if self._journal is None:
                self._forget()
            offset = 0 if self._partial is None else self._partial.size_bytes
            headers = {}
            if self._journal is not None and offset:
                headers = {"Range": f"bytes={offset}-", "If-Range": self._journal.validator}
            with self._connections.get(self._request.uri, headers, self._progress) as answer:
                if answer.status in (200, 203):
                    return self._take_whole(answer)
                if offset and answer.status == 206 and self._continues(answer, offset):
                    return self._take_rest(answer, offset)
                if offset and answer.status == 416 and self._is_complete(answer, offset):
                    return self._fetched(answer)
                if not offset or answer.status not in (206, 416):
                    raise explain_status(answer, self._request.uri)
            # The part is no part of what the server has now. Asked without a range, it cannot come here again.
            self._forget()

    def close(self) -> None:
        """Close the file; remove it unless it is complete or a later run can go on from it."""
        resumable = self.resumable
        partial, self._partial = self._partial, None
        if partial is None:
            return
        try:
            partial.close()
        finally:
            if not self._done and not resumable:
                with machine_errors("remove", self._path):
                    self._path.unlink(missing_ok=True)
                    self._journal_path.unlink(missing_ok=True)

    def _reopen(self) -> None:
        uri = self._request.uri
        self._written_journal = os.path.lexists(self._journal_path)
        journal = Journal.read(self._journal_path) if self._written_journal else None
        if journal is None:
            return

        def find_usable(size_bytes: int) -> int:
            return journal.find_usable_bytes(uri, size_bytes)

        self._partial = Partial.reopen(self._path, self._request.algorithms, find_usable)
        if self._partial is not None:
            self._journal = journal
            self._farthest_bytes = self._partial.size_bytes
            self._from_cache = journal.total is not None and self._partial.size_bytes == journal.total - 1
            self._task.resize(journal.total)
            self._task.advance(self._partial.size_bytes)

    def _forget(self) -> None:
        """Begin anew: the journal goes before the bytes, so that no other bytes are ever taken for its part."""
        self._journal = None
        self._from_cache = False
        if self._written_journal:
            with machine_errors("remove", self._journal_path):
                self._journal_path.unlink(missing_ok=True)
            self._written_journal = False
        if self._partial is not None and self._partial.size_bytes:
            self._task.advance(-self._partial.size_bytes)
            self._partial.begin_anew()

    def _take_whole(self, answer: Answer) -> Fetched:
        self._forget()
        head = self._look_at_page(answer)
        self._warn_of_encoding(answer)
        if self._partial is None:
            self._partial = Partial.create(self._path, self._request.algorithms)
        total = None if answer.length_bytes is None else answer.length_bytes + len(head)
        # A short body is fetched again as fast as it is resumed.
        if total is None or total > SMALL_BYTES:
            self._journal = Journal.begin(self._request.uri, answer.headers, total)
        if self._journal is not None:
            self._journal.write(self._journal_path)
            self._written_journal = True
        if total is not None:
            self._task.resize(total)
            self._partial.reserve(total)
        self._take_in(answer, _after_head(head, answer.readinto), total)
        return self._fetched(answer)

    def _take_rest(self, answer: Answer, offset: int) -> Fetched:
        assert self._journal is not None
        first, last, total = _read_content_range(answer) or (0, 0, None)
        if self._journal.total is None and total is not None:
            self._journal = self._journal._replace(total=total)
            self._task.resize(total)
        self._take_in(answer, answer.readinto, last - first + 1)
        if total is not None and last + 1 < total:
            raise PassingFault(f"{answer.host} sent {last + 1:,} of {total:,} bytes", code="truncated")
        return self._fetched(answer)

    def _take_in(self, answer: Answer, read: Callable[[memoryview], int], expected_bytes: int | None) -> None:
        partial = self._partial
        assert partial is not None
        before = partial.size_bytes
        flush_every_s = self._connections.options.flush_every_s
        next_flush_s = monotonic() + flush_every_s

        def report(count: int) -> None:
            nonlocal next_flush_s
            self._task.advance(count)
            if self._written_journal and monotonic() >= next_flush_s:
                self._record_flushed(partial)
                next_flush_s = monotonic() + flush_every_s

        try:
            count = partial.take_in(read, expected_bytes, report)
        finally:
            self._farthest_bytes = max(self._farthest_bytes, partial.size_bytes)
        if expected_bytes is not None and count < expected_bytes:
            whole = before + expected_bytes
            reason = f"{answer.host} closed the connection after {partial.size_bytes:,} of {whole:,} bytes"
            raise PassingFault(reason, code="truncated")

    def _record_flushed(self, partial: Partial) -> None:
        assert self._journal is not None
        size_bytes = partial.size_bytes
        partial.flush()
        self._journal = self._journal._replace(flushed=size_bytes)
        self._journal.write(self._journal_path)

    def _continues(self, answer: Answer, offset: int) -> bool:
        """Whether a 206 is the rest of what is here: where it begins, how long the whole is, which version."""
        assert self._journal is not None
        content_range = _read_content_range(answer)
        if content_range is None or self._journal.contradicts(answer.headers):
            return False
        first, last, total = content_range
        length = answer.length_bytes
        return (
            first == offset
            and (total is None or self._journal.total is None or total == self._journal.total)
            and (length is None or length == last - first + 1)
        )

    def _is_complete(self, answer: Answer, offset: int) -> bool:
        """Whether a 416 says that nothing is missing: the whole is as long as what is here, and of this version."""
        assert self._journal is not None
        unit, _, size = answer.headers.get("Content-Range", "").partition("*/")
        total = int(size) if unit.strip().lower() == "bytes" and size.strip().isdecimal() else None
        whole = self._journal.total in (None, offset)
        if answer.headers.get("ETag") is not None and self._journal.contradicts({"ETag": answer.headers["ETag"]}):
            return False
        return whole and total == offset

    def _fetched(self, answer: Answer) -> Fetched:
        assert self._partial is not None
        size_bytes = self._partial.size_bytes
        digests = self._partial.digests()
        self._partial.close()
        self._done = True
        content_type = answer.headers.get("Content-Type")
        return Fetched(self._path, digests, size_bytes, content_type, self._from_cache)

    def _look_at_page(self, answer: Answer) -> bytes:
        """Judge an answer that is a web page; return what was read of it for that.

        Raises `SourceFailed` for the listing of a folder; warns of a page where data was expected.
        """
        if not is_web_page(answer.headers):
            return b""
        uri = describe_uri(self._request.uri)
        expected = is_page_expected(self._request.expected_format, self._request.file_name)
        head = b""
        if answer.uri.partition("#")[0].partition("?")[0].endswith("/"):
            head = self._read_head(answer)
            if is_listing(head) or (answer.added_slash and not expected):
                hint = "name the file itself, or each of them in 'uris'"
                message = f"cannot fetch '{uri}': {answer.host} sent the listing of a folder, not a file"
                raise SourceFailed(message, hint=hint, code="folder-listing")
        if not expected and not self._warned:
            self._warned = True
            wanted = self._request.expected_format or self._request.file_name.rpartition(".")[2]
            self._progress.warn(
                f"'{uri}' answered with a web page (text/html) where '{wanted}' was expected: "
                "is it a login or an error page?"
            )
        return head

    def _read_head(self, answer: Answer) -> bytes:
        buffer = memoryview(bytearray(LISTING_HEAD_BYTES))
        count = 0
        while count < len(buffer) and (got := answer.readinto(buffer[count:])):
            count += got
        return bytes(buffer[:count])

    def _warn_of_encoding(self, answer: Answer) -> None:
        if not is_encoded(answer.headers) or self._warned:
            return
        encoding = answer.headers["Content-Encoding"].strip().lower()
        path = answer.uri.partition("#")[0].partition("?")[0].lower()
        # Some servers describe a stored .gz so; then the bytes are the file and nothing is wrong.
        if encoding.removeprefix("x-") == "gzip" and path.endswith((".gz", ".tgz")):
            return
        self._warned = True
        self._progress.warn(
            f"{answer.host} sent '{describe_uri(self._request.uri)}' encoded as {encoding} although that was declined: "
            "it is stored as it was sent"
        )


def give_up(request: FetchRequest, fault: PassingFault, *, tries: int, resumable: bool) -> DmError:
    """The error that ends a download after its last try."""
    times = f" ({tries} tries)" if tries > 1 else ""
    hint = fault.hint
    if resumable:
        hint = "what has arrived is kept: run it again and it goes on from there"
    message = f"cannot fetch '{describe_uri(request.uri)}': {fault.reason}{times}"
    return SourceFailed(message, hint=hint or "try again later", code=fault.code)


def _read_content_range(answer: Answer) -> tuple[int, int, int | None] | None:
    """First and last byte and the size of the whole (None: ``*``) of a Content-Range (RFC 9110, 14.4)."""
    unit, _, rest = answer.headers.get("Content-Range", "").strip().partition(" ")
    span, _, total = rest.strip().partition("/")
    first, _, last = span.partition("-")
    if unit.lower() != "bytes" or not first.isdecimal() or not last.isdecimal() or int(last) < int(first):
        return None
    if total != "*" and (not total.isdecimal() or int(total) <= int(last)):
        return None
    return int(first), int(last), None if total == "*" else int(total)


def _after_head(head: bytes, read: Callable[[memoryview], int]) -> Callable[[memoryview], int]:
    """A reader that gives ``head`` again before it goes on."""
    if not head:
        return read
    left = memoryview(head)

    def read_with_head(buffer: memoryview) -> int:
        nonlocal left
        if not left:
            return read(buffer)
        count = min(len(left), len(buffer))
        buffer[:count] = left[:count]
        left = left[count:]
        return count

    return read_with_head
