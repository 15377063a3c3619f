"""Asking a service: a bounded number of requests, and answers that are looked at field by field.

An answer is data from outside. What is missing or of another type than a service documents is `SourceFailed` with code
``record-malformed``, which names the service and the field.
"""

from __future__ import annotations

from collections.abc import Mapping

from dm.errors import SourceFailed
from dm.plumbing.transport.documents import Documents, Head
from dm.progress import Progress
from dm.values import printable

#: Requests that one record may take: folders and pages of its list of files.
REQUESTS_MAX = 500
#: Files that one record may have.
FILES_MAX = 20_000


class Json:
    """A part of a service's answer: ``value`` as `json.loads` gave it, ``place`` where it is (``files[2].size``)."""

    __slots__ = ("place", "service", "value")

    def __init__(self, value: object, service: str, place: str = "") -> None:
        self.value = value
        self.service = service
        self.place = place

    def find(self, *names: str) -> Json | None:
        """The part below these names; None where it, or one above it, is absent or null."""
        found: Json = self
        for name in names:
            if not isinstance(found.value, Mapping):
                raise found.fault("a table")
            value = found.value.get(name)
            if value is None:
                return None
            found = Json(value, self.service, f"{found.place}.{name}" if found.place else name)
        return found

    def at(self, *names: str) -> Json:
        """The part below these names, which has to be there."""
        found = self.find(*names)
        if found is None:
            raise Json(None, self.service, ".".join([self.place, *names]).strip(".")).fault("there")
        return found

    def text(self) -> str:
        """This part, a string; half a character (a lone surrogate, which JSON can write) is none."""
        if not isinstance(self.value, str):
            raise self.fault("a string")
        try:
            self.value.encode()
        except UnicodeEncodeError as error:
            raise self.fault("text") from error
        return self.value

    def word(self) -> str:
        """This part, a string or a whole number, as text."""
        if isinstance(self.value, int) and not isinstance(self.value, bool):
            return str(self.value)
        return self.text()

    def flag(self) -> bool:
        """This part, true or false."""
        if not isinstance(self.value, bool):
            raise self.fault("true or false")
        return self.value

    def size(self) -> int:
        """This part, a number of bytes."""
        if not isinstance(self.value, int) or isinstance(self.value, bool) or not 0 <= self.value < 1 << 63:
            raise self.fault("a number of bytes")
        return self.value

    def items(self) -> list[Json]:
        """The parts of this part, a list."""
        if not isinstance(self.value, list):
            raise self.fault("a list")
        return [Json(value, self.service, f"{self.place}[{index}]") for index, value in enumerate(self.value)]

    def find_text(self, *names: str) -> str | None:
        """The string below these names; None where it is absent, null or empty."""
        found = self.find(*names)
        return (found.text() or None) if found is not None else None

    def find_word(self, *names: str) -> str | None:
        """The string or whole number below these names as text; None where it is absent, null or empty."""
        found = self.find(*names)
        return (found.word() or None) if found is not None else None

    def find_size(self, *names: str) -> int | None:
        """The number of bytes below these names; None where it is absent or null."""
        found = self.find(*names)
        return found.size() if found is not None else None

    def is_set(self, *names: str) -> bool:
        """Whether the flag below these names is there and true."""
        found = self.find(*names)
        return found is not None and found.flag()

    def find_items(self, *names: str) -> list[Json]:
        """The parts of the list below these names; none where it is absent or null."""
        found = self.find(*names)
        return found.items() if found is not None else []

    def fault(self, wanted: str) -> SourceFailed:
        """The error of an answer whose part here is not ``wanted``."""
        return SourceFailed(
            f"cannot read the answer of {self.service}: '{printable(self.place) or 'the whole'}' is not {wanted}",
            hint="the service may have changed; the files themselves can be added by their URIs",
            code="record-malformed",
        )


class Asking:
    """One resolution: the requests that it makes, at most `REQUESTS_MAX`."""

    def __init__(self, documents: Documents, progress: Progress) -> None:
        self._documents = documents
        self._progress = progress
        self._requests = 0

    def read_json(self, uri: str, *, service: str) -> Json:
        """The answer at ``uri``. Raises as `Documents.read_json`, and `SourceFailed` beyond the last request."""
        self._count(service)
        return Json(self._documents.read_json(uri, service=service, progress=self._progress), service)

    def find_json(self, uri: str, *, service: str) -> Json | None:
        """The answer at ``uri``; None for 404 and 410."""
        try:
            return self.read_json(uri, service=service)
        except SourceFailed as error:
            if error.code in ("http-404", "http-410"):
                return None
            raise

    def read_head(self, uri: str, *, service: str, limit_bytes: int) -> Head:
        """The first bytes of the document at ``uri``."""
        self._count(service)
        return self._documents.read_head(uri, limit_bytes=limit_bytes, progress=self._progress)

    def _count(self, service: str) -> None:
        self._requests += 1
        if self._requests > REQUESTS_MAX:
            raise too_large(service)


def too_large(service: str) -> SourceFailed:
    """The error of a record whose list of files has no end in sight."""
    return SourceFailed(
        f"the record at {service} has more than {FILES_MAX:,} files or {REQUESTS_MAX} pages and folders",
        hint="add the files that are wanted by their URIs",
        code="record-too-large",
    )
