"""Drawing results for people: the only porcelain that writes to stdout. Scripts read ``--json`` or the plumbing.

Lines are plain text with a little colour on a terminal; nothing here needs rich, whose import would double the time of
``dm status``.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from dm.plumbing.cli.output import encode_value, write_records
from dm.progress import format_size
from dm.values import Outcome, printable

if TYPE_CHECKING:
    from dm.plumbing.cli.frame import Session

_STYLES = {
    "ok": "32",
    "unchanged": "2",
    "skipped": "2",
    "failed": "31",
    "clean": "32",
    "missing": "33",
    "partial": "33",
    "modified": "31",
    "source-changed": "33",
    "relocated": "36",
    "untracked": "33",
    "unpinned": "33",
    "updated": "36",
}


#: What is said where all datasets were meant and there are none.
NO_DATASETS = "no datasets declared (dm add URI declares one)"


def paint(session: Session, word: str, text: str | None = None) -> str:
    """A word of the result vocabulary in its colour, where stdout shows colours."""
    text = word if text is None else text
    style = _STYLES.get(word)
    wanted = session.color == "always" or (session.color == "auto" and sys.stdout.isatty())
    return f"\x1b[{style}m{text}\x1b[0m" if style and wanted else text


def draw_line(line: str) -> None:
    """One line of result."""
    write_records([line])


def draw_outcome(session: Session, outcome: Outcome) -> None:
    """One finished item: its word, name and path on stdout; a failure as error lines on stderr."""
    if outcome.failed:
        message = outcome.message or "failed"
        named = f"'{outcome.name}'" in message or f"'{printable(outcome.name)}'" in message
        session.say_error(message if named else f"'{outcome.name}': {message}", outcome.hint)
        for difference in outcome.differences:
            if difference.path != ".":
                draw_line(f"  {difference.how:<8} {printable(difference.path)}")
        return
    if session.quiet and outcome.status != "ok":
        return
    parts = [paint(session, outcome.status, f"{outcome.status:<9}"), printable(outcome.name)]
    if outcome.size_bytes is not None:
        parts.append(f"({format_size(outcome.size_bytes)})")
    if outcome.path is not None and outcome.status != "skipped":
        parts.append(f"-> {printable(os.fspath(outcome.path))}")
    if outcome.message:
        parts.append(f"[{printable(outcome.message)}]")
    draw_line(" ".join(parts))


def draw_all(session: Session, outcomes: Sequence[Outcome], *, nothing: str | None = None) -> None:
    """Every item, then how many of each."""
    for outcome in outcomes:
        draw_outcome(session, outcome)
    draw_summary(session, outcomes, nothing=nothing)


def draw_summary(
    session: Session, outcomes: Sequence[Outcome], *, things: str = "datasets", nothing: str | None = None
) -> None:
    """How many of each, on stderr, when there was more than one; the failures by name. ``nothing`` is said when there
    was none.
    """
    if not outcomes and nothing is not None:
        session.note(nothing)
    if len(outcomes) < 2:
        return
    counts: dict[str, int] = {}
    for outcome in outcomes:
        counts[outcome.status] = counts.get(outcome.status, 0) + 1
    session.note(f"{len(outcomes)} {things}: " + ", ".join(f"{count} {word}" for word, count in counts.items()))
    failures = [printable(outcome.name) for outcome in outcomes if outcome.failed]
    if failures:
        session.note("failed: " + ", ".join(failures))


def draw_total(session: Session, outcomes: Sequence[Outcome], done: str) -> None:
    """How many there were and the sum of their bytes, on stderr: ``12 items, 3.4 GiB freed``."""
    items = [outcome for outcome in outcomes if not outcome.failed]
    size_bytes = sum(outcome.size_bytes or 0 for outcome in items)
    session.note(f"{len(items)} item{'' if len(items) == 1 else 's'}, {format_size(size_bytes)} {done}")


def draw_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns padded to their widest cell, at least two blanks apart; the last one is not padded."""
    table = [[title.upper() for title in header]]
    table += [[cell if cell.isprintable() else printable(cell) for cell in row] for row in rows]
    # By columns: a table of 10,000 rows is a tenth of the time of `dm list`.
    *columns, last = [list(column) for column in zip(*table, strict=True)]
    padded = []
    for column in columns:
        width = max(map(len, column))
        padded.append([cell.ljust(width) for cell in column])
    lines = [line.rstrip() for line in map("  ".join, zip(*padded, last, strict=True))]
    write_records(["\n".join(lines)])


def stream_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, apart: bool = False) -> bool:
    """A table whose rows are drawn while they come; False, and nothing is drawn, when there are none.

    The first rows decide how wide the columns are; a cell that is wider moves the rest of its line. ``apart``: an empty
    line comes first.
    """
    rest = iter(rows)
    first = list(itertools.islice(rest, _FIRST_ROWS))
    if not first:
        return False
    titles = [title.upper() for title in header]
    widths = [max(map(len, column)) for column in zip(titles, *first, strict=True)]

    def make_lines() -> Iterator[str]:
        if apart:
            yield ""
        for row in itertools.chain([titles], first, rest):
            cells = [cell if cell.isprintable() else printable(cell) for cell in row]
            padded = [cell.ljust(width) for cell, width in zip(cells[:-1], widths, strict=False)]
            yield "  ".join([*padded, cells[-1]]).rstrip()

    write_records(make_lines())
    return True


#: So many rows decide how wide the columns of a long table are.
_FIRST_ROWS = 200


def draw_fields(fields: Mapping[str, object]) -> None:
    """``name: value`` a line; lists and tables indented below their name."""
    write_records(_format_fields(fields, ""))


def _format_fields(fields: Mapping[str, object], indent: str) -> Iterable[str]:
    for field, value in fields.items():
        name, plain = printable(field), encode_value(value)
        if isinstance(plain, dict) and plain:
            yield f"{indent}{name}:"
            yield from _format_fields(plain, indent + "  ")
        elif isinstance(plain, list) and plain:
            yield f"{indent}{name}:"
            for item in plain:
                if isinstance(item, dict):
                    yield f"{indent}  -"
                    yield from _format_fields(item, indent + "    ")
                else:
                    yield f"{indent}  {_format_value(item)}"
        elif plain not in (None, [], {}):
            yield f"{indent}{name}: {_format_value(plain)}"


def _format_value(plain: object) -> str:
    return str(plain).lower() if isinstance(plain, bool) else printable(str(plain))
