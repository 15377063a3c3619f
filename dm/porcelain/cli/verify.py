"""``dm verify``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from dm.errors import NotFound
from dm.plumbing.cli.frame import Session, command
from dm.porcelain.cli.durations import DURATION


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
    from dm.porcelain.verbs.verify import VerifyOptions, Wanted, verify_all

    options = VerifyOptions(quick, contract, older_than, None, jobs or os.cpu_count() or 1, repair, dry_run)
    options.check()
    datasets, paths = _sort(session, names)
    wanted = Wanted(datasets, paths, None if root is None else session.resolve(root), everything)
    wanted.check()
    if wanted.means_datasets and not everything:
        project = session.open_project(anywhere=any(is_artifact_name(name) for name in datasets))
    else:
        project = session.open_stores()
    report = None if session.json else lambda outcome: draw_outcome(session, outcome)
    try:
        outcomes = verify_all(project, wanted, options, max_time_s=max_time, report=report)
    finally:
        project.close()
    things = "datasets" if wanted.means_datasets and not everything else "items"
    nothing = "nothing to verify" if older_than is None else "nothing to verify: all of it was read within that time"
    session.finish(outcomes, draw=lambda found: draw_summary(session, found, things=things, nothing=nothing))


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
    from dm.porcelain.verifying.copies import find_copies

    try:
        find_copies(path)
    except NotFound:
        return False
    return True
