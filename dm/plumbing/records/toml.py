"""TOML, the one door of its libraries: read with tomllib, written canonically with tomli_w, edited with tomlkit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dm.errors import Malformed, Refused
from dm.plumbing.records.plain import quote_key, read_plain
from dm.values import printable

#: More than any manifest, config or record has.
_DEPTH_MAX = 100


def read_toml(data: bytes | str, *, file: Path | None = None) -> dict[str, Any]:
    """The document of a TOML text (UTF-8, version 1.0).

    Raises `Malformed` with the file and, where it is known, the line.
    """
    text = data if isinstance(data, str) else _decode(data, file)
    plain = read_plain(text)  # most files are, and large ones take twenty times as long otherwise
    if plain is not None:
        return plain
    import tomllib

    try:
        document = tomllib.loads(text)
        _check_depth(document)
    except RecursionError:
        raise Malformed("malformed TOML: values are nested too deeply", file=file, code="toml-malformed") from None
    except ValueError as error:  # a TOMLDecodeError, or a number of more digits than Python reads
        raise _explain(str(error), text, file) from error
    return document


def _check_depth(document: dict[str, Any]) -> None:
    """Raise `RecursionError` for tables and arrays below more than `_DEPTH_MAX` others: dotted keys nest tables as deep
    as they are long, which tomllib takes, and who walks through them later does not.
    """
    level: list[Any] = [document]
    for _ in range(_DEPTH_MAX):
        level = [
            each
            for table in level
            for each in (table.values() if type(table) is dict else table)
            if type(each) is dict or type(each) is list
        ]
        if not level:
            return
    raise RecursionError


def _decode(data: bytes, file: Path | None) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"malformed TOML: byte 0x{data[error.start]:02x} is not UTF-8 text"
        raise Malformed(message, hint="save the file as UTF-8", file=file, line=line, code="toml-malformed") from error


def _explain(fault: str, text: str, file: Path | None) -> Malformed:
    """tomllib's words with the place taken out of them and put in front."""
    words, at, place = fault.removesuffix(")").rpartition(" (at ")
    line: int | None = None
    if at:
        fault = words
    else:
        place = ""
    if place.startswith("line "):
        line = int(place[5:].partition(",")[0])
    elif place:
        line = text.rstrip("\n").count("\n") + 1
    hint = None
    if text.startswith("\ufeff"):
        fault, line, hint = "it begins with a byte order mark", 1, "save the file as UTF-8 without one"
    elif fault.startswith("Cannot declare ("):
        import ast

        path = ast.literal_eval(fault[len("Cannot declare ") : fault.rindex(")") + 1])
        name = ".".join(quote_key(part) for part in path)
        fault, hint = f"the table [{name}] is declared twice", "merge the two, or rename one"
    elif fault == "Invalid value":
        hint = "text needs quotes, a list needs brackets, true and false are lower case"
    elif fault == "Cannot overwrite a value":
        fault, hint = "the key stands here for the second time", "keep one of the two"
    fault = printable(fault[:1].lower() + fault[1:])
    return Malformed(f"malformed TOML: {fault}", hint=hint, file=file, line=line, code="toml-malformed")


def dump_canonical(document: Mapping[str, object]) -> bytes:
    """The canonical TOML of a document: the same bytes as the Python peer's ``datamanifest format``.

    Structural tables (``_…``) first, then the others, each group and every level below sorted by code point; arrays
    keep their order (SCHEMA.md, "Canonical TOML"). Raises `Refused` for text that is not Unicode.
    """
    import tomli_w

    names = sorted(document, key=lambda name: (not name.startswith("_"), name))
    return encode_toml(tomli_w.dumps({name: _sort(document[name]) for name in names}))


def dump_sorted(document: Mapping[str, object]) -> bytes:
    """The TOML of a document with the names of every level sorted by code point, ``_…`` like any other: the form of
    the peers' sidecars (SCHEMA.md, "Sidecars"). Raises `Refused` for text that is not Unicode.
    """
    import tomli_w

    return encode_toml(tomli_w.dumps({name: _sort(document[name]) for name in sorted(document)}))


def _sort(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _sort(value[name]) for name in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [_sort(item) for item in value]
    return value


def encode_toml(text: str) -> bytes:
    """The UTF-8 of a TOML text. Raises `Refused` for text that is not Unicode (a file name of other bytes)."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        around = printable(text[max(0, error.start - 20) : error.end + 20].strip())
        raise Refused(
            f"cannot write '{around}': it is not valid Unicode, which TOML demands",
            hint="rename the file, or give the dataset another name",
            code="not-unicode",
        ) from error


def dump_toml(document: Mapping[str, object]) -> str:
    """The TOML of a document, in its own order."""
    import tomli_w

    return tomli_w.dumps(document)


def parse_editable(text: str) -> Any:
    """A TOML text as a document of tomlkit, which keeps what it does not change."""
    import tomlkit

    return tomlkit.parse(text)
