from __future__ import annotations

import pickle
import traceback
from pathlib import Path

import pytest

from dm.errors import (
    GRAVITY,
    ContentMismatch,
    DmError,
    MachineFailed,
    Malformed,
    NotFound,
    Refused,
    SourceFailed,
    UsageError,
    gravest,
)


@pytest.mark.parametrize(
    ("kind", "exit_status", "code"),
    [
        (DmError, 70, "error"),
        (UsageError, 2, "usage"),
        (NotFound, 3, "not-found"),
        (ContentMismatch, 4, "content-mismatch"),
        (SourceFailed, 5, "source-failed"),
        (Refused, 6, "refused"),
        (Malformed, 7, "malformed"),
        (MachineFailed, 8, "machine-failed"),
    ],
)
def test_each_kind_has_the_exit_status_and_the_code_of_the_table(
    kind: type[DmError], exit_status: int, code: str
) -> None:
    error = kind("it went wrong")
    assert (exit_status, code) == (error.exit_status, error.code)
    assert "it went wrong" == str(error) == error.message
    assert error.hint is None


def test_every_kind_is_in_the_table_above_and_in_the_order_of_gravity() -> None:
    statuses = {kind.exit_status for kind in DmError.__subclasses__()} | {DmError.exit_status}
    assert {70, 2, 3, 4, 5, 6, 7, 8} == statuses
    assert statuses <= set(GRAVITY)


def test_a_traceback_shows_the_way_out_too() -> None:
    error = pickle.loads(pickle.dumps(Refused("it is not trusted", hint="dm trust shows what it would run")))
    shown = "".join(traceback.format_exception(error))
    assert shown.endswith("Refused: it is not trusted\nhint: dm trust shows what it would run\n")
    assert "hint" not in "".join(traceback.format_exception(Refused("it is not trusted")))


def test_a_code_and_a_hint_of_the_case_itself_take_precedence() -> None:
    error = Refused("unsafe key 'a/..'", hint="set a plain relative 'key'", code="key-unsafe")
    assert ("key-unsafe", "set a plain relative 'key'") == (error.code, error.hint)


@pytest.mark.parametrize(
    ("line", "message"),
    [(None, "/p/datamanifest.toml: no such thing"), (7, "/p/datamanifest.toml:7: no such thing")],
)
def test_a_malformed_document_names_its_file_and_line_first(line: int | None, message: str) -> None:
    error = Malformed("no such thing", file=Path("/p/datamanifest.toml"), line=line)
    assert message == str(error)


def test_a_malformed_document_without_a_file_has_the_bare_message() -> None:
    assert "no such thing" == str(Malformed("no such thing"))


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([], 0),
        ([0, 0], 0),
        ([3, 5], 5),
        ([5, 8, 3], 8),
        ([8, 7], 7),
        ([7, 6, 8], 6),
        ([3, 4, 6, 7, 8, 5], 4),
        ([4, 70], 70),
        ([0, 1], 1),
        ([143], 143),
    ],
)
def test_several_failures_end_with_the_gravest(statuses: list[int], expected: int) -> None:
    assert expected == gravest(statuses)
    assert expected == gravest(reversed(statuses))
