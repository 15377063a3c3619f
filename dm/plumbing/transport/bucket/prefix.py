"""All objects below a prefix, as a folder: several at once, gone on with file by file.

While they come they lie in ``<file name>.d/prefix`` of the request's folder::

    files/    what has arrived, under its name in the folder to be
    parts/    what is on its way, with its journal
    arrived   a line for each that has: its name, version, size and BLAKE3

A later run lists the prefix again and keeps a file when the service still describes the version on its line and the
bytes have that BLAKE3, which after a power failure not all of them need to have. A line is written after its file is in
place; a last line that is cut short counts for nothing. When all are there, ``files`` becomes the result in one rename.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, NamedTuple

from dm.errors import Refused, SourceFailed
from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.fs.publish import ensure_folder, remove_tree, replace
from dm.plumbing.hashing import blake3_of, hash_file
from dm.plumbing.transport.bucket.address import BucketAddress
from dm.plumbing.transport.bucket.backend import Found
from dm.plumbing.transport.bucket.faults import BucketFault
from dm.plumbing.transport.bucket.names import Folder, make_folder
from dm.plumbing.transport.bucket.objects import fetch_object
from dm.plumbing.transport.bucket.source import OBJECTS_AT_ONCE, Source
from dm.plumbing.transport.journal import journal_path
from dm.plumbing.transport.protocol import FetchRequest
from dm.progress import Task
from dm.values import printable


class _Line(NamedTuple):
    """What is known of a file that has arrived."""

    validator: str
    size_bytes: int
    blake3: str


class PrefixFetch:
    """One run for one prefix, whose objects were ``listed``. `run` does it all."""

    def __init__(
        self,
        source: Source,
        address: BucketAddress,
        prefix: str,
        listed: list[Found],
        request: FetchRequest,
        task: Task,
    ) -> None:
        self._source = source
        self._address = address
        self._folder: Folder = make_folder(address, prefix, listed)
        self._target = request.folder / request.file_name
        self._work = request.folder / f"{request.file_name}.d" / "prefix"
        self._task = task
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self._lock = threading.Lock()
        self._log: IO[bytes] | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes of all objects."""
        return sum(found.size_bytes for found in self._folder.files.values())

    def run(self) -> tuple[int, bool]:
        """Fetch what is missing; return the bytes of the whole and whether all of it was there already."""
        self._task.resize(self.size_bytes)
        files = self._work / "files"
        ensure_folder(self._target.parent)
        self._take_back(files)
        known = self._read_log()
        ensure_folder(files)
        ensure_folder(self._work / "parts")
        try:
            for name in self._folder.folders:
                ensure_folder(self._clear_way(files, name))
            missing = self._fetch_all(files, known)
            self._remove_strangers(files)
            self._check_names(files)
        except BaseException:
            self._clear_empty()
            raise
        with machine_errors("write", self._target):
            os.rename(files, self._target)
            remove_tree(self._work / "parts")
        return self.size_bytes, not missing

    def _clear_empty(self) -> None:
        """Leave nothing that cannot be gone on from."""
        if not any(path.is_file() for part in ("files", "parts") for path in _walk(self._work / part)):
            remove_tree(self._work)
            with suppress(OSError):  # others may have something in it
                self._work.parent.rmdir()

    def _take_back(self, files: Path) -> None:
        """What an earlier run had finished is this one's beginning; anything else at the target goes."""
        if self._target.is_dir() and not self._target.is_symlink() and not files.exists() and self._log_path.is_file():
            with machine_errors("write", files):
                os.rename(self._target, files)
        remove_tree(self._target)

    @property
    def _log_path(self) -> Path:
        return self._work / "arrived"

    def _read_log(self) -> dict[str, _Line]:
        """What earlier runs recorded; what cannot be understood counts for nothing."""
        known: dict[str, _Line] = {}
        try:
            lines = self._log_path.read_bytes().split(b"\n")
        except OSError:
            return known
        for line in lines[:-1]:
            try:
                name, *rest = json.loads(line)
                known[name] = _Line(*rest)
            except (ValueError, TypeError):
                continue
        return known

    def _fetch_all(self, files: Path, known: dict[str, _Line]) -> int:
        """Bring every file, several at once; return how many were missing."""
        todo: SimpleQueue[tuple[str, Found]] = SimpleQueue()
        for item in self._folder.files.items():
            todo.put(item)
        fetched = [0]
        with machine_errors("write", self._log_path):
            # A line that a kill cut short would swallow the next one.
            log = self._log_path.open("ab")
        with log:
            self._log = log
            with machine_errors("write", self._log_path):
                log.write(b"\n")
            count = min(OBJECTS_AT_ONCE, len(self._folder.files))
            threads = [
                threading.Thread(target=self._work_off, args=(todo, files, known, fetched), name="dm-prefix")
                for _ in range(count)
            ]
            try:
                for thread in threads:
                    thread.start()
                for thread in threads:
                    while thread.is_alive():
                        thread.join(0.5)
            except BaseException:
                self._stop.set()
                for thread in threads:
                    if thread.ident is not None:
                        thread.join()
                raise
            finally:
                self._log = None
        if self._errors:
            raise self._errors[0]
        return fetched[0]

    def _work_off(
        self, todo: SimpleQueue[tuple[str, Found]], files: Path, known: dict[str, _Line], fetched: list[int]
    ) -> None:
        while not self._stop.is_set():
            try:
                name, found = todo.get_nowait()
            except Empty:
                return
            try:
                if not self._keep(files / name, found, known.get(name)):
                    self._fetch_one(files, name, found)
                    with self._lock:
                        fetched[0] += 1
            except BaseException as error:  # noqa: BLE001  # raised by the thread that waits
                with self._lock:
                    self._errors.append(error)
                self._stop.set()

    def _keep(self, path: Path, found: Found, line: _Line | None) -> bool:
        """Whether what lies at ``path`` is the object, by its bytes."""
        if line is None or not found.validator:
            return False
        if (line.validator, line.size_bytes) != (found.validator, found.size_bytes):
            return False
        try:
            about = path.lstat()
        except OSError:
            return False
        # A file with another name may be somebody else's object: it is fetched anew, and that one left alone.
        if about.st_size != found.size_bytes or about.st_nlink != 1 or path.is_symlink():
            return False
        if hash_file(path, "blake3").hex != line.blake3:
            return False
        self._task.advance(found.size_bytes)
        return True

    def _fetch_one(self, files: Path, name: str, found: Found) -> None:
        self._task.describe(name)
        part = self._work / "parts" / blake3_of(name.encode()).hex()
        source, address, stop = self._source, self._address, self._stop
        try:
            arrived = fetch_object(source, address, found, part, ("blake3",), self._task, should_stop=stop.is_set)
        except BucketFault as fault:
            word = "was removed" if fault.kind == "absent" else "changed"
            what = f"the object '{printable(found.key)}' {word} while the others were fetched"
            message = f"cannot fetch '{address.shown}': {what}"
            hint = "run it again: what has arrived and is still the same is kept"
            raise SourceFailed(message, hint=hint, code="source-changing") from fault
        path = self._clear_way(files, name)
        ensure_folder(path.parent)
        remove_tree(path)
        replace(part, path)
        with machine_errors("remove", part):
            journal_path(part).unlink(missing_ok=True)
        line = json.dumps([name, *_Line(found.validator, found.size_bytes, arrived.digests["blake3"].hex)])
        with self._lock, machine_errors("write", self._log_path):
            assert self._log is not None
            self._log.write(line.encode() + b"\n")
            self._log.flush()

    def _clear_way(self, files: Path, name: str) -> Path:
        """The path of a name, after files of an earlier run went that lie where folders have to be."""
        path = files
        for part in name.split("/"):
            if path.is_symlink() or (os.path.lexists(path) and not path.is_dir()):
                remove_tree(path)
            path = path / part
        return path

    def _remove_strangers(self, files: Path) -> None:
        """What an earlier run brought and the source has no more."""
        folders = set(self._folder.folders)
        for name in (*self._folder.files, *self._folder.folders):
            parts = name.split("/")
            folders.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
        for path in list(_walk(files)):
            name = path.relative_to(files).as_posix()
            if name not in self._folder.files and name not in folders:
                remove_tree(path)

    def _check_names(self, files: Path) -> None:
        """Raise `Refused` when this file system has one name for two keys: it folds case, or accents."""
        names: dict[int, str] = {}
        for name in self._folder.files:
            other = names.setdefault((files / name).lstat().st_ino, name)
            if other != name:
                message = f"'{printable(other)}' and '{printable(name)}' are one name to the file system of '{files}'"
                hint = "it folds case: use a place on another one"
                raise Refused(f"cannot fetch '{self._address.shown}': {message}", hint=hint, code="key-unsafe")


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
