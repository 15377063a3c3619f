"""``dm show``."""

from __future__ import annotations

import click

from dm.plumbing.cli.frame import Session, command
from dm.values import Outcome


@command("show")
@click.argument("name")
def COMMAND(session: Session, name: str) -> None:  # noqa: N802
    """Print all that is known of a dataset: its entry, where it belongs and by which rule, where it is, its digest; or
    of a produced one, named by <cachetype>[/<version>]/<digits of its hash>.
    """
    from dm.plumbing.cli.output import encode_value
    from dm.porcelain.artifacts.catalogue import is_artifact_name
    from dm.porcelain.cli.render import draw_fields
    from dm.porcelain.verbs.locate import describe

    facts = describe(session.open_project(anywhere=is_artifact_name(name)), name)
    field = "artifact" if facts["kind"] == "cached" else "dataset"
    outcome = Outcome(str(facts["name"]), "ok", path=facts["path"], state=facts["state"])  # type: ignore[arg-type]
    session.finish([outcome], draw=lambda _outcomes: draw_fields(facts), fields={field: encode_value(facts)})
