"""``dm dedup``."""

from __future__ import annotations

import click

from dm.plumbing.cli.frame import Session, command
from dm.plumbing.cli.stores import check_root, choose_roots, open_store, root_option


@command("dedup")
@click.option("--dry-run", is_flag=True, help="Only say what would be joined, with the bytes that it would free.")
@click.option("--include-pool", "pools", multiple=True, metavar="DIR", help="Also the files in DIR (repeatable).")
@root_option
def COMMAND(session: Session, dry_run: bool, pools: tuple[str, ...], root: str | None) -> None:  # noqa: N802
    """Let equal files of the working copies share their bytes, those that other tools made too.

    Each file gives way to a link to its object (reflink, else hard link), after both were read once more. What a hard
    link joins is read-only afterwards. Without --root every store that is used here is looked through. Say --dry-run
    first.
    """
    from dm.porcelain.cli.render import draw_outcome, draw_total
    from dm.porcelain.verbs.dedup import DedupOptions, dedup

    check_root(session, root, without_objects=True)
    roots, refused = choose_roots(session, root, "join files in")
    stores = [open_store(session, each) for each in roots]
    joined = tuple((session.resolve(each), stores[0]) for each in pools)
    report = None if session.json else lambda outcome: draw_outcome(session, outcome)
    for outcome in refused if report else []:
        draw_outcome(session, outcome)
    outcomes = dedup(
        stores,
        DedupOptions(joined, dry_run),
        stat_cache=stores[0].stat_cache,
        progress=session.progress,
        report=report,
    )
    outcomes = [*refused, *outcomes]
    session.finish(outcomes, draw=lambda found: draw_total(session, found, "would be freed" if dry_run else "freed"))
