"""``dm publish``."""

from __future__ import annotations

import os

import click

from dm.errors import NotFound, UsageError
from dm.plumbing.cli.frame import Session, command
from dm.plumbing.cli.stores import open_store, root_option
from dm.values import Outcome


@command("publish")
@click.argument("staged", metavar="STAGED")
@click.argument("copy", metavar="COPY")
@root_option
def COMMAND(session: Session, staged: str, copy: str, root: str | None) -> None:  # noqa: N802
    """Move a staged file or folder into its place: objects, ref, copy, marker; print the digest.

    STAGED is used up. COPY must be below a store root: the innermost above it, the one in force, or --root. Other
    content at COPY is refused (exit 6); equal content is success.
    """
    from dm.plumbing.cli.output import write_records
    from dm.plumbing.store.publication import Publication

    source, target = session.resolve(staged), session.resolve(copy)
    if not os.path.lexists(source):
        raise NotFound(f"'{staged}' does not exist", code="no-path")
    store = open_store(session, root, owner_of=target, write=True)
    if not target.is_relative_to(store.root):
        raise UsageError(
            f"'{copy}' is not below the store root '{store.root}'", hint="--root DIR names the store root", code="root"
        )
    with store.lock_copy(target):
        published = store.publish([Publication(source, target)], progress=session.progress)[0]
    if store.stat_cache is not None:
        store.stat_cache.close()
    outcome = Outcome(
        copy,
        "unchanged" if published.unchanged else "ok",
        path=target,
        digest=published.digest,
        size_bytes=published.size_bytes,
    )
    session.finish(
        [outcome], draw=lambda _found: write_records([str(published.digest)]), fields={"mode": published.mode}
    )
