"""``dm list``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from dm.plumbing.cli.frame import Session, command, nul_option
from dm.values import Outcome, printable

if TYPE_CHECKING:
    from dm.porcelain.project import Project

#: So many characters of an artifact's parameters are shown; ``--json`` and `dm show` have them all.
_PARAMS_MAX = 200


@command("list")
@click.option("--kind", type=click.Choice(["data", "cached", "all"]), default="data", help="What is listed.")
@nul_option
def COMMAND(session: Session, kind: str, nul: bool) -> None:  # noqa: N802
    """List the declared datasets: name, format, checksum and key. Looks at no data; see `dm status`.

    With --kind cached the produced ones: name, format, size, files, when they were made, state, parameters. With -z
    names alone, in full, each ended by NUL.
    """
    from dm.porcelain.verbs.listing import list_all

    project = session.open_project(anywhere=kind != "data")
    if session.json:
        _answer(session, list_all(project, kind), kind)
        return
    if nul:
        _write_names(project, kind)
    if kind != "cached" and not nul:
        _draw_datasets(session, list(list_all(project, "data")), alone=kind == "data")
    if kind != "data" and not nul:
        apart = kind == "all" and bool(project.manifest.datasets)
        _draw_artifacts(session, list_all(project, "cached"), alone=kind == "cached", apart=apart)
    session.finish([])


def _draw_datasets(session: Session, outcomes: Sequence[Outcome], *, alone: bool) -> None:
    from dm.porcelain.cli.render import NO_DATASETS, draw_table

    rows = []
    for outcome in outcomes:
        fields = outcome.fields
        pinned = outcome.digest.short if outcome.digest else "-"
        rows.append((outcome.name, str(fields["format"] or "-"), pinned, str(fields["key"])))
    if rows:
        draw_table(("name", "format", "pinned", "key"), rows)
    elif alone:
        session.note(NO_DATASETS)
    unlocked = [outcome.name for outcome in outcomes if outcome.code == "unlocked"]
    if unlocked:
        named = ", ".join(printable(name) for name in unlocked)
        session.note(f"unlocked: {named} (dm lock NAME makes it read-only again)")


def _draw_artifacts(session: Session, outcomes: Iterable[Outcome], *, alone: bool, apart: bool) -> None:
    from dm.porcelain.cli.render import stream_table

    header = ("name", "format", "size", "files", "created", "state", "parameters")
    if not stream_table(header, map(_make_row, outcomes), apart=apart) and alone:
        session.note("no artifacts: nothing was computed here by a cached function")


def _make_row(outcome: Outcome) -> tuple[str, ...]:
    from dm.porcelain.artifacts.catalogue import SHOWN_DIGITS
    from dm.progress import format_size

    fields: Mapping[str, Any] = outcome.fields
    name = outcome.name[: SHOWN_DIGITS - len(fields["hash"])]
    params = "-" if fields["params"] is None else format_params(fields["params"])
    formats = ",".join(fields["formats"]) or "-"
    files = "-" if fields["files"] is None else str(fields["files"])
    return name, formats, format_size(outcome.size_bytes), files, fields["created"] or "-", str(outcome.state), params


def format_params(params: Mapping[str, object]) -> str:
    """A key table on one line: ``grid=5x5 levels=[1,2]``; text that could be taken for something else is quoted."""
    import json

    words = []
    for name, value in params.items():
        told = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        if isinstance(value, str) and _is_plain_word(value):
            told = value
        words.append(f"{name}={told}")
    line = " ".join(words) or "(none)"
    return line if len(line) <= _PARAMS_MAX else f"{line[: _PARAMS_MAX - 1]}…"


def _is_plain_word(text: str) -> bool:
    """Whether a text is one word that does not read as a number, a flag or a list."""
    is_word = text.isprintable() and not set(text) & set(" \"'[]{}")
    return is_word and text[:1].isalpha() and text not in ("true", "false")


def _write_names(project: Project, kind: str) -> None:
    from dm.plumbing.cli.output import write_records
    from dm.porcelain.artifacts.catalogue import list_spots

    if kind != "cached":
        write_records(project.manifest.datasets, nul=True)
    if kind != "data":
        write_records(dict.fromkeys(spot.address for spot in list_spots(project)), nul=True)


def _answer(session: Session, rows: Iterable[Outcome], kind: str) -> None:
    from dm.plumbing.cli.output import encode_value

    outcomes = list(rows)
    tables: dict[str, list[object]] = {}
    for field, one in (("datasets", "data"), ("artifacts", "cached")):
        if kind in (one, "all"):
            tables[field] = [encode_value(each.fields) for each in outcomes if each.fields["kind"] == one]
    session.finish(outcomes, fields=tables)
