"""``dm list``."""

from __future__ import annotations

from dm.plumbing.cli.frame import Session, command
from dm.values import Outcome


@command("list")
def COMMAND(session: Session) -> None:  # noqa: N802
    """List the declared datasets: name, format, checksum and key. Looks at no data; see `dm status`."""
    from dm.porcelain.cli.render import draw_table
    from dm.porcelain.unlocked import list_unlocked_names
    from dm.values import printable

    project = session.open_project()
    datasets = project.manifest.datasets.values()
    unlocked = list_unlocked_names(project)
    if session.json:
        found = []
        for each in datasets:
            code = "unlocked" if each.name in unlocked else None
            found.append(Outcome(each.name, "ok", digest=each.digest or each.checksum, code=code))
        session.finish(found)
        return
    rows = []
    for dataset in datasets:
        pin = dataset.digest or dataset.checksum
        rows.append((dataset.name, dataset.format or "-", pin.short if pin else "-", dataset.show_key()))
    if rows:
        draw_table(("name", "format", "pinned", "key"), rows)
    else:
        session.note("no datasets declared (dm add URI declares one)")
    if unlocked:
        named = ", ".join(printable(name) for name in unlocked)
        session.note(f"unlocked: {named} (dm lock NAME makes it read-only again)")
    session.finish([])
