"""Telling a web page from data: what a server sends when it has not the file that was meant."""

from __future__ import annotations

from collections.abc import Mapping

#: How far into a page a listing shows itself: its title and the link to the folder above.
LISTING_HEAD_BYTES = 16 << 10
#: Apache, nginx, lighttpd; Python's http.server; IIS. Lower case.
_LISTING_SIGNS = (
    b"<title>index of",
    b"<h1>index of",
    b"<title>directory listing",
    b"<h1>directory listing",
    b">parent directory<",
    b"[to parent directory]",
    b'href="../"',
)
#: Formats whose data is a web page, and programs that write data of any kind.
_PAGE_FORMATS = frozenset({"html", "htm", "xhtml", "php", "asp", "aspx", "jsp", "cgi"})


def is_web_page(headers: Mapping[str, str]) -> bool:
    """Whether an answer says that it is HTML."""
    content_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return content_type in ("text/html", "application/xhtml+xml")


def is_page_expected(expected_format: str | None, file_name: str) -> bool:
    """Whether HTML is what was asked for; also when nothing is known of what was asked for.

    Without a format the file name's suffix speaks.
    """
    if expected_format is None:
        _, dot, suffix = file_name.rpartition(".")
        expected_format = suffix if dot and suffix.isalnum() else None
    return expected_format is None or expected_format.lower().lstrip(".") in _PAGE_FORMATS


def is_listing(head: bytes) -> bool:
    """Whether the beginning of a web page is that of a folder listing."""
    head = head[:LISTING_HEAD_BYTES].lower().replace(b"<title> ", b"<title>")
    return any(sign in head for sign in _LISTING_SIGNS)
