"""Key tables and their hash: what is plain, what has a plain form, what is refused and how."""

from __future__ import annotations

import collections
import datetime
import enum
import fractions
import pathlib
import subprocess
import sys
import uuid
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import NamedTuple

import numpy
import pandas
import pytest

from dm.errors import UsageError
from dm.plumbing.records.params import (
    DEPTH_MAX,
    canonical_json,
    hash_params,
    hash_plain,
    make_key_table,
    make_plain,
    make_plain_table,
)

VECTORS: list[tuple[dict[str, object], str]] = [
    (
        {"grid": "5x5", "skip_models": ["CESM.*", "FGOALS.*"]},
        "83425a30d111562d46c1fce9de7618ea7f1f54e1be72e086cba0ac63c6f2ce9b",
    ),
    ({}, "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"),
    ({"a": 1}, "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"),
    ({"a": 1.0}, "c29a44abc114a1d75486434c013102c9e736f526b4fd19658d9492b7b224de6d"),
    ({"a": True}, "5daa0644c4a1c43ea018f7f1ef2944b90e0165ef1f2d5669ca89e5d4f69ac597"),
]


@pytest.mark.parametrize(("table", "expected"), VECTORS)
def test_the_hash_is_that_of_the_vectors(table: dict[str, object], expected: str) -> None:
    assert expected == hash_params(table) == hash_plain(make_plain_table(table))


def test_the_json_is_sorted_compact_and_unescaped() -> None:
    table = {"é": "日本\x7f\n\x01", "b": [1, 2.0, 1e16, 1e-5, -0.0, 0.0001], "B": {"z": False, "a": {}}, "": []}
    expected = '{"":[],"B":{"a":{},"z":false},"b":[1,2.0,1e+16,1e-05,-0.0,0.0001],"é":"日本\x7f\\n\\u0001"}'
    assert expected.encode() == canonical_json(table)


class Colour(enum.Enum):
    RED = "red"
    PAIR = (1, 2.5)


class Level(enum.IntEnum):
    HIGH = 3


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: float


class Loud(str):
    def __str__(self) -> str:
        return "LOUD"


class Whole(int):
    def __repr__(self) -> str:
        return "whole"


class Real(float):
    def __repr__(self) -> str:
        return "real"


UTC = datetime.UTC
PLAIN_FORMS: list[tuple[object, object]] = [
    ((1, ("a", 2.0)), [1, ["a", 2.0]]),
    (Point(1, 2.0), [1, 2.0]),
    (collections.OrderedDict(b=1, a=(2,)), {"b": 1, "a": [2]}),
    (MappingProxyType({"a": 1}), {"a": 1}),
    (Colour.RED, "red"),
    (Colour.PAIR, [1, 2.5]),
    (Level.HIGH, 3),
    (Access.READ | Access.WRITE, 3),
    (Loud("soft"), "soft"),
    (Whole(7), 7),
    (Real(0.5), 0.5),
    (numpy.bool_(True), True),
    (numpy.int8(-3), -3),
    (numpy.uint64(2**64 - 1), 2**64 - 1),
    (numpy.float64(0.1), 0.1),
    (numpy.float32(0.1), 0.10000000149011612),
    (numpy.float16(0.5), 0.5),
    (numpy.str_("text"), "text"),
    ([numpy.int64(1), {"x": numpy.float64(2)}], [1, {"x": 2.0}]),
    (pathlib.PurePosixPath("a/../b"), "a/../b"),
    (pathlib.PureWindowsPath(r"c:\x\y"), "c:/x/y"),
    (pathlib.Path("/data"), "/data"),
    (datetime.date(2026, 1, 31), "2026-01-31"),
    (datetime.time(12, 30), "12:30:00"),
    (datetime.datetime(2026, 1, 31, 12, tzinfo=UTC), "2026-01-31T12:00:00+00:00"),
    (pandas.Timestamp("2026-01-31 12:00:00.000000001"), "2026-01-31T12:00:00.000000001"),
    (2**100, 2**100),
]


@pytest.mark.parametrize(("value", "expected"), PLAIN_FORMS, ids=lambda value: repr(value)[:30])
def test_a_plain_form(value: object, expected: object) -> None:
    found = make_plain(value, where="x")
    assert (repr(expected), type(expected)) == (repr(found), type(found))


