"""``dm resolve-path``."""

from __future__ import annotations

import os

import click

from dm.errors import UsageError
from dm.plumbing.cli.frame import Session, command
from dm.values import Outcome


@command("resolve-path")
@click.argument("name")
@click.option("--existing", is_flag=True, help="Where it is now; exit 3 when it is not there.")
@click.option("--explain", is_flag=True, help="Every rule and rung, with the one that decided.")
def COMMAND(session: Session, name: str, existing: bool, explain: bool) -> None:  # noqa: N802
    """Print where a dataset belongs, as manifest and configuration say; nothing need be there.

    With --explain a line for each rule: * for the one that decided, its name, the reason, the path, tabs between.
    """
    from dm.plumbing.cli.output import write_records
    from dm.porcelain.verbs.locate import find_path

    if existing and explain:
        raise UsageError("--existing and --explain do not go together")
    project = session.open_project()
    dataset = project.manifest.find(name)
    path = find_path(project, name) if existing else project.locate(dataset).path
    lines = [os.fspath(path)]
    rules = []
    if explain:
        lines = []
        for rule in project.places.explain_location(dataset):
            rungs = [f"{rung.name}={rung.value} ({rung.origin})" for rung in rule.rungs]
            mark, place = "*" if rule.wins else "-", "" if rule.path is None else os.fspath(rule.path)
            lines.append("\t".join([mark, rule.name, rule.reason, place]))
            lines += [f"\t{rung}" for rung in rungs]
            rules.append({"rule": rule.name, "wins": rule.wins, "reason": rule.reason, "path": place, "rungs": rungs})
    outcome = Outcome(dataset.name, "ok", path=path)
    session.finish([outcome], draw=lambda _found: write_records(lines), fields={"rules": rules} if explain else None)
