"""``dm resolve-config``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dm.errors import NotFound
from dm.plumbing.cli.frame import Session, command, nul_option
from dm.plumbing.cli.stores import open_places_here
from dm.values import printable

if TYPE_CHECKING:
    from dm.plumbing.records.places import Places


@command("resolve-config")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--explain", is_flag=True, help="Every rung, with the one in force.")
@nul_option
def COMMAND(session: Session, names: tuple[str, ...], explain: bool, nul: bool) -> None:  # noqa: N802
    """Print name=value and, after a tab, the rung it came from; every setting that is set when no NAME is given.

    With --explain every rung of it, the first field * for the one in force and - for the others.
    """
    from dm.plumbing.cli.output import encode_value, write_records

    places = open_places_here(session)
    settings = []
    for name in names or list_setting_names(places):
        winner = places.ladder.lookup(name)
        if winner is None and names and not explain:
            raise NotFound(f"'{name}' is not set", hint="dm config list shows what is", code="field-unset")
        rungs = places.explain(name) if explain else [] if winner is None else [winner]
        for rung in rungs:
            row = {"name": name, "value": encode_value(rung.value), "origin": rung.origin}
            settings.append({**row, "wins": rung.wins} if explain else row)

    def format_line(row: dict[str, object]) -> str:
        mark = ("*\t" if row["wins"] else "-\t") if explain else ""
        setting, origin = f"{row['name']}={show_value(row['value'])}", str(row["origin"])
        # A clone's values are data: one with a line end in it must not look like another setting.
        return f"{mark}{setting}\t{origin}" if nul else f"{mark}{printable(setting)}\t{printable(origin)}"

    session.finish(
        [], draw=lambda _found: write_records(map(format_line, settings), nul=nul), fields={"settings": settings}
    )


def list_setting_names(places: Places) -> list[str]:
    """Every setting that some rung may set: the fields and the user's own symbols, sorted."""
    from dm.plumbing.records.fields import FIELDS

    return sorted({*FIELDS, *places.ladder.list_names()})


def show_value(value: object) -> str:
    """A setting's value on one line; nothing when it is not set."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ",".join(str(each) for each in value)
    return "" if value is None else str(value)
