"""The stat cache: what it remembers, and that nothing that is wrong with it is ever an error."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dm.plumbing.fs.walk import scan_tree
from dm.plumbing.store import statcache
from dm.plumbing.store.stamps import NO_ID, FileRecord, FolderIndex, Stamp
from dm.plumbing.store.statcache import StatCache
from dm.values import Digest

STAMP = Stamp(device=2**63, inode=2**64 - 1, size=3, mtime_ns=-4, ctime_ns=5, nlink=1)
ID = b"i" * 32
LATER = 2**62
PATH = Path("/data/sst.nc")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "datamanifest" / "stat-v1.db"


def record(database: Path, path: Path = PATH) -> None:
    cache = StatCache(database)
    cache.record_file(path, STAMP, ID, clock_ns=LATER)
    cache.close()
    assert cache.fault is None


def make_index(folder: Path) -> FolderIndex:
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "b").write_bytes(b"bb")
    (folder / "a").write_bytes(b"a")
    entries = scan_tree(folder)
    ids = [NO_ID if entry.kind == "folder" else ID for entry in entries]
    return FolderIndex.pack(entries, ids, clock_ns=LATER, id=b"t" * 32)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's power to write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_a_file_is_found_by_another_process(database: Path) -> None:
    checksums = (Digest("sha256", "a" * 64), Digest("md5", "b" * 32))
    cache = StatCache(database)
    cache.record_file(PATH, STAMP, ID, clock_ns=LATER, checksums=checksums)
    assert StatCache(database).lookup_file(PATH) == FileRecord(STAMP, ID, checksums)


def test_a_folder_is_found_by_another_process(database: Path, tmp_path: Path) -> None:
    index = make_index(tmp_path / "copy")
    StatCache(database).record_folder(tmp_path / "copy", index)
    found = StatCache(database).lookup_folder(tmp_path / "copy")
    assert found is not None
    assert found.match(scan_tree(tmp_path / "copy")).unchanged


def test_the_objects_of_a_tree_are_found_by_store_and_tree(database: Path, tmp_path: Path) -> None:
    StatCache(database).record_folder(tmp_path, make_index(tmp_path / "copy"), tree=b"t" * 32)
    cache = StatCache(database)
    assert cache.lookup_folder(tmp_path, tree=b"t" * 32) is not None
    assert cache.lookup_folder(tmp_path, tree=b"u" * 32) is None
    assert cache.lookup_folder(tmp_path) is None


def test_a_name_that_is_not_utf_8_is_found(database: Path) -> None:
    path = Path(os.fsdecode(b"/data/\xff\n"))
    record(database, path)
    assert StatCache(database).lookup_file(path) is not None


def test_a_racy_file_is_not_recorded(database: Path) -> None:
    cache = StatCache(database)
    cache.record_file(PATH, STAMP, ID, clock_ns=STAMP.mtime_ns)
    assert cache.lookup_file(PATH) is None


def test_a_relative_path_is_neither_found_nor_recorded(database: Path) -> None:
    cache = StatCache(database)
    cache.record_file(Path("sst.nc"), STAMP, ID, clock_ns=LATER)
    cache.record_folder(Path("folder"), FolderIndex.pack([], [], clock_ns=0))
    cache.forget(Path("sst.nc"))
    assert cache.lookup_file(Path("sst.nc")) is None
    assert cache.lookup_folder(Path("folder")) is None
    assert not database.exists()


def test_a_question_makes_neither_folder_nor_file(database: Path) -> None:
    cache = StatCache(database)
    assert cache.lookup_file(PATH) is None
    assert cache.lookup_folder(PATH) is None
    cache.forget(PATH)
    cache.close()
    assert not database.parent.exists()
    assert cache.faults == 0


def test_a_batch_is_seen_inside_and_written_at_its_end(database: Path) -> None:
    cache = StatCache(database)
    with cache.batch():
        with cache.batch():
            cache.record_file(PATH, STAMP, ID, clock_ns=LATER)
        assert cache.lookup_file(PATH) == FileRecord(STAMP, ID)
        assert StatCache(database).lookup_file(PATH) is None
    assert StatCache(database).lookup_file(PATH) == FileRecord(STAMP, ID)


def test_an_interrupted_batch_keeps_what_was_recorded(database: Path) -> None:
    cache = StatCache(database)
    with pytest.raises(KeyboardInterrupt), cache.batch():
        cache.record_file(PATH, STAMP, ID, clock_ns=LATER)
        raise KeyboardInterrupt
    assert StatCache(database).lookup_file(PATH) == FileRecord(STAMP, ID)


def test_a_batch_writes_before_it_holds_too_much_in_memory(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statcache, "_PENDING_BYTES_MAX", 1000)
    index = make_index(tmp_path / "copy")
    cache = StatCache(database)
    with cache.batch():
        for number in range(10):
            cache.record_folder(tmp_path / f"copy{number}", index)
        assert StatCache(database).lookup_folder(tmp_path / "copy0") is not None
    assert StatCache(database).lookup_folder(tmp_path / "copy9") is not None


def test_many_files_are_loaded_at_once(database: Path) -> None:
    paths = [Path(f"/data/{number}") for number in range(2000)]
    cache = StatCache(database)
    with cache.batch():
        for number, path in enumerate(paths):
            cache.record_file(path, STAMP._replace(inode=number), ID, clock_ns=LATER)
    cache = StatCache(database)
    cache.load_files([*paths, Path("/data/none"), Path("relative")])
    database.unlink()  # what follows comes from memory
    found = [cache.lookup_file(path) for path in paths]
    assert [each and each.stamp.inode for each in found] == list(range(2000))
    assert cache.lookup_file(Path("/data/none")) is None


def test_a_record_is_found_after_its_absence_was_loaded(database: Path) -> None:
    record(database, Path("/other"))
    cache = StatCache(database)
    cache.load_files([PATH])
    cache.record_file(PATH, STAMP, ID, clock_ns=LATER)
    assert cache.lookup_file(PATH) == FileRecord(STAMP, ID)


def test_what_is_forgotten_is_gone(database: Path, tmp_path: Path) -> None:
    cache = StatCache(database)
    cache.record_file(PATH, STAMP, ID, clock_ns=LATER)
    cache.record_folder(PATH, make_index(tmp_path / "copy"))
    cache.load_files([PATH])
    with cache.batch():
        cache.forget(PATH)
        assert cache.lookup_file(PATH) is None
        assert cache.lookup_folder(PATH) is None
    assert cache.lookup_file(PATH) is None
    assert StatCache(database).lookup_folder(PATH) is None


def test_what_is_recorded_after_it_was_forgotten_is_there(database: Path) -> None:
    cache = StatCache(database)
    with cache.batch():
        cache.forget(PATH)
        cache.record_file(PATH, STAMP, ID, clock_ns=LATER)
    assert StatCache(database).lookup_file(PATH) == FileRecord(STAMP, ID)


def test_the_cache_may_be_deleted_while_it_is_in_use(database: Path) -> None:
    cache = StatCache(database)
    cache.record_file(PATH, STAMP, ID, clock_ns=LATER)
    database.unlink()
    cache.record_file(Path("/other"), STAMP, ID, clock_ns=LATER)
    assert StatCache(database).lookup_file(PATH) is None
    record(database)
    assert StatCache(database).lookup_file(PATH) == FileRecord(STAMP, ID)


@pytest.mark.parametrize("content", [b"this is no database", b"\0" * 5000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_corrupt_cache_is_dropped_and_rebuilt(database: Path, content: bytes) -> None:
    database.parent.mkdir(parents=True)
    database.write_bytes(content)
    cache = StatCache(database)
    assert cache.lookup_file(PATH) is None
    cache.record_file(PATH, STAMP, ID, clock_ns=LATER)
    assert StatCache(database).lookup_file(PATH) == FileRecord(STAMP, ID)
    assert cache.faults == 1
    assert str(cache.fault).startswith(f"'{database}': ")


def test_a_corrupt_cache_is_rebuilt_when_it_is_first_written_to(database: Path) -> None:
    database.parent.mkdir(parents=True)
    database.write_bytes(b"this is no database")
    StatCache(database).record_file(PATH, STAMP, ID, clock_ns=LATER)
    assert StatCache(database).lookup_file(PATH) == FileRecord(STAMP, ID)


def test_a_cache_with_damaged_pages_loses_answers_but_raises_nothing(database: Path, tmp_path: Path) -> None:
    cache = StatCache(database)
    index = make_index(tmp_path / "copy")
    with cache.batch():
        for number in range(300):
            cache.record_file(Path(f"/data/{number}"), STAMP, ID, clock_ns=LATER)
            cache.record_folder(Path(f"/data/{number}"), index)
    cache.close()
    whole = database.read_bytes()
    for start in range(4096, len(whole), 4096):
        database.write_bytes(whole[:start] + b"\x5a" * 4096 + whole[start + 4096 :])
        cache = StatCache(database)
        for number in range(0, 300, 17):
            path = Path(f"/data/{number}")
            assert cache.lookup_file(path) in (None, FileRecord(STAMP, ID))
            found = cache.lookup_folder(path)
            assert found is None or found.encode() == index.encode()
        cache.record_file(PATH, STAMP, ID, clock_ns=LATER)
        cache.close()


def test_a_row_with_one_flipped_bit_is_not_believed(database: Path, tmp_path: Path) -> None:
    cache = StatCache(database)
    cache.record_file(PATH, STAMP, ID, clock_ns=LATER)
    cache.record_folder(PATH, make_index(tmp_path / "copy"))
    cache.close()
    with sqlite3.connect(database) as connection:
        (row,) = connection.execute("SELECT row FROM files").fetchone()
        (ids,) = connection.execute("SELECT ids FROM folders").fetchone()
        connection.execute("UPDATE files SET row = ?", (row[:-1] + bytes([row[-1] ^ 1]),))
        connection.execute("UPDATE folders SET ids = ?", (bytes([ids[0] ^ 1]) + ids[1:],))
    connection.close()
    cache = StatCache(database)
    assert cache.lookup_file(PATH) is None
    assert cache.lookup_folder(PATH) is None


def test_a_row_of_the_wrong_type_is_not_believed(database: Path, tmp_path: Path) -> None:
    cache = StatCache(database)
    cache.record_file(PATH, STAMP, ID, clock_ns=LATER)
    cache.record_folder(PATH, make_index(tmp_path / "copy"))
    cache.close()
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE files SET row = 7")
        connection.execute("UPDATE folders SET names = 7")
    connection.close()
    cache = StatCache(database)
    assert cache.lookup_file(PATH) is None
    assert cache.lookup_folder(PATH) is None


def test_a_row_that_was_moved_to_another_path_is_not_believed(database: Path) -> None:
    record(database)
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE files SET path = ?", (b"/other",))
    connection.close()
    assert StatCache(database).lookup_file(Path("/other")) is None


def test_a_newer_schema_is_left_alone(database: Path) -> None:
    record(database)
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    before = database.read_bytes()
    cache = StatCache(database)
    assert cache.lookup_file(PATH) is None
    cache.record_file(PATH, STAMP, ID, clock_ns=LATER)
    cache.close()
    assert database.read_bytes() == before
    assert cache.fault == f"'{database}' has schema 2, this dm knows 1"


def test_another_programs_database_in_this_place_is_dropped(database: Path) -> None:
    database.parent.mkdir(parents=True)
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE other (x)")
    connection.close()
    cache = StatCache(database)
    cache.record_file(PATH, STAMP, ID, clock_ns=LATER)
    assert StatCache(database).lookup_file(PATH) == FileRecord(STAMP, ID)
    assert cache.fault == f"'{database}': '{database}' is another database"


def test_missing_tables_are_made_anew(database: Path) -> None:
    record(database)
    with sqlite3.connect(database) as connection:
        connection.execute("DROP TABLE files")
    connection.close()
    cache = StatCache(database)
    assert cache.lookup_file(PATH) is None
    cache.record_file(PATH, STAMP, ID, clock_ns=LATER)
    assert StatCache(database).lookup_file(PATH) == FileRecord(STAMP, ID)


def test_an_empty_file_becomes_the_cache(database: Path) -> None:
    database.parent.mkdir(parents=True)
    database.touch()
    assert StatCache(database).lookup_file(PATH) is None
    record(database)
    assert StatCache(database).lookup_file(PATH) == FileRecord(STAMP, ID)


def test_a_locked_cache_is_no_cache_and_is_waited_for_once(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(database)
    monkeypatch.setattr(statcache, "LOCK_TIMEOUT_S", 0.05)
    holder = sqlite3.connect(database, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    cache = StatCache(database)
    assert cache.lookup_file(PATH) is None
    assert cache.lookup_file(PATH) is None
    cache.record_file(PATH, STAMP, ID, clock_ns=LATER)
    holder.execute("ROLLBACK")
    holder.close()
    assert cache.faults == 1
    assert cache.fault == f"'{database}': database is locked"
    assert StatCache(database).lookup_file(PATH) == FileRecord(STAMP, ID)


def test_a_cache_that_is_locked_for_writing_still_answers(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(database)
    monkeypatch.setattr(statcache, "LOCK_TIMEOUT_S", 0.05)
    holder = sqlite3.connect(database, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    cache = StatCache(database)
    cache.record_file(Path("/other"), STAMP, ID, clock_ns=LATER)
    assert cache.lookup_file(PATH) == FileRecord(STAMP, ID)
    assert cache.lookup_file(Path("/other")) is None
    holder.execute("ROLLBACK")
    holder.close()


def test_a_read_only_cache_answers_and_takes_nothing(open_folder: Path) -> None:
    database = open_folder / "datamanifest" / "stat-v1.db"
    record(database)
    os.chmod(database.parent, 0o555)
    os.chmod(database, 0o444)
    with as_nobody():
        cache = StatCache(database)
        cache.record_file(Path("/other"), STAMP, ID, clock_ns=LATER)
        assert cache.lookup_file(PATH) == FileRecord(STAMP, ID)
        assert cache.lookup_file(Path("/other")) is None
        assert cache.fault == f"'{database}': attempt to write a readonly database"
    os.chmod(database.parent, 0o755)


def test_a_corrupt_cache_that_cannot_be_removed_is_no_cache(open_folder: Path) -> None:
    database = open_folder / "datamanifest" / "stat-v1.db"
    database.parent.mkdir()
    database.write_bytes(b"this is no database")
    os.chmod(database.parent, 0o555)
    with as_nobody():
        cache = StatCache(database)
        assert cache.lookup_file(PATH) is None
        cache.record_file(PATH, STAMP, ID, clock_ns=LATER)
        assert cache.lookup_file(PATH) is None
        assert str(cache.fault).startswith(f"cannot drop '{database}': ")
    os.chmod(database.parent, 0o755)


def test_a_cache_folder_that_cannot_be_made_is_no_cache(open_folder: Path) -> None:
    database = open_folder / "datamanifest" / "stat-v1.db"
    os.chmod(open_folder, 0o555)
    with as_nobody():
        cache = StatCache(database)
        cache.record_file(PATH, STAMP, ID, clock_ns=LATER)
        cache.record_file(PATH, STAMP, ID, clock_ns=LATER)
        assert cache.lookup_file(PATH) is None
        assert cache.faults == 1
        assert str(cache.fault).startswith(f"cannot open '{database}': ")


def test_a_cache_folder_that_is_a_file_is_no_cache(tmp_path: Path) -> None:
    (tmp_path / "datamanifest").write_bytes(b"")
    cache = StatCache(tmp_path / "datamanifest" / "stat-v1.db")
    cache.record_file(PATH, STAMP, ID, clock_ns=LATER)
    assert cache.lookup_file(PATH) is None


def test_a_cache_that_is_a_folder_is_no_cache(database: Path) -> None:
    database.mkdir(parents=True)
    cache = StatCache(database)
    assert cache.lookup_file(PATH) is None
    cache.record_file(PATH, STAMP, ID, clock_ns=LATER)
    assert cache.fault == f"cannot open '{database}': unable to open database file"


def test_threads_share_a_cache(database: Path) -> None:
    cache = StatCache(database)

    def work(number: int) -> None:
        for each in range(20):
            path = Path(f"/data/{number}/{each}")
            cache.record_file(path, STAMP, ID, clock_ns=LATER)
            assert cache.lookup_file(path) == FileRecord(STAMP, ID)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    again = StatCache(database)
    assert cache.faults == 0
    assert all(again.lookup_file(Path(f"/data/{number}/{each}")) for number in range(4) for each in range(20))


def test_a_cache_that_is_dropped_closes_its_database(database: Path) -> None:
    cache = StatCache(database)
    cache.record_file(PATH, STAMP, ID, clock_ns=LATER)
    connection = cache._connection
    assert connection is not None
    del cache
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


_WRITER = """
import sys
from pathlib import Path
from dm.plumbing.store import statcache
from dm.plumbing.store.stamps import Stamp
statcache.LOCK_TIMEOUT_S = 300.0  # the others may be slow, on a busy machine: nothing is to be left out
cache = statcache.StatCache(Path(sys.argv[1]))
print("ready", flush=True)
for number in range(int(sys.argv[3])):
    cache.record_file(Path(f"/data/{sys.argv[2]}/{number}"), Stamp(1, 1, 1, 1, 1, 1), b"i" * 32, clock_ns=2)
