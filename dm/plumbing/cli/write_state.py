"""``dm write-state``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dm.errors import Malformed
from dm.plumbing.cli.frame import Session, command
from dm.values import Digest, Outcome

if TYPE_CHECKING:
    from dm.plumbing.records.state import Record


@command("write-state")
def COMMAND(session: Session) -> None:  # noqa: N802
    """Merge JSON lines from stdin into the state, all in one write or, when a line is malformed, none.

    {"key": …, "storage_path": …, "digest": "sha256:…"} records where a key's bytes are (digest may be left out);
    {"key": …, "delete": true} forgets it. Bytes are never touched.
    """
    import sys

    updates: dict[str, Record] = {}
    deletes: set[str] = set()
    for number, line in enumerate(sys.stdin, start=1):
        if not line.strip():
            continue
        key, record = _read_line(line, number)
        updates.pop(key, None)
        deletes.discard(key)
        if record is None:
            deletes.add(key)
        else:
            updates[key] = record
    session.open_project().merge_state(updates, deletes)
    session.finish([Outcome(key, "ok") for key in (*updates, *deletes)])


def _read_line(line: str, number: int) -> tuple[str, Record | None]:
    import json

    from dm.plumbing.records.state import Record

    def refuse(reason: str) -> Malformed:
        return Malformed(f"stdin:{number}: {reason}", hint="dm write-state --help shows the form", code="bad-line")

    try:
        row = json.loads(line)
    except ValueError as error:
        raise refuse(f"not JSON: {error}") from error
    if not isinstance(row, dict) or not isinstance(row.get("key"), str) or not row["key"]:
        raise refuse("an object with a 'key' is wanted")
    unknown = set(row) - {"key", "storage_path", "digest", "delete"}
    if unknown:
        raise refuse(f"unknown field '{sorted(unknown)[0]}'")
    if row.get("delete") is True:
        return row["key"], None
    if not isinstance(row.get("storage_path"), str) or not row["storage_path"]:
        raise refuse("a 'storage_path' is wanted")
    sha256 = None
    if row.get("digest") is not None:
        try:
            digest = Digest.parse(str(row["digest"]))
        except Malformed as error:
            raise refuse(error.message) from error
        if digest.algorithm != "sha256":
            raise refuse("the state records sha256 digests only")
        sha256 = digest.hex
    return row["key"], Record(row["storage_path"], sha256)
