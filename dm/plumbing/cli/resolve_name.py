"""``dm resolve-name``."""

from __future__ import annotations

import click

from dm.plumbing.cli.frame import Session, command
from dm.values import Outcome


@command("resolve-name")
@click.argument("identifier", metavar="NAME")
def COMMAND(session: Session, identifier: str) -> None:  # noqa: N802
    """Print the name of the one dataset that a name, alias or DOI stands for; exit 3 when there is none, or several."""
    from dm.plumbing.cli.output import write_records

    dataset = session.open_project().manifest.find(identifier)
    session.finish([Outcome(dataset.name, "ok")], draw=lambda _found: write_records([dataset.name]))
