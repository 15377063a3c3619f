"""``dm status``."""

from __future__ import annotations

import click

from dm.plumbing.cli.frame import Session, command


@command("status")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--exit-code", is_flag=True, help="Exit with 1 when anything is not clean.")
def COMMAND(session: Session, names: tuple[str, ...], exit_code: bool) -> None:  # noqa: N802
    """Say the state of each dataset, and the command that mends what is off.

    Files whose stat data are unchanged are not read; `dm verify` reads them.
    """
    from dm.errors import gravest
    from dm.porcelain.verbs.status import status

    project = session.open_project()
    try:
        outcomes = status(project, names)
    finally:
        project.close()
    exit_status = gravest(outcome.exit_status for outcome in outcomes)
    if exit_code and not exit_status and any(outcome.state not in ("clean", "skipped") for outcome in outcomes):
        exit_status = 1

    def draw(_outcomes: object) -> None:
        from dm.porcelain.cli.render import draw_line, draw_outcome, paint
        from dm.values import printable

        shown = outcomes if names or session.verbose else [each for each in outcomes if each.state != "clean"]
        for outcome in shown:
            if outcome.failed:
                draw_outcome(session, outcome)
                continue
            word = outcome.state or ""
            told = "; ".join(each for each in (outcome.message, outcome.hint) if each)
            way_out = f"  ({printable(told)})" if told else ""
            draw_line(f"{paint(session, word, f'{word:<14}')} {printable(outcome.name)}{way_out}")
            if session.verbose and (names or word not in ("clean", "missing", "skipped")):
                for name, digest in outcome.digests.items():
                    draw_line(f"  {name.replace('_', ' '):<14} {digest or '-'}")
        if not names:
            draw_line(_summarise([outcome.state or "failed" for outcome in outcomes]))

    session.finish(outcomes, draw=draw, exit_status=exit_status)


def _summarise(states: list[str]) -> str:
    if not states:
        return "no datasets declared (dm add URI declares one)"
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    if set(counts) == {"clean"}:
        return f"{len(states)} datasets, all clean" if len(states) != 1 else "1 dataset, clean"
    told = ", ".join(f"{count} {state}" for state, count in counts.items())
    return f"{len(states)} datasets: {told}" if len(states) != 1 else f"1 dataset: {told}"
