"""Which code a manifest names: where it is looked for, what beats what, and what is no binding."""

from __future__ import annotations

from pathlib import Path

import pytest

from dm.errors import Malformed
from dm.plumbing.records.bindings import (
    find_fetcher,
    find_loader,
    find_shell,
    has_source,
    list_foreign_fetchers,
    list_format_loaders,
    list_format_savers,
    read_binding,
)
from dm.plumbing.records.manifest import Manifest
from dm.values import Binding


def parse(text: str) -> Manifest:
    return Manifest.parse(text, Path("/project/datamanifest.toml"))


def test_both_forms_are_read() -> None:
    assert Binding("mod:fn", (), {}, "x") == read_binding(" mod:fn ", "x")
    table = {"ref": "mod:fn", "args": ["$path", 1], "kwargs": {"a": True}}
    assert Binding("mod:fn", ("$path", 1), {"a": True}, "x") == read_binding(table, "x")


@pytest.mark.parametrize(
    "value", [5, ["mod:fn"], {}, {"ref": 5}, {"ref": "m:f", "args": "no"}, {"ref": "m:f", "kwargs": []}]
)
def test_anything_else_is_malformed_with_the_place_that_says_it(value: object) -> None:
    with pytest.raises(Malformed, match=r"\[sst\] fetcher is no binding") as caught:
        read_binding(value, "[sst] fetcher")
    assert "binding-malformed" == caught.value.code


def test_explicit_beats_bare_beats_the_older_spelling() -> None:
    older = 'python = "a:old"\n'
    bare = 'fetcher = "a:bare"\nloader = "a:load"\n'
    explicit = '_LANG.python.fetcher = "a:explicit"\n'
    for text, expected in ((older, "a:old"), (older + bare, "a:bare"), (older + bare + explicit, "a:explicit")):
        found = find_fetcher(parse(f"[sst]\n{text}").datasets["sst"])
        assert found is not None and expected == found.ref
    assert find_fetcher(parse('[sst]\nuri = "https://a.example/b"\n').datasets["sst"]) is None


def test_a_datasets_loader_beats_the_manifests_for_its_format() -> None:
    manifest = parse('[_LOADERS]\nCSV = "a:csv"\n[one]\nloader = "a:own"\n[two]\nkey = "t.csv"\n')
    one, two = manifest.datasets["one"], manifest.datasets["two"]
    for each, data_format, expected in ((one, "csv", "a:own"), (two, "csv", "a:csv"), (two, "CSV", "a:csv")):
        found = find_loader(manifest, each, data_format)
        assert found is not None and expected == found.ref
    assert find_loader(manifest, two, "nc") is None
    assert find_loader(manifest, two, None) is None


def test_a_format_loader_of_this_language_beats_the_bare_one_in_any_case() -> None:
    manifest = parse('[_LOADERS]\ncsv = "a:bare"\nnc = "a:nc"\n[_LANG.python.loaders]\nCSV = "a:explicit"\n')
    assert {"csv": "a:explicit", "nc": "a:nc"} == {name: each.ref for name, each in list_format_loaders(manifest)}


def test_a_name_of_another_loader_stands_for_it_and_a_circle_is_named() -> None:
    manifest = parse('[_LOADERS]\ntxt = "csv"\ncsv = "a:csv"\n')
    assert {"txt": "a:csv", "csv": "a:csv"} == {name: each.ref for name, each in list_format_loaders(manifest)}
    with pytest.raises(Malformed, match="a -> b -> a"):
        list(list_format_loaders(parse('[_LOADERS]\na = "b"\nb = "a"\n')))


def test_a_list_among_the_loaders_is_a_setting_of_the_peers() -> None:
    manifest = parse('[_LOADERS]\npython_includes = ["lib"]\ncsv = "a:csv"\n')
    assert ["csv"] == [name for name, _ in list_format_loaders(manifest)]


