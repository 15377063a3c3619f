"""``dm verify``."""

from __future__ import annotations

import click

from dm.plumbing.cli.frame import Session, command


@command("verify")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--quick", is_flag=True, help="Trust unchanged stat data, and say how much was not read.")
def COMMAND(session: Session, names: tuple[str, ...], quick: bool) -> None:  # noqa: N802
    """Read every byte again and compare it with the digests; exit 4 when anything differs.

    What differs is named, file by file inside a folder: changed, lost, added, mode, type. A dataset that is not there
    is exit 3 when named, skipped among all. Data is never changed.
    """
    from dm.porcelain.cli.render import draw_outcome, draw_summary
    from dm.porcelain.verbs.verify import verify

    project = session.open_project()
    try:
        report = None if session.json else lambda outcome: draw_outcome(session, outcome)
        outcomes = verify(project, names, quick=quick, report=report)
    finally:
        project.close()
    session.finish(outcomes, draw=lambda found: draw_summary(session, found))
