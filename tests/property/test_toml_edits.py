"""Edits in place: whatever the text looks like, the result is what was meant and every other line stays as it was."""

from __future__ import annotations

import tomllib
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from dm.plumbing.records.plain import quote_key
from dm.plumbing.records.toml import dump_canonical
from dm.plumbing.records.toml_edit import edit_tables, find_line, format_value

#: Values as people write them, over several lines and with what looks like a header.
VALUES = [
    '"https://example.com/a.nc"',
    "'C:\\no [escape] # here'",
    '""',
    "''",
    "1_000",
    "-0.5e3",
    "true",
    "inf",
    "1979-05-27 07:32:00Z",
    "07:32:00",
    '["a", \'b\', """c""", ]',
    '[ # [fake]\n  "x", # ]\n  [1, 2],\n]',
    "[]",
    '{ ref = "m:f", args = [1, "}"], kwargs = { a.b = 1 } }',
    "{}",
    '"""\n[fake]\nchecksum = "no"\n"""',
    '"""a ""quoted"" \\""" b"""',
    '""""""',
    "'''\n['fake']\nuri = 1\n'''",
    "'''a''''",
]
COMMENTS = ["# plain", "# [fake]", '#"""', "# x = 1", "#", "   # indented é"]
BARE = st.text("abcXYZ019-_", min_size=1, max_size=6)
NAMES = st.one_of(BARE, st.text(st.characters(codec="utf-8"), max_size=8)).filter(lambda name: name[:1] != "_")
FIELDS = st.sampled_from(["uri", "checksum", "digest", "aliases", "x.y", 'q"uoted', "é", "extract", ""])
NEW_VALUES = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=12),
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.lists(st.text("ab\"'\\\n#", max_size=4), max_size=3),
    st.dictionaries(st.sampled_from(["ref", "a b"]), st.text("ab", max_size=3), max_size=2),
)


class Block(NamedTuple):
    """The text of one table as it stands in a document."""

    name: str
    text: str
    at_root: bool


@st.composite
def blocks(draw: st.DrawFn, name: str) -> Block:
    shape = draw(st.sampled_from(["header", "header", "header", "dotted", "inline", "subtable"]))
    key = quote_key(name) if draw(st.booleans()) or "'" in name or not name.isprintable() else f"'{name}'"
    fields = draw(st.lists(FIELDS, unique=True, max_size=4))
    values = [draw(st.sampled_from(VALUES)) for _ in fields]
    if shape == "dotted" and fields:
        lines = [f"{key} . {quote_key(field)} = {value}" for field, value in zip(fields, values, strict=True)]
        return Block(name, "\n".join(lines) + "\n", True)
    if shape == "inline":
        inner = ", ".join(
            f"{quote_key(field)} = {value}" for field, value in zip(fields, values, strict=True) if "\n" not in value
        )
        return Block(name, f"{key} = {{ {inner} }}  # kept\n", True)
    lines = []
    if draw(st.booleans()):
        lines.append(draw(st.sampled_from(COMMENTS)))
    if shape == "header" or not fields:
        lines.append(draw(st.sampled_from(["[{}]", "  [ {} ]  # note", "[{}]"])).format(key))
        for field, value in zip(fields, values, strict=True):
            if draw(st.integers(0, 3)) == 0:
                lines.append(draw(st.sampled_from([*COMMENTS, ""])))
            indent, note = draw(st.sampled_from([("", ""), ("  ", " # [note]"), ("\t", "")]))
            lines.append(f"{indent}{quote_key(field)} = {value}{note}")
    if shape == "subtable" or draw(st.integers(0, 4)) == 0:
        lines.append(f"[{key}.extra]\nk = {draw(st.sampled_from(VALUES))}")
        lines.append(f"[[{key}.items]]\nk = 1\n[[{key}.items]]")
    lines += draw(st.lists(st.sampled_from(["", *COMMENTS]), max_size=2))
    return Block(name, "\n".join(lines) + "\n", False)


