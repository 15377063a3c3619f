"""``dm resolve-config``."""

from __future__ import annotations

import click

from dm.errors import NotFound
from dm.plumbing.cli.frame import Session, command, nul_option
from dm.plumbing.cli.stores import open_places_here


@command("resolve-config")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--explain", is_flag=True, help="Every rung that sets a name, the winner first.")
@nul_option
def COMMAND(session: Session, names: tuple[str, ...], explain: bool, nul: bool) -> None:  # noqa: N802
    """Print name=value and, after a tab, the rung it came from; every setting that is set when no NAME is given."""
    from dm.plumbing.cli.output import encode_value, write_records

    places = open_places_here(session)
    rows = []
    for name in names or places.ladder.list_names():
        rungs = places.explain(name)
        if not rungs:
            if names:
                raise NotFound(f"'{name}' is not set", hint="dm config list shows what is", code="not-set")
            continue
        rows += [(name, rung) for rung in (rungs if explain else rungs[:1])]
    settings = [{"name": name, "value": encode_value(rung.value), "origin": rung.origin} for name, rung in rows]
    session.finish(
        [],
        draw=lambda _found: write_records(
            (f"{row['name']}={_show(row['value'])}\t{row['origin']}" for row in settings), nul=nul
        ),
        fields={"settings": settings},
    )


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(str(each) for each in value)
    return str(value)
