"""Refs: one line, read and written."""

from __future__ import annotations

from pathlib import Path

import pytest

from dm.errors import Malformed, Refused
from dm.plumbing.store.refs import Ref, check_ref_name
from dm.values import Digest

DIGEST = Digest("blake3", "8e4c7c1b99dbfd50e7a95185fead5ee1448fa904a2fdd778eaf5f2dbfd629a99")


def test_a_ref_is_one_line_of_five_words() -> None:
    ref = Ref(DIGEST, 6, 1, "2026-01-31T12:00:00Z", "ab" * 32)
    assert ref.format() == f"{DIGEST} 6 1 2026-01-31T12:00:00Z {'ab' * 32}"
    assert Ref.parse(ref.format() + "\n") == ref


def test_what_is_not_known_is_a_dash() -> None:
    assert Ref(None, 6, 1).format() == "- 6 1 - -"
    assert Ref.parse("- 6 1 - -") == Ref(None, 6, 1)
    assert Ref.parse("- - - - -") == Ref()


@pytest.mark.parametrize("field", ["two words", "", "a\nb"])
def test_a_field_that_is_no_word_is_never_written(field: str) -> None:
    with pytest.raises(ValueError, match="not a field of a ref"):
        Ref(DIGEST, 6, 1, None, field).format()


@pytest.mark.parametrize(
    "line",
    ["", "- 6 1 -", "- 6 1 - - -", "- six 1 - -", "- -6 1 - -", "sha257:ab 6 1 - -", "blake3:ab 6 1 - -", "- 6  1 - -"],
)
def test_a_line_that_is_no_ref_is_malformed(line: str) -> None:
    with pytest.raises(Malformed) as caught:
        Ref.parse(line, file=Path("refs/a"))
    message = f"refs/a: '{line}' is not a ref (digest, bytes, files, verified, source id)"
    assert caught.value.message == message
    assert caught.value.hint == "remove the file; dm verify writes it anew"


@pytest.mark.parametrize("name", ["", "/a", "a/../b", "a//b", "a/.DM/b", "a.lock", "a/b.complete", "a\0b"])
def test_a_name_that_leaves_or_touches_the_stores_own_files_is_refused(name: str) -> None:
    with pytest.raises(Refused) as caught:
        check_ref_name(name)
    assert caught.value.message.startswith("unsafe place '")
    assert caught.value.hint == "choose a plain path"
    assert caught.value.exit_status == 6


def test_a_plain_name_is_returned() -> None:
    assert check_ref_name("datasets/example.com/a b.nc#2") == "datasets/example.com/a b.nc#2"
