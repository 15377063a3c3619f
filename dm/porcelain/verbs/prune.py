"""``prune``: remove what no ref reaches, in the stores that this project uses. Never a working copy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dm.environment import format_time, read_clock_ns
from dm.errors import DmError
from dm.porcelain.store_choice import choose_stores
from dm.values import Digest, Outcome, fail

if TYPE_CHECKING:
    from dm.plumbing.store.prune import Unreached
    from dm.porcelain.project import Project

#: What was touched within so many seconds stays, unless a call says otherwise: two weeks, as in Git.
GRACE_S = 14 * 24 * 3600.0


class PruneOptions(NamedTuple):
    """``grace_s``: what was touched within so many seconds stays. ``quarantine``: also what was put aside. ``gone``:
    also refs whose copies are gone, and what only they reach. ``dry_run``: only say what would go. ``root``: this store
    only, else every one that is used here.
    """

    grace_s: float = GRACE_S
    quarantine: bool = False
    gone: bool = False
    dry_run: bool = False
    root: Path | None = None


def prune(
    project: Project,
    options: PruneOptions = PruneOptions(),  # noqa: B008 - frozen
    *,
    report: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Remove what no ref of its store reaches, in each of the stores; an outcome for each thing that went.

    ``size_bytes`` of an outcome is what its removal gives back (0 where hard links keep the bytes). A store whose refs
    or trees cannot be read is a failed outcome and nothing of it is removed, and so is one that the project chose and
    the user did not allow. Raises `NotFound` where ``root`` is no store.
    """
    before_ns = read_clock_ns() - int(options.grace_s * 1_000_000_000)
    outcomes: list[Outcome] = []

    def settle(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if report is not None:
            report(outcome)

    stores, refused = choose_stores(project, options.root, "prune")
    for outcome in refused:
        settle(outcome)
    for store in stores:
        try:
            found = store.find_unreached(before_ns=before_ns, quarantine=options.quarantine, gone=options.gone)
            if options.dry_run:
                for item in found:
                    settle(_tell(item, "would be removed"))
                continue
            for pruned in store.remove_unreached(found):
                aside = pruned.aside
                settle(_tell(pruned.item, "removed" if aside is None else f"moved to '{aside}': no lock works here"))
        except DmError as error:
            settle(fail(str(store.root), error))
    return outcomes


def _tell(item: Unreached, done: str) -> Outcome:
    return Outcome(
        item.name,
        "ok",
        path=Path(item.path),
        digest=Digest.parse(item.name) if item.kind == "object" else None,
        size_bytes=item.freed_bytes,
        code=item.kind,
        message=f"{done}, untouched since {format_time(item.ctime_ns)}",
    )
