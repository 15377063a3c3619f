"""``dm verify``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dm.environment import read_monotonic_s
from dm.errors import DmError, NotFound, UsageError
from dm.plumbing.cli.frame import Session, command
from dm.plumbing.cli.stores import (
    find_stores_here,
    open_places_here,
    open_store,
)
from dm.porcelain.cli.durations import DURATION
from dm.values import Outcome, fail

if TYPE_CHECKING:
    from dm.plumbing.store.disk import DiskStore
    from dm.porcelain.mending import Mender
    from dm.porcelain.verbs.verify import VerifyOptions


@command("verify")
@click.argument("names", nargs=-1, metavar="[NAME|PATH]...")
@click.option("--all", "everything", is_flag=True, help="Every store that is used here, whole: objects, refs, markers.")
@click.option("--quick", is_flag=True, help="Trust unchanged stat data, and say how much was not read.")
@click.option("--contract", is_flag=True, help="Compute the manifest's checksum in any case.")
@click.option("--older-than", type=DURATION, metavar="TIME", help="Only what was not read whole for TIME (30d, 12h).")
@click.option("--max-time", type=DURATION, metavar="TIME", help="Begin nothing after TIME; called again, it goes on.")
@click.option("--repair", is_flag=True, help="Mend what is broken; the bad bytes are kept in the quarantine.")
@click.option("--dry-run", is_flag=True, help="With --repair: only say what would be mended, and from where.")
@click.option("-j", "--jobs", type=click.IntRange(1, 256), help="Copies read at once (default: a core each).")
@click.option("--root", metavar="DIR", help="This store, whole, instead of the datasets.")
def COMMAND(  # noqa: N802
    session: Session,
    names: tuple[str, ...],
    everything: bool,
    quick: bool,
    contract: bool,
    older_than: float | None,
    max_time: float | None,
    repair: bool,
    dry_run: bool,
    jobs: int | None,
    root: str | None,
) -> None:
    """Read every byte again and compare it with the digests; exit 4 when anything differs.

    Without NAME all datasets of the manifest, which judges first, and the produced ones that are recorded; one of these
    is named by <cachetype>[/<version>]/<digits of its hash>. A PATH in a store, or a store itself, is compared with
    what is known of it there: no manifest is needed, also not for a folder that was copied from elsewhere. What differs
    is named, file by file inside a folder: changed, lost, added, mode, type. What is not there is exit 3 when named,
    skipped among all. Data is never changed, unless --repair is said: then each bad file gives way to sound bytes from
    any store in reach, else from the source, and a copy that was here and is gone comes back from sound bytes in reach.
    """
    from dm.porcelain.artifacts.catalogue import is_artifact_name
    from dm.porcelain.cli.render import draw_outcome, draw_summary
    from dm.porcelain.store_choice import check_root, choose_stores
    from dm.porcelain.verbs.verify import VerifyOptions, verify

    if everything and names:
        raise UsageError("--all goes without names", hint="name a store's folder to verify it whole")
    options = VerifyOptions(quick, contract, older_than, None, jobs or os.cpu_count() or 1, repair, dry_run)
    options.check()

    def report(outcome: Outcome) -> None:
        if not session.json:
            draw_outcome(session, outcome)

    if root is not None:
        check_root(session.resolve(root))
    datasets, paths = _sort(session, names)
    outcomes: list[Outcome] = []
    project = None
    if datasets or not (names or root):
        anywhere = any(is_artifact_name(name) for name in datasets)
        project = None if everything and not _has_manifest(session) else session.open_project(anywhere=anywhere)
    roots = [root] if root else []
    refused: list[Outcome] = []
    if everything and not root:
        stores, refused = choose_stores(session.open_stores(), None, "note down what is verified in")
        roots = [os.fspath(store.root) for store in stores]
    for outcome in refused:
        report(outcome)
    outcomes += refused
    time = _Time(max_time, parts=(project is not None) + len(roots) + len(paths))
    if project is not None:
        try:
            outcomes += verify(project, datasets, time.give(options), report=report)
        finally:
            project.close()
    for each in roots:
        outcomes += _verify_store(session, each, time.give(options), report)
    for path in paths:
        outcomes += _verify_path(session, path, time.give(options), report)
    session.finish(outcomes, draw=lambda found: draw_summary(session, found))


class _Time:
    """The time that a command may take, shared out: each of its parts gets an equal part of what is left."""

    def __init__(self, total_s: float | None, *, parts: int) -> None:
        self._end_s = None if total_s is None else read_monotonic_s() + total_s
        self._parts = parts

    def give(self, options: VerifyOptions) -> VerifyOptions:
        """The options for the next part."""
        if self._end_s is None:
            return options
        now_s = read_monotonic_s()
        share_s = max(0.0, self._end_s - now_s) / max(1, self._parts)
        self._parts -= 1
        return options._replace(deadline_s=now_s + share_s)


def _has_manifest(session: Session) -> bool:
    try:
        session.open_project()
    except NotFound:
        return False
    return True


def _sort(session: Session, names: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Words that name datasets, and those that are paths: a dataset's name comes first. A path may be of what is gone,
    where a store knows that it was there.
    """
    if not names:
        return [], []
    try:
        manifest = session.open_project().manifest
    except NotFound:
        manifest = None
    datasets, paths = [], []
    for name in names:
        path = session.resolve(name)
        try:
            known = manifest is not None and manifest.find(name) is not None
        except NotFound as error:
            known = error.code != "no-dataset"
        if known or not (os.path.lexists(path) or _was_seen(Path(os.path.normpath(path)))):
            datasets.append(name)
        else:
            paths.append(Path(os.path.normpath(path)))
    return datasets, paths


def _was_seen(path: Path) -> bool:
    from dm.porcelain.verbs.verify import find_copies

    try:
        find_copies(path)
    except NotFound:
        return False
    return True


def _verify_store(
    session: Session, root: str, options: VerifyOptions, report: Callable[[Outcome], None]
) -> list[Outcome]:
    from dm.porcelain.verbs.verify import verify_store

    store = open_store(session, root)
    try:
        mender = _make_mender(session, store) if options.repair else None
        return verify_store(store, options, mender=mender, progress=session.progress, report=report)
    finally:
        if store.stat_cache is not None:
            store.stat_cache.close()


def _make_mender(session: Session, store: DiskStore) -> Mender:
    from dm.porcelain.verbs.verify import make_mender

    def find_store(root: Path) -> DiskStore:
        return store if root == store.root else open_store(session, os.fspath(root))

    places = open_places_here(session)
    return make_mender(places, find_stores_here(session), find_store, store.root, progress=session.progress)


def _verify_path(
    session: Session, path: Path, options: VerifyOptions, report: Callable[[Outcome], None]
) -> list[Outcome]:
    from dm.porcelain.verbs.verify import find_copies, verify_copies

    try:
        root, names = find_copies(path)
    except DmError as error:
        outcome = fail(os.fspath(path), error)
        report(outcome)
        return [outcome]
    if names is None:
        return _verify_store(session, os.fspath(root), options, report)
    store = open_store(session, os.fspath(root))
    try:
        mender = _make_mender(session, store) if options.repair else None
        return verify_copies(store, names, options, mender=mender, progress=session.progress, report=report)
    finally:
        if store.stat_cache is not None:
            store.stat_cache.close()
