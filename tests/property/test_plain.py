"""Plain TOML is read and written as the libraries do it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from dm.plumbing.records.plain import read_plain, write_plain
from dm.plumbing.records.toml import dump_canonical

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12) | st.sampled_from(
    ["a.b/c", 'say "x"', "back\\slash", "tab\t", "line\n", "\x7f", "é", "_META", "datasets", "sha256"]
)
tables = st.recursive(
    st.dictionaries(texts, texts | st.integers(0, 10**12), max_size=4),
    lambda below: st.dictionaries(texts, texts | below, max_size=4),
    max_leaves=12,
)


@given(tables)
def test_the_bytes_are_those_of_the_canonical_form(document: dict[str, object]) -> None:
    assert write_plain(document) == dump_canonical(document).decode()


@given(tables)
def test_what_is_read_is_what_the_library_reads_or_nothing(document: dict[str, object]) -> None:
    text = dump_canonical(document).decode()
    assert read_plain(text) in (None, tomllib.loads(text))


lines = st.sampled_from(
    [
        "",
        "[a]",
        "[a.b]",
        '[a."b.c"]',
        '["a"]',
        "[b]",
        "[[a]]",
        "[a ]",
        "[a",
        "[]",
        '[a."b]',
        "[a..b]",
        "[a.]",
        '[a."b"c]',
        'x = "1"',
        'x = "2"',
        'b = "3"',
        "x = 1",
        "x = 01",
        "x = 1_0",
        "x = -1",
        "x = true",
        "x = false",
        "x = True",
        "x = []",
        'x = ["1"]',
        'x = ["1", "2, 3"]',
        'x = ["1", "2",]',
        'x = ["1" , "2"]',
        'x = ["1", 2]',
        'x = ["1", ["2"]]',
        'x = ["1"',
        'x = ["\\n"]',
        'x = ["a"b"]',
        'x = ["]',
        "x = [ ]",
        "[x]",
        "[x.y]",
        'x = "a\\n"',
        'x = "a" # c',
        "x = 'a'",
        'x = """a"""',
        'x = ""',
        'x = "a"b"',
        "x = [1]",
        "x = {a = 1}",
        'a.b = "1"',
        '"a b" = "1"',
        '"a"b" = "1"',
        '= "1"',
        'x="1"',
        "# comment",
        '# "comment" = [',
        "#\x01",
        " # comment",
        " x = 1",
        "x = ١",
        'é = "1"',
        '"" = "1"',
        '[""]',
        'x = "a\tb"',
        'x = "\x01"',
        'x = "\u00a0"',
    ]
)


@given(st.lists(lines, max_size=8))
def test_whatever_is_not_plain_or_not_toml_is_left_to_the_library(parts: list[str]) -> None:
    text = "\n".join(parts)
    plain = read_plain(text)
    if plain is not None:
        assert plain == tomllib.loads(text)


@given(st.dictionaries(texts, st.booleans() | st.floats() | st.lists(texts) | st.none(), min_size=1, max_size=2))
def test_a_value_that_is_not_plain_is_left_to_the_library(document: Mapping[str, object]) -> None:
    assert write_plain({"table": document}) is None


def test_the_form_that_state_files_have_needs_no_library() -> None:
    text = '[_META]\nschema = 5\n\n[datasets."example.com/a b.nc"]\nsha256 = "ab"\nstorage_path = "/d/é"\n\n[x.y]\n'
    assert read_plain(text) == tomllib.loads(text) != None  # noqa: E711


def test_the_form_that_manifests_have_needs_no_library() -> None:
    text = (
        "# ours\n[_META]\nschema = 1\n\n[sst]\n# the first\nextract = true\nlazy_access = false\n"
        'aliases = []\nuris = ["https://example.com/a", "https://example.com/b,c"]\n'
    )
    assert read_plain(text) == tomllib.loads(text) != None  # noqa: E711
