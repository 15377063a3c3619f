"""A copy becomes private and writable, and read-only again.

A file that has other names, an object's first of all, is never made writable: a private file with the same bytes takes
its place, by one rename. So a kill leaves every file whole and right, private or not; the same call goes on from there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from dm.environment import format_time, read_clock_ns
from dm.errors import ContentMismatch, Refused
from dm.plumbing.fs.link import link_file
from dm.plumbing.fs.machine import display_path, machine_errors
from dm.plumbing.fs.publish import flush_file_systems, place
from dm.plumbing.hashing import hash_blob
from dm.plumbing.store.copying import PRIVATE_MODES, copy_privately
from dm.plumbing.store.ground import Ground
from dm.plumbing.store.layout import Layout
from dm.plumbing.store.markers import put_marker
from dm.plumbing.store.measure import Measured, measure_copy, scan_copy
from dm.plumbing.store.ref_files import RefFiles, stage_ref
from dm.plumbing.store.refs import Ref
from dm.plumbing.store.sharing import Sharer
from dm.plumbing.store.unlocked import forget_unlocked, note_unlocked
from dm.plumbing.store.workspace import Workspace
from dm.values import Digest


class Unlocker:
    """Makes copies private and writable, in a workspace on their file system. The caller holds the copies' locks."""

    def __init__(self, layout: Layout, workspace: Workspace, ground: Ground, *, durable: bool) -> None:
        self._layout = layout
        self._work = workspace
        self._ground = ground
        self._durable = durable
        self._refs = RefFiles(layout)

    def place(
        self, source: Path, copy: Path, *, expected: Digest | None, source_id: str | None, like: Ref | None = None
    ) -> Ref:
        """Make a private, writable copy of ``source`` at ``copy``, where nothing lies; note it and return its ref.

        Every byte that was written is read and held against ``expected``, unless that is None: then the ref is as
        ``like``. Raises `ContentMismatch` and `Refused`; then nothing is there.
        """
        name = self._layout.ref_name(copy)
        staged, private = Path(self._work.new_path()), self._work.new_path()
        with machine_errors("copy to", copy):
            copy_privately(os.path.realpath(source), os.fspath(staged))
            for path in list_files(staged):
                self._let_write(path)
        ref = Ref(None, None, None, None, source_id) if like is None else like
        if expected is not None:
            measured = measure_copy(staged)
            if measured.digest != expected:
                raise changed_meanwhile(source)
            now = format_time(read_clock_ns())
            ref = Ref(measured.digest, measured.size_bytes, measured.files, now, source_id)
        is_folder = staged.is_dir()
        note_unlocked(self._layout, name, self._work.new_path(), durable=self._durable)
        try:
            with machine_errors("place", copy):
                stage_ref(ref, private)
                if self._durable:
                    flush_file_systems([Path(self._work.folder)])
                self._refs.put(name, private)
                self._layout.ensure_folder_once(os.path.dirname(copy))
                if not place(staged, copy):
                    raise Refused(f"something came to lie at '{display_path(copy)}'", code="place-taken")
                put_marker(copy, is_folder=is_folder)
        except BaseException:
            if not os.path.lexists(copy):
                forget_unlocked(self._layout, name)
            raise
        return ref

    def open(self, copy: Path, name: str, measured: Measured | None) -> None:
        """Make the files of a copy private and writable where they lie. ``name`` is what it is noted by.

        ``measured`` is what its bytes are, just read: each private file is held against it. Raises `ContentMismatch`
        for a file that changed meanwhile; then the rest is as it was, and the copy counts as unlocked.
        """
        self._refuse_other_device(copy)
        note_unlocked(self._layout, name, self._work.new_path(), durable=self._durable)
        for path, blob_id in _pair(copy, measured):
            with machine_errors("unlock", path):
                status = os.lstat(path)
                if status.st_nlink > 1:
                    private = self._work.new_path()
                    link_file(path, private, modes=PRIVATE_MODES, executable=bool(status.st_mode & 0o100))
                    self._let_write(private)
                    os.utime(private, ns=(status.st_atime_ns, status.st_mtime_ns))
                    if blob_id is not None and hash_blob(private) != blob_id:
                        raise changed_meanwhile(Path(os.fsdecode(path)))
                    if self._durable:
                        flush_file_systems([Path(private)])
                    os.rename(private, path)
                elif not status.st_mode & 0o200:
                    self._let_write(path)

    def close(self, copy: Path, name: str, measured: Measured | None, sharer: Sharer | None) -> None:
        """Make the files of a copy read-only again; with a ``sharer`` each that has an object shares its bytes.

        Raises `Refused` for a file that is not as ``measured`` any more; then the copy is still unlocked.
        """
        for path, blob_id in _pair(copy, measured):
            with machine_errors("lock", path):
                executable = bool(os.lstat(path).st_mode & 0o100)
                shared = False
                if sharer is not None and blob_id is not None:
                    digest = Digest.of_blob(blob_id)
                    shared = sharer.replace(digest, Path(os.fsdecode(path)), executable=executable) is not None
                if not shared and blob_id is not None and hash_blob(path) != blob_id:
                    raise Refused(
                        f"cannot lock '{display_path(copy)}': '{display_path(path)}' is being written to",
                        hint="close what writes to it and say it again",
                        code="place-busy",
                    )
                if self._ground.keeps_modes and os.lstat(path).st_mode & 0o222:
                    os.chmod(path, self._ground.executable_mode if executable else self._ground.file_mode)
        forget_unlocked(self._layout, name)

    def _let_write(self, path: str | bytes) -> None:
        if self._ground.keeps_modes:
            plain = 0o755 if os.lstat(path).st_mode & 0o100 else 0o644
            os.chmod(path, plain & ~self._ground.umask)

    def _refuse_other_device(self, copy: Path) -> None:
        with machine_errors("unlock", copy):
            is_here = os.lstat(copy).st_dev == os.lstat(self._work.folder).st_dev
            if not is_here or copy.is_symlink():
                raise Refused(
                    f"cannot unlock '{display_path(copy)}': it is a link, or a mount of its own",
                    hint="copy it to where you want to change it",
                    code="place-unfit",
                )


def list_files(copy: Path) -> Iterator[bytes]:
    """The paths of the regular files of a copy, its marker left out."""
    if not copy.is_dir():
        yield os.fsencode(copy)
        return
    for entry in scan_copy(copy):
        if entry.kind == "file":
            yield os.fsencode(copy) + b"/" + entry.name


def is_private(copy: Path) -> bool:
    """Whether every file of a copy has this one name only and may be written to by its owner."""
    with machine_errors("look at", copy):
        for path in list_files(copy):
            status = os.lstat(path)
            if status.st_nlink > 1 or not stat.S_IMODE(status.st_mode) & 0o200:
                return False
    return True


def changed_meanwhile(path: Path) -> ContentMismatch:
    """The error for bytes that are others than a moment ago."""
    return ContentMismatch(
        f"'{display_path(path)}' changed while it was copied, or the copy went wrong",
        hint="dm verify tells whether it is damaged",
        code="content-mismatch",
    )


def _pair(copy: Path, measured: Measured | None) -> Iterator[tuple[bytes, bytes | None]]:
    """Each regular file of a copy with the id of its bytes, where that was measured."""
    if measured is None:
        for path in list_files(copy):
            yield path, None
    elif not measured.digest.is_tree:
        yield os.fsencode(copy), measured.digest.raw
    else:
        for entry, blob_id in zip(measured.entries, measured.ids, strict=True):
            if entry.kind == "file":
                yield os.fsencode(copy) + b"/" + entry.name, blob_id
