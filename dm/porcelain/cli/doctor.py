"""``dm doctor``."""

from __future__ import annotations

from dm.plumbing.cli.frame import Session, command
from dm.plumbing.cli.stores import open_store, open_trust_here


@command("doctor")
def COMMAND(session: Session) -> None:  # noqa: N802
    """Examine this installation, its stores and their file systems: versions, link modes that work, root user, stale
    locks, leftovers, clock. Exit 8 when there is a problem; notes are no problem.
    """
    from dm.porcelain.cli.render import draw_line
    from dm.porcelain.verbs.examine import examine
    from dm.values import printable

    places, trust = open_trust_here(session)
    stores = [open_store(session, str(root)) for root in places.store_roots() if root.is_dir()]
    findings = list(examine(session.environment, places, stores, trust))

    def draw(_found: object) -> None:
        for finding in findings:
            draw_line(f"{finding.verdict:<8} {printable(finding.topic)}: {printable(finding.text)}")
            if finding.hint:
                draw_line(f"         hint: {printable(finding.hint)}")

    problems = any(finding.verdict == "problem" for finding in findings)
    session.finish(
        [], draw=draw, fields={"findings": [each._asdict() for each in findings]}, exit_status=8 if problems else 0
    )
