"""Key tables through their sidecar and back: no type, name or digit is lost, and equal hashes mean equal tables."""

from __future__ import annotations

import collections
import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dm.errors import Malformed, UsageError
from dm.plumbing.records.params import Plain, canonical_json, hash_params, hash_plain, make_key_table, make_plain_table
from dm.plumbing.records.sidecars import decode_config, encode_config

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(
    ["1", "1.0", "true", "[a]", 'a"b', "a\\b", "\r\n", "\x00", "\x7f", "\u2028", "_META", "schema", "2026-01-31"]
)
values = st.recursive(
    texts
    | st.integers()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([1, 1.0, True, 0, -0.0, 0.0, False, 1e16, 10**16, 1e300, 2**64, "", "1"]),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(texts, below, max_size=4),
    max_leaves=12,
)
tables = st.dictionaries(texts.filter(lambda name: name != "_META"), values, max_size=5)


def spell(value: Any) -> Any:
    """A value with its types, so that 1, 1.0 and True differ, and without the order of names."""
    if isinstance(value, dict):
        return ("table", frozenset((name, spell(below)) for name, below in value.items()))
    if isinstance(value, list):
        return ("list", tuple(map(spell, value)))
    return (type(value).__name__, repr(value))


@given(tables)
def test_a_table_is_read_back_from_its_sidecar_as_it_was(table: dict[str, Any]) -> None:
    digest = hash_params(table)
    data = encode_config("m.f", "v", table, digest)
    found = decode_config(data)
    assert (spell(table), "m.f", "v", digest) == (spell(found.params), *found[1:])
    assert spell({**table, "_META": tomllib.loads(data.decode())["_META"]}) == spell(tomllib.loads(data.decode()))


@given(tables, tables)
def test_two_tables_have_one_hash_only_when_they_are_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert (spell(one) == spell(other)) == (canonical_json(one) == canonical_json(other))


def turn(value: Any) -> Any:
    """The same in other containers, in another order."""
    if isinstance(value, dict):
        return collections.OrderedDict((name, turn(value[name])) for name in reversed(value))
    return tuple(map(turn, value)) if isinstance(value, list) else value


@given(tables)
def test_containers_and_order_do_not_count(table: dict[str, Any]) -> None:
    assert hash_params(table) == hash_params(turn(table)) == hash_plain(make_plain_table(turn(table)))
    kept = {name: value for name, value in table.items() if not name.startswith("_")}
    assert spell(kept) == spell(make_key_table(turn(table)))


anything = st.recursive(
    values | st.none() | st.binary(max_size=3) | st.floats() | st.complex_numbers() | st.text(max_size=4) | st.dates(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), below, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=3), anything, max_size=4))
def test_whatever_is_given_has_a_plain_form_or_is_refused(table: dict[str, Any]) -> None:
    try:
        plain: dict[str, Plain] = make_plain_table(table)
    except UsageError as error:
        assert (error.message.isprintable(), error.code) == (True, "parameter-not-plain")
        return
    assert spell(plain) == spell(decode_config(encode_config("f", "", table, hash_plain(plain))).params)


@given(tables, st.data())
def test_a_changed_byte_of_a_sidecar_is_malformed_or_changes_no_parameter(
    table: dict[str, Any], data: st.DataObject
) -> None:
    digest = hash_params(table)
    good = encode_config("f", "", table, digest)
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + bytes([data.draw(st.integers(0, 255))]) + good[at + 1 :]
    try:
        found = decode_config(bad)
    except Malformed:
        return
    assert (spell(table), digest) == (spell(found.params), found.hash)
