"""Reading, canonical form and edits in place."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import pytest

from dm.errors import DmError, Malformed, Refused
from dm.plumbing.records import toml
from dm.plumbing.records.toml import dump_canonical, read_toml
from dm.plumbing.records.toml_edit import (
    add_table,
    check_edit,
    find_line,
    format_value,
    remove_table,
    set_table,
    set_tables,
)

MANIFEST = """\
# What we need.
_META.schema = 1

# about sst
[sst]  # the surface
uri = "https://example.com/sst.nc"   # mirror: [elsewhere]
notes = '''
[fake]
checksum = "no"
'''
aliases = [
  "temperature", # ]
  'T',
]

[sst.extra]
k = 1 # stays

# about the proxies
["jesstierney/lgmDA"]
uri = "https://example.com/lgm.zip"
"""


def lines_changed(before: str, after: str) -> tuple[list[str], list[str]]:
    import difflib

    lines = list(difflib.unified_diff(before.split("\n"), after.split("\n"), lineterm="", n=0))[2:]
    return [line[1:] for line in lines if line[0] == "-"], [line[1:] for line in lines if line[0] == "+"]


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("a = 1\nb = x\n", "f.toml:2: malformed TOML: invalid value", "text needs quotes"),
        ("[a]\n[a]\n", "f.toml:2: malformed TOML: the table [a] is declared twice", "merge the two"),
        ("[a.b]\n[a.b]\n", "f.toml:2: malformed TOML: the table [a.b] is declared twice", "merge the two"),
        ("a = 1\na = 2\n", "f.toml:2: malformed TOML: the key stands here for the second time", "keep one"),
        ('a = "b\n', "f.toml:1: malformed TOML: illegal character '\\n'", None),
        ("\n[a\n", "f.toml:2: malformed TOML: expected ']' at the end of a table declaration", None),
        ('a = """b\n\n', "f.toml:1: malformed TOML: unterminated string", None),
        ("\ufeffa = 1\n", "f.toml:1: malformed TOML: it begins with a byte order mark", "without one"),
        ("a = " + "[" * 100_000, "f.toml: malformed TOML: values are nested too deeply", None),
        (f"[{'.'.join('a' * 101)}]", "f.toml: malformed TOML: values are nested too deeply", None),
        (".".join("a" * 101) + " = 1", "f.toml: malformed TOML: values are nested too deeply", None),
        ("a = " + "1" * 5000, "f.toml: malformed TOML: exceeds the limit", None),
    ],
    ids=["value", "table", "dotted", "key", "string", "header", "end", "mark", "depth", "tables", "names", "digits"],
)
def test_what_is_not_toml_is_one_line_with_file_and_line(text: str, message: str, hint: str | None) -> None:
    with pytest.raises(Malformed) as caught:
        read_toml(text, file=Path("f.toml"))
    assert message == caught.value.message[: len(message)]
    assert "\n" not in caught.value.message
    assert hint is None or hint in str(caught.value.hint)
    assert 7 == caught.value.exit_status


def test_bytes_that_are_not_utf8_are_named_with_their_line() -> None:
    with pytest.raises(Malformed) as caught:
        read_toml(b'a = 1\nb = "\xff"\n', file=Path("f.toml"))
    assert "f.toml:2: malformed TOML: byte 0xff is not UTF-8 text" == caught.value.message
    assert "save the file as UTF-8" == caught.value.hint


def test_setting_a_field_changes_its_line_only() -> None:
    after = set_table(MANIFEST, "sst", {"uri": "https://example.org/new.nc"})
    expected = (
        ['uri = "https://example.com/sst.nc"   # mirror: [elsewhere]'],
        ['uri = "https://example.org/new.nc"   # mirror: [elsewhere]'],
    )
    assert expected == lines_changed(MANIFEST, after)


def test_a_new_field_comes_after_the_last_one_of_its_table() -> None:
    after = set_table(MANIFEST, "sst", {"checksum": "sha256:00", "extract": True})
    assert ([], ['checksum = "sha256:00"', "extract = true"]) == lines_changed(MANIFEST, after)
    assert MANIFEST.replace("  'T',\n]\n", "  'T',\n]\nchecksum = \"sha256:00\"\nextract = true\n") == after


