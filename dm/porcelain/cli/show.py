"""``dm show``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dm.plumbing.cli.frame import Session, command
from dm.values import Outcome

if TYPE_CHECKING:
    from dm.porcelain.project import Project


@command("show")
@click.argument("name")
def COMMAND(session: Session, name: str) -> None:  # noqa: N802
    """Print all that is known of a dataset: its entry, where it belongs and by which rule, where it is, its digest; or
    of a produced one, named by <cachetype>[/<version>]/<digits of its hash>.
    """
    from dm.plumbing.cli.output import encode_value
    from dm.porcelain.artifacts.catalogue import is_artifact_name, means_artifact
    from dm.porcelain.cli.render import draw_fields
    from dm.porcelain.verbs.locate import describe

    project = session.open_project(anywhere=is_artifact_name(name))
    if means_artifact(project, name):
        _show_artifact(session, project, name)
        return
    facts = describe(project, name)
    found = facts.get("path")
    state = facts["state"] if found else "missing"
    outcome = Outcome(str(facts["name"]), "ok", path=found, state=state)  # type: ignore[arg-type]
    session.finish([outcome], draw=lambda _outcomes: draw_fields(facts), fields={"dataset": encode_value(facts)})


def _show_artifact(session: Session, project: Project, name: str) -> None:
    from dm.plumbing.cli.output import encode_value
    from dm.porcelain.cli.render import draw_fields
    from dm.porcelain.verbs.artifacts import describe_artifact

    facts = describe_artifact(project, name)
    outcome = Outcome(str(facts["name"]), "ok", path=facts["path"], state=str(facts["state"]))  # type: ignore[arg-type]
    session.finish([outcome], draw=lambda _outcomes: draw_fields(facts), fields={"artifact": encode_value(facts)})
