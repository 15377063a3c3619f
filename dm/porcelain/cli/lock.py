"""``dm lock``."""

from __future__ import annotations

import click

from dm.plumbing.cli.frame import Session, command


@command("lock")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--dry-run", is_flag=True, help="Only say what would be locked.")
def COMMAND(session: Session, names: tuple[str, ...], dry_run: bool) -> None:  # noqa: N802
    """Make an unlocked copy read-only again, verified.

    Every byte is read: what differs from the manifest is exit 4, and `dm pin` accepts it. The shared copy is used again
    where its bytes are the same; else the private one shares its bytes with the store from now on.
    """
    from dm.porcelain.cli.render import draw_all
    from dm.porcelain.verbs.lock import lock

    project = session.open_project()
    try:
        outcomes = lock(project, names, dry_run=dry_run)
    finally:
        project.close()
    session.finish(outcomes, draw=lambda found: draw_all(session, found))
