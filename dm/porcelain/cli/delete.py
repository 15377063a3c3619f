"""``dm delete``."""

from __future__ import annotations

import click

from dm.plumbing.cli.frame import Session, command


@command("delete")
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed, with its bytes.")
def COMMAND(session: Session, name: str, dry_run: bool) -> None:  # noqa: N802
    """Remove one produced dataset, named by <cachetype>[/<version>]/<digits of its hash>, with its record.

    A name that fits several is exit 3 and names them. Copies in pools and in folders of other tools stay. Who computes
    it now is waited for. Objects stay in the store until `dm prune`.
    """
    from dm.porcelain.cli.render import draw_outcome, draw_summary
    from dm.porcelain.verbs.delete import delete

    project = session.open_project(anywhere=True)
    try:
        outcomes = delete(project, name, dry_run=dry_run)
    finally:
        project.close()

    def draw(found: object) -> None:
        for outcome in outcomes:
            draw_outcome(session, outcome)
        draw_summary(session, outcomes)

    session.finish(outcomes, draw=draw)
