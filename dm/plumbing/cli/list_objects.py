"""``dm list-objects``."""

from __future__ import annotations

from dm.plumbing.cli.frame import Session, command, nul_option
from dm.plumbing.cli.stores import open_store, root_option
from dm.values import Outcome


@command("list-objects")
@root_option
@nul_option
def COMMAND(session: Session, root: str | None, nul: bool) -> None:  # noqa: N802
    """Print <digest> <bytes> for each object of a store, in the order of their ids."""
    from dm.plumbing.cli.output import write_records

    found = open_store(session, root).list_objects()
    if session.json:
        session.finish([Outcome(str(digest), "ok", digest=digest, size_bytes=size) for digest, size in found])
    else:
        write_records((f"{digest} {size}" for digest, size in found), nul=nul)
