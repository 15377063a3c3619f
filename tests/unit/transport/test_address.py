"""What a URI says: its scheme, and what of it may be said aloud."""

from __future__ import annotations

import pytest

from dm.plumbing.transport.address import describe_uri, find_scheme


@pytest.mark.parametrize(
    ("uri", "scheme"),
    [
        ("http://h/x", "http"),
        ("HTTP://h/x", "http"),
        ("git+https://h/x", "git+https"),
        ("https://h/owner/x.git", "git"),
        ("https://h/owner/x.git/", "git"),
        ("https://h/owner/x.git?ref=v1#main", "git"),
        ("https://h/x.gitignore", "https"),
        ("git@h:owner/x", "git"),
        ("file:/x", "file"),
        ("/a:b", None),
        ("x", None),
        ("", None),
        (":x", None),
        ("9p://x", None),
        ("http//x", None),
    ],
)
def test_the_scheme_of_a_uri(uri: str, scheme: str | None) -> None:
    assert scheme == find_scheme(uri)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://h/x", "http://h/x"),
        ("http://h/x?id=1", "http://h/x?id=1"),
        ("http://h/x?id=1&format=nc#v2", "http://h/x?id=1&format=nc"),
        ("http://ada:pw@h:80/x", "http://h:80/x"),
        ("http://h/x@y", "http://h/x@y"),
        ("http://h/x?token=1", "http://h/x?…"),
        ("http://h/x?id=1&X-Amz-Signature=ab", "http://h/x?…"),
        ("http://h/x?id=1;API_KEY=ab", "http://h/x?…"),
        ("http://h/x?a=0123456789012345678901234", "http://h/x?…"),
        ("http://h/x?0123456789012345678901234", "http://h/x?…"),
        ("http://h/x\n\x1b[31m", "http://h/x\\n\\x1b[31m"),
        ("file:///a b", "file:///a b"),
        ("git@h:x", "git@h:x"),
    ],
)
def test_what_is_shown_of_a_uri(uri: str, shown: str) -> None:
    assert shown == describe_uri(uri)
