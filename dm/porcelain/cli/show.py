"""``dm show``."""

from __future__ import annotations

import click

from dm.plumbing.cli.frame import Session, command
from dm.values import Outcome


@command("show")
@click.argument("name")
def COMMAND(session: Session, name: str) -> None:  # noqa: N802
    """Print all that is known of a dataset: its entry, where it belongs and by which rule, where it is, its digest."""
    from dm.plumbing.cli.output import encode_value
    from dm.porcelain.cli.render import draw_fields
    from dm.porcelain.verbs.locate import describe

    facts = describe(session.open_project(), name)
    found = facts.get("path")
    state = facts["state"] if found else "missing"
    outcome = Outcome(str(facts["name"]), "ok", path=found, state=state)  # type: ignore[arg-type]
    session.finish([outcome], draw=lambda _outcomes: draw_fields(facts), fields={"dataset": encode_value(facts)})
