"""One locked read-merge-rename of a record in the checkout, against writers that take no lock.

Every writer of `dm`'s takes the record's lock. The peers take none: before the rename the files are looked at again,
and when one has changed meanwhile everything is read and merged anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from dm.errors import MachineFailed, Refused
from dm.plumbing.fs.beside import Beside
from dm.plumbing.fs.lock import DocumentLock
from dm.plumbing.fs.machine import display_path, machine_errors
from dm.plumbing.fs.publish import flush_folder, replace, stage_file
from dm.plumbing.records.record_file import RecordFile, read_record
from dm.progress import SILENT, Progress

__all__ = ["RecordFile", "Rewrite", "RewriteOptions", "read_record", "rewrite_record"]

#: Times that a record may change under our hands before we give up; each takes a writer without a lock within ms.
_ATTEMPTS = 50


class Rewrite(NamedTuple):
    """What is to lie there: ``data`` at ``target``, and nothing at each of ``removed``."""

    target: RecordFile
    data: bytes
    removed: Sequence[Path] = ()


class RewriteOptions(NamedTuple):
    """How a record is rewritten: ``lock`` the lock's file, ``describe`` for those who wait, ``holder`` the text that
    the waiting are shown (``<pid> <hostname>``), ``durable`` whether it survives a power cut. ``within`` is the project
    that the record belongs to, out of which no link may lead: a clone may have brought it along.
    """

    lock: Path
    describe: str
    holder: str | None = None
    durable: bool = True
    progress: Progress = SILENT
    within: Path | None = None


def rewrite_record(
    paths: Sequence[Path],
    build: Callable[[list[RecordFile]], Rewrite | None],
    options: RewriteOptions,
) -> None:
    """Read ``paths``, let ``build`` say what is to lie there (None: it is right as it is), and put it in place.

    ``build`` may be called several times. A crash leaves the old record or the new one; between rename and removal
    both, whose union is the new one. Raises `MachineFailed`, what ``build`` raises, and `Refused` for a link that leads
    out of the project that the record belongs to.
    """
    with DocumentLock(options.lock, progress=options.progress, describe=options.describe, holder=options.holder):
        for _ in range(_ATTEMPTS):
            found = [read_record(path) for path in paths]
            wanted = build(found)
            if wanted is None or _put_in_place(found, wanted, options):
                return
    raise MachineFailed(
        f"cannot write '{paths[0]}': another program keeps changing it",
        hint="wait until it is done, then run the command again",
        code="contended",
    )


def _put_in_place(found: list[RecordFile], wanted: Rewrite, options: RewriteOptions) -> bool:
    target = wanted.target.path
    if os.path.islink(target):
        target = _follow(target, options.within)
    with Beside(target) as staged:
        with machine_errors("write", target):
            stage_file(staged, wanted.data, durable=options.durable, like=wanted.target.status)
        if any(_stamp(file.path) != file.stamp for file in found):
            return False
        replace(staged, target)
        if options.durable:
            with machine_errors("write", target):
                flush_folder(target.parent)
    for path in wanted.removed:
        with machine_errors("remove", path):
            try:
                os.unlink(path)
            except FileNotFoundError:
                continue
    return True


def _follow(link: Path, within: Path | None) -> Path:
    target = Path(os.path.realpath(link))
    if within is not None and not target.is_relative_to(os.path.realpath(within)):
        raise Refused(
            f"'{display_path(link)}' is a link that leads out of the project, to '{display_path(target)}'",
            hint="remove it: dm makes a file in its place",
            code="place-untrusted",
        )
    return target


def _stamp(path: Path) -> tuple[int, ...]:
    with machine_errors("look at", path):
        try:
            return RecordFile(path, b"", os.stat(path)).stamp
        except (FileNotFoundError, NotADirectoryError):
            return ()