def test_a_value_over_several_lines_is_replaced_whole() -> None:
    after = set_tables(MANIFEST, {"sst": {"notes": "short", "aliases": None}})
    removed, added = lines_changed(MANIFEST, after)
    assert ['notes = "short"'] == added
    assert 8 == len(removed)


def test_a_table_of_another_language_and_sub_tables_stay() -> None:
    text = '[a]\nuri = "u"\n\n[a._LANG.julia.x]\ny = { z = 1 }\n\n[_LANG.julia.loaders]\nnc = "M.f" # kept\n'
    after = set_table(text, "a", {"checksum": "c"})
    assert ([], ['checksum = "c"']) == lines_changed(text, after)


def test_line_ends_of_windows_survive() -> None:
    text = '[a]\r\nuri = "u"\r\n\r\n[b]\r\nx = 1\r\n'
    assert '[a]\r\nuri = "v"\r\nnew = 1\r\n\r\n[b]\r\nx = 1\r\n' == set_table(text, "a", {"uri": "v", "new": 1})
    assert text + '\r\n[c]\r\nuri = "w"\r\n' == add_table(text, "c", {"uri": "w"})


def test_a_missing_newline_at_the_end_stays_missing() -> None:
    assert "[a]\nx = 1\ny = 2" == set_table("[a]\nx = 1", "a", {"y": 2})
    assert "[a]\nx = 2" == set_table("[a]\nx = 1", "a", {"x": 2})
    assert "[a]\nx = 1 # c\ny = 2" == set_table("[a]\nx = 1 # c", "a", {"y": 2})
    assert "[a]\nx = 1\ny = 3\n" == set_table("[a]\nx = 1\nz = 2", "a", {"z": None, "y": 3})


def test_dotted_keys_are_edited_where_they_stand() -> None:
    text = '  sst.uri = "u" # 1\nsst . x.y = 2\nother.uri = "o"\n\n[last]\n'
    after = set_table(text, "sst", {"uri": "v", "checksum": "c"})
    assert '  sst.uri = "v" # 1\nsst . x.y = 2\nsst.checksum = "c"\nother.uri = "o"\n\n[last]\n' == after
    assert '  sst.uri = "u" # 1\nother.uri = "o"\n\n[last]\n' == set_table(text, "sst", {"x": None})
    assert 'other.uri = "o"\n\n[last]\n' == remove_table(text, "sst")


def test_inline_tables_are_edited_where_they_stand() -> None:
    text = 'sst = { uri = "u", extra = { k = [ 1 ] } } # kept\nother = 1\n'
    after = set_tables(text, {"sst": {"checksum": "c", "uri": None}, ("sst", "extra"): {"n": 2}})
    assert {"sst": {"extra": {"k": [1], "n": 2}, "checksum": "c"}, "other": 1} == tomllib.loads(after)
    assert after.endswith(" # kept\nother = 1\n")
    assert "k = [ 1 ]" in after


def test_names_with_any_character_are_found_and_written() -> None:
    name = 'a.b "c" [d] é\n\\'
    text = add_table("", name, {"uri": "u"})
    after = set_table(text, name, {"uri": "v", "x y": 1})
    assert {name: {"uri": "v", "x y": 1}} == tomllib.loads(after)
    assert "" == remove_table(after, name)
    single = "['it is \"so\"']\nuri = 1\n"
    assert "['it is \"so\"']\nuri = 2\n" == set_table(single, 'it is "so"', {"uri": 2})


def test_a_header_that_is_only_implied_is_written_before_its_sub_table() -> None:
    text = "[x]\na = 1\n\n# about sub\n[sst.sub]\nk = 1\n"
    after = set_table(text, "sst", {"uri": "u"})
    assert '[x]\na = 1\n\n[sst]\nuri = "u"\n\n# about sub\n[sst.sub]\nk = 1\n' == after


