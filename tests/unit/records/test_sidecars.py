"""The documents in an artifact's folder: their bytes, what they prove, what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dm.errors import Malformed, UsageError
from dm.plumbing.records.params import hash_params
from dm.plumbing.records.sidecars import (
    Config,
    Metadata,
    decode_config,
    decode_metadata,
    encode_config,
    encode_metadata,
)

FILE = Path("/c/config.toml")
HASH = "83425a30d111562d46c1fce9de7618ea7f1f54e1be72e086cba0ac63c6f2ce9b"
PARAMS: dict[str, object] = {"grid": "5x5", "skip_models": ["CESM.*", "FGOALS.*"]}
CONFIG = f"""\
grid = "5x5"
skip_models = [
    "CESM.*",
    "FGOALS.*",
]

[_META]
cachetype = "m.f"
hash = "{HASH}"
schema = 1
version = "v2"
"""


def test_the_key_table_stands_at_the_root_and_whose_it_is_below() -> None:
    assert CONFIG == encode_config("m.f", "v2", PARAMS, HASH).decode()
    assert Config(PARAMS, "m.f", "v2", HASH) == decode_config(CONFIG.encode())  # type: ignore[arg-type]


def test_names_of_the_key_table_are_sorted_by_code_point_the_sidecars_own_table_among_them() -> None:
    params: dict[str, object] = {"b": {"x": 1}, "A": {"z": {}, "Z": 1.0}, "a": [], "_c": True}
    digest = hash_params(params)
    expected = f"""\
_c = true
a = []

[A]
Z = 1.0

[A.z]

[_META]
cachetype = "f"
hash = "{digest}"
schema = 1

[b]
x = 1
"""
    assert expected == encode_config("f", "", params, digest).decode()
    assert Config(params, "f", "", digest) == decode_config(expected.encode())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    [
        *[1, 1.0, True, "1", -0.0, 1e16, 1e300, 5e-324, 2**63, -(10**4000), [1, [2.0, []]], {}, {"": {"": 0}}],
        [{"a": {}}, {"b": [{"c": "x" * 99}, {"c": 1.5}]}],
        [{}, 1],
        "\x00\x1f\x7f\u2028\ud7ff\U0010ffff",
        '"""\\',
        "\r\n",
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_read_back_has_the_same_hash(value: object) -> None:
    params = {"p": value, "é \n.": value}
    digest = hash_params(params)
    found = decode_config(encode_config("f", "", params, digest))
    assert (repr(params), digest) == (repr(found.params), hash_params(found.params))


def test_a_table_that_is_not_plain_is_never_written() -> None:
    with pytest.raises(UsageError, match="cannot make a key of 'a': it is None"):
        encode_config("f", "", {"a": None}, HASH)
    with pytest.raises(UsageError, match="that name is the sidecar's own"):
        encode_config("f", "", {"_META": {}}, HASH)


DAMAGED = "it was changed by hand or damaged; the artifact is made again when it is asked for"
FAULTS = [
    (
        "a = ",
        "1: malformed TOML: invalid value",
        "text needs quotes, a list needs brackets, true and false are lower case",
    ),
    (
        CONFIG.replace("5x5", "5x6"),
        f" its parameters have the hash {hash_params({**PARAMS, 'grid': '5x6'})[:12]}…, it says '83425a30d111…'",
        DAMAGED,
    ),
    ("a = 1\n", " unsafe '_META.cachetype' '': it is empty", None),
    ('[_META]\ncachetype = "f"\n', " its parameters have the hash 44136fa355b3…, it says '…'", DAMAGED),
    (CONFIG.replace("schema = 1", "schema = 2"), " it has schema 2, this dm reads 1", "install a newer dm"),
    (CONFIG.replace("schema = 1", "schema = true"), " '_META.schema' is no whole number from 1", None),
    (CONFIG.replace("schema = 1", "schema = 0"), " '_META.schema' is no whole number from 1", None),
    ("_META = 1\n", " '_META' is no table", None),
    (CONFIG.replace('"m.f"', '"../../x"'), " unsafe '_META.cachetype' '../../x': it has the part '..'", None),
    (CONFIG.replace('"v2"', '"/v2"'), " unsafe '_META.version' '/v2': it is absolute", None),
    (
        CONFIG.replace('"5x5"', "2026-01-31"),
        " it holds no key table: a time, a date, nan, an infinity or a number of over 4300 digits is no parameter",
        None,
    ),
    (
        CONFIG.replace('"5x5"', "0x" + "f" * 4000),
        " it holds no key table: a time, a date, nan, an infinity or a number of over 4300 digits is no parameter",
        None,
    ),
    (".".join("a" * 9000) + " = 1\n" + CONFIG, " malformed TOML: values are nested too deeply", None),
    (
        CONFIG.replace('"5x5"', "inf"),
        " it holds no key table: a time, a date, nan, an infinity or a number of over 4300 digits is no parameter",
        None,
    ),
]


