"""Locks: one holder at a time, dead holders noticed, the living told of."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dm.errors import MachineFailed
from dm.plumbing.fs import marker
from dm.plumbing.fs.lock import CopyLock, DocumentLock, ExclusiveLock, SharedLock
from dm.progress import SILENT
from tests.fixtures.machine import needs_root
from tests.fixtures.sinks import RecordingProgress
from tests.fixtures.users import let_others_in, run_as_other_user

HOST = "here"
NAME = "0123abcd" * 8
#: It ends a hang.
PATIENCE_S = 300.0
CHECKOUT = Path(__file__).parents[3]

#: Takes the lock of a copy, says so, and keeps it until its input ends.
HOLD = """
import os, sys
from pathlib import Path
root, copy, stale_age_s, before = sys.argv[1:]
exec(before)
from dm.plumbing.fs.lock import CopyLock
lock = CopyLock(root=Path(root), copy=Path(copy), name="0123abcd" * 8, host_name="here", process_id=os.getpid(),
                stale_age_s=float(stale_age_s))
with lock:
    print("held", flush=True)
    sys.stdin.read()
"""
NO_HARD_LINKS = """
def link(*arguments, **options):
    raise PermissionError(1, "Operation not permitted")
os.link = link
"""
NO_FLOCK = """
import fcntl
def flock(*arguments):
    raise OSError(37, "No locks available")
fcntl.flock = flock
"""


def make_lock(root: Path, copy: Path | None = None, **options: Any) -> CopyLock:
    values: dict[str, Any] = {"host_name": HOST, "process_id": os.getpid(), "name": NAME, "timeout_s": PATIENCE_S}
    return CopyLock(root=root, copy=copy or root / "copy.nc", **(values | options))


def start_holder(root: Path, copy: Path, *, stale_age_s: float = 30, before: str = "") -> subprocess.Popen[str]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root), str(copy), str(stale_age_s), before],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def end(holder: subprocess.Popen[str]) -> None:
    holder.communicate(timeout=PATIENCE_S)


def await_true(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "nothing happened"
        time.sleep(0.01)


def dead_pid() -> int:
    """The number of a process that has ended and been waited for."""
    done = subprocess.Popen(["true"])
    done.wait()
    return done.pid


def write_lock(path: Path, text: str, *, age_s: float = 0.0) -> None:
    path.write_text(text)
    then_s = time.time() - age_s
    os.utime(path, (then_s, then_s))


# The lock of a working copy -----------------------------------------------------------------------------------------


def test_the_other_tools_find_pid_and_host_without_a_newline(tmp_path: Path) -> None:
    with make_lock(tmp_path, process_id=4711, host_name="node7"):
        assert (tmp_path / "copy.nc.lock").read_bytes() == b"4711 node7"
        assert (tmp_path / ".dm" / "locks" / NAME).read_bytes() == b"4711 node7"
    assert os.listdir(tmp_path) == [".dm"]


def test_the_private_file_stays_and_its_text_is_the_last_holders(tmp_path: Path) -> None:
    with make_lock(tmp_path, process_id=123456, host_name="a-long-host-name"):
        before = (tmp_path / ".dm" / "locks" / NAME).stat().st_ino
    with make_lock(tmp_path, process_id=1, host_name="b"):
        assert (tmp_path / ".dm" / "locks" / NAME).read_bytes() == b"1 b"
        assert (tmp_path / "copy.nc.lock").read_bytes() == b"1 b"
    assert (tmp_path / ".dm" / "locks" / NAME).stat().st_ino == before


def test_missing_folders_are_made_and_taken_back_when_they_stay_empty(tmp_path: Path) -> None:
    copy = tmp_path / "datasets" / "example.com" / "copy.nc"
    with make_lock(tmp_path, copy):
        assert (tmp_path / "datasets" / "example.com" / "copy.nc.lock").exists()
    assert not (tmp_path / "datasets").exists()
    with make_lock(tmp_path, copy):
        copy.write_bytes(b"1")
    assert os.listdir(copy.parent) == ["copy.nc"]


@pytest.mark.parametrize("before", ["", NO_HARD_LINKS, NO_FLOCK], ids=["links", "no links", "no flock"])
def test_processes_take_turns(tmp_path: Path, before: str) -> None:
    script = """
