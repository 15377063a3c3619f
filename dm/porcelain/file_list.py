"""Several URIs that become one folder: asked for side by side, each gone on from by itself after a kill.

In the dataset's private folder each file has a folder of its own, ``files/<n>/``, with a note beside it once it is
whole. Where something vouches for it in the end (a contract, its publisher's digest) such a file is not asked for
again; else its transport asks the source whether it is still the same.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dm.errors import ContentMismatch, DmError, MachineFailed, Refused, SourceFailed, gravest
from dm.plumbing import hashing
from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.fs.publish import ensure_folder, remove_tree, write_file
from dm.porcelain.checking import check_expected, check_folder, list_algorithms, measure_file
from dm.porcelain.integrity import find_contract
from dm.porcelain.staging import Staged
from dm.porcelain.uris import check_list, fetch_uri
from dm.values import Digest, Key

if TYPE_CHECKING:
    from dm.plumbing.transport.protocol import Fetched
    from dm.porcelain.job import Job

#: A file system without hard links answers one of these.
_NO_LINKS = frozenset((errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EACCES))


def obtain_list(job: Job) -> Staged:
    """Bring every file of a list, each below the folder where its URI has it below the folders that all share.

    All are tried (unless the run stops at the first failure); one that fails fails the dataset, and those that came
    stay for the next run. A URI that is a folder becomes one at its name. Raises what the transports and `check_list`
    raise, and `ContentMismatch`; when it is the whole that is wrong, nothing of it stays.
    """
    check_list(job.project.manifest, job.dataset)
    while True:
        run = _ListRun(job)
        try:
            run.bring_all()
        except BaseException:
            job.staging.clear_if_empty()
            raise
        try:
            return run.assemble()
        except (ContentMismatch, Refused) as error:
            job.staging.clear()
            if isinstance(error, Refused) or not run.kept:
                raise
            # What an earlier run left was of an older state of the source, perhaps: once more, with nothing of it.


class _File(NamedTuple):
    """One of the files: its number, its URI, where it lies in the dataset."""

    number: int
    uri: str
    name: str


class _ListRun:
    """One go at all files of a list."""

    def __init__(self, job: Job) -> None:
        names = job.dataset.file_names
        pairs = zip(job.dataset.uris, names, strict=True)
        self.job = job
        self.files = [_File(number, uri, name) for number, (uri, name) in enumerate(pairs)]
        self.folder = job.staging.make_folder()
        self.arrived: dict[int, Path] = {}
        self.errors: dict[int, BaseException] = {}
        self.kept = False
        self._open = deque(self.files)  # shared by the threads
        self._helpers: list[threading.Thread] = []

    def assemble(self) -> Staged:
        """Make the folder of what came, and check it."""
        tree, files = self.folder / "tree", self.folder / "files"
        # Linked, not moved: a kill from here on leaves every file whole for the next run.
        remove_tree(tree)
        for file in self.files:
            _put(self.arrived[file.number], tree.joinpath(*Key.parse(file.name).parts))
        staged = check_folder(self.job.dataset, tree, self.job.staging)
        remove_tree(files)
        return staged

    # the threads ----------------------------------------------------------------------------------------------------

    def bring_all(self) -> None:
        """Work through the files, with as many more threads as the run has lanes free; raises the gravest error."""
        try:
            self._work(self._is_stopped)
        finally:
            while self._helpers:
                self._helpers.pop().join()
        if self.errors:
            raise self._choose_error()
        if len(self.arrived) < len(self.files):
            raise SourceFailed(f"'{self.job.dataset.name}' was stopped", code="stopped")

    def _work(self, should_end: Callable[[], bool]) -> None:
        lanes = self.job.shared.lanes
        while not should_end():
            while len(self._open) > 1 and lanes.try_take():
                helper = threading.Thread(target=self._help, name="dm-list")
                helper.start()
                self._helpers.append(helper)
            try:
                file = self._open.popleft()
            except IndexError:
                return
            try:
                self.arrived[file.number] = self._bring(file)
            except BaseException as error:  # noqa: BLE001 - raised by the thread that waits for all
                self.errors[file.number] = error

    def _help(self) -> None:
        lanes = self.job.shared.lanes
        try:
            self._work(lambda: self._is_stopped() or lanes.are_overfull())
        finally:
            lanes.give_back()

    def _is_stopped(self) -> bool:
        """Whether no further file is to be asked for: another may fail for the same reason only where it is the
        machine that fails.
        """
        shared = self.job.shared
        hopeless = any(not isinstance(each, DmError) or isinstance(each, MachineFailed) for each in self._errors())
        return hopeless or shared.should_stop() or (shared.fail_fast and bool(self.errors))

    def _errors(self) -> list[BaseException]:
        return list(self.errors.values())

    def _bring(self, file: _File) -> Path:
        job, shared = self.job, self.job.shared
        private = self.folder / "files" / str(file.number)
        expected = shared.expected.get(file.uri)
        if expected is not None or find_contract(job.dataset) is not None:
            kept = self._find_kept(file, private, expected)
            if kept is not None:
                self.kept = True
                return kept
        ensure_folder(private)
        with job.project.progress.start(f"{job.dataset.name}: {file.name}") as task:
            fetched = fetch_uri(job, file.uri, private, "data", task=task)
        try:
            check_expected(job.dataset, file.name, fetched, expected)
        except ContentMismatch:
            remove_tree(private)
            raise
        _write_note(file, private, fetched)
        return fetched.path

    def _find_kept(self, file: _File, private: Path, expected: Digest | None) -> Path | None:
        """What an earlier run brought whole, read again: a machine that lost power may have lost the end of it."""
        note = _read_note(file, private)
        path = private / "data"
        if note is None or path.is_symlink() or not path.is_file():
            return None
        fetched = measure_file(path, list_algorithms(self.job.dataset, expected))
        if str(fetched.digests["blake3"]) != note:
            return None
        try:
            check_expected(self.job.dataset, file.name, fetched, expected)
        except ContentMismatch:
            return None
        return path

    def _choose_error(self) -> BaseException:
        """The gravest of the errors, saying how many more there are."""
        bug = next((error for error in self._errors() if not isinstance(error, DmError)), None)
        if bug is not None:
            return bug
        errors = [error for _, error in sorted(self.errors.items()) if isinstance(error, DmError)]
        status = gravest(error.exit_status for error in errors)
        chosen = next(error for error in errors if error.exit_status == status)
        if len(errors) > 1:
            more = f"{chosen.message} (and {len(errors) - 1} more of {len(self.files)} files failed)"
            told = type(chosen)(more, hint=chosen.hint, code=chosen.code)
            told.__cause__ = chosen
            return told
        return chosen


def _put(path: Path, target: Path) -> None:
    """Make what arrived at ``path`` be at ``target`` too; a file system without hard links has it moved."""
    ensure_folder(target.parent)
    with machine_errors("write", target):
        try:
            if path.is_dir():
                shutil.copytree(path, target, symlinks=True, copy_function=os.link)
            else:
                os.link(path, target)
        except (OSError, shutil.Error) as error:
            if isinstance(error, OSError) and error.errno not in _NO_LINKS and not isinstance(error, shutil.Error):
                raise
            remove_tree(target)
            os.rename(path, target)


def _note_path(private: Path) -> Path:
    return private / "arrived.json"


def _source_of(uri: str) -> str:
    return hashing.blake3_of(uri.encode("utf-8", "surrogateescape")).hex()  # the URI itself may hold a secret


def _write_note(file: _File, private: Path, fetched: Fetched) -> None:
    blob = fetched.digests.get("blake3")
    if blob is not None:
        document = {"source": _source_of(file.uri), "digest": str(blob)}
        write_file(_note_path(private), json.dumps(document).encode(), durable=False)


def _read_note(file: _File, private: Path) -> str | None:
    """The digest of the file that arrived whole from this URI; None when none did."""
    try:
        document = json.loads(_note_path(private).read_bytes())
        return str(document["digest"]) if document["source"] == _source_of(file.uri) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
