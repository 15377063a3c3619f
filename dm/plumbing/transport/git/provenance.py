"""What a working tree's repository says of the code that runs here: its commit, its branch, and whether files changed.

dulwich reads it where it is: plain, a linked working tree, a submodule. Nothing is written, no configuration is read
and nothing of it runs: no filter, no hook, no program.

``dirty`` means what ``git describe --dirty`` means: a tracked file differs from the commit, staged or not. Files that
git does not track do not count, so that no walk over data is needed. A file whose stat data are as in the index is not
read, as in git; one that changed is, and one that a filter stands for (Git LFS, line endings) then counts as changed,
since filters are not run. The executable bit does not count.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from dm.environment import read_monotonic_s

if TYPE_CHECKING:
    from dulwich.index import Index, IndexEntry
    from dulwich.refs import Ref
    from dulwich.repo import Repo

#: A larger index is not read for `WorkingTree.dirty`: 4 MiB are some 55,000 files, a second for dulwich.
INDEX_BYTES_MAX = 4 << 20
#: Seconds after which looking for changed files is given up; then `WorkingTree.dirty` is not known.
LOOKING_S_MAX = 5.0
#: An answer is used again for so many times the time that it took, so that asking takes 5 % of a process at most.
REUSE_FACTOR = 20
#: Seconds for which a commit and branch are used again at most.
_REUSE_S_MAX = 0.5
_PIECE_BYTES = 1 << 20


class WorkingTree(NamedTuple):
    """A working tree as its repository sees it.

    ``commit`` is a hex name; ``branch`` None on a detached HEAD; ``dirty`` None where it was not found out. ``fault``
    says what could not be read.
    """

    commit: str | None = None
    branch: str | None = None
    dirty: bool | None = None
    fault: str | None = None


class _Answer(NamedTuple):
    tree: WorkingTree | None
    good_until_s: float


class _Look(NamedTuple):
    """What a look for changed files found, and of which commit and index that holds."""

    key: tuple[object, ...]
    dirty: bool | None
    fault: str | None
    good_until_s: float


class WorkingTrees:
    """Reads the state of working trees, and remembers it for a while. Threads may share one.

    What is remembered of a folder is at most `REUSE_FACTOR` times as old as finding it took: 10 ms for a small
    repository make 0.2 s, 0.8 s for one of 20,000 files make 16 s. A new commit, another branch and a change of the
    index are seen after half a second at most. ``clock`` gives seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = read_monotonic_s) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._trees: dict[Path, _Answer] = {}
        self._looks: dict[str, _Look] = {}

    def read(self, folder: Path) -> WorkingTree | None:
        """The working tree that a folder lies in; None when it is in none, or in one without a commit.

        Never raises: what cannot be read is left out, and said in ``fault``.
        """
        with self._lock:
            began = self._clock()
            answer = self._trees.get(folder)
            if answer is None or answer.good_until_s <= began:
                tree = self._read(folder)
                now = self._clock()
                # A look for changed files is remembered by itself, and longer; a new commit is seen before that.
                reuse_s = min(REUSE_FACTOR * (now - began), _REUSE_S_MAX)
                answer = self._trees[folder] = _Answer(tree, now + reuse_s)
            return answer.tree

    def _read(self, folder: Path) -> WorkingTree | None:
        from dulwich.errors import NotGitRepository
        from dulwich.objects import valid_hexsha
        from dulwich.repo import Repo

        commit = branch = None
        try:
            try:
                repository = Repo.discover(folder)
            except NotGitRepository:
                return None
            with repository:
                if repository.bare:
                    return None
                names, found = repository.refs.follow(cast("Ref", b"HEAD"))
                if found is None:
                    return None
                branch = _tell_branch(bytes(names[-1]))
                if not valid_hexsha(found):
                    return WorkingTree(fault="its HEAD names no commit")
                commit = found.decode("ascii")
                look = self._look(repository, bytes(found))
                return WorkingTree(commit, branch, look.dirty, look.fault)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a repository, the computation goes on
            return WorkingTree(commit, branch, fault=_tell_fault(error))

    def _look(self, repository: Repo, commit: bytes) -> _Look:
        """Look for changed files, unless the last look is of the same commit and index and young enough."""
        status = os.stat(repository.index_path())
        key = (commit, status.st_mtime_ns, status.st_size, status.st_ino)
        last = self._looks.get(repository.path)
        began = self._clock()
        if last is not None and last.key == key and began < last.good_until_s:
            return last
        dirty = fault = None
        if status.st_size <= INDEX_BYTES_MAX:
            try:
                dirty = _read_dirty(repository, commit, status.st_mtime_ns, _Deadline(self._clock, LOOKING_S_MAX))
            except Exception as error:  # noqa: BLE001 - as in _read
                fault = _tell_fault(error)
        now = self._clock()
        look = self._looks[repository.path] = _Look(key, dirty, fault, now + REUSE_FACTOR * (now - began))
        return look


