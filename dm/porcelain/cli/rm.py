"""``dm rm``."""

from __future__ import annotations

import click

from dm.plumbing.cli.frame import Session, command


@command("rm")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--delete", is_flag=True, help="Delete their working copies too (objects stay in the store).")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
def COMMAND(session: Session, names: tuple[str, ...], delete: bool, dry_run: bool) -> None:  # noqa: N802
    """Remove entries and their state records. The bytes stay, unless --delete is given.

    A copy that another entry uses, that lies in a pool or that is the user's own stays in any case.
    """
    from dm.porcelain.cli.render import draw_outcome, draw_summary
    from dm.porcelain.verbs.remove import remove

    project = session.open_project()
    try:
        outcomes = remove(project, names, delete=delete, dry_run=dry_run)
    finally:
        project.close()

    def draw(found: object) -> None:
        for outcome in outcomes:
            draw_outcome(session, outcome)
        draw_summary(session, outcomes)

    session.finish(outcomes, draw=draw)
