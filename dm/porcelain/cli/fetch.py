"""``dm fetch``."""

from __future__ import annotations

from contextlib import nullcontext

import click

from dm.plumbing.cli.frame import Session, command, trust_option


@command("fetch")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("-j", "--jobs", type=click.IntRange(1, 256), help="Sources asked at once (default: 8, or as configured).")
@click.option("-f", "--force", is_flag=True, help="Fetch again from the source; what lies in the way is put aside.")
@click.option("--dry-run", is_flag=True, help="Only say what would be fetched.")
@click.option("--fail-fast", is_flag=True, help="Stop at the first failure.")
@click.option("--delegate/--no-delegate", default=None, help="Run fetchers in other languages, or do not.")
@trust_option
def COMMAND(  # noqa: N802 - the name that the table of commands imports
    session: Session,
    names: tuple[str, ...],
    jobs: int | None,
    force: bool,
    dry_run: bool,
    fail_fast: bool,
    delegate: bool | None,
    trust: bool,
) -> None:
    """Make declared data be here, verified. All of it, when no NAME is given; what it requires comes first.

    What is there already costs no request and is not read again. A copy whose bytes are wrong is never used and never
    overwritten: --force puts it aside under .dm/quarantine and fetches anew. Bytes that are
    right already stay, and so does another project's copy.
    """
    from dm.porcelain.cli.apart import keep_results_apart
    from dm.porcelain.cli.render import NO_DATASETS, draw_outcome, draw_summary
    from dm.porcelain.materialize import FetchOptions
    from dm.porcelain.verbs.fetch import declares_code, fetch

    project = session.open_project(trust=trust)
    try:
        options = FetchOptions(
            jobs=jobs or project.jobs,
            force=force,
            dry_run=dry_run,
            fail_fast=fail_fast,
            delegate=delegate,
            tell_lines=session.verbose > 0,
        )
        report = None if session.json else lambda outcome: draw_outcome(session, outcome)
        with keep_results_apart() if declares_code(project) else nullcontext():
            outcomes = fetch(project, names, options, report=report)
    finally:
        project.close()
    session.finish(outcomes, draw=lambda found: draw_summary(session, found, nothing=NO_DATASETS))