cache.close()
sys.exit(1 if cache.faults else 0)
"""


def test_processes_share_a_cache_from_its_first_moment(database: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(database), str(number), "50"]) for number in range(4)
    ]
    assert [writer.wait(timeout=300) for writer in writers] == [0, 0, 0, 0]
    cache = StatCache(database)
    assert all(cache.lookup_file(Path(f"/data/{number}/{each}")) for number in range(4) for each in range(50))


def test_a_writer_that_is_killed_leaves_a_cache_that_works(database: Path) -> None:
    for _ in range(5):
        command = [sys.executable, "-c", _WRITER, str(database), "killed", "100000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            time.sleep(0.02)
            writer.kill()
        cache = StatCache(database)
        cache.record_file(PATH, STAMP, ID, clock_ns=LATER)
        assert cache.lookup_file(PATH) == FileRecord(STAMP, ID)
        cache.close()
        assert cache.faults == 0


def test_the_clock_is_asked_in_a_folder_of_ours_on_the_same_file_system(database: Path, tmp_path: Path) -> None:
    device = os.stat(tmp_path).st_dev
    earlier = tmp_path / "earlier"
    earlier.touch()
    reading = StatCache(database).read_clock_ns(tmp_path, device)
    later = tmp_path / "later"
    later.touch()
    assert earlier.stat().st_mtime_ns <= reading <= later.stat().st_mtime_ns
    assert sorted(tmp_path.iterdir()) == [earlier, later]


def test_the_caches_own_folder_serves_as_the_clock(database: Path, tmp_path: Path) -> None:
    probe = tmp_path / "probe"
    probe.touch()
    assert StatCache(database).read_clock_ns(None, os.stat(tmp_path).st_dev) >= probe.stat().st_mtime_ns


def test_a_file_system_without_a_folder_of_ours_has_a_cautious_clock(database: Path) -> None:
    reading = StatCache(database).read_clock_ns(Path("/proc"), os.stat("/").st_dev + 12345)
    assert reading <= time.time_ns() - statcache.CLOCK_MARGIN_NS


def test_the_last_reading_of_the_clock_serves_again(database: Path, tmp_path: Path) -> None:
    cache = StatCache(database)
    device = os.stat(tmp_path).st_dev
    reading = cache.read_clock_ns(tmp_path, device, fresh=False)
    assert cache.read_clock_ns(tmp_path, device, fresh=False) == reading