def test_savers_are_named_as_loaders_are() -> None:
    text = '[_SAVERS]\nCSV = "a:bare"\nnc = "a:nc"\ncdf = "nc"\n[_LANG.python.savers]\ncsv = "a:explicit"\n'
    found = dict(list_format_savers(parse(text)))
    assert {"csv": "a:explicit", "nc": "a:nc", "cdf": "a:nc"} == {name: each.ref for name, each in found.items()}
    assert ["[_LANG.python.savers] csv", "[_SAVERS] nc"] == [found["csv"].origin, found["nc"].origin]
    assert [] == list(list_format_loaders(parse(text)))


@pytest.mark.parametrize(
    "words",
    [
        'args = ["$value", "$path"]',
        'kwargs = { of = { what = ["${value}"] }, to = "${path}.tmp" }',
        'args = ["$path/part"], kwargs = { what = "$value" }',
    ],
)
def test_a_saver_with_arguments_names_the_value_and_the_path(words: str) -> None:
    [(name, binding)] = list_format_savers(parse(f'[_SAVERS]\nnc = {{ ref = "a:nc", {words} }}\n'))
    assert ("nc", "a:nc") == (name, binding.ref)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[_SAVERS]\nnc = 5", "[_SAVERS] nc is no binding: it names no function"),
        ('[_SAVERS]\nnc = ["a:b"]', "[_SAVERS] nc is no binding: it names no function"),
        (
            '[_SAVERS]\nnc = { ref = "a:b", args = ["$path", "$value!"] }',
            "[_SAVERS] nc is no saver: none of its arguments is '$value', what it is to save",
        ),
        (
            '[_SAVERS]\nnc = { ref = "a:b", kwargs = { x = "$value" } }',
            "[_SAVERS] nc is no saver: none of its arguments has '$path', where it is to write",
        ),
        ("[_LANG.python]\nsavers = 5", "[_LANG.python.savers] is no table of savers by format"),
        ('[_SAVERS]\na = "b"\nb = "a"', "[_SAVERS] goes round in a circle: a -> b -> a"),
    ],
)
def test_what_is_no_saver_is_malformed(text: str, fault: str) -> None:
    with pytest.raises(Malformed) as caught:
        list(list_format_savers(parse(text + "\n")))
    assert fault == caught.value.message


def test_a_table_of_loaders_that_is_none_is_malformed() -> None:
    with pytest.raises(Malformed, match=r"\[_LANG.python.loaders\] is no table of loaders by format"):
        list(list_format_loaders(parse("[_LANG.python]\nloaders = 5\n")))
    with pytest.raises(Malformed, match=r"must be a table, as \[_SAVERS\]"):
        parse("_SAVERS = 5\n")


def test_shell_and_its_older_spelling() -> None:
    assert "get new" == find_shell(parse('[sst]\nshell = "get new"\n_LANG.shell.fetcher = "get old"\n').datasets["sst"])
    assert "get old" == find_shell(parse('[sst]\n_LANG.shell.fetcher = "get old"\n').datasets["sst"])
    assert find_shell(parse('[sst]\nshell = ""\n').datasets["sst"]) is None


def test_fetchers_of_other_languages_come_in_the_order_of_these() -> None:
    fetchers = "".join(f'_LANG.{language}.fetcher = "a:b"\n' for language in ("julia", "R", "python", "shell"))
    text = f'[sst]\n{fetchers}_LANG.go.loader = "x:y"\n'
    assert ["R", "julia"] == [language for language, _ in list_foreign_fetchers(parse(text).datasets["sst"])]


@pytest.mark.parametrize(
    "text",
    ['uri = "https://a.example/b"', 'shell = "get"', 'fetcher = "a:b"', 'python = "a:b"', '_LANG.R.fetcher = "a:b"'],
)
def test_anything_that_brings_bytes_is_a_source(text: str) -> None:
    assert has_source(parse(f"[sst]\n{text}\n").datasets["sst"])


def test_a_loader_brings_no_bytes() -> None:
    assert not has_source(parse('[sst]\nkey = "a"\n_LANG.R.loader = "a:b"\n').datasets["sst"])
