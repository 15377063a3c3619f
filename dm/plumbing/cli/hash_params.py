"""``dm hash-params``."""

from __future__ import annotations

from dm.errors import Malformed
from dm.plumbing.cli.frame import Session, command
from dm.values import Outcome, printable


@command("hash-params")
def COMMAND(session: Session) -> None:  # noqa: N802
    """Print the parameter hash of a key table, a JSON object on stdin: 64 hex digits.

    The values are strings, numbers, true, false, lists and objects; 1 and 1.0 are two. Every name counts, whatever it
    begins with.
    """
    import sys

    from dm.plumbing.cli.output import write_records
    from dm.plumbing.records.params import hash_params

    found = hash_params(_read_table(sys.stdin.buffer.read()))
    session.finish([Outcome("-", "ok")], draw=lambda _outcomes: write_records([found]), fields={"hash": found})


def _read_table(data: bytes) -> dict[str, object]:
    import json

    def refuse(reason: str) -> Malformed:
        hint = """write an object, as in {"grid": "5x5", "levels": [1, 2]}"""
        return Malformed(f"stdin: {reason}", hint=hint, code="table-malformed")

    def build(pairs: list[tuple[str, object]]) -> dict[str, object]:
        table = dict(pairs)
        if len(table) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise refuse(f"the name '{printable(twice)}' stands twice in one object")
        return table

    try:
        table = json.loads(data, object_pairs_hook=build)
    except RecursionError:
        raise refuse("it is nested too deeply") from None
    except ValueError as error:
        raise refuse(f"not JSON: {printable(str(error))}") from error
    if not isinstance(table, dict):
        raise refuse("not an object")
    return table
