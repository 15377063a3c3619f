"""``dm path``."""

from __future__ import annotations

import click

from dm.plumbing.cli.frame import Session, command
from dm.values import Outcome


@command("path")
@click.argument("name")
def COMMAND(session: Session, name: str) -> None:  # noqa: N802
    """Print where a dataset is, or the folder of a produced one; exit 3 when it is not there.

    Reads no data: `dm fetch` and `dm verify` are what vouch for bytes.
    """
    import os

    from dm.porcelain.artifacts.catalogue import is_artifact_name
    from dm.porcelain.cli.render import draw_line
    from dm.porcelain.verbs.locate import find_path

    project = session.open_project(anywhere=is_artifact_name(name))
    path = find_path(project, name)
    session.finish([Outcome(name, "ok", path=path)], draw=lambda _outcomes: draw_line(os.fspath(path)))
