"""``dm verify-path``."""

from __future__ import annotations

import os

import click

from dm.errors import NotFound
from dm.plumbing.cli.frame import Session, command, nul_option
from dm.plumbing.cli.stores import open_store, parse_digest, root_option
from dm.values import Digest, Outcome, printable


@command("verify-path")
@click.argument("path")
@click.option("--digest", "expected", metavar="D", help="What it should be (default: what its ref says).")
@click.option("--quick", is_flag=True, help="Trust unchanged stat data.")
@root_option
@nul_option
def COMMAND(  # noqa: N802
    session: Session, path: str, expected: str | None, quick: bool, root: str | None, nul: bool
) -> None:
    """Print ok, or <how> <path> for each path that differs (changed, lost, added, mode, type); then exit 4."""
    from dm.plumbing.cli.output import write_records
    from dm.plumbing.store.verify import compare_copy

    target = session.resolve(path)
    if not os.path.lexists(target):
        raise NotFound(f"'{path}' does not exist", code="no-path")
    store = open_store(session, root, owner_of=target)
    ref = store.read_ref(target) if expected is None and target.is_relative_to(store.root) else None
    digest: Digest | None = parse_digest(expected) if expected is not None else None if ref is None else ref.digest
    if digest is None:
        raise NotFound(f"nothing is known of '{path}'", hint="--digest says what it should be", code="no-ref")
    comparison = compare_copy(
        target, digest, store, stat_cache=store.stat_cache, quick=quick, ref_root=store.root, progress=session.progress
    )
    if store.stat_cache is not None:
        store.stat_cache.close()
    if quick and comparison.trusted_bytes:
        session.note(f"{comparison.trusted_bytes} of {comparison.size_bytes} bytes not read: stat data are unchanged")
    outcome = Outcome(
        path,
        "ok" if comparison.equal else "failed",
        path=target,
        digest=comparison.digest,
        size_bytes=comparison.size_bytes,
        code=None if comparison.equal else "content-mismatch",
        differences=comparison.differences,
        exit_status=0 if comparison.equal else 4,
    )
    lines = ["ok"] if comparison.equal else [_format(each.how, each.path, nul=nul) for each in comparison.differences]
    session.finish([outcome], draw=lambda _found: write_records(lines, nul=nul))


def _format(how: str, path: str, *, nul: bool) -> str:
    return f"{how} {path if nul else printable(path)}"
