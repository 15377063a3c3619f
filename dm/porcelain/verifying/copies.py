"""Copies that a store knows are held against their refs, which a folder that was copied from elsewhere brings along."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dm.environment import format_time, read_clock_ns
from dm.errors import DmError, MachineFailed, NotFound
from dm.plumbing.store.layout import Layout, find_store_root
from dm.plumbing.store.ref_files import RefFiles
from dm.plumbing.store.refs import Ref
from dm.plumbing.store.verify import compare_copy
from dm.porcelain.broken_paths import Inode, is_artifact, is_sibling
from dm.porcelain.looking import Look
from dm.porcelain.verifying.options import Report, VerifyOptions, ignore, look_at, tell_unread
from dm.progress import SILENT, Progress
from dm.values import Difference, Digest, Outcome, fail

if TYPE_CHECKING:
    from dm.plumbing.store.disk import DiskStore
    from dm.plumbing.store.measure import SeenFiles
    from dm.porcelain.mending import Mender


def verify_copies(
    store: DiskStore,
    names: Sequence[str] | None = None,
    options: VerifyOptions = VerifyOptions(),  # noqa: B008 - frozen
    *,
    seen: SeenFiles | None = None,
    mender: Mender | None = None,
    inodes: frozenset[Inode] | None = None,
    progress: Progress = SILENT,
    report: Report | None = None,
) -> list[Outcome]:
    """Compare copies with the refs of their store (all of them when no ``names`` of refs are given): no manifest is
    needed. ``seen`` are files that were read in this run. With a ``mender`` what differs is made as its ref says; with
    ``inodes`` only what is a link to these.
    """
    looks = []
    outcomes: list[Outcome] = []
    for name in store.list_ref_names() if names is None else names:
        try:
            ref = store.read_ref(name)
        except DmError as error:
            outcomes.append(fail(name, error))
            continue
        if ref is not None and ref.digest is not None:
            looks.append(prepare_copy(store, name, ref, options, seen=seen))
    tell = report or ignore
    for outcome in outcomes:
        tell(outcome)
    found = look_at(looks, options, progress, tell if mender is None else ignore)
    if mender is not None:
        from dm.porcelain.verifying.repair import repair_copy

        for index, outcome in enumerate(found):
            if outcome.exit_status in (3, 4):
                found[index] = repair_copy(mender, store, outcome, inodes, dry_run=options.dry_run)
            elif outcome.digest is not None and not options.dry_run and _is_unmarked(store, outcome.name):
                # A repair, or a publish, was killed right before it marked the copy.
                mender.mend_marker(store, outcome.name, outcome.digest)
            tell(found[index])
    return [*outcomes, *found]


def _is_unmarked(store: DiskStore, name: str) -> bool:
    return store.state_of(store.root / name) == "unmarked"


def find_copies(path: Path) -> tuple[Path, list[str] | None]:
    """The store that owns a path, and the names of its refs that the path means: a copy, the copy that it lies in, or
    all copies below a folder; None for the whole store, where the path is its root.

    Raises `NotFound` where no store knows anything there.
    """
    if (path / ".dm" / "format").exists():
        return path, None
    root = find_store_root(path)
    if root is None:
        raise NotFound(f"no store knows '{path}'", hint="name a dataset, or a path below a store", code="no-ref")
    refs = root / ".dm" / "refs"
    place = path.relative_to(root)
    for candidate in (place, *place.parents):
        if candidate != Path() and (refs / candidate).is_file():
            return root, [candidate.as_posix()]
    names = [name for name in RefFiles(Layout(root)).list_names() if name.startswith(f"{place.as_posix()}/")]
    if not names:
        raise NotFound(f"nothing is known of '{path}'", hint="dm hash-object prints what it is", code="no-ref")
    return root, names


def prepare_copy(
    store: DiskStore,
    name: str,
    ref: Ref,
    options: VerifyOptions,
    *,
    seen: SeenFiles | None = None,
    record: bool = True,
) -> Look:
    """The look at one copy: its bytes against its ref, which gets the time when it was right, with ``record``.

    In the folder of a produced dataset what another tool has put beside its data is no difference.
    """

    def run(progress: Progress) -> Outcome:
        assert ref.digest is not None
        path = store.root / name
        comparison = compare_copy(
            path,
            ref.digest,
            store,
            stat_cache=store.stat_cache,
            quick=options.quick,
            ref_root=store.root,
            seen=seen,
            progress=progress,
        )
        outcome = Outcome(
            name, "ok", path=path, state="clean", digest=comparison.digest, size_bytes=comparison.size_bytes
        )
        siblings, differences = _tell_apart(store, name, ref.digest, comparison.differences)
        if siblings and not differences:
            count = "1 path" if len(siblings) == 1 else f"{len(siblings)} paths"
            told = f"{count} beside its data came from another tool; they are not looked at"
            return outcome._replace(state="updated", message=told)
        if differences and store.is_unlocked(path):
            told = "unlocked and edited: its project's dm status tells the ways out"
            return outcome._replace(
                status="skipped", state="modified", code="unlocked", message=told, differences=differences
            )
        if differences:
            lost = comparison.digest is None and not os.path.lexists(path)
            told = f"its bytes are {comparison.digest}, last seen were {ref.digest}"
            return outcome._replace(
                status="failed",
                state="missing" if lost else "modified",
                code="missing" if lost else "content-mismatch",
                message="it is not there" if lost else told,
                hint="dm verify --repair mends it from any good copy",
                differences=() if lost else differences,
                exit_status=3 if lost else 4,
            )
        if not comparison.trusted_bytes and record:
            with suppress(MachineFailed):
                if store.read_ref(name) == ref:  # who replaced or removed the copy meanwhile wrote down what is so now
                    store.write_ref(name, ref._replace(verified=format_time(read_clock_ns())))
        return outcome._replace(message=tell_unread(comparison.trusted_bytes, comparison.size_bytes))

    return Look(name, ref.verified, run)


def _tell_apart(
    store: DiskStore, name: str, expected: Digest, differences: Sequence[Difference]
) -> tuple[list[Difference], Sequence[Difference]]:
    """What is beside the data in the folder of a produced dataset, and what differs."""
    if not is_artifact(name) or not any(each.how == "added" for each in differences):
        return [], differences
    try:
        names = {entry.name for entry in store.read_tree(expected)}
    except DmError:
        return [], differences
    siblings = [each for each in differences if is_sibling(each, names)]
    return siblings, [each for each in differences if each not in siblings]