import os, sys
from pathlib import Path
exec(sys.argv[2])
from dm.plumbing.fs.lock import CopyLock
root = Path(sys.argv[1])
for _ in range(15):
    with CopyLock(root=root, copy=root / "copy", name="0123abcd" * 8, host_name="here", process_id=os.getpid(),
                  timeout_s=300):
        count = int((root / "count").read_text())
        (root / "count").write_text(str(count + 1))
"""
    (tmp_path / "count").write_text("0")
    command = [sys.executable, "-c", script, str(tmp_path), before]
    workers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=CHECKOUT) for _ in range(4)]
    assert [worker.communicate(timeout=PATIENCE_S)[1] for worker in workers] == [""] * 4
    assert (tmp_path / "count").read_text() == "60"
    assert sorted(os.listdir(tmp_path)) == [".dm", "count"]


def test_threads_of_one_process_take_turns(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def run() -> None:
        for _ in range(10):
            with make_lock(tmp_path):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 40


@pytest.mark.parametrize("before", ["", NO_HARD_LINKS], ids=["links", "no links"])
def test_a_killed_holders_lock_is_taken_at_once_and_without_a_word(tmp_path: Path, before: str) -> None:
    holder = start_holder(tmp_path, tmp_path / "copy.nc", stale_age_s=3600, before=before)
    holder.kill()
    end(holder)
    assert (tmp_path / "copy.nc.lock").exists()
    progress = RecordingProgress()
    # Far longer than the age rules would take: only the proof that it is a dead dm's helps here.
    lock = make_lock(tmp_path, stale_age_s=3600, progress=progress)
    with lock:
        assert (tmp_path / "copy.nc.lock").read_text() == f"{os.getpid()} {HOST}"
    assert (progress.notes, progress.warnings, lock.waited) == ([], [], False)
    assert os.listdir(tmp_path) == [".dm"]


def test_a_killed_holder_on_another_host_is_known_as_well(tmp_path: Path) -> None:
    holder = start_holder(tmp_path, tmp_path / "copy.nc", stale_age_s=3600)
    holder.kill()
    end(holder)
    with make_lock(tmp_path, stale_age_s=3600, host_name="elsewhere"):
        assert (tmp_path / "copy.nc.lock").read_text() == f"{os.getpid()} elsewhere"


def test_a_wait_is_told_after_a_second_with_the_holder_and_ends_with_it(tmp_path: Path) -> None:
    holder = start_holder(tmp_path, tmp_path / "copy.nc")
    progress = RecordingProgress()
    lock = make_lock(tmp_path, progress=progress)
    waiter = threading.Thread(target=lock.acquire)
    waiter.start()
    await_true(lambda: progress.notes)
    end(holder)
    waiter.join(PATIENCE_S)
    expected = f"waiting for '{tmp_path}/copy.nc': process {holder.pid} on here holds its lock"
    assert (progress.notes, lock.waited) == ([expected], True)
    lock.release()


def test_a_wait_for_another_tools_lock_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "copy.nc.lock"
    write_lock(path, f"{os.getpid()} {HOST}")
    progress = RecordingProgress()
    lock = make_lock(tmp_path, progress=progress)
    waiter = threading.Thread(target=lock.acquire)
    waiter.start()
    await_true(lambda: progress.notes)
    path.unlink()
    waiter.join(PATIENCE_S)
    own = "which is this one: if what holds it waits for this thread, neither goes on"
    assert progress.notes == [f"waiting for '{tmp_path}/copy.nc': process {os.getpid()} on here holds its lock, {own}"]
    lock.release()


def test_a_wait_for_another_thread_says_that_it_is_this_process(tmp_path: Path) -> None:
    progress = RecordingProgress()
    lock = make_lock(tmp_path, progress=progress)
    waiter = threading.Thread(target=lock.acquire)
    with make_lock(tmp_path):
        waiter.start()
        await_true(lambda: progress.notes)
    waiter.join(PATIENCE_S)
    assert [True] == [
        each.endswith(", which is this one: if what holds it waits for this thread, neither goes on")
        for each in progress.notes
    ]
    lock.release()


def test_a_wait_can_be_limited(tmp_path: Path) -> None:
    with make_lock(tmp_path, process_id=4711):
        with pytest.raises(MachineFailed) as caught:
            make_lock(tmp_path, timeout_s=0.0).acquire()
    expected = f"cannot lock '{tmp_path}/copy.nc': process 4711 on here still holds it after 0 s"
    assert str(caught.value) == expected
    assert caught.value.hint == "let that process finish, or end it, then run the command again"
    assert (caught.value.code, caught.value.exit_status) == ("locked", 8)


def test_a_wait_ends_when_the_run_is_stopped(tmp_path: Path) -> None:
    with make_lock(tmp_path):
        with pytest.raises(MachineFailed) as caught:
            make_lock(tmp_path, should_stop=lambda: True).acquire()
    assert (str(caught.value), caught.value.code) == (
        f"stopped waiting for the lock of '{tmp_path}/copy.nc'",
        "interrupted",
    )


def _is_taken_over(root: Path, **options: Any) -> bool:
    try:
        with make_lock(root, timeout_s=0.0, **options):
            return True
    except MachineFailed as error:
        assert error.code == "locked"
        return False


@pytest.mark.parametrize(("age_s", "stale"), [(2000, False), (3100, True)])
def test_a_dead_process_of_this_host_loses_its_lock_after_the_stale_age(
    tmp_path: Path, age_s: float, stale: bool
) -> None:
    write_lock(tmp_path / "copy.nc.lock", f"{dead_pid()} {HOST}", age_s=age_s)
    assert _is_taken_over(tmp_path, stale_age_s=3000) is stale
    assert (tmp_path / "copy.nc.lock").exists() is not stale


@pytest.mark.parametrize(("age_s", "stale"), [(10_000, False), (15_100, True)])
def test_a_living_process_loses_a_lock_that_it_does_not_touch_after_five_times_that(
    tmp_path: Path, age_s: float, stale: bool
) -> None:
    write_lock(tmp_path / "copy.nc.lock", f"{os.getpid()} {HOST}", age_s=age_s)
    assert _is_taken_over(tmp_path, stale_age_s=3000) is stale


@pytest.mark.parametrize("text", ["1 another-host", "", "no number here", "99999999999999999999 another-host"])
def test_the_age_of_a_lock_from_elsewhere_says_nothing(tmp_path: Path, text: str) -> None:
    write_lock(tmp_path / "copy.nc.lock", text, age_s=1e6)
    assert _is_taken_over(tmp_path, stale_age_s=30) is False


@pytest.mark.parametrize("text", ["1 another-host", "", "no number here"])
def test_a_lock_from_elsewhere_is_taken_after_it_was_watched_long_enough(tmp_path: Path, text: str) -> None:
    write_lock(tmp_path / "copy.nc.lock", text)
    with make_lock(tmp_path, stale_age_s=0.05) as lock:
        assert (tmp_path / "copy.nc.lock").read_text() == f"{os.getpid()} {HOST}"
    assert lock.waited


def test_a_lock_from_elsewhere_that_is_touched_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    judge = marker.Judge(HOST, 30)
    seen = marker.Marker("1 another-host", 1, 2, 3)
    assert judge.is_stale(seen) is False
    now_s += 149
    assert judge.is_stale(seen) is False
    touched = seen._replace(mtime_ns=4)
    now_s += 2
    assert judge.is_stale(touched) is False
    now_s += 149
    assert judge.is_stale(touched) is False
    now_s += 2
    assert judge.is_stale(touched) is True


def test_a_number_that_is_no_process_number_is_not_taken_for_a_dead_process() -> None:
    judge = marker.Judge(HOST, 30)
    assert judge.is_stale(marker.Marker(f"{10**30} {HOST}", 1, 2, time.time_ns() - 60 * 10**9)) is False


def test_a_held_lock_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "copy.nc.lock"
    with make_lock(tmp_path, stale_age_s=0.1):
        for _ in range(2):
            before_ns = path.stat().st_mtime_ns
            await_true(lambda before_ns=before_ns: path.stat().st_mtime_ns > before_ns)


def test_a_lock_that_cannot_be_touched_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def utime(descriptor: int) -> None:
        tries.append(descriptor)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    progress = RecordingProgress()
    monkeypatch.setattr(os, "utime", utime)
    with make_lock(tmp_path, stale_age_s=0.02, progress=progress):
        await_true(lambda: len(tries) > 3)
    assert progress.warnings == [
        f"cannot touch the lock '{tmp_path}/copy.nc.lock': input/output error; others may take it for stale"
    ]


def test_another_tools_lock_in_our_place_is_left_and_told(tmp_path: Path) -> None:
    progress = RecordingProgress()
    path = tmp_path / "copy.nc.lock"
    with make_lock(tmp_path, progress=progress):
        path.unlink()
        path.write_text("77 peer")
    assert path.read_text() == "77 peer"
    assert progress.warnings == [f"another process took over the lock of '{tmp_path}/copy.nc'"]


def test_a_lock_that_took_the_place_of_a_stale_one_is_put_back(tmp_path: Path) -> None:
    path = tmp_path / "copy.nc.lock"
    write_lock(path, "1 here", age_s=100)
    judged = marker.read_marker(path)
    assert judged is not None
    path.unlink()
    write_lock(path, "2 there")
    marker.remove_marker(path, judged)
    assert path.read_text() == "2 there"
    assert os.listdir(tmp_path) == ["copy.nc.lock"]
    again = marker.read_marker(path)
    assert again is not None
    marker.remove_marker(path, again)
    marker.remove_marker(path, again)
    assert os.listdir(tmp_path) == []


def test_a_link_in_the_locks_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "copy.nc.lock").symlink_to("victim")
    with pytest.raises(MachineFailed) as caught:
        make_lock(tmp_path).acquire()
    expected = f"cannot lock '{tmp_path}/copy.nc': too many symbolic links, or a link where none may be"
    assert str(caught.value) == expected
    assert (tmp_path / "victim").read_bytes() == b"precious"


def test_a_private_file_that_was_removed_while_we_waited_guards_nothing(tmp_path: Path) -> None:
    first = make_lock(tmp_path)
    first.acquire()
    second = make_lock(tmp_path)
    waiter = threading.Thread(target=second.acquire)
    waiter.start()
    await_true(lambda: second._waiting.waited)
    (tmp_path / ".dm" / "locks" / NAME).unlink()
    first.release()
    waiter.join(PATIENCE_S)
    assert os.path.samefile(tmp_path / ".dm" / "locks" / NAME, tmp_path / "copy.nc.lock")
    second.release()


def test_a_lock_can_be_taken_again_and_released_twice(tmp_path: Path) -> None:
    lock = make_lock(tmp_path)
    for _ in range(2):
        lock.acquire()
        assert (tmp_path / "copy.nc.lock").exists()
        lock.release()
        lock.release()
    assert os.listdir(tmp_path) == [".dm"]


def test_a_lock_is_released_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), make_lock(tmp_path):
        raise ZeroDivisionError
    with make_lock(tmp_path, timeout_s=0.0):
        pass


def test_a_thousand_copies_are_locked_at_once_with_one_thread_and_a_low_limit_of_open_files(tmp_path: Path) -> None:
    script = """
