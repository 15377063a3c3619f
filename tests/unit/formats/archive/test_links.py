"""Where links of an archive lead."""

from __future__ import annotations

import pytest

from dm.plumbing.formats.archive.links import leads_outside


def _leads_outside(link: bytes, links: dict[bytes, bytes]) -> bool:
    return leads_outside(link, links, lambda path: path)


@pytest.mark.parametrize(
    "target", [b"b", b"../b", b"c/../b", b"./.", b"..", b"missing/x", b"c//d/", b"../a/../b", b"missing/../x"]
)
def test_a_link_that_stays_leads_inside(target: bytes) -> None:
    assert not _leads_outside(b"a/link", {b"a/link": target})


@pytest.mark.parametrize("target", [b"../..", b"../../x", b"c/../../../x", b"../../a/b", b"missing/../../.."])
def test_a_link_that_goes_above_the_folder_leads_outside(target: bytes) -> None:
    assert _leads_outside(b"a/link", {b"a/link": target})


def test_each_part_is_followed_so_that_two_harmless_links_make_no_harmful_one() -> None:
    # By the text alone 'up/..' is the folder itself; through the link 'up' it is the folder's parent.
    links = {b"a/up": b"..", b"a/out": b"up/.."}
    assert not _leads_outside(b"a/up", links)
    assert _leads_outside(b"a/out", links)


def test_a_deep_link_makes_room_for_parents() -> None:
    links = {b"deep": b"a/b/c", b"near": b"deep/../../x"}
    assert not _leads_outside(b"near", links)


def test_a_circle_leads_nowhere() -> None:
    links = {b"a": b"b", b"b": b"a", b"self": b"self/x"}
    assert [False, False, False] == [_leads_outside(link, links) for link in links]


def test_an_absolute_link_on_the_way_leads_outside() -> None:
    assert _leads_outside(b"a", {b"a": b"b/c", b"b": b"/etc"})
