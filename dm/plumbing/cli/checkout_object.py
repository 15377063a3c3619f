"""``dm checkout-object``."""

from __future__ import annotations

import os

import click

from dm.plumbing.cli.frame import Session, command
from dm.plumbing.cli.stores import open_store, parse_object_id, root_option
from dm.values import Outcome


@command("checkout-object")
@click.argument("digest")
@click.argument("destination", metavar="DEST")
@click.option("--link", type=click.Choice(["reflink", "hardlink", "copy"]), help="This way only; an error if it fails.")
@root_option
def COMMAND(session: Session, digest: str, destination: str, link: str | None, root: str | None) -> None:  # noqa: N802
    """Make a blob or tree appear at DEST, where nothing lies yet, and print DEST. No ref, no marker.

    The object is verified first. With -v the way it was made (reflink, hardlink, copy) is told on stderr.
    """
    from dm.plumbing.cli.output import write_records

    store = open_store(session, root)
    found = parse_object_id(store, digest)
    path = session.resolve(destination)
    mode = store.checkout(found, path, modes=None if link is None else (link,))  # type: ignore[arg-type]
    if store.stat_cache is not None:
        store.stat_cache.close()
    if session.verbose:
        session.note(f"made by {mode}")
    outcome = Outcome(digest, "ok", path=path, digest=found, size_bytes=store.size(found))
    session.finish([outcome], draw=lambda _found: write_records([os.fspath(path)]), fields={"mode": mode})