import os, resource, sys, threading
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
from dm.plumbing.fs.lock import CopyLock
root = Path(sys.argv[1])
locks = [CopyLock(root=root, copy=root / "data" / f"{i}", name=f"{i:064x}", host_name="here", process_id=os.getpid())
         for i in range(1000)]
for lock in locks:
    lock.acquire()
print(threading.active_count(), len(os.listdir(root / "data")), len(os.listdir(root / ".dm" / "locks")))
for lock in locks:
    lock.release()
print(len(os.listdir(root / "data")))
"""
    import resource

    if 0 <= resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2000:
        pytest.skip("this machine's hard limit of open files is too low")
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False, cwd=CHECKOUT
    )
    assert (done.stdout, done.stderr) == ("2 1000 1000\n0\n", "")


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    script = """
import os, sys, time
from pathlib import Path
from dm.plumbing.fs.lock import CopyLock
root = Path(sys.argv[1])
def make():
    return CopyLock(root=root, copy=root / "copy", name="0123abcd" * 8, host_name="here", process_id=os.getpid(),
                    timeout_s=300)
reader, writer = os.pipe()
with make():
    child = os.fork()
    if child == 0:
        os.read(reader, 1)
        with make():  # after a fork the child has a thread for touching of its own
            os._exit(0)
