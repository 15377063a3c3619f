"""Whole stores: every object against its name, refs and markers against the copies, then each copy by its ref."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dm.errors import DmError, MachineFailed, NotFound
from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.store.examine import DAMAGE, Finding
from dm.plumbing.store.markers import MARKER_NAME
from dm.porcelain.broken_paths import Inode, find_inode
from dm.porcelain.verifying.copies import verify_copies
from dm.porcelain.verifying.objects import read_objects, record_round, tell_round
from dm.porcelain.verifying.options import Report, VerifyOptions, ignore
from dm.progress import SILENT, Progress
from dm.values import Digest, Outcome, quote_word

#: Findings that say that not every object is sound.
_UNSOUND = DAMAGE | {"object-unreadable"}
#: The way out where no sound bytes are in reach.
_NO_WAY = "restore it, or fetch its dataset"

if TYPE_CHECKING:
    from dm.plumbing.store.disk import DiskStore
    from dm.porcelain.mending import Mender


def verify_store(
    store: DiskStore,
    options: VerifyOptions = VerifyOptions(),  # noqa: B008 - frozen
    *,
    mender: Mender | None = None,
    progress: Progress = SILENT,
    report: Report | None = None,
) -> list[Outcome]:
    """Examine a whole store: every object against its name, refs, markers and leftovers, then every copy by its ref.

    Damage is a failed outcome (exit 4), a ref that cannot be read exit 7; what is only untidy is ``skipped`` with its
    code. A file that is hard-linked to its object is read once. A look that ``deadline_s`` cuts short says how many
    objects are left, where the next one goes on, and names the copies that it did not come to. With ``older_than_s``
    objects are read where the last look at all of them is that old, or one is under way.

    With a ``mender`` a bad object gives way to sound bytes, also in the copies that are hard links to it; stray markers
    and the work of dead processes are removed, and a copy that is what its ref says gets the marker that it lacks. A
    copy that only differs from its ref is left: its project's contract is not known here. One repair of a store goes on
    at a time.
    """
    if mender is None or options.dry_run or not store.exists():  # the lock would make one
        return _verify_store(store, options, mender, progress=progress, report=report or ignore)
    with ExitStack() as held:
        with suppress(MachineFailed):  # one that cannot be written to is looked at all the same
            held.enter_context(mender.repairing(store))
        return _verify_store(store, options, mender, progress=progress, report=report or ignore)


def _verify_store(
    store: DiskStore,
    options: VerifyOptions,
    mender: Mender | None,
    *,
    progress: Progress,
    report: Report,
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    examiner = store.examiner(progress=progress)
    done = read_objects(store, examiner, options)
    objects = done.examined
    findings: list[Finding] = []
    if objects is not None:
        findings += examiner.find_object_faults(objects)
    findings += examiner.find_ref_faults()
    findings += examiner.find_place_faults()
    inodes = frozenset() if mender is None else frozenset(_list_inodes(store, findings))
    for finding in findings:
        outcomes.append(_settle(mender, store, finding, dry_run=options.dry_run))
        report(outcomes[-1])
    left = any(outcome.failed and outcome.code in _UNSOUND for outcome in outcomes)
    record_round(done, options, damaged=left)
    for outcome in tell_round(done, options, damaged=any(finding.kind in _UNSOUND for finding in findings)):
        outcomes.append(outcome)
        report(outcome)
    if not store.exists():
        return outcomes
    seen = {} if objects is None else objects.seen
    lost = {finding.copies[0] for finding in findings if finding.kind in ("copy-missing", "ref-malformed")}
    names = [name for name in store.list_ref_names() if name not in lost]
    return [
        *outcomes,
        *verify_copies(
            store, names, options, seen=seen, mender=mender, inodes=inodes, progress=progress, report=report
        ),
    ]


def _list_inodes(store: DiskStore, findings: Sequence[Finding]) -> Iterator[Inode]:
    """The inodes of damaged objects: what is a hard link to one is damaged with it. Those that a repair put aside, and
    was killed before it came to the copies, count too.
    """
    damaged = [finding.path for finding in findings if finding.kind == "object-damaged"]
    for path in [*damaged, *(store.meta / "quarantine").glob("*/" + "[0-9a-f]" * 62)]:
        inode = find_inode(path)
        if inode is not None:
            yield inode


def _settle(mender: Mender | None, store: DiskStore, finding: Finding, *, dry_run: bool) -> Outcome:
    if mender is None:
        return _describe(finding)
    return _plan(mender, store, finding) if dry_run else _tidy(mender, store, finding)


def _plan(mender: Mender, store: DiskStore, finding: Finding) -> Outcome:
    """What `_tidy` would do."""
    from dm.porcelain.planning import plan_object
    from dm.porcelain.verifying.repair import tell_planned

    outcome = _describe(finding)
    told = None
    if finding.kind in DAMAGE and finding.digest is not None:
        for name in finding.copies:
            mender.look_beside(store, name)
        try:
            source = plan_object(mender.sound, store, finding.digest, size_bytes=finding.size_bytes)
            return tell_planned(outcome, f"would be mended {source}")
        except NotFound as error:
            if finding.kind != "object-damaged" or finding.copies:
                return outcome._replace(message=f"{outcome.message}; {error.message}", hint=_NO_WAY)
            return tell_planned(outcome, "would be put aside: no copy needs it")
    if finding.kind in ("marker-stray", "leftover") and _is_ours(store, finding):
        told = "would be removed"
    elif finding.kind == "marker-missing" and finding.digest is not None:
        told = "would be marked as complete, if its bytes are what its ref says"
    return outcome if told is None else outcome._replace(message=f"{outcome.message}; {told}")


def _is_ours(store: DiskStore, finding: Finding) -> bool:
    """Whether a leftover is in ``.dm``: others may be another tool's at work."""
    return finding.kind == "marker-stray" or finding.path.is_relative_to(store.meta)


