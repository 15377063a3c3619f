"""Plain TOML: tables of strings, in the order and bytes of the canonical form, fast.

Manifests and state files are read at every start and grow with the number of datasets. Most hold one header, one
``name = "value"`` or one comment a line, which is read and written here twenty times as fast as by a TOML library.
Whatever is not of that form is left to the library by `dm.plumbing.records.toml`: `read_plain` says so with None. That
both read the same is held by tests/property/test_plain.py.
"""

from __future__ import annotations

from collections.abc import Mapping

_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
#: Names of fields that are remembered while a text is read; parameter hashes would fill the memory in vain.
_KEYS_KNOWN_MAX = 64
#: Of the tables of a plain text; how many are too many is for the reader of all others to say.
_LEVELS_MAX = 16
_ESCAPES = {
    **{code: f"\\u{code:04x}" for code in (*range(32), 127) if code != 9},
    8: "\\b",
    10: "\\n",
    12: "\\f",
    13: "\\r",
    34: '\\"',
    92: "\\\\",
}


def read_plain(text: str) -> dict[str, object] | None:
    """The document of a plain TOML text; None when it holds anything else, faults included."""
    if not text.replace("\n", "").isprintable():
        return None
    document: dict[str, object] = {}
    table: dict[str, object] = document
    headers: set[tuple[str, ...]] = set()
    keys: dict[str, str] = {}  # the same few names stand in every table
    for line in text.split("\n"):
        if not line or line[0] == "#":
            continue
        if line[0] == "[":
            path = _read_header(line)
            if path is None or path in headers or len(path) > _LEVELS_MAX:
                return None
            headers.add(path)
            found = _open_table(document, path)
            if found is None:
                return None
            table = found
            continue
        name, sign, value = line.partition(" = ")
        key = keys.get(name)
        if key is None:
            key = _read_key(name)
            if key is None:
                return None
            if len(keys) < _KEYS_KNOWN_MAX:
                keys[name] = key
        if not sign or key in table:
            return None
        if value[:1] == '"' and value[-1] == '"' and value.count('"') == 2 and "\\" not in value:
            table[key] = value[1:-1]
        elif value.isascii() and value.isdigit() and (value[0] != "0" or value == "0") and len(value) < 19:
            table[key] = int(value)
        elif value in ("true", "false"):
            table[key] = value == "true"
        else:
            texts = _read_texts(value)
            if texts is None:
                return None
            table[key] = texts
    return document


def _read_header(line: str) -> tuple[str, ...] | None:
    if line[-1] != "]" or "\\" in line:
        return None
    inner = line[1:-1]
    if '"' not in inner:
        parts = inner.split(".")
        return tuple(parts) if all(part and _BARE.issuperset(part) for part in parts) else None
    path: list[str] = []
    rest = inner
    while True:
        if rest.startswith('"'):
            part, quote, rest = rest[1:].partition('"')
            if not quote:
                return None
        else:
            part, dot, tail = rest.partition(".")
            if not part or not _BARE.issuperset(part):
                return None
            rest = dot + tail
        path.append(part)
        if not rest:
            return tuple(path)
        if rest[0] != "." or len(rest) == 1:
            return None
        rest = rest[1:]


def _read_key(text: str) -> str | None:
    if text and _BARE.issuperset(text):
        return text
    inner = text[1:-1]
    quoted = len(text) >= 2 and text[0] == text[-1] == '"' and '"' not in inner and "\\" not in inner
    return inner if quoted else None


def _read_texts(value: str) -> list[str] | None:
    """A list of strings on one line, each after ``, ``."""
    if value[:1] != "[" or value[-1] != "]" or "\\" in value:
        return None
    texts = value[1:-1].split(", ") if value != "[]" else []
    if any(text.count('"') != 2 or text[0] != '"' or text[-1] != '"' for text in texts):
        return None
    return [text[1:-1] for text in texts]


def _open_table(document: dict[str, object], path: tuple[str, ...]) -> dict[str, object] | None:
    table = document
    for part in path:
        below = table.get(part)
        if below is None:
            below = table[part] = {}
        if not isinstance(below, dict):
            return None
        table = below
    return table


def write_plain(document: Mapping[str, object]) -> str | None:
    """The canonical TOML of a document whose values are strings, whole numbers and tables; None for any other."""
    lines: list[str] = []
    names = sorted(document, key=lambda name: (not name.startswith("_"), name))
    return "".join(lines) if _write_table(document, names, "", lines) else None


def _write_table(table: Mapping[str, object], names: list[str], name: str, lines: list[str]) -> bool:
    tables = [key for key in names if isinstance(table[key], Mapping)]
    if name and (len(tables) < len(names) or not tables):
        lines.append(f"\n[{name}]\n" if lines else f"[{name}]\n")
    for key in names:
        value = table[key]
        if isinstance(value, str):
            lines.append(f"{quote_key(key)} = {quote(value)}\n")
        elif isinstance(value, int) and not isinstance(value, bool):
            lines.append(f"{quote_key(key)} = {value}\n")
        elif not isinstance(value, Mapping):
            return False
    for key in tables:
        below = table[key]
        if isinstance(below, Mapping):
            path = f"{name}.{quote_key(key)}" if name else quote_key(key)
            if not _write_table(below, sorted(below), path, lines):
                return False
    return True


def quote(text: str) -> str:
    """A TOML basic string on one line."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return f'"{text.translate(_ESCAPES)}"'


def quote_key(text: str) -> str:
    """A TOML key: bare where it can be."""
    return text if text and _BARE.issuperset(text) else quote(text)
