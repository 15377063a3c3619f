"""``dm dedup``."""

from __future__ import annotations

import click

from dm.plumbing.cli.frame import Session, command
from dm.plumbing.cli.stores import only_root_option


@command("dedup")
@click.option("--dry-run", is_flag=True, help="Only say what would be joined, with the bytes that it would free.")
@click.option("--include-pool", "pools", multiple=True, metavar="DIR", help="Also the files in DIR (repeatable).")
@only_root_option
def COMMAND(session: Session, dry_run: bool, pools: tuple[str, ...], root: str | None) -> None:  # noqa: N802
    """Let equal files of the working copies share their bytes, those that other tools made too.

    Each file gives way to a link to its object (reflink, else hard link), after both were read once more. What a hard
    link joins is read-only afterwards. Say --dry-run first.
    """
    from dm.porcelain.cli.render import draw_outcome, draw_total
    from dm.porcelain.verbs.dedup import DedupOptions, dedup

    joined = tuple(session.resolve(each) for each in pools)
    options = DedupOptions(joined, dry_run, None if root is None else session.resolve(root))
    report = None if session.json else lambda outcome: draw_outcome(session, outcome)
    project = session.open_stores()
    try:
        outcomes = dedup(project, options, report=report)
    finally:
        project.close()
    session.finish(outcomes, draw=lambda found: draw_total(session, found, "would be freed" if dry_run else "freed"))
