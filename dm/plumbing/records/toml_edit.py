"""Edits of a TOML text in place: the lines concerned change and nothing else.

The exact place of a value is found by a scanner (`dm.plumbing.records.toml_lines`), the new value is spliced in, and
the result is parsed again and compared with the document that was meant before anybody uses it. Comments, order,
unknown keys, line ends and a missing newline at the end stay. tomlkit edits what is inside an inline table.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from dm.errors import DmError, Malformed, Refused
from dm.plumbing.records.plain import quote, quote_key
from dm.plumbing.records.toml import dump_toml, encode_toml, parse_editable, read_toml
from dm.plumbing.records.toml_lines import NotScannable, Section, Statement, TomlText
from dm.values import printable

#: A table's name at the top level, or its whole path.
TableName = str | tuple[str, ...]
#: Fields to set; None removes the field.
Changes = Mapping[str, object]


def find_line(text: str, table: TableName, field: str | None = None) -> int | None:
    """The line, from 1, of a table of a valid TOML text, or of one of its fields.

    ``table`` is a top-level name, a path, or ``()`` for the top level. A field that is not there gives its table's
    line; None when there is no such table.
    """
    try:
        return TomlText(text).find_line(_as_path(table), field)
    except NotScannable:
        return None


def _as_path(table: TableName) -> tuple[str, ...]:
    return (table,) if isinstance(table, str) else table


class Edited(NamedTuple):
    """A text after an edit, and the document that it holds."""

    text: str
    document: dict[str, Any]


def set_table(text: str, table: TableName, changes: Changes) -> str:
    """`set_tables` for one table."""
    return set_tables(text, {table: changes})


def add_table(text: str, table: TableName, fields: Mapping[str, object]) -> str:
    """Add a table that is not there yet, at the end. Raises `Malformed` when it is there."""
    if _find_table(read_toml(text), _as_path(table)) is not None:
        raise Malformed(f"the table '{printable('.'.join(_as_path(table)))}' is there already", code="table-exists")
    return set_tables(text, {table: fields})


def remove_table(text: str, table: TableName) -> str:
    """Remove a table with everything below it; unchanged when there is none."""
    return set_tables(text, {table: None})


def set_tables(text: str, changes: Mapping[TableName, Changes | None]) -> str:
    """Edit several tables of a valid TOML text in one pass and return the new text."""
    return edit_tables(text, changes).text


def edit_tables(
    text: str, changes: Mapping[TableName, Changes | None], *, document: Mapping[str, Any] | None = None
) -> Edited:
    """Edit several tables in one pass; every line that is not concerned stays as it is, to the byte.

    For each table (a top-level name or a path; ``()`` is the top level): a mapping sets the fields it holds and removes
    those that are None; a table that is not there is added at the end; None removes the table and what is below it
    (comments above its header and after its last value stay). ``document`` is what the text holds, when it is known.

    The new text is parsed and compared with what was meant before it is returned. Raises `Malformed` when the text is
    not TOML or a table's name stands for something else, `Refused` for a value that TOML cannot hold.
    """
    if document is None:
        document = read_toml(text)
    wanted = {_as_path(table): None if fields is None else _plain(fields) for table, fields in changes.items()}
    intended = _apply(document, wanted)
    if _is_same(document, intended):
        return Edited(text, intended)
    try:
        new_text = _Editor(text, document).edit(wanted)
    except NotScannable as error:
        raise _cannot_edit(wanted, f"line {text.count(chr(10), 0, error.offset) + 1} was not understood") from error
    encode_toml(new_text)
    return Edited(new_text, check_edit(new_text, intended, wanted))


def check_edit(text: str, intended: Mapping[str, Any], tables: Iterable[tuple[str, ...]]) -> dict[str, Any]:
    """The guard behind every edit in place: parse its result and return the document, which is exactly what was meant.

    Raises a plain `DmError` (exit 70) that names ``tables`` when it is not: then nothing may be written.
    """
    try:
        got = read_toml(text)
    except Malformed as error:
        raise _cannot_edit(tables, error.message) from error
    if not _is_same(got, intended):
        raise _cannot_edit(tables, "other values would have changed")
    return got


def _cannot_edit(wanted: Iterable[tuple[str, ...]], reason: str) -> DmError:
    names = printable(", ".join(".".join(path) or "the top level" for path in wanted))
    return DmError(
        f"cannot edit '{names}' in place: {reason}",
        hint="nothing was written; bring the file into its canonical form, or edit it by hand",
        code="edit-failed",
    )


def _plain(value: Any) -> Any:
    """A value as tomllib would give it: dicts and lists."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _is_same(one: Any, other: Any) -> bool:
    """Whether two documents are equal, types included, and NaN to itself."""
    if type(one) is not type(other):
        return isinstance(one, Mapping) and isinstance(other, Mapping) and dict(one) == dict(other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_is_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    if isinstance(one, float) and math.isnan(one):
        return math.isnan(other)
    return bool(one == other)


def _find_table(document: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any] | None:
    """The table at ``path``; None when there is none. Raises `Malformed` when something else stands there."""
    table: Any = document
    for depth, part in enumerate(path, 1):
        table = table.get(part)
        if table is None:
            return None
        if not isinstance(table, Mapping):
            raise Malformed(f"'{printable('.'.join(path[:depth]))}' is not a table", code="not-a-table")
    found: Mapping[str, Any] = table
    return found


def _apply(document: Mapping[str, Any], wanted: Mapping[tuple[str, ...], dict[str, Any] | None]) -> dict[str, Any]:
    """The document that is meant; what is not concerned is shared with the old one."""
    intended = dict(document)
    copied: set[tuple[str, ...]] = set()
    for path, fields in wanted.items():
        if fields is None:
            if not path or _find_table(intended, path) is None:
                continue
            _open_copy(intended, path[:-1], copied).pop(path[-1])
            continue
        _find_table(intended, path)
        table = _open_copy(intended, path, copied)
        for name, value in fields.items():
            if value is None:
                table.pop(name, None)
            else:
                table[name] = value
    return intended


def _open_copy(document: dict[str, Any], path: tuple[str, ...], copied: set[tuple[str, ...]]) -> dict[str, Any]:
    table = document
    for depth, part in enumerate(path, 1):
        if path[:depth] not in copied:
            table[part] = dict(table.get(part, ()))
            copied.add(path[:depth])
        table = table[part]
    return table


class _Home(NamedTuple):
    """Where a table's own fields stand: in a section, each behind the dotted ``prefix``; or all inside one statement,
    an inline table, below ``inner``.
    """

    section: Section
    prefix: tuple[str, ...]
    inline: Statement | None = None
    inner: tuple[str, ...] = ()


class _Editor:
    """One pass over one text: gathers replacements of spans, then joins the text once."""

    def __init__(self, text: str, document: Mapping[str, Any]) -> None:
        self._source = TomlText(text)
        self._document = document
        self._text = text
        self._spans: dict[tuple[int, int, str], None] = {}
        self._headers: dict[tuple[int, int, str], None] = {}  # insertions that stand before a header
        self._inline: dict[tuple[int, int], Any] = {}  # tomlkit's documents, each holding one inline table as 'x'
        self._added: list[str] = []
        self._newline = "\r\n" if text[: text.find("\n")].endswith("\r") else "\n"

    def edit(self, wanted: Mapping[tuple[str, ...], dict[str, Any] | None]) -> str:
        for path, fields in wanted.items():
            table = _find_table(self._document, path)
            if fields is None:
                if path and table is not None:
                    self._remove(path)
            elif table is None:
                self._add(path, {name: value for name, value in fields.items() if value is not None})
            else:
                self._change(path, table, fields)
        return self._join()

    def _join(self) -> str:
        for (start, end), holder in self._inline.items():
            self._spans[(start, end, holder["x"].as_string())] = None
        pieces = []
        position = 0
        # At one place: what ends a table, then the header that follows, then what is replaced or removed.
        spans = sorted(
            [*self._spans, *self._headers], key=lambda span: (span[0], span[1] > span[0], span in self._headers)
        )
        for start, end, replacement in spans:
            if start > position:
                pieces.append(self._text[position:start])
            pieces.append(replacement)
            position = max(position, end)
        pieces.append(self._text[position:])
        text = "".join(pieces)
        if not self._added:
            return text
        newline = self._newline
        pieces = [text]
        if text and not text.endswith("\n"):
            pieces.append(newline)
        if text.strip() and not text.endswith(("\n\n", "\n\r\n")):
            pieces.append(newline)
        pieces.append("\n".join(self._added).replace("\n", newline))
        return "".join(pieces)

    # whole tables

    def _add(self, path: tuple[str, ...], fields: dict[str, Any]) -> None:
        for length in range(len(path) - 1, 0, -1):
            if _find_table(self._document, path[:length]) is not None:
                home = self._find_home(path[:length])
                if home is not None and home.inline is not None:
                    inner: dict[str, Any] = fields
                    for part in reversed(path[length + 1 :]):
                        inner = {part: inner}
                    self._change_inline(home, {path[length]: inner})
                    return
                break
        block: dict[str, Any] = fields
        for part in reversed(path):
            block = {part: block}
        self._added.append(dump_toml(block))

    def _remove(self, path: tuple[str, ...]) -> None:
        for section in self._source.list_sections_at(path):
            self._remove_section(section)
        for length in range(len(path)):
            section_above = self._source.find_section(path[:length])
            if section_above is None:
                continue
            for statement in self._source.list_statements_at(section_above, path[length:]):
                if len(statement.path) >= len(path) - length:
                    self._spans[(statement.start, statement.end, "")] = None
                else:
                    inner = path[length + len(statement.path) : -1]
                    self._change_inline(_Home(section_above, (), statement, inner), {path[-1]: None})

    def _remove_section(self, section: Section) -> None:
        """Header to last value; the blank lines after it too where there is one before it already."""
        statements = self._source.list_statements(section)
        start, end = section.start, statements[-1].end if statements else section.body
        after = self._skip_blank_lines(end)
        if start == 0 or self._is_blank_before(start):
            end = after
        if after == len(self._text):
            while self._is_blank_before(start):
                start = self._text.rfind("\n", 0, start - 1) + 1
        self._spans[(start, end, "")] = None

    def _skip_blank_lines(self, position: int) -> int:
        while position < len(self._text):
            line_end = self._text.find("\n", position) + 1 or len(self._text)
            if self._text[position:line_end].strip():
                break
            position = line_end
        return position

    def _is_blank_before(self, position: int) -> bool:
        if position == 0:
            return False
        line_start = self._text.rfind("\n", 0, position - 1) + 1
        return not self._text[line_start:position].strip()

    # fields

    def _change(self, path: tuple[str, ...], table: Mapping[str, Any], fields: dict[str, Any]) -> None:
        fields = {
            name: value
            for name, value in fields.items()
            if (name in table if value is None else not (name in table and _is_same(table[name], value)))
        }
        if not fields:
            return
        home = self._find_home(path)
        if home is not None and home.inline is not None:
            self._change_inline(home, fields)
            return
        new: dict[str, Any] = {}
        for name, value in fields.items():
            is_done = name in table and self._replace(path, home, name, value)
            if not is_done and value is not None:
                new[name] = value
        if new:
            self._insert(path, home, new)

    def _find_home(self, path: tuple[str, ...]) -> _Home | None:
        """None for a table that has only tables below it and no header of its own."""
        section = self._source.find_section(path)
        if section is not None:
            return _Home(section, ())
        for length in range(len(path) - 1, -1, -1):
            above = self._source.find_section(path[:length])
            if above is None:
                continue
            rest = path[length:]
            for statement in self._source.list_statements_at(above, rest):
                if len(statement.path) <= len(rest):
                    return _Home(above, (), statement, rest[len(statement.path) :])
                return _Home(above, rest)
        return None

    def _replace(self, path: tuple[str, ...], home: _Home | None, name: str, value: Any) -> bool:
        """Put a value where the old one stands, or take out a field; False when the new one is still to be inserted."""
        statements = []
        if home is not None:
            key = (*home.prefix, name)
            statements = self._source.list_statements_at(home.section, key)
            if value is not None and len(statements) == 1 and statements[0].path == key:
                self._spans[(statements[0].value, statements[0].value_end, format_value(value))] = None
                return True
        for statement in statements:
            self._spans[(statement.start, statement.end, "")] = None
        for section in self._source.list_sections_at((*path, name)):
            self._remove_section(section)
        return False

    def _insert(self, path: tuple[str, ...], home: _Home | None, fields: dict[str, Any]) -> None:
        if home is None:
            header = ".".join(quote_key(part) for part in path)
            self._insert_before_section(self._source.list_sections_at(path)[0], [f"[{header}]"], fields)
            return
        statements = self._source.list_statements_at(home.section, home.prefix)
        if not statements and not path:
            if len(self._source.sections) > 1:
                self._insert_before_section(self._source.sections[1], [], fields)
            else:
                self._insert_at(len(self._text), "", (), fields)
            return
        kept = [statement for statement in statements if (statement.start, statement.end, "") not in self._spans]
        if kept:
            last = kept[-1]
            line = self._text[last.start : last.value]
            self._insert_at(last.end, line[: len(line) - len(line.lstrip())], home.prefix, fields)
        elif home.prefix:
            self._insert_at(statements[0].start, "", home.prefix, fields)
        else:
            self._insert_at(home.section.body, "", home.prefix, fields)

    def _insert_at(self, position: int, indent: str, prefix: tuple[str, ...], fields: dict[str, Any]) -> None:
        before = "".join(f"{quote_key(part)}." for part in prefix)
        lines = [f"{indent}{before}{quote_key(name)} = {format_value(value)}" for name, value in fields.items()]
        newline = self._newline
        if position and self._text[position - 1] == "\n":
            newline = "\r\n" if self._text.endswith("\r\n", 0, position) else "\n"
        elif position:  # the last line has no newline: it stays so
            self._spans[(position, position, newline + newline.join(lines))] = None
            return
        self._spans[(position, position, newline.join(lines) + newline)] = None

    def _insert_before_section(self, section: Section, lines: list[str], fields: dict[str, Any]) -> None:
        """Before a header and the comment that stands directly above it."""
        position = section.start
        while position:
            line_start = self._text.rfind("\n", 0, position - 1) + 1
            if not self._text[line_start:position].lstrip().startswith("#"):
                break
            position = line_start
        lines = lines + [f"{quote_key(name)} = {format_value(value)}" for name, value in fields.items()]
        self._headers[(position, position, self._newline.join(lines) + 2 * self._newline)] = None

    def _change_inline(self, home: _Home, fields: dict[str, Any]) -> None:
        statement = home.inline
        if statement is None:
            return
        holder = self._inline.get((statement.value, statement.value_end))
        if holder is None:
            holder = parse_editable("x = " + self._text[statement.value : statement.value_end])
            self._inline[(statement.value, statement.value_end)] = holder
        table: Any = holder["x"]
        for part in home.inner:
            table = table[part]
        for name, value in fields.items():
            if value is not None:
                table[name] = value
            elif name in table:
                table.remove(name)


def format_value(value: object) -> str:
    """A TOML value on one line; a mapping becomes an inline table."""
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        inner = ", ".join(f"{quote_key(str(name))} = {format_value(item)}" for name, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(format_value(item) for item in value) + "]"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, int) or hasattr(value, "isoformat"):
        return str(value)
    raise Refused(f"cannot write a value of type '{type(value).__name__}' to TOML", code="not-toml")