def test_an_implied_header_and_the_end_of_the_table_before_it_do_not_mix() -> None:
    text = "[b]\n[a.sub]\nk = 1\n"
    after = set_tables(text, {"a": {"uri": "u"}, "b": {"x": 1}})
    assert '[b]\nx = 1\n[a]\nuri = "u"\n\n[a.sub]\nk = 1\n' == after


def test_a_sub_table_gives_way_to_a_value_of_its_name() -> None:
    text = '[a]\nuri = "u"\n\n[a.fetcher]\nref = "m:f"\n\n[a.fetcher.kwargs]\nk = 1\n\n[b]\n'
    assert '[a]\nuri = "u"\nfetcher = "m:g"\n\n[b]\n' == set_table(text, "a", {"fetcher": "m:g"})
    after = set_table(text, "a", {"fetcher": {"ref": "m:g", "args": [1]}})
    assert '[a]\nuri = "u"\nfetcher = { ref = "m:g", args = [1] }\n\n[b]\n' == after


def test_removing_a_table_keeps_the_comments_around_it() -> None:
    after = remove_table(MANIFEST, "sst")
    expected = """\
# What we need.
_META.schema = 1

# about sst

# about the proxies
["jesstierney/lgmDA"]
uri = "https://example.com/lgm.zip"
"""
    assert expected == after
    assert "# only\n" == remove_table("# only\n\n[a]\nx = 1\n\n", "a")


def test_fields_of_the_top_level_are_set_before_the_first_header() -> None:
    assert 'data = "/d"\n' == set_table("", (), {"data": "/d"})
    assert '# mine\ndata = "/d"\n' == set_table("# mine\n", (), {"data": "/d"})
    text = '# mine\n\n# about hosts\n[_HOST."login*"]\ncache = "/c"\n'
    assert text.replace("# about", 'data = "/d"\n\n# about') == set_table(text, (), {"data": "/d"})
    assert "a = 1\nb = 2\n\n[t]\n" == set_table("a = 1\n\n[t]\n", (), {"b": 2})


def test_nested_tables_are_added_and_edited_by_their_path() -> None:
    path = ("_STORAGE", "_HOST", "login*")
    text = set_table("", path, {"data": "/scratch"})
    assert '[_STORAGE._HOST."login*"]\ndata = "/scratch"\n' == text
    assert text.replace("scratch", "work") == set_table(text, path, {"data": "/work"})
    inline = "_STORAGE = { data = '/d' }\n"
    assert {"_STORAGE": {"data": "/d", "_HOST": {"login*": {"data": "/s"}}}} == tomllib.loads(
        set_table(inline, path, {"data": "/s"})
    )


def test_a_batch_is_one_pass_over_one_text() -> None:
    text = "".join(f'[d{number}]\nuri = "u{number}"\n\n' for number in range(300))
    changes = {f"d{number}": {"checksum": "c"} for number in range(0, 300, 3)}
    after = set_tables(text, {**changes, "d1": None, "new": {"uri": "n"}})
    expected = tomllib.loads(text)
    del expected["d1"]
    for name in changes:
        expected[name]["checksum"] = "c"
    expected["new"] = {"uri": "n"}
    assert expected == tomllib.loads(after)
    assert list(expected) == list(tomllib.loads(after))


def test_equal_values_are_left_as_they_are_written() -> None:
    text = "[a]\nx = 'y'\nn = 0x10\nf = nan\n"
    assert text == set_table(text, "a", {"x": "y", "n": 16, "f": float("nan"), "gone": None})
    assert "[a]\nx = 'y'\nn = 16.0\nf = nan\n" == set_table(text, "a", {"n": 16.0})


def test_a_name_that_stands_for_a_value_cannot_be_edited_as_a_table() -> None:
    with pytest.raises(Malformed) as caught:
        set_table("a = 1\n", "a", {"x": 1})
    assert "'a' is not a table" == caught.value.message
    with pytest.raises(Malformed) as caught:
        add_table("[a]\n", "a", {"x": 1})
    assert "the table 'a' is there already" == caught.value.message