class Case(NamedTuple):
    """A document, what it is made of, and what is to be changed."""

    text: str
    blocks: list[Block]
    changes: dict[str, dict[str, Any] | None]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    names = draw(st.lists(NAMES, unique=True, min_size=1, max_size=5))
    made = [draw(blocks(name)) for name in names]
    made.sort(key=lambda block: not block.at_root)
    newline = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    made = [block._replace(text=block.text.replace("\n", newline)) for block in made]
    head = draw(st.sampled_from(["", "# head\n\n", "# head\n", "_x = 1\n_META.schema = 1 # one\n"])).replace(
        "\n", newline
    )
    tail = draw(st.sampled_from(["", "[_LANG.julia.x]\nq = [\n1]\n", "# end\n", "\n\n"])).replace("\n", newline)
    text = head + "".join(block.text for block in made) + tail
    if draw(st.integers(0, 3)) == 0:
        text = text.rstrip("\r\n")
    touched = draw(st.lists(st.sampled_from(names), unique=True, max_size=3)) + draw(
        st.lists(NAMES.filter(lambda name: name not in names), unique=True, max_size=2)
    )
    changes: dict[str, dict[str, Any] | None] = {}
    for name in touched:
        fields = draw(
            st.dictionaries(
                st.one_of(FIELDS, st.sampled_from(["extra", "items"])), st.one_of(st.none(), NEW_VALUES), max_size=3
            )
        )
        changes[name] = draw(st.one_of(st.none(), st.just(fields), st.just(fields)))
    return Case(text, made, changes)


def intend(document: dict[str, Any], changes: dict[str, dict[str, Any] | None]) -> dict[str, Any]:
    intended = dict(document)
    for name, fields in changes.items():
        if fields is None:
            intended.pop(name, None)
        else:
            table = {**intended.get(name, {}), **fields}
            intended[name] = {field: value for field, value in table.items() if value is not None}
    return intended


@given(cases())
def test_an_edit_does_what_was_meant_and_keeps_every_other_table_to_the_byte(case: Case) -> None:
    before = tomllib.loads(case.text)
    edited = edit_tables(case.text, case.changes)
    assert intend(before, case.changes) == tomllib.loads(edited.text) == edited.document
    position = 0
    for block in case.blocks:
        if block.name not in case.changes:
            # Blank lines beside a removed table may go; the comment above a header is the next table's.
            lines = block.text.split("\n")
            while lines and (not lines[-1].strip() or lines[-1].lstrip().startswith("#")):
                lines.pop()
            kept = "\n".join(lines).strip("\r\n ")
            found = edited.text.find(kept, position)
            assert (block.text, True) == (block.text, found >= 0)
            position = found + len(kept)


@given(cases())
def test_an_edit_keeps_comments_and_the_statements_beside_those_that_change(case: Case) -> None:
    edited = edit_tables(case.text, {name: fields for name, fields in case.changes.items() if fields is not None})
    before = tomllib.loads(case.text)
    for block in case.blocks:
        changed = set(case.changes.get(block.name) or ())
        if block.at_root or changed & {"extra", "items"}:
            continue
        # Comments inside a value that is replaced go with it.
        replaced = [before[block.name].get(field) for field in changed]
        if any(isinstance(value, list | str) and "fake" in repr(value) for value in replaced) or "[ #" in block.text:
            continue
        for line in block.text.splitlines():
            if line.lstrip().startswith("#"):
                assert line in edited.text


@given(cases())
def test_an_edit_that_changes_nothing_gives_the_same_text(case: Case) -> None:
    document = tomllib.loads(case.text)
    same = {name: dict(table) for name, table in document.items() if isinstance(table, dict)}
    assert case.text == edit_tables(case.text, {**same, "not there": None}).text


@given(cases())
def test_every_field_is_found_on_its_line(case: Case) -> None:
    """Replacing a value by a marker through the editor and looking for the marker gives the same line."""
    document = tomllib.loads(case.text)
    for name, table in document.items():
        for field, value in table.items() if isinstance(table, dict) and name[:1] != "_" else ():
            line = find_line(case.text, name, field)
            assert line is not None
            if isinstance(value, str | bool | int | float):
                marked = edit_tables(case.text, {name: {field: "M4RKER"}}).text
                assert "M4RKER" in marked.split("\n")[line - 1]


@given(st.dictionaries(NAMES, st.dictionaries(FIELDS, NEW_VALUES, max_size=4), max_size=5))
def test_canonical_text_reads_back_and_is_a_fixed_point(document: dict[str, Any]) -> None:
    data = dump_canonical(document)
    assert document == tomllib.loads(data.decode())
    assert data == dump_canonical(tomllib.loads(data.decode()))


@given(st.recursive(NEW_VALUES, lambda inner: st.lists(inner, max_size=3)))
def test_a_value_reads_back_as_itself(value: Any) -> None:
    assert value == tomllib.loads(f"x = {format_value(value)}")["x"]
