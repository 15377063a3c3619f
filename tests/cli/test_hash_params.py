"""``dm hash-params``: the parameter hash of a JSON table on stdin."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dm.plumbing.records.params import hash_params
from dm.plumbing.records.sidecars import encode_config
from tests.fixtures.homes import RunDm

REFERENCE = '{"grid": "5x5", "skip_models": ["CESM.*", "FGOALS.*"]}'
HASH = "83425a30d111562d46c1fce9de7618ea7f1f54e1be72e086cba0ac63c6f2ce9b"


def test_the_reference_table_has_the_reference_hash(run_dm: RunDm) -> None:
    done = run_dm("hash-params", input=REFERENCE)
    assert (0, f"{HASH}\n", "") == (done.returncode, done.stdout, done.stderr)


def test_the_order_and_blanks_of_the_json_do_not_matter_and_its_types_do(run_dm: RunDm) -> None:
    same = run_dm("hash-params", input='{"skip_models":["CESM.*","FGOALS.*"],\n\n "grid" : "\\u0035x5"}\n').stdout
    assert f"{HASH}\n" == same
    assert 4 == len({run_dm("hash-params", input=f'{{"a": {value}}}').stdout for value in ("1", "1.0", "true", '"1"')})


def test_json_output_has_the_hash_at_its_top(run_dm: RunDm) -> None:
    done = run_dm("hash-params", "--json", input='{"_a": 1, "é": {}}')
    document = json.loads(done.stdout)
    assert (hash_params({"_a": 1, "é": {}}), 0) == (document["hash"], document["exit"])


TABLE_HINT = 'write an object, as in {"grid": "5x5", "levels": [1, 2]}'
FAULTS = {
    "null": ('{"a": {"b": [1, null]}}', 2, "cannot make a key of 'a.b[1]': it is None"),
    "nan": ('{"a": NaN}', 2, "cannot make a key of 'a': it is nan"),
    "overflow": ('{"a": 1e400}', 2, "cannot make a key of 'a': it is inf"),
    "surrogate": (r'{"a": "\ud800"}', 2, r"cannot make a key of 'a': '\ud800' is not valid Unicode"),
    "meta": ('{"_META": 1}', 2, "cannot make a key of '_META': that name is the sidecar's own"),
    "list": ("[1]", 7, "stdin: not an object"),
    "twice": ('{"a": {"b": 1, "b": 1}}', 7, "stdin: the name 'b' stands twice in one object"),
    "empty": ("", 7, "stdin: not JSON: Expecting value: line 1 column 1 (char 0)"),
    "deep": ('{"a":' + "[" * 10_000, 7, "stdin: it is nested too deeply"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_no_key_table_is_told_in_one_line(run_dm: RunDm, name: str) -> None:
    text, status, message = FAULTS[name]
    done = run_dm("hash-params", input=text)
    first, hint = done.stderr.splitlines()
    assert (status, "", f"dm: error: {message}") == (done.returncode, done.stdout, first)
    assert hint.startswith("hint: ")
    if status == 7:
        assert f"hint: {TABLE_HINT}" == hint


def test_validate_knows_the_sidecars_by_where_they_lie(run_dm: RunDm, project: Path) -> None:
    folder = project / "cached" / "m.f" / HASH
    folder.mkdir(parents=True)
    config, metadata = folder / "config.toml", folder / "metadata.toml"
    config.write_bytes(encode_config("m.f", "", json.loads(REFERENCE), HASH))
    metadata.write_text('created = "2026-01-31T12:00:00Z"\n[_META]\nschema = 1\n')
    assert 0 == run_dm("validate", config, metadata).returncode
    config.write_text(config.read_text().replace("5x5", "5x6"))
    metadata.write_text("[_META]\nschema = 1\nshcema = 1\n")
    done = run_dm("validate", os.path.relpath(config, project), metadata)
    damaged = hash_params({**json.loads(REFERENCE), "grid": "5x6"})[:12]
    told = f"{config}: its parameters have the hash {damaged}…, it says '{HASH[:12]}…'"
    assert (1, told) == (done.returncode, done.stdout.splitlines()[0].partition(" (")[0])
    assert f"{metadata}:3: '_META.shcema': 'shcema' is not a known name; the nearest is 'schema'" in done.stdout