def test_text_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        set_table("[a]\n", "a", {"path": "x\udcff"})
    assert (
        "cannot write '[a]\\npath = \"x\\udcff\"': it is not valid Unicode, which TOML demands" == caught.value.message
    )
    with pytest.raises(Refused):
        dump_canonical({"a": "\udcff"})
    with pytest.raises(Refused) as caught:
        format_value(object())
    assert "cannot write a value of type 'object' to TOML" == caught.value.message


def test_an_edit_that_would_change_something_else_is_not_handed_out() -> None:
    """A look-alike of a header inside a string, taken for one: the line went into the string, not into the table."""
    before = '[b]\ns = """\n[a]\n"""\n\n[a]\nx = 1\n'
    intended = {**tomllib.loads(before), "a": {"x": 1, "y": 2}}
    assert intended == check_edit(set_table(before, "a", {"y": 2}), intended, [("a",)])
    with pytest.raises(DmError) as caught:
        check_edit(before.replace('[a]\n"""', '[a]\ny = 2\n"""'), intended, [("a",)])
    assert "cannot edit 'a' in place: other values would have changed" == caught.value.message
    assert "nothing was written" in str(caught.value.hint)
    with pytest.raises(DmError) as caught:
        check_edit(before + "[a]\n", intended, [("a",), ("b", "c")])
    expected = "cannot edit 'a, b.c' in place: malformed TOML: the table [a] is declared twice"
    assert expected == caught.value.message


def test_lines_are_found_in_every_shape() -> None:
    assert 5 == find_line(MANIFEST, "sst")
    assert 6 == find_line(MANIFEST, "sst", "uri")
    assert 11 == find_line(MANIFEST, "sst", "aliases")
    assert 16 == find_line(MANIFEST, "sst", "extra")
    assert 17 == find_line(MANIFEST, ("sst", "extra"), "k")
    assert 5 == find_line(MANIFEST, "sst", "not there")
    assert 2 == find_line(MANIFEST, "_META", "schema")
    assert 20 == find_line(MANIFEST, "jesstierney/lgmDA")
    assert 2 == find_line(MANIFEST, (), "_META")
    assert find_line(MANIFEST, "absent") is None
    assert find_line("not toml", "a") is None
    assert 2 == find_line("x = 1\na = { b = 1 }\n", "a", "b")


def test_canonical_form_sorts_structural_tables_first_and_keeps_arrays() -> None:
    document = {"b": {"z": 1, "a": {"y": [3, 1, {"k": 1, "a": 2}]}}, "Z": {}, "_LANG": {}, "_A": 1, "é": {}, "a": {}}
    expected = """\
_A = 1

[_LANG]

[Z]

[a]

[b]
z = 1

[b.a]
y = [
    3,
    1,
    { a = 2, k = 1 },
]

["é"]
"""
    assert expected == dump_canonical(document).decode()


SAMPLES = [
    MANIFEST,
    "b = 1\na = 2\n[_META]\nschema = 1\n[Z]\n[a1]\nf = 1.0\ng = inf\nd = 1979-05-27T07:32:00Z\nt = 07:32:00\n",
    '[x]\narr = [1, [2, "a\\tb"], { z = 1, a = [] }]\ns = """l1\r\nl2 \\u00e9 " \\\\ \\u007f"""\n'
    "[[x.aot]]\nb = 1\na = 2\n[[x.aot]]\n",
    '["q \\"x\\""]\nuri = "é"\n["10.5281/zenodo.1"]\n_LANG.julia.f = "m"\n_LANG.python = { a = 1 }\n',
]


@pytest.mark.parametrize("text", SAMPLES, ids=range(len(SAMPLES)))
def test_canonical_form_has_the_same_bytes_as_the_python_peers(
    text: str, peer_executable: Path, tmp_path: Path
) -> None:
    path = tmp_path / "m.toml"
    path.write_bytes(text.encode())
    peer = subprocess.run([peer_executable, "format", path], capture_output=True, check=True, timeout=60)
    assert peer.stdout == dump_canonical(toml.read_toml(text))