def _tidy(mender: Mender, store: DiskStore, finding: Finding) -> Outcome:
    """Mend what a finding is about where that is safe; else say it."""
    outcome = _describe(finding)
    try:
        if finding.kind in DAMAGE and finding.digest is not None:
            told = _mend_object(mender, store, finding, finding.digest)
        elif finding.kind == "marker-stray":
            if not _remove_marker(store, finding.path):
                return outcome
            told = "removed: a completion marker without a copy"
        elif finding.kind == "marker-missing" and finding.digest is not None:
            if not mender.mend_marker(store, finding.copies[0], finding.digest):
                return outcome
            told = "marked as complete: its bytes are what its ref says"
        elif finding.kind == "leftover" and finding.path.parent == store.meta / "unlocked":
            with machine_errors("remove", finding.path):
                finding.path.unlink()
            told = "removed: a note on a copy that is not there"
        elif finding.kind == "leftover" and finding.path.is_relative_to(store.meta):
            store.clear_abandoned()
            told = "removed: work that a process left half-done"
        else:
            return outcome
    except DmError as error:
        return outcome._replace(message=f"{outcome.message}; {error.message}", hint=error.hint or _NO_WAY)
    return outcome._replace(status="ok", code="mended", exit_status=0, message=told, hint=None)


def _remove_marker(store: DiskStore, marker: Path) -> bool:
    """Remove a marker that has no copy; False where one has come to lie there meanwhile."""
    copy = marker.with_name(marker.name.removesuffix(MARKER_NAME))
    with store.lock_copy(copy), machine_errors("remove", marker):
        if os.path.lexists(copy):
            return False
        marker.unlink(missing_ok=True)
    return True


def _mend_object(mender: Mender, store: DiskStore, finding: Finding, digest: Digest) -> str:
    """Mend an object and say how. One that no copy needs is put aside where there are no sound bytes for it."""
    try:
        kept = mender.mend_object(store, digest, size_bytes=finding.size_bytes, copies=finding.copies)
    except NotFound:
        if finding.kind != "object-damaged" or finding.copies:
            raise
        kept = store.quarantine(finding.path, "a damaged object: its bytes were not those of its name")
        return f"put aside: no copy needs it; its bytes are kept at '{kept}'"
    return "mended from a sound copy" + (f"; the bad bytes are kept at '{kept}'" if kept else "")


def _describe(finding: Finding) -> Outcome:
    also = f"; it is needed by {', '.join(finding.copies[:5])}" if finding.kind in DAMAGE and finding.copies else ""
    if len(finding.copies) > 5:
        also += f" and {len(finding.copies) - 5} more"
    if finding.kind == "copy-missing":
        path = quote_word(os.fspath(finding.path))
        also = f"; dm verify --repair {path} brings it back, dm prune --gone forgets it"
    name = str(finding.digest) if finding.kind.startswith("object-") and finding.digest else os.fspath(finding.path)
    outcome = Outcome(
        name, "skipped", path=finding.path, digest=finding.digest, code=finding.kind,
        message=f"{finding.message}{also}",
    )  # fmt: skip
    if finding.kind in DAMAGE:
        hint = "dm verify --all --repair mends it from any good copy"
        return outcome._replace(status="failed", exit_status=4, hint=hint)
    if finding.kind == "ref-malformed":
        return outcome._replace(status="failed", exit_status=7)
    if finding.kind == "object-unreadable":
        return outcome._replace(status="failed", exit_status=MachineFailed.exit_status)
    return outcome
