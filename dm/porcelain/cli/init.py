"""``dm init``."""

from __future__ import annotations

import click

from dm.errors import UsageError
from dm.plumbing.cli.frame import Session, command


@command("init")
@click.argument("folder", default=".", metavar="[DIR]")
def COMMAND(session: Session, folder: str) -> None:  # noqa: N802
    """Start a project in DIR: an empty datamanifest.toml and the ignore entries of what dm keeps beside it.

    Never overwrites anything.
    """
    from dm.porcelain.cli.render import draw_outcome
    from dm.porcelain.verbs.start import start

    if session.manifest_path is not None:
        raise UsageError(
            "dm init makes a datamanifest.toml in a folder, and --manifest names a file",
            hint="leave --manifest out; dm init DIR starts a project there",
        )
    outcome = start(session.resolve(folder), session.environment, progress=session.progress)
    session.finish([outcome], draw=lambda found: draw_outcome(session, outcome))
