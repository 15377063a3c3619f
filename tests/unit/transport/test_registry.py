"""Which transport serves a URI; and what is said of one that none serves."""

from __future__ import annotations

from pathlib import Path

import pytest

from dm.errors import SourceFailed
from dm.plumbing.transport.file import FileFetcher
from dm.plumbing.transport.registry import Fetchers, find_fetcher
from dm.plumbing.transport.web import HttpFetcher
from tests.fixtures.fetching import make_environment


@pytest.mark.parametrize(
    ("uri", "expected"),
    [("http://h/x", HttpFetcher), ("HTTPS://h/x", HttpFetcher), ("file:///x", FileFetcher), ("file:/x", FileFetcher)],
)
def test_the_scheme_decides(tmp_path: Path, uri: str, expected: type) -> None:
    with Fetchers(make_environment(tmp_path)) as fetchers:
        assert expected is type(find_fetcher(uri, fetchers))


@pytest.mark.parametrize("uri", ["git://h/r", "https://h/r.git", "git+ssh://h/r", "git@h:owner/r", "file:///r.git"])
def test_repositories_have_one_transport_whatever_they_are_reached_by(tmp_path: Path, uri: str) -> None:
    from dm.plumbing.transport.git.fetcher import GitFetcher

    with Fetchers(make_environment(tmp_path)) as fetchers:
        assert GitFetcher is type(find_fetcher(uri, fetchers))
        assert find_fetcher("git+https://h/r", fetchers) is find_fetcher(uri, fetchers)


def test_the_known_schemes_are_sorted_and_hold_those_of_every_transport(tmp_path: Path) -> None:
    with Fetchers(make_environment(tmp_path)) as fetchers:
        assert sorted(fetchers.schemes) == list(fetchers.schemes)
        assert {"file", "git", "git+ssh", "http", "https"} <= set(fetchers.schemes)


def test_http_and_https_share_one_pool(tmp_path: Path) -> None:
    with Fetchers(make_environment(tmp_path)) as fetchers:
        assert find_fetcher("http://h/x", fetchers) is find_fetcher("https://h/x", fetchers)


@pytest.mark.parametrize(
    ("uri", "shown", "scheme"),
    [
        ("gopher://h/x", "gopher://h/x", "gopher"),
        ("gopher://ada:pw@h/x?token=1", "gopher://h/x?…", "gopher"),
    ],
)
def test_an_unknown_scheme_is_named_with_those_that_are_known(
    tmp_path: Path, uri: str, shown: str, scheme: str
) -> None:
    with Fetchers(make_environment(tmp_path)) as fetchers, pytest.raises(SourceFailed) as caught:
        find_fetcher(uri, fetchers)
    assert f"cannot fetch '{shown}': no transport for '{scheme}'" == caught.value.message
    assert (f"known are {', '.join(fetchers.schemes)}", "unknown-scheme", 5) == (
        caught.value.hint,
        caught.value.code,
        caught.value.exit_status,
    )


@pytest.mark.parametrize(("scheme", "near"), [("htps", "https"), ("giit", "git"), ("sftp", None)])
def test_a_slip_in_a_scheme_is_told_with_the_nearest(tmp_path: Path, scheme: str, near: str | None) -> None:
    with Fetchers(make_environment(tmp_path)) as fetchers, pytest.raises(SourceFailed) as caught:
        find_fetcher(f"{scheme}://h/x", fetchers)
    expected = f"did you mean '{near}'?" if near else f"known are {', '.join(fetchers.schemes)}"
    assert expected == caught.value.hint


@pytest.mark.parametrize("uri", ["data.csv", "/data.csv", "", "1http://x", "a b:c"])
def test_a_uri_without_a_scheme_is_an_error(tmp_path: Path, uri: str) -> None:
    with Fetchers(make_environment(tmp_path)) as fetchers, pytest.raises(SourceFailed) as caught:
        find_fetcher(uri, fetchers)
    assert f"cannot fetch '{uri}': it has no scheme" == caught.value.message
    known = ", ".join(fetchers.schemes)
    assert f"known are {known}; a file of this machine is file:///…" == caught.value.hint
