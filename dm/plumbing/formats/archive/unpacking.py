"""An archive becomes a folder, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dm.errors import DmError, Refused, SourceFailed
from dm.plumbing.formats.archive.faults import ArchiveFault, BrokenArchive, OverLimit, UnsafeMember, UnsupportedArchive
from dm.plumbing.formats.archive.limits import DEFAULT_LIMITS, ArchiveLimits, Meter
from dm.plumbing.formats.archive.staging import Staging, Unpacked
from dm.plumbing.formats.archive.suffixes import ARCHIVE_SUFFIXES, normalise_archive_format
from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.fs.publish import remove_tree
from dm.progress import SilentTask, Task
from dm.values import printable

_CHUNK_BYTES = 256 << 10
_NAME_SHOWN = 200
_BY_HAND = "nothing of it was kept; where it can be trusted, unpack it by hand and add the folder"
# What a file begins with that is not what its name says.
_BEGINNINGS = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PK\3\4", "zip"),
    (b"7z\xbc\xaf", "7z"),
    (b"Rar!", "rar"),
    (b"<", "a web page or XML"),
    (b"{", "JSON"),
)


def unpack(
    archive: Path,
    archive_format: str,
    destination: Path,
    *,
    limits: ArchiveLimits = DEFAULT_LIMITS,
    task: Task | None = None,
) -> Unpacked:
    """Unpack an archive into a new folder.

    ``archive_format`` is one of `ARCHIVE_SUFFIXES`' formats or spellings; ``destination`` must not exist and should be
    private, in the store it will be published in. ``task`` advances by the archive's bytes; its total is the caller's
    to set. Files get 0644, or 0755 where the owner may execute them; folders 0755; both but for the umask. Links stay
    links, hard links become copies; owners, times and set-uid are dropped; an empty ``.complete`` at the top is
    dropped. Bytes are not flushed.

    Raises `Refused` for an archive that is unsafe: members that would land outside or over one another, links that lead
    outside, devices, encrypted members, more than the ``limits``. Raises `SourceFailed` for one that is broken (cut
    short, corrupt, empty, not of this format) or of a kind that cannot be read, `MachineFailed` for a full disk and the
    like, and for a destination that exists (which is left alone). After all else, KeyboardInterrupt included, the
    destination is gone; after a kill it may be there in part: publish it only when this has returned.
    """
    known = normalise_archive_format(archive_format)
    if known is None:
        raise SourceFailed(
            f"cannot unpack '{archive.name}': unknown archive format '{printable(archive_format)}'",
            hint=f"known are {', '.join(sorted({*ARCHIVE_SUFFIXES.values()}))}",
            code="archive-unsupported",
        )
    with machine_errors("read", archive):
        file = open(archive, "rb", buffering=_CHUNK_BYTES)  # noqa: SIM115 - the next line closes it
    with file, machine_errors("unpack into", destination):
        try:
            os.mkdir(destination, 0o755)
            return _unpack_into(destination, file, known, limits, task or SilentTask())
        except FileExistsError:  # from mkdir alone, so that what is there is another's
            raise
        except BaseException as error:
            remove_tree(destination)
            if isinstance(error, ArchiveFault):
                raise _make_error(error, archive) from error
            raise


def _unpack_into(destination: Path, file: BinaryIO, known: str, limits: ArchiveLimits, task: Task) -> Unpacked:
    archive_bytes = os.fstat(file.fileno()).st_size
    meter = Meter(limits, archive_bytes)
    with Staging(destination, meter) as staging:
        if known == "zip":
            from dm.plumbing.formats.archive.zip_archive import unpack_zip

            steps = _Steps(task)
            unpack_zip(file, staging, steps.reach)
            steps.finish(archive_bytes)
        else:
            from dm.plumbing.formats.archive.tar_archive import unpack_tar

            unpack_tar(_read_chunks(file, task), known, staging, meter)
        return staging.finish()


class _Steps:
    """Tells a task of a position that moves by small steps, once for each chunk's worth."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._told = 0

    def reach(self, position: int) -> None:
        """The file has been read up to here."""
        if position - self._told >= _CHUNK_BYTES:
            self.finish(position)

    def finish(self, position: int) -> None:
        """The same, told at once."""
        self._task.advance(position - self._told)
        self._told = position


def _read_chunks(file: BinaryIO, task: Task) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        task.advance(len(chunk))
        yield chunk


def _make_error(fault: ArchiveFault, archive: Path) -> DmError:
    cannot = f"cannot unpack '{printable(archive.name)}'"
    reason = printable(fault.reason)
    if isinstance(fault, UnsafeMember):
        member = printable(os.fsdecode(fault.member))
        if len(member) > _NAME_SHOWN:
            member = member[:_NAME_SHOWN] + "…"
        return Refused(f"{cannot}: member '{member}' {reason}", hint=_BY_HAND, code="archive-unsafe")
    if isinstance(fault, OverLimit):
        hint = f"it may be a bomb; where it can be trusted, raise '{fault.field}' in your own config"
        return Refused(f"{cannot}: {reason}", hint=hint, code="archive-limit")
    if isinstance(fault, UnsupportedArchive):
        return SourceFailed(f"{cannot}: {reason}", hint=_BY_HAND, code="archive-unsupported")
    assert isinstance(fault, BrokenArchive)
    return SourceFailed(f"{cannot}: {reason}", hint=_find_way_out(archive), code="archive-broken")


def _find_way_out(archive: Path) -> str:
    with machine_errors("read", archive), open(archive, "rb") as file:
        head = file.read(512)
    for beginning, what in _BEGINNINGS:
        if head.startswith(beginning):
            return f"the file begins like {what}; fetch it again, or set 'format' when it is another kind of archive"
    return "fetch it again; when it stays so, ask its publisher"
