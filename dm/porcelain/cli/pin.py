"""``dm pin``."""

from __future__ import annotations

import click

from dm.plumbing.cli.frame import Session, command


@command("pin")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--dry-run", is_flag=True, help="Only say what would be pinned.")
def COMMAND(session: Session, names: tuple[str, ...], dry_run: bool) -> None:  # noqa: N802
    """Take what is on disk as the new contract.

    Every byte of each copy is read, and its digests are written into the manifest in the place of those that are there.
    Say --dry-run first to see both.
    """
    from dm.porcelain.cli.render import draw_all
    from dm.porcelain.verbs.pin import pin

    project = session.open_project()
    try:
        outcomes = pin(project, names, dry_run=dry_run)
    finally:
        project.close()
    session.finish(outcomes, draw=lambda found: draw_all(session, found))
