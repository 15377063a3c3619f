"""Which proxy the variables name, and for whom not."""

from __future__ import annotations

from pathlib import Path

import pytest

from dm.plumbing.transport.proxies import find_proxy, is_excepted
from tests.fixtures.fetching import make_environment


@pytest.mark.parametrize(
    ("variables", "scheme", "expected"),
    [
        ({}, "http", None),
        ({"http_proxy": "http://p:1"}, "http", "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, "http", "http://p:1"),
        ({"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, "http", None),
        ({"HTTPS_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, "https", "http://p:1"),
        ({"http_proxy": "http://low", "HTTP_PROXY": "http://up"}, "http", "http://low"),
        ({"http_proxy": "http://p:1"}, "https", None),
        ({"https_proxy": "p:3128"}, "https", "http://p:3128"),
        ({"ALL_PROXY": "http://all"}, "https", "http://all"),
        ({"ALL_PROXY": "http://all", "https_proxy": "http://one"}, "https", "http://one"),
        ({"http_proxy": ""}, "http", None),
        ({"http_proxy": "http://p:1", "NO_PROXY": "example.org"}, "http", None),
    ],
)
def test_the_proxy_for_a_host(tmp_path: Path, variables: dict[str, str], scheme: str, expected: str | None) -> None:
    assert expected == find_proxy(make_environment(tmp_path, **variables), scheme, "data.example.org", 80)


@pytest.mark.parametrize(
    ("rules", "host", "expected"),
    [
        ("", "example.org", False),
        ("*", "example.org", True),
        ("example.org", "example.org", True),
        ("example.org", "EXAMPLE.org.", True),
        ("example.org", "data.example.org", True),
        (".example.org", "data.example.org", True),
        (".example.org", "example.org", True),
        ("*.example.org", "data.example.org", True),
        ("example.org", "badexample.org", False),
        ("localhost, example.org", "example.org", True),
        ("localhost example.org", "example.org", True),
        ("example.org:80", "example.org", True),
        ("example.org:443", "example.org", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8", "example.org", False),
        ("::1", "[::1]", True),
        ("[::1]:80", "[::1]", True),
        ("[::1]:81", "[::1]", False),
        ("nonsense/99", "10.1.2.3", False),
        (",,", "example.org", False),
    ],
)
def test_who_is_reached_without_a_proxy(rules: str, host: str, expected: bool) -> None:
    assert expected == is_excepted(rules, host, 80)
