"""``dm ls-tree``."""

from __future__ import annotations

import os

import click

from dm.errors import UsageError
from dm.plumbing.cli.frame import Session, command, nul_option
from dm.plumbing.cli.stores import open_store, parse_object_id, root_option


@command("ls-tree")
@click.argument("digest")
@click.option("-r", "recursive", is_flag=True, help="Also what is below folders, by path.")
@root_option
@nul_option
def COMMAND(session: Session, digest: str, recursive: bool, root: str | None, nul: bool) -> None:  # noqa: N802
    """Print a tree's entries: <mode> <id> <size>, a tab, <name>. With -z exactly the bytes that are hashed."""
    from dm.plumbing.cli.output import encode_text
    from dm.plumbing.cli.trees import list_entries, write_tree
    from dm.values import Outcome

    store = open_store(session, root)
    tree = parse_object_id(store, digest)
    if not tree.is_tree:
        raise UsageError(f"{tree} is a blob, not a tree", hint="dm cat-object prints it")
    entries = []
    if session.json:
        found = list_entries(store, tree) if recursive else store.read_tree(tree)
        entries = [
            {**encode_text("name", os.fsdecode(each.name)), "mode": each.mode, "id": each.id.hex(), "bytes": each.size}
            for each in found
        ]
    session.finish(
        [Outcome(digest, "ok", digest=tree, size_bytes=store.size(tree))],
        draw=lambda _outcomes: write_tree(store, tree, recursive=recursive, nul=nul),
        fields={"entries": entries},
    )
