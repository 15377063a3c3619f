"""``dm list-refs``."""

from __future__ import annotations

from dm.plumbing.cli.frame import Session, command, nul_option
from dm.plumbing.cli.stores import open_store, root_option
from dm.values import Outcome


@command("list-refs")
@root_option
@nul_option
def COMMAND(session: Session, root: str | None, nul: bool) -> None:  # noqa: N802
    """Print <digest> <path> for each ref of a store; the path is the copy's, below the root. - is no digest."""
    from dm.plumbing.cli.output import write_records

    store = open_store(session, root)
    if session.json:
        session.finish(
            [
                Outcome(name, "ok", path=store.root / name, digest=ref.digest, size_bytes=ref.size_bytes)
                for name, ref in store.list_refs()
            ]
        )
    else:
        write_records((f"{ref.digest or '-'} {name}" for name, ref in store.list_refs()), nul=nul)