with make():
    print("free")
os.write(writer, b"x")
print(os.waitpid(child, 0)[1])
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=CHECKOUT,
    )
    assert (done.stdout, done.stderr) == ("free\n0\n", "")


@pytest.mark.needs_root
@pytest.mark.other_users
def test_another_users_private_file_is_enough_to_lock(tmp_path: Path) -> None:
    needs_root()
    let_others_in(tmp_path)
    with make_lock(tmp_path):
        pass
    (tmp_path / ".dm" / "locks" / NAME).chmod(0o644)
    tmp_path.chmod(0o777)
    script = """
import sys
from pathlib import Path
from dm.plumbing.fs.lock import CopyLock
root = Path(sys.argv[1])
with CopyLock(root=root, copy=root / "copy.nc", name="0123abcd" * 8, host_name="here", process_id=4711):
    print((root / "copy.nc.lock").read_text())
print(os.listdir(root))
"""
    output = run_as_other_user(script, str(tmp_path), modules="dm.plumbing.fs.lock, fcntl")
    assert output == ("4711 here\n['.dm']\n", "")


@pytest.mark.needs_root
@pytest.mark.other_users
def test_the_lock_of_a_copy_in_a_sticky_folder_goes_with_its_holder_whoever_made_the_private_file(
    tmp_path: Path,
) -> None:
    """A second name for another user's file could be made there, and never removed again."""
    needs_root()
    let_others_in(tmp_path)
    with make_lock(tmp_path):
        pass
    (tmp_path / ".dm" / "locks" / NAME).chmod(0o666)
    tmp_path.chmod(0o1777)
    script = """
import sys
from pathlib import Path
from dm.plumbing.fs.lock import CopyLock
root = Path(sys.argv[1])
for _ in range(2):
    with CopyLock(root=root, copy=root / "copy.nc", name="0123abcd" * 8, host_name="here", process_id=4711):
        print((root / "copy.nc.lock").read_text())
    print(os.listdir(root))
"""
    output = run_as_other_user(script, str(tmp_path), modules="dm.plumbing.fs.lock, fcntl")
    assert output == ("4711 here\n['.dm']\n" * 2, "")
    with make_lock(tmp_path) as lock:
        assert not lock.waited


