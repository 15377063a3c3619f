from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dm.errors import Malformed, Refused
from dm.values import DIGEST_HEX_LENGTHS, Digest, Key, Outcome, find_key_fault, printable

SHA256_OF_NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("text", [SHA256_OF_NOTHING, SHA256_OF_NOTHING.upper(), f" {SHA256_OF_NOTHING}\n"])
def test_bare_hex_is_sha256_in_any_case(text: str) -> None:
    assert Digest("sha256", SHA256_OF_NOTHING) == Digest.parse(text)


@pytest.mark.parametrize("algorithm", sorted(DIGEST_HEX_LENGTHS))
def test_a_digest_of_every_known_algorithm_reads_back_as_it_prints(algorithm: str) -> None:
    digest = Digest(algorithm, "0123456789abcdef" * (DIGEST_HEX_LENGTHS[algorithm] // 16) + "0" * 16)
    digest = Digest(algorithm, digest.hex[: DIGEST_HEX_LENGTHS[algorithm]])
    assert digest == Digest.parse(str(digest))
    assert digest == Digest.parse(str(digest).upper())
    assert digest.hex == digest.raw.hex()
    assert (algorithm == "blake3-tree") == digest.is_tree


def test_a_short_digest_keeps_the_algorithm() -> None:
    assert "sha256:e3b0c44298fc…" == Digest.parse(SHA256_OF_NOTHING).short


def test_ids_of_blobs_and_trees_are_made_from_their_bytes() -> None:
    raw = bytes(range(32))
    assert f"blake3:{raw.hex()}" == str(Digest.of_blob(raw))
    assert f"blake3-tree:{raw.hex()}" == str(Digest.of_tree(raw))


def test_an_unknown_algorithm_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(Malformed) as caught:
        Digest.parse("crc32:00000000")
    assert "unknown digest algorithm 'crc32'" == caught.value.message
    assert "known are sha256, md5, sha1, sha512, blake2b, blake3, blake3-tree" == caught.value.hint
    assert "digest-unknown" == caught.value.code


@pytest.mark.parametrize("text", ["", "abc", SHA256_OF_NOTHING[:-1], SHA256_OF_NOTHING[:-1] + "g", "sha256:"])
def test_a_digest_of_a_wrong_length_or_alphabet_is_refused(text: str) -> None:
    with pytest.raises(Malformed) as caught:
        Digest.parse(text)
    assert f"'{text}' is not a sha256 digest of 64 hex digits" == caught.value.message
    assert "digest-malformed" == caught.value.code


@pytest.mark.parametrize("text", ["a", "example.com/data/sst.nc#2", "a.b/c d/é", "dm/x", ".complete.d", "a:b"])
def test_a_plain_relative_key_is_taken_as_it_is(text: str) -> None:
    key = Key.parse(text)
    assert text == str(key)
    assert tuple(text.split("/")) == key.parts


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "it is empty"),
        ("/etc/passwd", "it is absolute"),
        ("a//b", "it has the part ''"),
        ("a/", "it has the part ''"),
        (".", "it has the part '.'"),
        ("a/../../b", "it has the part '..'"),
        ("a\0b", "it has a control character"),
        ("a\nb", "it has a control character"),
        ("a\x85b", "it has a control character"),
        ("x" * 241, "a part is longer than 240 bytes"),
        ("é" * 121, "a part is longer than 240 bytes"),
        ("a/.dm/objects", "'.dm' is the store's own folder"),
        (".DM/x", "'.dm' is the store's own folder"),
        ("a.lock", "a part ends in '.lock', which the store uses itself"),
        ("a.tmp/b", "a part ends in '.tmp', which the store uses itself"),
        ("a/.complete", "a part ends in '.complete', which the store uses itself"),
    ],
)
def test_a_key_that_escapes_or_addresses_the_stores_own_files_is_refused(text: str, fault: str) -> None:
    with pytest.raises(Refused) as caught:
        Key.parse(text)
    assert f"unsafe key '{printable(text)}': {fault}" == caught.value.message
    assert ("key-unsafe", "set a plain relative 'key'") == (caught.value.code, caught.value.hint)


@given(st.text())
def test_a_key_that_is_taken_stays_below_any_folder(text: str) -> None:
    if find_key_fault(text) is not None:
        return
    joined = os.path.normpath(os.path.join("/root/of/store", text))
    assert joined == "/root/of/store/" + text


@given(st.text())
def test_printed_text_from_outside_is_one_printable_line(text: str) -> None:
    assert printable(text).isprintable()


def test_a_lone_surrogate_of_a_file_name_is_printed_escaped() -> None:
    assert "a\\udcffb" == printable(os.fsdecode(b"a\xffb"))


def test_an_outcome_with_a_path_opens_like_a_path(tmp_path: Path) -> None:
    (tmp_path / "sst.nc").write_bytes(b"bytes")
    outcome = Outcome("sst", "ok", path=tmp_path / "sst.nc")
    with open(outcome, "rb") as file:
        assert b"bytes" == file.read()
    assert not outcome.failed


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (Outcome("sst", "failed", message="not found (404)"), "'sst' has no path: not found (404)"),
        (Outcome("sst", "skipped"), "'sst' has no path: skipped"),
    ],
)
def test_an_outcome_without_a_path_says_why_when_it_is_opened(outcome: Outcome, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        os.fspath(outcome)
    assert message == str(caught.value)
    assert ("failed" == outcome.status) == outcome.failed