@pytest.mark.parametrize(("text", "message", "hint"), FAULTS, ids=[message[:40] for _, message, _ in FAULTS])
def test_a_configuration_that_proves_nothing_is_malformed(text: str, message: str, hint: str | None) -> None:
    with pytest.raises(Malformed) as caught:
        decode_config(text.encode(), file=FILE)
    assert (f"{FILE}:{message}", hint) == (caught.value.message, caught.value.hint)


def test_a_configuration_of_a_peer_may_have_a_cachetype_of_several_parts_and_no_schema() -> None:
    text = CONFIG.replace('"m.f"', '"group/f"').replace("schema = 1\n", "")
    assert "group/f" == decode_config(text.encode()).cachetype


METADATA = Metadata(
    created="2026-01-31T12:00:00Z",
    tool="dm 0.1.0",
    host="node1",
    user="ada",
    runtime="Python 3.11.7",
    duration_s=3.5,
    git={"commit": "9fceb02", "branch": "main", "dirty": True},
    state_file="/p/.datamanifest-state.toml",
    code_digest="blake3:00",
    packages={"numpy": "2.0.0"},
)


def test_metadata_are_written_and_read_back() -> None:
    expected = """\
created = "2026-01-31T12:00:00Z"
duration_s = 3.5
host = "node1"
runtime = "Python 3.11.7"
tool = "dm 0.1.0"
user = "ada"

[_META]
schema = 1

[code]
digest = "blake3:00"

[git]
branch = "main"
commit = "9fceb02"
dirty = true

[origin]
state_file = "/p/.datamanifest-state.toml"

[packages]
numpy = "2.0.0"
"""
    assert expected == encode_metadata(METADATA).decode()
    assert METADATA._replace(extra={}) == decode_metadata(expected.encode())


def test_what_is_unknown_is_left_out() -> None:
    assert b"[_META]\nschema = 1\n" == encode_metadata(Metadata())
    assert Metadata(git={}, packages={}, extra={}) == decode_metadata(b"")


def test_fields_of_others_are_kept_and_those_of_a_wrong_type_dropped() -> None:
    text = 'created = 1\nduration_s = "x"\ngit = 2\nmine = 3\ncode = 4\n[origin]\ncached_toml = "/c"\nstate_file = 5\n'
    found = decode_metadata(text.encode())
    assert Metadata(git={}, packages={}, extra={"mine": 3, "origin": {"cached_toml": "/c"}}) == found
    again = encode_metadata(found._replace(state_file="/s")).decode()
    assert 'mine = 3\n\n[_META]\nschema = 1\n\n[origin]\ncached_toml = "/c"\nstate_file = "/s"\n' == again


def test_what_is_said_of_earlier_data_is_kept_beside() -> None:
    earlier = Metadata(created="2025-01-01T00:00:00Z", code_digest="python-1:00", git={"commit": "1"}, extra={"x": 1})
    both = METADATA._replace(extra={}, earlier={"data.json": earlier})
    data = encode_metadata(both)
    table = (
        b'[earlier."data.json"]\ncreated = "2025-01-01T00:00:00Z"\nx = 1\n\n'
        b'[earlier."data.json".code]\ndigest = "python-1:00"\n\n[earlier."data.json".git]\ncommit = "1"\n'
    )
    assert table in data
    found = decode_metadata(data)
    assert both.find_of("data.json") == found.find_of("data.json")
    assert METADATA._replace(extra={}) == found.find_of("data.nc")
    assert {} == decode_metadata(b"earlier = 5\n").earlier
    nested = decode_metadata(b"[earlier.a]\nhost = 5\n[earlier.a.earlier.b]\n[earlier]\nc = 1\n")
    assert {"a": Metadata(git={}, packages={}, extra={})} == nested.earlier


def test_a_name_that_is_not_unicode_does_not_lose_a_result() -> None:
    assert b'host = "node\\\\udcff"\n\n[_META]\nschema = 1\n' == encode_metadata(Metadata(host="node\udcff"))


def test_metadata_of_a_newer_schema_are_not_taken_for_this_one() -> None:
    with pytest.raises(Malformed) as caught:
        decode_metadata(b"[_META]\nschema = 3\n", file=FILE)
    assert f"{FILE}: it has schema 3, this dm reads 1" == caught.value.message
    assert ("schema-newer", "install a newer dm") == (caught.value.code, caught.value.hint)
