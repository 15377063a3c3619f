"""``dm unlock``."""

from __future__ import annotations

import click

from dm.plumbing.cli.frame import Session, command


@command("unlock")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--dry-run", is_flag=True, help="Only say what would be unlocked, and where it would be.")
def COMMAND(session: Session, names: tuple[str, ...], dry_run: bool) -> None:  # noqa: N802
    """Make a private copy of a dataset that can be edited.

    Copies are read-only since they share their bytes with other projects. This one shares them with nobody: it lies in
    the project's own scope, is made of the copy in use (every byte is read) and is used from now on. After an edit
    `dm pin` makes it the dataset, `dm fetch --force` puts it aside; `dm lock` makes it read-only again.
    """
    from dm.porcelain.cli.render import draw_all
    from dm.porcelain.verbs.unlock import unlock

    project = session.open_project()
    try:
        outcomes = unlock(project, names, dry_run=dry_run)
    finally:
        project.close()
    session.finish(outcomes, draw=lambda found: draw_all(session, found))
