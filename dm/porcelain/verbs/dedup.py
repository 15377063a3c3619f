"""``dedup``: equal files of the working copies become one physical copy, those that other tools made too."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dm.errors import DmError, NotFound
from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.store.joining import Group, Twin, find_groups, join, list_apart, list_files
from dm.porcelain.store_choice import choose_stores
from dm.values import Outcome, fail

if TYPE_CHECKING:
    from dm.plumbing.store.disk import DiskStore
    from dm.porcelain.project import Project


class DedupOptions(NamedTuple):
    """``pools``: folders of other tools that are joined too, by the objects of the first store. ``dry_run``: only say
    what would be joined. ``root``: this store only, else every one that is used here.
    """

    pools: tuple[Path, ...] = ()
    dry_run: bool = False
    root: Path | None = None


def dedup(
    project: Project,
    options: DedupOptions = DedupOptions(),  # noqa: B008 - frozen
    *,
    report: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Join equal files of the working copies in the stores; an outcome for each file that was replaced by a link.

    ``size_bytes`` of an outcome is what it gives back, which stands at the first of the files of one content. Working
    copies are those with a ref and those with a marker; unlocked ones are left. Nothing else is touched, and no byte of
    content changes. A store that the project chose and the user did not allow is a failed outcome. Raises `NotFound`
    where ``root`` is no folder.
    """
    outcomes: list[Outcome] = []

    def settle(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if report is not None:
            report(outcome)

    stores, refused = choose_stores(project, options.root, "join files in", without_objects=True)
    for outcome in refused:
        settle(outcome)
    twins: list[Twin] = []
    for store in stores:
        try:
            if store.exists():
                store.ground()  # one that may not be written to fails alone
            twins += list_files(store, _list_copies(store))
        except DmError as error:
            settle(fail(os.fspath(store.root), error))
    for folder in options.pools if stores else ():
        try:
            twins += list_files(stores[0], _list_pool(folder))
        except DmError as error:
            settle(fail(os.fspath(folder), error))
    for group in find_groups(twins, stat_cache=project.stat_cache, progress=project.progress):
        try:
            for outcome in _tell(group) if options.dry_run else _join(group):
                settle(outcome)
        except DmError as error:
            settle(fail(os.fspath(group.twins[0].path), error))
    return outcomes


def _list_copies(store: DiskStore) -> Iterator[Path]:
    """The copies with a ref that are there, and those that another tool marked as complete."""
    for name, ref in store.list_refs():
        path = store.root / name
        if ref.digest is None:
            continue  # skip_checksum: it stands alone, and is not read
        if os.path.lexists(path) and not store.is_unlocked(path):
            yield path
    for finding in store.examiner().find_place_faults():
        if finding.kind == "ref-missing":
            yield finding.path


def _list_pool(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise NotFound(f"there is no folder '{folder}'", code="no-path")
    with machine_errors("look through", folder):
        yield from sorted(path for path in folder.iterdir() if path.name != ".dm")


def _tell(group: Group) -> Iterator[Outcome]:
    freed_bytes = group.freed_bytes
    for twin in list_apart(group):
        yield _describe(group, twin, freed_bytes, "would share the bytes of its object")
        freed_bytes = 0


def _join(group: Group) -> Iterator[Outcome]:
    freed_bytes = group.freed_bytes
    with ExitStack() as locks:
        for store, copy in dict.fromkeys((twin.store, twin.copy) for twin in group.twins):
            if copy.is_relative_to(store.root):
                locks.enter_context(store.lock_copy(copy))
        for twin, mode in join(group):
            if mode is None:
                yield _describe(group, twin, 0, "left as it is: it changed, or cannot be linked", status="skipped")
                continue
            yield _describe(group, twin, freed_bytes, f"joined by {mode}")
            freed_bytes = 0


def _describe(group: Group, twin: Twin, freed_bytes: int, message: str, *, status: str = "ok") -> Outcome:
    return Outcome(
        os.fspath(twin.path), status, path=twin.path, digest=group.digest, size_bytes=freed_bytes, message=message
    )