ARRAY = "pass .tolist()"
REFUSED: list[tuple[object, str, str]] = [
    (
        None,
        "it is None",
        "an absent and an empty value would share an address: use another value, or leave it out of the key",
    ),
    (float("nan"), "it is nan", "pass a finite number, or a text"),
    (float("-inf"), "it is -inf", "pass a finite number, or a text"),
    (numpy.float32("nan"), "it is nan", "pass a finite number, or a text"),
    ({1}, "its type is set", "a set has no order: pass sorted(…)"),
    (frozenset("a"), "its type is frozenset", "a set has no order: pass sorted(…)"),
    (b"x", "its type is bytes", "pass a text: .decode() or .hex()"),
    (numpy.bytes_(b"x"), "its type is numpy.bytes_", "pass a text: .decode() or .hex()"),
    (range(3), "its type is range", "pass list(…)"),
    (collections.deque([1]), "its type is collections.deque", "pass list(…)"),
    (1j, "its type is complex", "pass [x.real, x.imag]"),
    (Decimal("1.5"), "its type is decimal.Decimal", "pass str(…) or float(…)"),
    (fractions.Fraction(1, 3), "its type is fractions.Fraction", "pass str(…) or float(…)"),
    (datetime.timedelta(1), "its type is datetime.timedelta", "pass .total_seconds()"),
    (uuid.UUID(int=1), "its type is uuid.UUID", "pass str(…)"),
    (numpy.array([1, 2]), "its type is numpy.ndarray", ARRAY),
    (numpy.array(1), "its type is numpy.ndarray", ARRAY),
    (numpy.datetime64("2026-01-31", "ns"), "its type is numpy.datetime64", "pass str(…)"),
    (numpy.timedelta64(1, "ns"), "its type is numpy.timedelta64", "pass str(…)"),
    (numpy.longdouble(1), "its type is numpy.longdouble", "pass float(…) or str(…)"),
    (
        numpy.complex64(1),
        "its type is numpy.complex64",
        "pass a number, a text, true or false, a list or a table of them",
    ),
    (len, "its type is builtin_function_or_method", "pass a number, a text, true or false, a list or a table of them"),
    (pandas.NaT, "it is NaT, which is no time", "use another value, or leave it out of the key"),
    ("\udc80", r"'\udc80' is not valid Unicode", "pass a text that is"),
    (10**4300, "it is a number of more than 4300 digits", "pass it as a text: hex(…)"),
]


@pytest.mark.parametrize(("value", "fault", "hint"), REFUSED, ids=lambda value: type(value).__name__)
def test_a_value_without_a_plain_form_is_refused_by_the_path_to_it(value: object, fault: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_key_table({"grid": {"levels": [1, 2, value]}})
    error = caught.value
    assert (f"cannot make a key of 'grid.levels[2]': {fault}", hint) == (error.message, error.hint)
    assert ("parameter-not-plain", 2) == (error.code, error.exit_status)


TABLES: list[tuple[Mapping[object, object], str, str]] = [
    ({"a": {1: 2}}, "cannot make a key of 'a': it has the key 1, which is no text", "keys are text: pass str(…)"),
    ({"a": {"x y": {"z": None}}}, """cannot make a key of 'a."x y".z': it is None""", REFUSED[0][2]),
    ({"a": {"\udc80": 1}}, r"cannot make a key of 'a': '\udc80' is not valid Unicode", "pass a text that is"),
    ({1: 2}, "cannot make a key of '1': it is no text", "names of parameters are text"),
    (
        {"\udc80": 1},
        r"cannot make a key of '\udc80': '\udc80' is not valid Unicode",
        "pass a text that is",
    ),
]


@pytest.mark.parametrize(("table", "message", "hint"), TABLES, ids=str)
def test_a_table_that_is_none_is_refused(table: dict[str, object], message: str, hint: str) -> None:
    for make in (make_key_table, make_plain_table, hash_params, canonical_json):
        with pytest.raises(UsageError) as caught:
            make(table)
        assert (message, hint) == (caught.value.message, caught.value.hint)


def test_a_list_that_holds_itself_is_refused() -> None:
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(UsageError, match=f"it lies more than {DEPTH_MAX} levels deep") as caught:
        make_key_table({"a": circle})
    assert "pass a flatter table" == caught.value.hint


def test_arguments_that_begin_with_an_underscore_are_left_out_and_never_looked_at() -> None:
    assert {"a": {"_b": 1}} == make_key_table({"a": {"_b": 1}, "_path": object(), "_META": None})


def test_a_key_function_may_name_what_begins_with_an_underscore_but_not_the_sidecars_table() -> None:
    assert {"_a": 1, "b": {"_META": 2}} == make_plain_table({"_a": 1, "b": {"_META": 2}})
    with pytest.raises(UsageError) as caught:
        make_plain_table({"_META": 1})
    assert "cannot make a key of '_META': that name is the sidecar's own" == caught.value.message
    assert "give the parameter another name" == caught.value.hint


def test_the_fast_hash_never_takes_what_is_not_plain() -> None:
    for value in (object(), float("inf"), datetime.date(2026, 1, 1), {1, 2}):
        with pytest.raises((TypeError, ValueError)):
            hash_plain({"a": value})  # type: ignore[dict-item]


def test_numpy_is_not_imported_to_make_a_key() -> None:
    code = (
        "import sys, pathlib\n"
        "from dm.plumbing.records.params import hash_params\n"
        "hash_params({'a': [1, 2.5, pathlib.Path('x')]})\n"
        "print([name for name in ('numpy', 'pandas', 'tomli_w') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]\n" == done.stdout
