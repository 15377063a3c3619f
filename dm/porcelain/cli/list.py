"""``dm list``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from dm.plumbing.cli.frame import Session, command, nul_option
from dm.values import Outcome, printable

if TYPE_CHECKING:
    from dm.porcelain.artifacts.catalogue import Facts
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
    project = session.open_project(anywhere=kind != "data")
    if session.json:
        _answer(session, project, kind)
        return
    if nul:
        _write_names(project, kind)
    if kind != "cached" and not nul:
        _draw_datasets(session, project, alone=kind == "data")
    if kind != "data" and not nul:
        _draw_artifacts(session, project, alone=kind == "cached")
    session.finish([])


def _draw_datasets(session: Session, project: Project, *, alone: bool) -> None:
    from dm.porcelain.cli.render import draw_table
    from dm.porcelain.unlocked import list_unlocked_names

    rows = []
    for dataset in project.manifest.datasets.values():
        pin = dataset.digest or dataset.checksum
        rows.append((dataset.name, dataset.format or "-", pin.short if pin else "-", dataset.show_key()))
    if rows:
        draw_table(("name", "format", "pinned", "key"), rows)
    elif alone:
        session.note("no datasets declared (dm add URI declares one)")
    unlocked = list_unlocked_names(project)
    if unlocked:
        named = ", ".join(printable(name) for name in unlocked)
        session.note(f"unlocked: {named} (dm lock NAME makes it read-only again)")


def _draw_artifacts(session: Session, project: Project, *, alone: bool) -> None:
    from dm.porcelain.cli.render import stream_table
    from dm.porcelain.verbs.artifacts import list_artifacts

    header = ("name", "format", "size", "files", "created", "state", "parameters")
    rows = map(_make_row, list_artifacts(project))
    if not stream_table(header, rows, apart=not alone and bool(project.manifest.datasets)) and alone:
        session.note("no artifacts: nothing was computed here by a cached function")


def _make_row(facts: Facts) -> tuple[str, ...]:
    from dm.progress import format_size

    params = "-" if facts.config is None else format_params(facts.config.params)
    formats = ",".join(facts.formats) or "-"
    files = "-" if facts.files is None else str(facts.files)
    created = facts.metadata.created or "-"
    return facts.spot.name, formats, format_size(facts.size_bytes), files, created, facts.state, params


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


def _answer(session: Session, project: Project, kind: str) -> None:
    from dm.plumbing.cli.output import encode_value
    from dm.porcelain.unlocked import list_unlocked_names
    from dm.porcelain.verbs.artifacts import list_artifacts, tell_facts

    outcomes = []
    if kind != "cached":
        unlocked = list_unlocked_names(project)
        for each in project.manifest.datasets.values():
            code = "unlocked" if each.name in unlocked else None
            outcomes.append(Outcome(each.name, "ok", digest=each.digest or each.checksum, code=code))
    if kind == "data":
        session.finish(outcomes)
        return
    rows = []
    for facts in list_artifacts(project):
        spot = facts.spot
        path = spot.folder if spot.is_there else None
        outcomes.append(Outcome(spot.address, "ok", path=path, state=facts.state, size_bytes=facts.size_bytes))
        rows.append(encode_value(tell_facts(facts)))
    session.finish(outcomes, fields={"artifacts": rows})
