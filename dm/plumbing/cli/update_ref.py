"""``dm update-ref``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dm.errors import NotFound, UsageError
from dm.plumbing.cli.frame import Session, command
from dm.plumbing.cli.stores import open_store, parse_object_id, root_option
from dm.values import Key, Outcome, printable

if TYPE_CHECKING:
    from dm.plumbing.store.disk import DiskStore
    from dm.values import Digest


@command("update-ref")
@click.argument("words", nargs=-1, metavar="[DIGEST] PATH")
@click.option("-d", "--delete", is_flag=True, help="Remove the ref instead: dm update-ref -d PATH.")
@root_option
def COMMAND(session: Session, words: tuple[str, ...], delete: bool, root: str | None) -> None:  # noqa: N802
    """Point the ref of a copy (its PATH below the root) at an object that the store holds, and print <digest> <path>.

    Neither the copy nor the object is touched.
    """
    from dm.plumbing.cli.output import write_records
    from dm.plumbing.store.refs import Ref

    # Not two arguments of click's: a lone word would be the optional first one's.
    if len(words) != (1 if delete else 2):
        raise UsageError("give DIGEST and PATH, or --delete and PATH", hint="dm update-ref --help")
    digest, path = None if delete else words[0], words[-1]
    store = open_store(session, root, write=True)
    name = path.removeprefix(f"{store.root}/") if Path(path).is_absolute() else path
    Key.parse(name)
    found = None
    if digest is None:
        if not os.path.isfile(store.meta / "refs" / name):  # also one that cannot be read may go
            hint = "dm list-refs lists them"
            raise NotFound(f"no ref '{printable(name)}' in '{store.root}'", hint=hint, code="no-ref")
        store.remove_ref(name)
    else:
        found = parse_object_id(store, digest)
        known = store.read_ref(name)
        files = _count_files(store, found)
        source_id = None if known is None else known.source_id
        store.write_ref(name, Ref(found, store.size(found), files, None, source_id))
    session.finish(
        [Outcome(name, "ok", path=store.root / name, digest=found)],
        draw=lambda _found: write_records([f"{found or '-'} {name}"]),
    )


def _count_files(store: DiskStore, found: Digest) -> int:
    from dm.plumbing.cli.trees import list_entries

    return sum(1 for _entry in list_entries(store, found)) if found.is_tree else 1
