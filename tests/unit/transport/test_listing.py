"""Telling a web page from data."""

from __future__ import annotations

import pytest

from dm.plumbing.transport.listing import is_listing, is_page_expected, is_web_page


@pytest.mark.parametrize(
    "head",
    [
        b"<html>\r\n<head><title>Index of /data/</title></head>",
        b"<HTML><HEAD><TITLE>Index of /data</TITLE>",
        b"<title>Directory listing for /data/</title>",
        b'<h1>files</h1><a href="../">../</a>',
        b'<A HREF="/">[To Parent Directory]</A>',
        b'<td><a href="/">Parent Directory</a></td>',
    ],
)
def test_the_listings_of_common_servers_are_known(head: bytes) -> None:
    assert True is is_listing(head)


def test_a_page_that_speaks_of_an_index_is_no_listing() -> None:
    assert False is is_listing(b"<title>El Nino</title><p>An index of the temperature in the Pacific</p>")


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("text/html", True),
        ("Text/HTML; charset=utf-8", True),
        ("application/xhtml+xml", True),
        ("text/plain", False),
        ("application/octet-stream", False),
        ("", False),
    ],
)
def test_html_is_known_by_its_type(content_type: str, expected: bool) -> None:
    assert expected == is_web_page({"Content-Type": content_type})


@pytest.mark.parametrize(
    ("expected_format", "file_name", "expected"),
    [
        ("html", "x", True),
        ("HTML", "x", True),
        (".html", "x", True),
        ("nc", "x.html", False),
        (None, "x.html", True),
        (None, "x.php", True),
        (None, "x.nc", False),
        (None, "x", True),
        (None, "report of 3. May", True),
    ],
)
def test_a_page_is_expected_by_format_else_by_suffix(
    expected_format: str | None, file_name: str, expected: bool
) -> None:
    assert expected == is_page_expected(expected_format, file_name)
