"""``dm path``."""

from __future__ import annotations

import click

from dm.plumbing.cli.frame import Session, command
from dm.values import Outcome


@command("path")
@click.argument("name")
def COMMAND(session: Session, name: str) -> None:  # noqa: N802
    """Print where a dataset is; exit 3 when it is not there.

    Reads no data: `dm fetch` and `dm verify` are what vouch for bytes.
    """
    import os

    from dm.porcelain.cli.render import draw_line
    from dm.porcelain.verbs.locate import find_path

    path = find_path(session.open_project(), name)
    session.finish([Outcome(name, "ok", path=path)], draw=lambda _outcomes: draw_line(os.fspath(path)))