class _Deadline:
    """Raises `_TooSlow` when the time is up; asked often, it looks at the clock seldom."""

    def __init__(self, clock: Callable[[], float], seconds: float) -> None:
        self._clock = clock
        self._end = clock() + seconds
        self._count = 0

    def check(self, weight: int = 1) -> None:
        self._count += weight
        if self._count >= 256:
            self._count = 0
            if self._clock() > self._end:
                raise _TooSlow


class _TooSlow(Exception):
    """Looking for changed files takes too long."""


def _read_dirty(repository: Repo, commit: bytes, index_mtime_ns: int, deadline: _Deadline) -> bool | None:
    from dulwich.index import Index

    # Not Repo.open_index, which reads the user's configuration.
    index = Index(repository.index_path(), object_format=repository.object_format)
    try:
        return _has_changed_files(repository, index, index_mtime_ns, deadline) or _has_staged_changes(
            repository, index, commit, deadline
        )
    except _TooSlow:
        return None


def _has_changed_files(repository: Repo, index: Index, index_mtime_ns: int, deadline: _Deadline) -> bool:
    """Whether a file on disk differs from the index."""
    from dulwich.index import ConflictedIndexEntry

    root = os.fsencode(repository.path)
    algorithm = repository.object_format.name
    for name, entry in index.iteritems():
        deadline.check()
        if isinstance(entry, ConflictedIndexEntry):
            return True
        if entry.skip_worktree or entry.flags & _ASSUME_VALID:
            continue
        if _is_changed(os.path.join(root, name), entry, index_mtime_ns, algorithm, deadline):
            return True
    return False


#: The bit of an entry that ``git update-index --assume-unchanged`` sets (gitformat-index).
_ASSUME_VALID = 0x8000


def _is_changed(path: bytes, entry: IndexEntry, index_mtime_ns: int, algorithm: str, deadline: _Deadline) -> bool:
    from dulwich.index import read_submodule_head
    from dulwich.objects import S_ISGITLINK

    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    if S_ISGITLINK(entry.mode):
        if not stat.S_ISDIR(status.st_mode):
            return True
        head = read_submodule_head(path)
        return head is not None and bytes(head) != entry.sha  # one that was never checked out is as it should be
    if stat.S_IFMT(status.st_mode) != stat.S_IFMT(entry.mode):
        return True
    mtime_ns = _in_ns(entry.mtime)
    if status.st_size == entry.size:
        same = status.st_mtime_ns == mtime_ns and status.st_ctime_ns == _in_ns(entry.ctime)
        # Git's racy rule: a file that changed in the moment when the index was written looks as before.
        if same and mtime_ns < index_mtime_ns:
            return False
    elif entry.size:  # git writes 0 for one that is to be read
        return True
    if stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
        hasher = hashlib.new(algorithm, b"blob %d\0" % len(content), usedforsecurity=False)
        hasher.update(content)
    else:
        hasher = hashlib.new(algorithm, b"blob %d\0" % status.st_size, usedforsecurity=False)
        with open(path, "rb") as stream:
            while piece := stream.read(_PIECE_BYTES):
                deadline.check(256)
                hasher.update(piece)
    return hasher.hexdigest().encode() != entry.sha


def _in_ns(time: object) -> int:
    """An index entry's time, which dulwich gives as whole seconds with nanoseconds, or as seconds."""
    if isinstance(time, tuple):
        return int(time[0]) * 1_000_000_000 + int(time[1])
    assert isinstance(time, int | float)
    return int(time * 1_000_000_000)


def _has_staged_changes(repository: Repo, index: Index, commit: bytes, deadline: _Deadline) -> bool:
    """Whether the index differs from the commit."""
    from dulwich.objects import Commit, ObjectID

    found = repository[ObjectID(commit)]
    assert isinstance(found, Commit)
    changes = index.changes_from_tree(repository.object_store, found.tree, want_unchanged=True)
    for names, modes, hashes in changes:
        deadline.check()
        if names[0] != names[1] or modes[0] != modes[1] or hashes[0] != hashes[1]:
            return True
    return False


def _tell_branch(name: bytes) -> str | None:
    """The branch of a ref; None for a detached HEAD."""
    head = b"refs/heads/"
    return name.removeprefix(head).decode("utf-8", "replace") if name.startswith(head) else None


def _tell_fault(error: Exception) -> str:
    from dm.values import printable

    told = printable(" ".join(str(error).split()))[:200]
    return told or type(error).__name__
