"""``dm cat-object``."""

from __future__ import annotations

import click

from dm.plumbing.cli.frame import Session, command
from dm.plumbing.cli.stores import open_store, parse_object_id, root_option

_PIECE_BYTES = 1 << 20


@command("cat-object", json=False)
@click.argument("digest")
@root_option
def COMMAND(session: Session, digest: str, root: str | None) -> None:  # noqa: N802
    """Print a blob's bytes, or a tree as `dm ls-tree` prints it. The bytes are verified first."""
    import sys

    from dm.plumbing.cli.trees import write_tree

    store = open_store(session, root)
    found = parse_object_id(store, digest)
    if found.is_tree:
        write_tree(store, found)
        return
    with store.open_blob(found) as blob:
        while piece := blob.read(_PIECE_BYTES):
            sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
