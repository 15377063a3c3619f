"""``dm count-objects``."""

from __future__ import annotations

from dm.plumbing.cli.frame import Session, command
from dm.plumbing.cli.stores import open_store, root_option


@command("count-objects")
@root_option
def COMMAND(session: Session, root: str | None) -> None:  # noqa: N802
    """Print the totals of a store, <name> <number> a line: blobs, trees, bytes of each, refs."""
    from dm.plumbing.cli.output import write_records

    store = open_store(session, root)
    totals = dict.fromkeys(("blobs", "blob_bytes", "trees", "tree_bytes", "refs"), 0)
    for digest, size_bytes in store.list_objects():
        kind = "tree" if digest.is_tree else "blob"
        totals[f"{kind}s"] += 1
        totals[f"{kind}_bytes"] += size_bytes
    totals["refs"] = sum(1 for _ref in store.list_refs())
    session.finish(
        [], draw=lambda _found: write_records(f"{name} {number}" for name, number in totals.items()), fields=totals
    )
