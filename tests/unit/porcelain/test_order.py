"""``requires``: what it names, its circles, and who waits for whom."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dm.errors import Malformed
from dm.plumbing.records.manifest import Manifest
from dm.porcelain.order import Cycles, Waiting, find_required


def make(requires: Mapping[str, list[str]], **more: object) -> Manifest:
    tables: dict[str, object] = {name: {"requires": needed} for name, needed in requires.items()}
    return Manifest.of_tables({**tables, **more}, project_root=Path("/project"))


def find_circle(manifest: Manifest, name: str) -> str | None:
    try:
        Cycles(manifest).check(manifest.datasets[name])
    except Malformed as error:
        assert ("requires-cycle", 7) == (error.code, error.exit_status)
        return error.message.removeprefix("'requires' goes round in a circle: ")
    return None


def test_identifiers_of_every_kind_are_followed_once_each() -> None:
    manifest = make({"a": ["b", "third", "doi:10.1/X", "b"], "b": []}, c={"aliases": ["third"]}, d={"doi": "10.1/x"})
    found = [(identifier, dataset.name) for identifier, dataset in find_required(manifest, manifest.datasets["a"])]
    assert [("b", "b"), ("third", "c"), ("doi:10.1/X", "d")] == found


def test_an_identifier_that_names_none_or_several_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "datamanifest.toml"
    tables = ['[a]\nrequires = ["bb"]', '[b]\naliases = ["same"]', '[c]\naliases = ["same"]\nrequires = ["same"]']
    path.write_text("\n\n".join(tables) + "\n")
    manifest = Manifest.read(path)
    for name, message in (
        ("a", f"{path}:2: dataset 'a': cannot follow 'requires': no dataset 'bb'"),
        ("c", f"{path}:9: dataset 'c': cannot follow 'requires': 'same' is ambiguous: 'b', 'c'"),
    ):
        with pytest.raises(Malformed) as caught:
            find_required(manifest, manifest.datasets[name])
        assert (message, "requires-unknown") == (str(caught.value), caught.value.code)


@pytest.mark.parametrize(
    ("requires", "circles"),
    [
        ({"a": ["b"], "b": ["a"]}, {"a": "a -> b -> a", "b": "b -> a -> b"}),
        ({"a": ["a"]}, {"a": "a -> a"}),
        ({"a": ["b"], "b": ["c"], "c": ["b"]}, {"a": None, "b": "b -> c -> b", "c": "c -> b -> c"}),
        ({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []}, {"a": None, "b": None, "c": None, "d": None}),
        ({"a": ["b"], "b": ["c"], "c": ["a", "b"]}, {"a": "a -> b -> c -> a", "b": "b -> c -> b"}),
        ({"a": ["nobody"]}, {"a": None}),
    ],
)
def test_a_circle_is_named_from_each_of_its_members_and_from_nobody_else(
    requires: dict[str, list[str]], circles: dict[str, str | None]
) -> None:
    assert circles == {name: find_circle(make(requires), name) for name in circles}


def test_a_chain_of_ten_thousand_is_walked() -> None:
    requires = {f"d{number}": [f"d{number + 1}"] for number in range(10_000)}
    manifest = make(requires, d10000={})
    cycles = Cycles(manifest)
    for name in ("d0", "d5000", "d9999"):
        cycles.check(manifest.datasets[name])
    closed = make({**requires, "d10000": ["d0"]})
    told = "d0 -> d1 -> d2 -> d3 -> d4 -> d5 -> d6 -> d7 -> … (9991 more) -> d9999 -> d10000 -> d0"
    assert told == find_circle(closed, "d0")


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=3)))
def test_who_reaches_itself_is_in_a_circle(requires: dict[str, list[str]]) -> None:
    complete = {name: requires.get(name, []) for name in "abcdef"}
    manifest = make(complete)
    cycles = Cycles(manifest)
    for name in complete:
        reached: set[str] = set()
        todo = list(complete[name])
        while todo:
            other = todo.pop()
            if other not in reached:
                reached.add(other)
                todo += complete[other]
        try:
            cycles.check(manifest.datasets[name])
            circle = None
        except Malformed as error:
            circle = error.message.rpartition(": ")[2].split(" -> ")
        assert (name in reached) == (circle is not None)
        if circle is not None:
            assert circle[0] == circle[-1] == name
            assert all(after in complete[before] for before, after in pairwise(circle))


def test_who_waits_is_free_when_all_that_it_needs_is_there() -> None:
    waiting = Waiting()
    waiting.add(0, [1, 2, 1])
    waiting.add(3, [1])
    assert [3] == waiting.settle(1)
    assert [0] == waiting.settle(2)
    assert [] == waiting.settle(2)
    waiting.add(4, [5])
    assert [4] == waiting.give_up(5)
