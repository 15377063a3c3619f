"""The resume journal: what a partial file is a part of.

Lies beside the partial file and is written before its first byte, so that a later run can ask the server for the rest
and for nothing else. A partial file without a journal counts for nothing. The order that keeps two versions of a source
from being stitched together: to begin anew the journal goes first, then the bytes, then the new journal comes, then the
new bytes.

Regenerable: one that cannot be understood is dropped, and the transfer begins anew.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Self

from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.fs.publish import replace
from dm.plumbing.hashing import blake3_of

_FORMAT = 1


class Journal(NamedTuple):
    """What was said of the whole when its first byte came.

    ``source`` is the BLAKE3 of the URI (the URI itself may hold a secret), ``validator`` the value for If-Range: a
    strong ETag, or a Last-Modified that is strong (RFC 9110, 8.8). ``total`` is the size of the whole in bytes, None
    when the server did not say. ``boot`` names the start of this machine since which the bytes were written, and
    ``flushed`` how many are known to have reached the disk: after a power failure only those count.
    """

    source: str
    validator: str
    total: int | None
    boot: str = ""
    flushed: int = 0

    @classmethod
    def begin(cls, uri: str, headers: Mapping[str, str], total: int | None) -> Self | None:
        """A journal for an answer that sends the whole; None when a part of it could not be continued safely.

        That is: no strong validator, ranges declined, or a body that was encoded on the way (two encodings of the same
        bytes need not be the same).
        """
        validator = find_validator(headers)
        declined = headers.get("Accept-Ranges", "").strip().lower() == "none"
        if validator is None or declined or is_encoded(headers):
            return None
        return cls(source_of(uri), validator, total)

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read a journal; None when there is none or it says nothing usable."""
        import json

        try:
            document = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return None
        if not isinstance(document, dict) or document.pop("format", None) != _FORMAT:
            return None
        if set(document) != set(cls._fields):
            return None
        journal = cls(**document)
        texts = (journal.source, journal.validator, journal.boot)
        if not all(isinstance(text, str) and text.isprintable() and text.isascii() for text in texts):
            return None
        if type(journal.flushed) is not int or not (journal.total is None or type(journal.total) is int):
            return None
        return journal

    def write(self, path: Path) -> None:
        """Write it whole, or not at all, as of this start of the machine.

        The new text has one fixed name beside the old: a kill leaves it where the next run writes over it.
        """
        import json

        document = {"format": _FORMAT, **self._replace(boot=read_boot_id())._asdict()}
        fresh = fresh_path(path)
        with machine_errors("write", fresh):
            fresh.write_bytes(json.dumps(document).encode())
        replace(fresh, path)

    def find_usable_bytes(self, uri: str, size_bytes: int) -> int:
        """How many of the ``size_bytes`` that lie there may be continued for ``uri``; 0 when none.

        The last byte of a whole one is asked for again: its answer carries the validator, so that the server confirms
        all of it (a plain 416 confirms nothing).
        """
        if self.source != source_of(uri):
            return 0
        usable = size_bytes if self.boot and self.boot == read_boot_id() else min(size_bytes, self.flushed)
        if self.total is None:
            return usable
        return 0 if size_bytes > self.total else min(usable, self.total - 1)

    def contradicts(self, headers: Mapping[str, str]) -> bool:
        """Whether an answer that should continue this one speaks of other content."""
        if is_encoded(headers):
            return True
        name = "ETag" if self.validator.startswith('"') else "Last-Modified"
        said = headers.get(name)
        return said is not None and said.strip() != self.validator


def journal_path(partial: Path) -> Path:
    """Where the journal of a partial file lies. A key cannot end in ``.tmp``, so no dataset's file has this name."""
    return partial.with_name(partial.name + ".resume.tmp")


def source_of(uri: str) -> str:
    """The name of a source in a journal."""
    return blake3_of(uri.encode("utf-8", "surrogateescape")).hex()


def is_encoded(headers: Mapping[str, str]) -> bool:
    """Whether a body comes with a Content-Encoding."""
    return headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity")


def find_validator(headers: Mapping[str, str]) -> str | None:
    """The value for If-Range, None when the answer has no strong one.

    A strong ETag, else a Last-Modified that is at least a second older than the answer's Date: a younger one cannot
    tell two versions of the same second apart (RFC 9110, 8.8.2.2 and 13.1.5).
    """
    etag = headers.get("ETag", "").strip()
    if len(etag) > 2 and etag[0] == etag[-1] == '"' and etag.isprintable() and etag.isascii():
        return etag
    modified = headers.get("Last-Modified", "").strip()
    modified_s = read_http_date_s(modified)
    answered_s = read_http_date_s(headers.get("Date", ""))
    if modified_s is None or answered_s is None or answered_s - modified_s < 1:
        return None
    return modified if modified.isprintable() and modified.isascii() else None


def read_http_date_s(text: str) -> float | None:
    """Seconds since the epoch of a date as HTTP writes it (RFC 9110, 5.6.7); None when it is none."""
    from email.utils import mktime_tz, parsedate_tz

    parts = parsedate_tz(text.strip())
    try:
        return None if parts is None else float(mktime_tz(parts))
    except (ValueError, OverflowError):
        return None


def read_boot_id() -> str:
    """A name that this machine has until it is started again; empty where there is none."""
    if sys.platform == "darwin":
        return _read_boot_session()
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _read_boot_session() -> str:
    import ctypes

    size = ctypes.c_size_t(64)
    text = ctypes.create_string_buffer(size.value)
    libc = ctypes.CDLL(None)
    failed = libc.sysctlbyname(b"kern.bootsessionuuid", text, ctypes.byref(size), None, ctypes.c_size_t(0))
    return "" if failed else text.value.decode("ascii", "replace")


def fresh_path(journal: Path) -> Path:
    """Where a journal's new text is written before it takes the old one's place."""
    return journal.with_name(f"{journal.name}.new")