def test_a_store_that_a_group_shares_has_lock_files_for_the_group(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    root.chmod(0o2775)
    before = os.umask(0o077)
    try:
        with make_lock(root):
            pass
    finally:
        os.umask(before)
    assert (root / ".dm" / "locks" / NAME).stat().st_mode & 0o777 == 0o660


def _take_flock_away(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(*arguments: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_without_flock_the_age_rules_stand_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    _take_flock_away(monkeypatch, number)
    with make_lock(tmp_path, process_id=4711):
        assert (tmp_path / "copy.nc.lock").read_text() == "4711 here"
        assert (tmp_path / "copy.nc.lock").stat().st_nlink == 1
        assert _is_taken_over(tmp_path) is False
    assert os.listdir(tmp_path) == [".dm"]
    write_lock(tmp_path / "copy.nc.lock", f"{dead_pid()} {HOST}", age_s=2000)
    assert _is_taken_over(tmp_path, stale_age_s=3000) is False
    assert _is_taken_over(tmp_path, stale_age_s=1000) is True


# Documents ----------------------------------------------------------------------------------------------------------


def test_a_document_is_locked_by_one_at_a_time_and_the_wait_names_the_holder(tmp_path: Path) -> None:
    path = tmp_path / ".datamanifest" / "state.lock"
    progress = RecordingProgress()
    taken = threading.Event()
    waiter = DocumentLock(path, progress=progress, describe="the state", timeout_s=PATIENCE_S)

    def wait() -> None:
        with waiter:
            taken.set()

    with DocumentLock(path, progress=SILENT, holder="4711 here") as first:
        thread = threading.Thread(target=wait)
        thread.start()
        await_true(lambda: progress.notes)
        assert not taken.is_set()
    thread.join(PATIENCE_S)
    assert taken.is_set()
    assert progress.notes == ["waiting for the state: process 4711 on here holds its lock"]
    assert (first.waited, waiter.waited) == (False, True)
    assert path.read_text() == str(os.getpid())


def test_a_killed_holder_of_a_document_leaves_it_free(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from dm.plumbing.fs.lock import DocumentLock
with DocumentLock(Path(sys.argv[1]), holder="1 here"):
    print("held", flush=True)
    sys.stdin.read()
"""
    path = tmp_path / "state.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(MachineFailed) as caught, DocumentLock(path, describe="the state", timeout_s=0.0):
        pass
    assert str(caught.value) == "cannot lock the state: process 1 on here still holds it after 0 s"
    holder.kill()
    end(holder)
    with DocumentLock(path, timeout_s=0.0) as lock:
        assert not lock.waited


def test_without_flock_a_document_is_guarded_by_a_file_beside_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _take_flock_away(monkeypatch, errno.ENOLCK)
    path = tmp_path / "state.lock"
    with DocumentLock(path, holder=f"{os.getpid()} {HOST}"):
        assert (tmp_path / "state.lock.held").read_text() == f"{os.getpid()} {HOST}"
        with pytest.raises(MachineFailed) as caught, DocumentLock(path, timeout_s=0.0):
            pass
        assert caught.value.code == "locked"
    assert os.listdir(tmp_path) == ["state.lock"]
    write_lock(tmp_path / "state.lock.held", f"{dead_pid()} {HOST}", age_s=31)
    with DocumentLock(path, holder=f"{os.getpid()} {HOST}", timeout_s=0.0):
        pass


def test_a_document_in_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "state.lock").mkdir()
    with pytest.raises(MachineFailed) as caught, DocumentLock(tmp_path / "a" / "state.lock"):
        pass
    assert str(caught.value) == f"cannot lock '{tmp_path}/a/state.lock': is a directory"


# The store's format file --------------------------------------------------------------------------------------------


def test_shared_locks_stand_together_and_an_exclusive_one_alone(tmp_path: Path) -> None:
    path = tmp_path / "format"
    path.write_text("dm store 1\n")
    with SharedLock(path) as first, SharedLock(path) as second:
        assert (first.works, second.works) == (True, True)
        with pytest.raises(MachineFailed) as caught, ExclusiveLock(path, timeout_s=0.0):
            pass
        assert str(caught.value) == f"cannot lock '{path}': another process still holds it after 0 s"
    with ExclusiveLock(path, timeout_s=0.0) as lock:
        assert lock.works
        with pytest.raises(MachineFailed), SharedLock(path, timeout_s=0.0):
            pass
    assert path.read_text() == "dm store 1\n"


def test_a_wait_for_the_store_is_told(tmp_path: Path) -> None:
    path = tmp_path / "format"
    path.write_text("dm store 1\n")
    progress = RecordingProgress()
    waiter = SharedLock(path, progress=progress, describe="the store", timeout_s=PATIENCE_S)
    thread = threading.Thread(target=waiter.__enter__)
    with ExclusiveLock(path):
        thread.start()
        await_true(lambda: progress.notes)
    thread.join(PATIENCE_S)
    waiter.__exit__(None, None, None)
    assert (progress.notes, waiter.waited) == (["waiting for the store: another process holds its lock"], True)


def test_a_lock_on_a_missing_file_is_an_error_and_makes_none(tmp_path: Path) -> None:
    with pytest.raises(MachineFailed) as caught, SharedLock(tmp_path / "format"):
        pass
    assert str(caught.value) == f"cannot lock '{tmp_path}/format': no such file or folder"
    assert os.listdir(tmp_path) == []


def test_without_flock_the_caller_is_told_that_nothing_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _take_flock_away(monkeypatch, errno.ENOLCK)
    (tmp_path / "format").write_text("dm store 1\n")
    with ExclusiveLock(tmp_path / "format") as lock:
        assert lock.works is False
