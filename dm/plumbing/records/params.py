"""Parameters as a key table, and its hash: the address of a produced dataset.

A key table holds strings, whole numbers, finite floats, true and false, and lists and tables of them: what TOML and
JSON both hold without loss. A few other values have a plain form (`make_plain`); every other one is refused by the path
to it. Nothing is guessed: an address that depended on a ``repr`` would change with the version of a library.
(SCHEMA.md, "Key tables".)
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Union

from dm.errors import UsageError
from dm.plumbing.records.plain import quote_key
from dm.values import printable

#: A value of a key table.
Plain = Union[str, int, float, bool, "list[Plain]", "dict[str, Plain]"]

#: The table of a sidecar that is not a parameter.
RESERVED_NAME = "_META"
#: Values below values that a table may have: what reads a sidecar goes down recursively.
DEPTH_MAX = 64
#: Bits of the largest whole number: Python reads no longer than 4300 digits from a text.
INTEGER_BITS_MAX = 14_284
#: dtype.kind of numpy's booleans, whole numbers, floats and texts.
_NUMPY_KINDS = frozenset("biufU")

_ANY_HINT = "pass a number, a text, true or false, a list or a table of them"
_HINTS = {
    "NoneType": "an absent and an empty value would share an address: use another value, or leave it out of the key",
    "set": "a set has no order: pass sorted(…)",
    "frozenset": "a set has no order: pass sorted(…)",
    "bytes": "pass a text: .decode() or .hex()",
    "bytearray": "pass a text: .decode() or .hex()",
    "memoryview": "pass a text: bytes(…).hex()",
    "range": "pass list(…)",
    "deque": "pass list(…)",
    "complex": "pass [x.real, x.imag]",
    "Decimal": "pass str(…) or float(…)",
    "Fraction": "pass str(…) or float(…)",
    "timedelta": "pass .total_seconds()",
    "UUID": "pass str(…)",
    "numpy.ndarray": "pass .tolist()",
    "numpy.datetime64": "pass str(…)",
    "numpy.timedelta64": "pass str(…)",
    "numpy.bytes_": "pass a text: .decode() or .hex()",
    "numpy.longdouble": "pass float(…) or str(…)",
}


def make_plain(value: object, *, where: str) -> Plain:
    """The plain form of a value.

    Plain as they are: text, whole numbers, finite floats, booleans, lists and tables (mappings) with text for keys.
    Beside them: subclasses of those count as what they extend; tuples are lists; numpy's booleans, whole numbers,
    floats and texts are what ``.item()`` gives; an enum's member is its value; a path (`pathlib`) is its text with
    ``/``; date, time and datetime (pandas' Timestamp too) are what ``.isoformat()`` gives.

    ``where`` is the path to the value in messages: ``grid.levels[2]``. Raises `UsageError` that names it and the type
    for anything else: None, NaN and infinities, sets, bytes, arrays, objects, text that is not Unicode, a number of
    more than 4300 digits, and values nested more than `DEPTH_MAX` deep.
    """
    return _make_plain(value, where, 0)


def _make_plain(value: object, where: str, depth: int) -> Plain:
    kind = type(value)
    if kind is str:
        return _check_text(value, where)  # type: ignore[arg-type]
    if kind is bool:
        return value  # type: ignore[return-value]
    if kind is int:
        return _check_integer(value, where)  # type: ignore[arg-type]
    if kind is float:
        return _check_float(value, where)  # type: ignore[arg-type]
    if depth >= DEPTH_MAX:
        raise _refuse(where, f"it lies more than {DEPTH_MAX} levels deep", "pass a flatter table")
    if kind is list or kind is tuple:
        return _make_list(value, where, depth)  # type: ignore[arg-type]
    if kind is dict:
        return _make_table(value, where, depth)  # type: ignore[arg-type]
    return _make_other(value, where, depth)


def _make_list(items: Iterable[object], where: str, depth: int) -> list[Plain]:
    return [_make_plain(item, f"{where}[{at}]", depth + 1) for at, item in enumerate(items)]


def _make_table(table: Mapping[object, object], where: str, depth: int) -> dict[str, Plain]:
    plain: dict[str, Plain] = {}
    for name, value in table.items():
        if not isinstance(name, str):
            raise _refuse(where, f"it has the key {_show(name)}, which is no text", "keys are text: pass str(…)")
        text = _check_text(str.__str__(name), where or "the table")
        path = f"{where}.{quote_key(text)}" if where else quote_key(text)
        plain[text] = _make_plain(value, path, depth + 1)
    return plain


def _make_other(value: object, where: str, depth: int) -> Plain:
    """The plain form of a value of any other type."""
    from datetime import date, time
    from enum import Enum
    from pathlib import PurePath

    if isinstance(value, Enum):
        return _make_plain(value.value, where, depth + 1)
    numpy = sys.modules.get("numpy")  # who holds such a value has imported it
    if numpy is not None and isinstance(value, numpy.generic):
        if value.dtype.kind in _NUMPY_KINDS and type(item := value.item()) in (bool, int, float, str):
            return _make_plain(item, where, depth)
        raise _refuse_type(value, where)
    if isinstance(value, str):
        return _check_text(str.__str__(value), where)
    if isinstance(value, int):
        return _check_integer(int.__int__(value), where)
    if isinstance(value, float):
        return _check_float(float.__float__(value), where)
    if isinstance(value, (list, tuple)):
        return _make_list(value, where, depth)
    if isinstance(value, Mapping):
        return _make_table(value, where, depth)
    if isinstance(value, PurePath):
        return _check_text(value.as_posix(), where)
    if isinstance(value, (date, time)):
        if value != value:  # pandas' NaT is a datetime, and differs from itself as NaN does
            raise _refuse(where, "it is NaT, which is no time", "use another value, or leave it out of the key")
        return _check_text(value.isoformat(), where)
    raise _refuse_type(value, where)


def _check_text(text: str, where: str) -> str:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise _refuse(where, f"'{printable(text)}' is not valid Unicode", "pass a text that is") from None
    return text


def _check_integer(number: int, where: str) -> int:
    if number.bit_length() > INTEGER_BITS_MAX:
        raise _refuse(where, "it is a number of more than 4300 digits", "pass it as a text: hex(…)")
    return number


def _check_float(number: float, where: str) -> float:
    if not math.isfinite(number):
        raise _refuse(where, f"it is {number}", "pass a finite number, or a text")
    return number


def _refuse_type(value: object, where: str) -> UsageError:
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    what = "it is None" if value is None else f"its type is {name}"
    return _refuse(where, what, _HINTS.get(name) or _HINTS.get(kind.__name__, _ANY_HINT))


def _refuse(where: str, fault: str, hint: str) -> UsageError:
    return UsageError(f"cannot make a key of '{printable(where)}': {fault}", hint=hint, code="parameter-not-plain")


def _show(name: object) -> str:
    text = printable(repr(name))
    return text if len(text) <= 40 else f"{text[:39]}…"


def make_key_table(arguments: Mapping[str, object]) -> dict[str, Plain]:
    """The key table of a call: its arguments by name in their plain form, without those that begin with ``_``.

    Raises as `make_plain`.
    """
    return {
        name: _make_plain(value, name, 0) for name, value in _make_named(arguments).items() if not name.startswith("_")
    }


def make_plain_table(table: Mapping[str, object]) -> dict[str, Plain]:
    """The plain form of a key table that a key function made: names that begin with ``_`` count like any other.

    Raises as `make_plain`, and for the name ``_META``, which a sidecar keeps for itself.
    """
    if RESERVED_NAME in table:
        raise _refuse(RESERVED_NAME, "that name is the sidecar's own", "give the parameter another name")
    return {name: _make_plain(value, quote_key(name), 0) for name, value in _make_named(table).items()}


def _make_named(table: Mapping[str, object]) -> dict[str, object]:
    """The table under exact text for names."""
    named: dict[str, object] = {}
    for name, value in table.items():
        if not isinstance(name, str):
            raise _refuse(_show(name), "it is no text", "names of parameters are text")
        named[_check_text(str.__str__(name), name)] = value
    return named


def canonical_json(table: Mapping[str, object]) -> bytes:
    """The bytes that are hashed: JSON with names sorted by code point, ``,`` and ``:`` without blanks, UTF-8 unescaped.

    Raises as `make_plain_table`.
    """
    return _find_encoder()(make_plain_table(table)).encode("utf-8")


def hash_params(table: Mapping[str, object]) -> str:
    """The parameter hash of a key table: the SHA-256 of its canonical JSON, 64 hex digits.

    Raises as `make_plain_table`.
    """
    return hash_plain(make_plain_table(table))


def hash_plain(table: Mapping[str, Plain]) -> str:
    """The same of a table that is known to be plain, from `make_key_table`, `make_plain_table` or a sidecar: for the
    parts that need the time. Raises `ValueError` or `TypeError` for one that is not.
    """
    return _find_hash()(_find_encoder()(table).encode("utf-8")).hexdigest()  # type: ignore[attr-defined, no-any-return]


@cache
def _find_encoder() -> Callable[[object], str]:
    # Made once: json.dumps makes one for each call that asks for anything but the defaults.
    from json import JSONEncoder

    return JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


@cache
def _find_hash() -> Callable[[bytes], object]:
    from hashlib import sha256

    return sha256
