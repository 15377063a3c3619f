"""``dm refresh``."""

from __future__ import annotations

import click

from dm.plumbing.cli.frame import Session, command


@command("refresh")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--dry-run", is_flag=True, help="Only say what would be written down.")
def COMMAND(session: Session, names: tuple[str, ...], dry_run: bool) -> None:  # noqa: N802
    """Bring what is recorded in line with the disk; nothing is fetched and no data changes.

    Copies that were moved, found, or replaced by another tool with right bytes become known; a missing marker is put
    once the bytes are proven; records of what is gone are forgotten. Without NAME everything that is declared.
    """
    from dm.porcelain.cli.render import NO_DATASETS, draw_all
    from dm.porcelain.verbs.refresh import refresh

    project = session.open_project()
    try:
        outcomes = refresh(project, names, dry_run=dry_run)
    finally:
        project.close()
    session.finish(outcomes, draw=lambda found: draw_all(session, found, nothing=NO_DATASETS))
