"""``dm list``."""

from __future__ import annotations

from dm.plumbing.cli.frame import Session, command
from dm.values import Outcome


@command("list")
def COMMAND(session: Session) -> None:  # noqa: N802
    """List the declared datasets: name, format, checksum and key. Looks at the manifest only; see `dm status`."""
    from dm.porcelain.cli.render import draw_table

    datasets = session.open_project().manifest.datasets.values()
    if session.json:
        session.finish([Outcome(each.name, "ok", digest=each.digest or each.checksum) for each in datasets])
        return
    rows = []
    for dataset in datasets:
        pin = dataset.digest or dataset.checksum
        rows.append((dataset.name, dataset.format or "-", pin.short if pin else "-", dataset.show_key()))
    if rows:
        draw_table(("name", "format", "pinned", "key"), rows)
    else:
        session.note("no datasets declared (dm add URI declares one)")
    session.finish([])
