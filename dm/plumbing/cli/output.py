"""Writing to stdout: lines, NUL-ended records and the JSON document. Nothing else in `dm` writes there.

Names that are not UTF-8 reach a text line as their own bytes; in JSON they are replaced text with ``…_b64`` beside it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dm.values import Difference, Digest, Outcome

if TYPE_CHECKING:
    from dm.errors import DmError

#: The version of the JSON document (docs/plumbing.md).
JSON_FORMAT = 1


#: Takes the lines of results while something else is drawn on their terminal; None: they are written.
_route: Callable[[str], None] | None = None


def route_lines(draw: Callable[[str], None] | None) -> None:
    """Let ``draw`` put each line of results among what it draws on the same terminal; None ends that."""
    global _route
    _route = draw


def write_bytes(data: bytes) -> None:
    """Write bytes to stdout as they are."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def write_records(records: Iterable[str | bytes], *, nul: bool = False) -> None:
    """Write each record and its end: a newline, or NUL with ``-z``."""
    if _route is not None and not nul:
        for record in records:
            _route(record if isinstance(record, str) else os.fsdecode(record))
        return
    end = b"\0" if nul else b"\n"
    sys.stdout.flush()
    stream = sys.stdout.buffer
    for record in records:
        stream.write((record if isinstance(record, bytes) else _encode(record)) + end)
    stream.flush()


def _encode(text: str) -> bytes:
    """A text as bytes: paths are the bytes that they were. What the locale has no character for is escaped."""
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:
        return text.encode(sys.getfilesystemencoding(), "backslashreplace")


def write_json(document: object) -> None:
    """Write one JSON document and a newline."""
    import json

    write_records([json.dumps(document, ensure_ascii=True, indent=2)])


def write_document(
    command: str,
    outcomes: Sequence[Outcome],
    *,
    exit_status: int,
    error: DmError | None = None,
    fields: Mapping[str, object] | None = None,
) -> None:
    """Write the result document that every ``--json`` promises: format, command, outcomes, exit.

    ``fields`` are further top-level fields of the command; ``error`` is what ended it before there were outcomes.
    """
    document: dict[str, object] = {"format": JSON_FORMAT, "command": command}
    document["outcomes"] = [encode_outcome(outcome) for outcome in outcomes]
    if fields:
        document.update(fields)
    if error is not None:
        document["error"] = {"code": error.code, "message": error.message, "hint": error.hint}
    document["exit"] = exit_status
    write_json(document)


def encode_outcome(outcome: Outcome) -> dict[str, object]:
    """An outcome as the JSON object of docs/plumbing.md; fields that do not apply are left out."""
    row: dict[str, object] = {}
    row.update(encode_text("name", outcome.name))
    row["status"] = outcome.status
    row.update(encode_text("path", os.fspath(outcome.path)) if outcome.path is not None else {"path": None})
    optional = {
        "state": outcome.state,
        "digest": None if outcome.digest is None else str(outcome.digest),
        "bytes": outcome.size_bytes,
        "code": outcome.code,
        "message": outcome.message,
        "hint": outcome.hint,
    }
    row.update({name: value for name, value in optional.items() if value is not None})
    if outcome.digests:
        row["digests"] = {name: None if each is None else str(each) for name, each in outcome.digests.items()}
    if outcome.differences:
        row["differences"] = [encode_difference(difference) for difference in outcome.differences]
    return row


def encode_difference(difference: Difference) -> dict[str, object]:
    """``{"path": …, "how": …}``."""
    return {**encode_text("path", difference.path), "how": difference.how}


def encode_text(name: str, text: str) -> dict[str, object]:
    """``{name: text}``, and ``name_b64`` with the raw bytes beside it where the text is not UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        import base64

        raw = os.fsencode(text)
        return {
            name: raw.decode("utf-8", "replace"),
            f"{name}_b64": base64.b64encode(raw).decode("ascii"),
        }
    return {name: text}


def encode_value(value: object) -> object:
    """A value of a document as JSON has it: digests and paths as text, times in RFC 3339, the rest as it is."""
    if isinstance(value, Digest | Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): encode_value(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [encode_value(inner) for inner in value]
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    isoformat = getattr(value, "isoformat", None)
    return isoformat() if callable(isoformat) else str(value)
