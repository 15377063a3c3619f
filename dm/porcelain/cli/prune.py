"""``dm prune``."""

from __future__ import annotations

import click

from dm.plumbing.cli.frame import Session, command
from dm.plumbing.cli.stores import only_root_option
from dm.porcelain.cli.durations import DURATION


@command("prune")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed, with its bytes.")
@click.option(
    "--grace", type=DURATION, metavar="TIME", help="Leave what was touched within TIME (30d, 12h; default: 14d)."
)
@click.option("--quarantine", is_flag=True, help="Also what was put aside more than the grace time ago.")
@click.option("--gone", is_flag=True, help="Also forget copies that are not there any more, and what only they had.")
@only_root_option
def COMMAND(  # noqa: N802
    session: Session, dry_run: bool, grace: float | None, quarantine: bool, gone: bool, root: str | None
) -> None:
    """Remove from the stores what no ref reaches: objects whose copies are gone, and old partial downloads.

    Working copies stay, and so do the refs that say what they are. Other projects that share a store lose
    nothing, since their refs count. What was touched within the grace time is left.
    """
    from dm.porcelain.cli.render import draw_outcome, draw_total
    from dm.porcelain.verbs.prune import GRACE_S, PruneOptions, prune

    options = PruneOptions(
        GRACE_S if grace is None else grace, quarantine, gone, dry_run, None if root is None else session.resolve(root)
    )
    report = None if session.json else lambda outcome: draw_outcome(session, outcome)
    project = session.open_stores()
    try:
        outcomes = prune(project, options, report=report)
    finally:
        project.close()
    session.finish(outcomes, draw=lambda found: draw_total(session, found, "would be freed" if dry_run else "freed"))
