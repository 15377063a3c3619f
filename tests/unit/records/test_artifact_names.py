"""Cachetypes, versions and the names that users write for artifacts."""

from __future__ import annotations

import pytest

from dm.errors import Refused, UsageError
from dm.plumbing.records.artifact_names import (
    check_cachetype,
    check_version,
    is_param_hash,
    make_address,
    parse_artifact_name,
    split_state_key,
    state_key,
)

HEX = "0123456789abcdef" * 4

FAULTS = {
    "": "it is empty",
    "a/b": "it is not one part of a path",
    "../x": "it is not one part of a path",
    "/x": "it is not one part of a path",
    "..": "it begins with a '.'",
    ".hidden": "it begins with a '.'",
    "a@b": "'@' separates cachetype and version in the state",
    "$data": "symbols are not replaced here",
    "a\nb": "it has a control character",
    "a.lock": "a part ends in '.lock', which the store uses itself",
    "a.complete": "a part ends in '.complete', which the store uses itself",
    "x" * 241: "a part is longer than 240 bytes",
}


@pytest.mark.parametrize(("text", "fault"), FAULTS.items(), ids=lambda text: repr(text)[:20])
def test_an_unsafe_cachetype_or_version_is_refused(text: str, fault: str) -> None:
    shown = text.replace("\n", "\\n")
    with pytest.raises(Refused) as caught:
        check_cachetype(text)
    assert f"cannot use '{shown}' as a cachetype: {fault}" == caught.value.message
    assert ("use a dotted name, as in 'project.module.function'", "cachetype-refused") == (
        caught.value.hint,
        caught.value.code,
    )
    if not text:
        assert "" == check_version(text)
        return
    with pytest.raises(Refused) as caught:
        check_version(text)
    assert f"cannot use '{shown}' as a version: {fault}" == caught.value.message
    assert ("use a short word, as in 'v2'", "version-refused") == (caught.value.hint, caught.value.code)


def test_a_version_that_could_be_a_hash_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        check_version(HEX)
    assert f"cannot use '{HEX}' as a version: it has the form of a parameter hash" == caught.value.message


@pytest.mark.parametrize("text", ["pkg.mod.func", "sst monthly", "größe", "v1.0.0", "a-b_c", "x" * 240])
def test_a_plain_name_is_taken(text: str) -> None:
    assert (text, text) == (check_cachetype(text), check_version(text))


def test_only_64_lower_case_hex_digits_are_a_hash() -> None:
    told = [is_param_hash(text) for text in (HEX, HEX.upper(), HEX[1:], HEX + "0", "g" + HEX[1:], "")]
    assert [True, False, False, False, False, False] == told


@pytest.mark.parametrize(("cachetype", "version", "key"), [("m.f", "", "m.f"), ("m.f", "v1", "m.f@v1")])
def test_a_recipes_key_in_the_state_is_cachetype_and_version(cachetype: str, version: str, key: str) -> None:
    assert key == state_key(cachetype, version)
    assert (cachetype, version) == split_state_key(key)


def test_an_address_has_the_version_between_cachetype_and_hash() -> None:
    assert (f"m.f/{HEX}", f"m.f/v1/{HEX}") == (make_address("m.f", "", HEX), make_address("m.f", "v1", HEX))


ARTIFACTS = [("m.f", "", HEX), ("m.f", "v1", HEX), ("m.f", "v2", "ab" * 32), ("a/b", "", HEX), ("a", "b", HEX)]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("m.f/0123", [0, 1]),
        ("m.f/AB", [2]),
        ("m.f/v1/0", [1]),
        ("m.f@v1/0", [1]),
        (f"m.f/v1/{HEX}", [1]),
        ("m.f/v3/0", []),
        ("m.f/1", []),
        ("a/b/0", [3, 4]),
        ("a/0", [4]),
        ("m/0", []),
    ],
)
def test_a_name_stands_for_the_artifacts_that_it_begins(text: str, named: list[int]) -> None:
    name = parse_artifact_name(text)
    assert named == [at for at, artifact in enumerate(ARTIFACTS) if name.names(*artifact)]


@pytest.mark.parametrize("text", ["", "m.f", "m.f/", "/0", "0123", "m.f/xyz", "../0", "a/../0", f"m.f/{HEX}0", "m\n/0"])
def test_what_names_no_artifact_is_a_wrong_call(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_artifact_name(text)
    shown = text.replace("\n", "\\n")
    assert f"'{shown}' names no artifact" == caught.value.message
    hint = "write <cachetype>[/<version>]/<first digits of its hash>; dm list --kind cached shows them"
    assert (hint, "artifact-name") == (caught.value.hint, caught.value.code)


def test_a_name_is_shown_as_it_is_written() -> None:
    assert "m.f/v1/0a" == str(parse_artifact_name("m.f@v1/0A"))
