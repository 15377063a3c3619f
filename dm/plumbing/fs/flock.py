"""Locks between `dm` processes: `flock` on files that are never unlinked.

The kernel drops such a lock with the process that held it, so a killed holder leaves nothing to clean up. The file
holds the last holder's text for those who wait.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from dm.errors import MachineFailed
from dm.plumbing.fs.machine import display_path, machine_errors
from dm.plumbing.fs.publish import ensure_folder, share_with_group
from dm.progress import SILENT, Progress
from dm.values import printable

#: Seconds between two looks at a held lock: quick at first, then easy on the processor.
POLL_FIRST_S = 0.010
POLL_LAST_S = 0.250
_POLL_GROWTH = 1.5
#: A wait longer than this is told to the user.
NOTE_AFTER_S = 1.0
#: What `flock` answers where there is none (some network and FUSE mounts).
NO_FLOCK = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL})
_HELD = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})
#: The longest holder's text that is read: a process number and a host name.
HOLDER_BYTES_MAX = 400
_OPEN_FILES_WANTED = 8192


class Waiting:
    """One wait for a lock: sleeps with back-off, and says after a second what is waited for and who holds it.

    ``own`` is the text of this process as a holder. That it waits for itself may well be: another thread is at it. It
    is said in so many words, since that other thread may be waiting for this one, which nothing here can know.
    """

    __slots__ = ("_delay_s", "_own", "_progress", "_should_stop", "_since_s", "_timeout_s", "_told", "_what", "waited")

    def __init__(
        self,
        what: str,
        progress: Progress,
        timeout_s: float | None,
        should_stop: Callable[[], bool] | None = None,
        own: str = "",
    ) -> None:
        self._what = what
        self._own = own
        self._should_stop = should_stop
        self._progress = progress
        self._timeout_s = timeout_s
        self.begin()

    def begin(self) -> None:
        """Start counting anew."""
        self._since_s = time.monotonic()
        self._delay_s = POLL_FIRST_S
        self._told: str | None = None
        self.waited = False

    def pause(self, holder: str) -> None:
        """Sleep a little; ``holder`` is what is known of who holds the lock now ("" when nothing is).

        Raises `MachineFailed`, code ``locked``, when the wait has lasted longer than the timeout, and code
        ``interrupted`` when it should stop.
        """
        if self._should_stop is not None and self._should_stop():
            raise MachineFailed(f"stopped waiting for the lock of {self._what}", code="interrupted")
        elapsed_s = time.monotonic() - self._since_s
        if self._timeout_s is not None and elapsed_s >= self._timeout_s:
            raise MachineFailed(
                f"cannot lock {self._what}: {describe_holder(holder)} still holds it after {elapsed_s:.0f} s",
                hint="let that process finish, or end it, then run the command again",
                code="locked",
            )
        if elapsed_s >= NOTE_AFTER_S and holder != self._told:
            self._told = holder
            told = f"{describe_holder(holder)} holds its lock"
            if holder and holder == self._own:
                told += ", which is this one: if what holds it waits for this thread, neither goes on"
            self._progress.note(f"waiting for {self._what}: {told}")
        self.waited = True
        time.sleep(self._delay_s)
        self._delay_s = min(self._delay_s * _POLL_GROWTH, POLL_LAST_S)


def describe_holder(text: str) -> str:
    """A lock's text in words: ``process 123 on host``; as it stands when it is something else."""
    pid, _, host = text.partition(" ")
    if pid.isdecimal() and host:
        return f"process {pid} on {printable(host)}"
    return f"'{printable(text)}'" if text else "another process"


def open_lock_file(path: str | Path, *, root: Path | None = None, make: bool = True) -> tuple[int, bool]:
    """Open a lock file; return the descriptor and whether it can be written.

    With ``make`` a missing one is made, with its folders. A new file takes the group's permissions of its folder, so
    that those who share a store can lock in it. Another user's file that may only be read is opened so: that is enough
    for `flock` on a local disk.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW
    while True:
        try:
            return os.open(path, flags), True
        except FileNotFoundError:
            if not make:
                raise
        except PermissionError:
            return os.open(path, os.O_RDONLY | os.O_NOFOLLOW), False
        except OSError as error:
            if error.errno == errno.EROFS and not make:
                return os.open(path, os.O_RDONLY | os.O_NOFOLLOW), False
            if error.errno != errno.EMFILE or not raise_open_files_limit():
                raise
            continue
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            continue
        except FileNotFoundError:
            ensure_folder(Path(path).parent, root=root)
            continue
        except OSError as error:
            if error.errno != errno.EMFILE or not raise_open_files_limit():
                raise
            continue
        share_with_group(descriptor, path)
        return descriptor, True


def raise_open_files_limit() -> bool:
    """Lift this process's soft limit of open files towards its hard one (a lock is a descriptor); False: no room."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(_OPEN_FILES_WANTED, soft * 2)
    wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or wanted <= soft:
        return False
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError):
        return False
    return True


def try_flock(descriptor: int, *, shared: bool = False) -> bool | None:
    """Take the lock without waiting: True taken, False held by another, None where there is no `flock`."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        if error.errno in NO_FLOCK or error.errno == errno.EBADF:  # EBADF: NFS and a file that is open for reading only
            return None
        raise
    return True


def unlock(descriptor: int) -> None:
    """Give the lock up and close the file. The explicit unlock also frees it from a forked child's copy."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    except OSError as error:
        if error.errno not in NO_FLOCK:
            raise
    finally:
        os.close(descriptor)


def read_holder(descriptor: int) -> str:
    """The holder's text in an open lock file: its first line."""
    return os.pread(descriptor, HOLDER_BYTES_MAX, 0).split(b"\n", 1)[0].decode("utf-8", "replace")


def write_holder(descriptor: int, text: bytes, size_bytes: int) -> None:
    """Write the holder's text over the ``size_bytes`` that are there."""
    os.pwrite(descriptor, text, 0)
    if size_bytes > len(text):
        os.ftruncate(descriptor, len(text))


class FileLock:
    """A `with` block that holds `flock` on the existing file ``path``, whose content is left alone.

    ``works`` is False inside the block where the file system has no `flock`: then nothing is held and the caller has
    to be careful by other means. ``waited`` says whether another holder was waited for: look again at what is
    guarded. With ``timeout_s`` the wait ends with `MachineFailed` (code ``locked``). One block at a time; not
    re-entrant, but any number of threads may each have a lock of their own.
    """

    shared = False

    def __init__(
        self, path: Path, *, progress: Progress = SILENT, describe: str | None = None, timeout_s: float | None = None
    ) -> None:
        self.path = path
        self.works = False
        self.waited = False
        self._waiting = Waiting(describe or f"'{display_path(path)}'", progress, timeout_s)
        self._descriptor = -1

    def __enter__(self) -> Self:
        with machine_errors("lock", self.path):
            self._descriptor, _ = open_lock_file(self.path, make=False)
            try:
                self._waiting.begin()
                while (taken := try_flock(self._descriptor, shared=self.shared)) is False:
                    self._waiting.pause("")
            except BaseException:
                os.close(self._descriptor)
                raise
        self.works = taken is True
        self.waited = self._waiting.waited
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with machine_errors("unlock", self.path):
            unlock(self._descriptor)


class SharedLock(FileLock):
    """Many may hold it together, none beside an `ExclusiveLock` (``.dm/format`` from ingest to ref)."""

    shared = True


class ExclusiveLock(FileLock):
    """One alone holds it (``.dm/format`` while prune works)."""
