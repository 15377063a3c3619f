"""Documents against their schemas: every finding, with line and the name that was meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from dm.errors import Malformed, UsageError
from dm.plumbing.records.dataset_fields import FIELD_NAMES
from dm.plumbing.records.fields import FIELDS
from dm.plumbing.records.params import hash_params
from dm.plumbing.records.schema import KINDS, Finding, read_schema, validate
from dm.plumbing.records.sidecars import Metadata, encode_config, encode_metadata

FILE = Path("f.toml")
HEX = "0" * 64


def told(kind: str, text: str) -> list[tuple[int | None, str, str]]:
    return [(finding.line, finding.field, finding.message) for finding in validate(kind, text, FILE)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_schemas_are_schemas(kind: str) -> None:
    schema = read_schema(KINDS[kind])
    assert "https://json-schema.org/draft/2020-12/schema" == schema["$schema"]
    jsonschema.Draft202012Validator.check_schema(schema)


def test_the_schemas_know_every_field_that_dm_knows() -> None:
    manifest, config = read_schema(KINDS["manifest"]), read_schema(KINDS["config"])
    assert {*FIELD_NAMES, "_LANG"} == set(manifest["$defs"]["dataset"]["properties"])
    assert {*FIELDS, "_SCOPE", "_PREFIX"} == set(config["$defs"]["fields"]["properties"])


def test_a_slip_is_told_with_the_nearest_known_name() -> None:
    text = f'[sst]\nuri = "https://h/a"\nchecksm = "{HEX}"\nextrct = true\nurl = "x"\njulia = "f"\nmine = 1\n'
    findings = validate("manifest", text, FILE)
    assert [
        (3, "sst.checksm", "'checksm' is not a known name; the nearest is 'checksum'"),
        (4, "sst.extrct", "'extrct' is not a known name; the nearest is 'extract'"),
        (5, "sst.url", "'url' is not a known name; the nearest is 'uri'"),
    ] == told("manifest", text)
    assert Finding(FILE, 3, "sst.checksm", findings[0].message, "write 'checksum', or leave it") == findings[0]


MANIFESTS = {
    "stray key": ('title = "x"', 1, "title", "'title' must be a table, not a string"),
    "schema": (
        "[_META]\nschema = 99",
        2,
        "_META.schema",
        "'schema' is 99, it must be 1, the schema that is understood",
    ),
    "structural slip": ("[_STORAG]\nx = 1", 1, "_STORAG", "'_STORAG' is not a known name; the nearest is '_STORAGE'"),
    "flag": ('["a b"]\nextract = "yes"', 2, '"a b".extract', "'extract' must be true or false, not a string"),
    "no ref": (
        '[a]\nkey = "k"\nfetcher = { rf = "m:f" }',
        3,
        "a.fetcher",
        "'fetcher' must have a 'ref'",
    ),
    "wrong args": (
        '[a]\nkey = "k"\nloader = { ref = "m:f", args = "x" }',
        3,
        "a.loader",
        "'args' of 'loader' must be a list, not a string",
    ),
    "text": ("[a]\nversion = 2.5", 2, "a.version", "'version' must be a string, not a number"),
    "list": ('[a]\naliases = "x"', 2, "a.aliases", "'aliases' must be a list of strings, not a string"),
    "list item": ("[a]\nrequires = ['x',\n1]", 2, "a.requires.1", "'requires' must be a string, not a number"),
    "date": ("[a]\ndoi = 2020-01-01", 2, "a.doi", "'doi' must be a string, not a date or time"),
    "uri": ("[a]\nuri = {}", 2, "a.uri", "'uri' must be a string, not a table"),
    "user": ('[a]\nuri = "https://u:p@h/a"', 2, "a.uri", "'uri' has a user or password in it"),
    "both sources": ('[a]\nuri = "x"\nuris = ["y"]', 1, "a", "'uri' and 'uris' contradict each other"),
    "both places": (
        '[a]\nstore = "$data"\nstorage_path = "y"',
        1,
        "a",
        "'store' and 'storage_path' contradict each other",
    ),
    "selector": (
        '[a]\nstore = "data"',
        2,
        "a.store",
        "'store' is 'data', it must be a folder as '$data', with a path below it",
    ),
    "digest": (
        '[a]\ndigest = "x"',
        2,
        "a.digest",
        "'digest' is 'x', it must be a folder's digest as blake3-tree:<64 hex digits>",
    ),
    "binding": (
        "[a]\nloader = 1",
        2,
        "a.loader",
        "'loader' must be a string 'module:function', or a table with 'ref', 'args' and 'kwargs', not a number",
    ),
    "saver": (
        "[_SAVERS]\nnc = 1",
        2,
        "_SAVERS.nc",
        "'nc' must be a string 'module:function', or a table with 'ref', 'args' and 'kwargs', not a number",
    ),
    "storage": ("[_STORAGE]\ndata = 1", 2, "_STORAGE.data", "'data' must be a string, not a number"),
    "host": (
        '[_STORAGE._HOST."x*"]\njobs = 0',
        2,
        '_STORAGE._HOST."x*".jobs',
        "'jobs' is 0, it must be a whole number from 1",
    ),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_each_finding_in_a_manifest_has_line_field_and_message(case: str) -> None:
    text, line, field, message = MANIFESTS[case]
    assert [(line, field, message)] == told("manifest", text + "\n")


def test_all_findings_of_a_document_are_told_in_the_order_of_lines() -> None:
    text = "".join(f"[d{number}]\nextract = 1\n\n" for number in range(5))
    assert [2, 5, 8, 11, 14] == [finding.line for finding in validate("manifest", text, FILE)]


def test_what_no_schema_can_say_is_found_too() -> None:
    differing = f'[a]\nchecksum = "{HEX}"\nsha256 = "{"1" * 64}"\n'
    message = (
        "dataset 'a': 'checksum' is sha256:000000000000…, 'sha256' is sha256:111111111111…: they contradict each other"
    )
    assert [(3, "", message)] == told("manifest", differing)
    colliding = '[a]\nuri = "https://h/a?1"\n[b]\nuri = "https://h/a?2"\n[c]\nkey = "../c"\n'
    assert [
        (1, "a", "'a' would land on 'b', from another source"),
        (3, "b", "'b' would land on 'a', from another source"),
        (6, "c", "unsafe key '../c': it has the part '..'"),
    ] == told("manifest", colliding)


CONFIGS = {
    "slip": ('datsets_dir = "/x"', "'datsets_dir' is not a known name; the nearest is 'datasets_dir'"),
    "symbol": ("scratch = 1", "'scratch' must be a string, not a number"),
    "seconds": ("lock_stale_age = -1", "'lock_stale_age' is -1, it must be a number of seconds above 0"),
    "links": ('link = ["symlink"]', "'link' is 'symlink', it must be 'reflink', 'hardlink' or 'copy'"),
    "durability": ('durability = "no"', "'durability' is 'no', it must be 'batch' or 'none'"),
    "selector": ('default = "data"', "'default' is 'data', it must be a folder as '$data', with a path below it"),
    "size": (
        'archive_max_bytes = "ten"',
        "'archive_max_bytes' is 'ten', it must be a number of bytes, or one with a unit as in '10GB'",
    ),
    "pools": ("datasets_pools = 1", "'datasets_pools' must be a list of strings, not a number"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_each_finding_in_a_config_file_has_line_field_and_message(case: str) -> None:
    text, message = CONFIGS[case]
    [finding] = validate("config", f"# mine\n{text}\n", FILE)
    assert (2, message) == (finding.line, finding.message)


def test_names_of_the_users_own_are_no_slips() -> None:
    text = (
        'data2 = "/x"\nscope_2 = "y"\nscratch = "$data/s"\nwork = "/w"\n[_HOST."a*"]\nscratch = "/s"\n[_OTHER]\nx = 1\n'
    )
    assert [] == told("config", text)


STATES = {
    "old shape": ("[_META]\nschema = 4", 2, "_META.schema", "'schema' is 4, it must be 5, the shape that is written"),
    "no shape": ("[datasets]", None, "", "'_META' is missing"),
    "no path": (
        f"_META.schema = 5\n[datasets.x]\nsha256 = '{HEX}'",
        2,
        "datasets.x",
        "'storage_path' is missing in 'x'",
    ),
    "sha256": (
        "_META.schema = 5\n[datasets.x]\nstorage_path = 'a'\nsha256 = 'b'",
        4,
        "datasets.x.sha256",
        "'sha256' is 'b', it must be 64 hex digits",
    ),
    "hash": (
        "_META.schema = 5\n[datacache.c.instances]\nx = 'p'",
        3,
        "datacache.c.instances.x",
        "'x' is 'x', it must be 64 hex digits",
    ),
    "empty": (
        f"_META.schema = 5\n[datacache.c.instances]\n{HEX} = ''",
        3,
        f"datacache.c.instances.{HEX}",
        f"'{HEX}' is '', it must be the artifact's folder",
    ),
}


@pytest.mark.parametrize("case", STATES)
def test_each_finding_in_a_state_has_line_field_and_message(case: str) -> None:
    text, line, field, message = STATES[case]
    assert [(line, field, message)] == told("state", text + "\n")


def test_what_dm_writes_itself_has_no_findings() -> None:
    manifest = f"""
        [_META]
        schema = 1
        [_STORAGE]
        data = "/d"
        [_STORAGE._HOST."login*"]
        cache = "/c"
        [_LANG.julia.loaders]
        nc = "M.f"
        [sst]
        uri = "https://h/a.zip#2"
        checksum = "sha256:{HEX}"
        digest = "blake3-tree:{HEX}"
        extract = true
        fetcher = {{ ref = "m:f", args = [1], kwargs = {{ a = 1 }} }}
        scope = ""
        store = "$data/sub"
        [files]
        uri = ["https://h/x", "https://h/y"]
        own = "kept"
    """
    assert [] == told("manifest", manifest)
    config = 'datasets_pools = []\nlink = ["copy"]\narchive_max_bytes = "1.5 GiB"\njobs = 4\n[_SCOPE]\ncached = ""\n'
    assert [] == told("config", config)
    state = f'[_META]\nschema = 5\n[datasets."h/a"]\nstorage_path = "x"\nsha256 = "{HEX}"\n'
    assert [] == told(
        "state", state + f'[datacache."c@1"]\nref = "m:f"\nformat = "nc"\n[datacache."c@1".instances]\n{HEX} = "p"\n'
    )


_META = f'[_META]\nschema = 1\ncachetype = "m.f"\nhash = "{HEX}"\n'
ARTIFACT_CONFIGS = {
    "no sidecar": ("a = 1", None, "", "'_META' is missing"),
    "schema": (
        _META.replace("1", "2", 1),
        2,
        "_META.schema",
        "'schema' is 2, it must be 1, the schema that is written",
    ),
    "hash": (_META.replace(HEX, "0"), 4, "_META.hash", "'hash' is '0', it must be 64 hex digits"),
    "no cachetype": (_META.replace("cachetype", "mine"), 1, "_META", "'cachetype' is missing in '_META'"),
    "date": (
        f"[a]\nb = [2026-01-31]\n{_META}",
        2,
        "a.b.0",
        "'b' must be a plain value, not a date or time",
    ),
    "slip": (f'{_META}verison = "v1"', 5, "_META.verison", "'verison' is not a known name; the nearest is 'version'"),
}
ARTIFACT_METADATA = {
    "no schema": ("tool = 'x'", None, "", "'_META' is missing"),
    "time": (
        '[_META]\nschema = 1\n[git]\ndirty = "yes"',
        4,
        "git.dirty",
        "'dirty' must be true or false, not a string",
    ),
    "created": (
        'created = "yesterday"\n[_META]\nschema = 1',
        1,
        "created",
        "'created' is 'yesterday', it must be a time as in 2026-01-31T12:00:00Z",
    ),
    "packages": (
        "[_META]\nschema = 1\n[packages]\nnumpy = 2.0",
        4,
        "packages.numpy",
        "'numpy' must be a string, not a number",
    ),
    "slip": (
        'hsot = "x"\n[_META]\nschema = 1',
        1,
        "hsot",
        "'hsot' is not a known name; the nearest is 'host'",
    ),
}


@pytest.mark.parametrize("kind", ["artifact-config", "artifact-metadata"])
def test_every_fault_of_a_sidecar_is_told(kind: str) -> None:
    cases = ARTIFACT_CONFIGS if kind == "artifact-config" else ARTIFACT_METADATA
    for text, line, field, message in cases.values():
        assert [(line, field, message)] == told(kind, text)


def test_the_sidecars_that_dm_writes_are_valid() -> None:
    params = {"a": [1, {"b": 2.5}], "_c": {"": "x"}, "_METHOD": True, "hash": "x", "versions": 1}
    config = encode_config("m.f", "v1", params, hash_params(params)).decode()
    assert [] == told("artifact-config", config)
    assert [(None, "", f"its parameters have the hash {hash_params(params)[:12]}…, it says '000000000000…'")] == told(
        "artifact-config", config.replace(hash_params(params), HEX)
    )
    full = Metadata(
        "2026-01-31T12:00:00Z", "dm 1", "h", "u", "Py", 1.5, {"dirty": True}, "/s", "blake3:0", {"numpy": "2"},
        {"x": 1}, {"data.json": Metadata("2026-01-31T12:00:00Z", code_digest="python-1:0"), "data.x": Metadata()},
    )
    assert [] == told("artifact-metadata", encode_metadata(full).decode())
    assert [] == told("artifact-metadata", encode_metadata(Metadata()).decode())


def test_a_sidecar_that_nests_without_end_is_malformed() -> None:
    with pytest.raises(Malformed) as caught:
        validate("artifact-config", ".".join("a" * 9000) + " = 1\n" + _META, FILE)
    told = "f.toml: malformed TOML: values are nested too deeply"
    assert (told, "toml-malformed") == (caught.value.message, caught.value.code)


@pytest.mark.parametrize("kind", KINDS)
def test_the_plain_validator_agrees_but_for_slips(kind: str) -> None:
    """The schemas stand on their own: what other tools make of them is the same."""
    from dm.plumbing.records.toml import read_toml

    resources: list[tuple[str, Any]] = [(name, read_schema(name)) for name in KINDS.values()]
    registry: Registry[Any] = Registry().with_resources(
        [(name, DRAFT202012.create_resource(schema)) for name, schema in resources]
    )
    plain = jsonschema.Draft202012Validator(read_schema(KINDS[kind]), registry=registry)
    cases = {
        "manifest": MANIFESTS,
        "config": CONFIGS,
        "state": STATES,
        "artifact-config": ARTIFACT_CONFIGS,
        "artifact-metadata": ARTIFACT_METADATA,
    }[kind]
    for name, case in cases.items():
        slip = name in ("slip", "structural slip")
        assert (name, slip) == (name, plain.is_valid(read_toml(str(case[0]))))


def test_text_that_is_not_toml_is_malformed() -> None:
    with pytest.raises(Malformed) as caught:
        validate("config", b"a = \n", FILE)
    assert "f.toml:1: malformed TOML: invalid value" == caught.value.message


@pytest.mark.parametrize(
    ("kind", "hint"), [("manifst", "did you mean 'manifest'?"), ("x", f"known are {', '.join(map(repr, KINDS))}")]
)
def test_an_unknown_kind_is_told(kind: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        validate(kind, b"")
    assert (f"unknown kind of document '{kind}'", hint) == (caught.value.message, caught.value.hint)
