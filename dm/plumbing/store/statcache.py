"""The stat cache: which bytes need not be read again, because their stat data say that nobody wrote them since.

``$user_cache_dir/datamanifest/stat-v1.db``, the only sqlite database of `dm` and never a truth: it may be deleted at
any time, and whatever is wrong with it (corrupt, locked, read-only, of a newer schema, on a network file system without
locks, a full disk) means "no cache" and never an error. A corrupt file is dropped and rebuilt. ``fault`` keeps what was
wrong and ``faults`` how often, for `dm doctor`.

A folder is one row of packed columns (`FolderIndex`), a single file one row; both are found by absolute path. Objects
have rows of the same kind, found by store root and tree id. Every row carries a checksum, since the database is
written without waiting for the disk (``synchronous = OFF``): a process that dies leaves it whole, a machine that loses
power may not. What may be recorded is what was really read, or what the publisher hashed itself; see
`dm.plumbing.store.stamps` for the rule that decides whether a recorded stamp is believed.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dm.errors import DmError
from dm.plumbing.store.stamps import FileRecord, FolderIndex, Stamp, checksum_of, decode_checksums, encode_checksums

if TYPE_CHECKING:
    import sqlite3

    from dm.values import Digest

#: ``user_version`` of the database; a higher one belongs to a newer `dm` and is left alone.
SCHEMA_VERSION = 1
#: How long to wait for another process's transaction, which takes milliseconds.
LOCK_TIMEOUT_S = 0.5
#: Trust in this machine's clock where no file-system clock can be read: entries younger than this are read again. It
#: has to cover the difference between this clock and that of a file server.
CLOCK_MARGIN_NS = 60 * 1_000_000_000

# Old versions of sqlite take 999 variables.
_VARIABLES_MAX = 900
# Folder rows that a batch may hold before they are written, to bound memory.
_PENDING_BYTES_MAX = 32 * 1024 * 1024
_FILE_ROW = struct.Struct("<QQQqqQ32s")
_CHECK = struct.Struct("<I")
# sqlite's result codes (sqlite3.h) that mean: this file is not the database it should be.
_ERROR, _CORRUPT, _FORMAT, _NOT_A_DATABASE = 1, 11, 24, 26

_SCHEMA = f"""
CREATE TABLE files (path BLOB PRIMARY KEY, row BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE folders (
    path BLOB NOT NULL, tree BLOB NOT NULL, id BLOB NOT NULL, head BLOB NOT NULL, checksums TEXT NOT NULL,
    names BLOB NOT NULL, kinds BLOB NOT NULL, stamps BLOB NOT NULL, ids BLOB NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (path, tree)
);
PRAGMA user_version = {SCHEMA_VERSION};
"""
_FOLDER_COLUMNS = "id, head, checksums, names, kinds, stamps, ids, checksum"


class StatCache:
    """The stat cache at ``path``. Opening costs nothing until the first question; threads may share one.

    No method raises for anything that may be wrong with the database or its folder. A path that is not absolute is
    neither found nor recorded.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        #: What was wrong with the database the last time that something was, for people; None when all is well.
        self.fault: str | None = None
        #: How many operations failed.
        self.faults = 0
        self._guard = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._off = False
        self._writes_off = False
        self._dropped = False
        self._depth = 0
        self._files: dict[bytes, bytes] = {}
        self._folders: dict[tuple[bytes, bytes], tuple[Any, ...]] = {}
        self._forgotten: set[bytes] = set()
        self._pending_bytes = 0
        self._loaded: dict[bytes, bytes | None] = {}
        self._clocks: dict[int, int] = {}

    # Questions

    def lookup_file(self, path: Path) -> FileRecord | None:
        """What is recorded of the single file at ``path``, whether or not it still holds."""
        key = _key_of(path)
        with self._guard:
            row = self._files.get(key)
            if row is None:
                if key in self._forgotten:
                    return None
                if key in self._loaded:
                    row = self._loaded[key]
                else:
                    found = self._ask("SELECT row FROM files WHERE path = ?", (key,))
                    row = found[0][0] if found else None
        return None if row is None else _decode_file(key, row)

    def load_files(self, paths: Iterable[Path]) -> None:
        """Read the rows of many single files at once, so that `lookup_file` finds them in memory.

        10,000 paths take a few milliseconds this way.
        """
        with self._guard:
            keys = [key for key in map(_key_of, paths) if key and key not in self._loaded]
            for start in range(0, len(keys), _VARIABLES_MAX):
                some = keys[start : start + _VARIABLES_MAX]
                self._loaded.update(dict.fromkeys(some))
                marks = ",".join("?" * len(some))
                self._loaded.update(self._ask(f"SELECT path, row FROM files WHERE path IN ({marks})", some))

    def lookup_folder(self, path: Path, *, tree: bytes = b"") -> FolderIndex | None:
        """What is recorded of the folder at ``path``, whether or not it still holds.

        With ``tree``, the id of a tree: of the objects below the store root ``path`` that make up this tree.
        """
        key = (_key_of(path), tree)
        with self._guard:
            row = self._folders.get(key)
            if row is None:
                if key[0] in self._forgotten:
                    return None
                question = f"SELECT {_FOLDER_COLUMNS} FROM folders WHERE path = ? AND tree = ?"
                found = self._ask(question, key)
                row = found[0] if found else None
        return None if row is None else _decode_folder(key, row)

    # Records

    def record_file(
        self, path: Path, stamp: Stamp, blob_id: bytes, *, clock_ns: int, checksums: Iterable[Digest] = ()
    ) -> None:
        """Record that the file at ``path``, seen with ``stamp``, has these bytes.

        ``clock_ns`` is what `read_clock_ns` gave before the stat; a racy stamp is not recorded. ``checksums`` are
        digests of the same bytes in other algorithms. Pass a stamp with `NLINK_UNKNOWN` when the file is linked or
        renamed after the stat, which moves its ctime.
        """
        key = _key_of(path)
        if not key or stamp.is_racy(clock_ns):
            return
        row = _encode_file(key, FileRecord(stamp, blob_id, tuple(checksums)))
        with self._guard:
            self._files[key] = row
            self._written(len(row))

    def record_folder(self, path: Path, index: FolderIndex, *, tree: bytes = b"") -> None:
        """Record a folder's index (its racy entries vouch for nothing); ``tree`` as in `lookup_folder`."""
        key = (_key_of(path), tree)
        if not key[0]:
            return
        columns = index.encode()
        row = (*columns, _check_folder(key, columns))
        with self._guard:
            self._folders[key] = row
            self._written(sum(map(len, columns)))

    def forget(self, path: Path) -> None:
        """Drop what is recorded of ``path``, file or folder. (Never needed for safety: the stamps tell.)"""
        key = _key_of(path)
        if not key:
            return
        with self._guard:
            self._files.pop(key, None)
            self._folders.pop((key, b""), None)
            self._forgotten.add(key)
            self._written(0)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Write everything that is recorded inside in one transaction at the end, also when an error ends it.

        Without a batch each record is a transaction. Batches nest; the outermost writes.
        """
        with self._guard:
            self._depth += 1
        try:
            yield
        finally:
            with self._guard:
                self._depth -= 1
                if not self._depth:
                    self._flush()

    def close(self) -> None:
        """Write what is left and let go of the database. The cache may be used again afterwards."""
        with self._guard:
            self._flush()
            self._loaded.clear()
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def __del__(self) -> None:
        # One that is dropped with whoever held it: from 3.13 on Python warns of a database that it has to close itself.
        connection: sqlite3.Connection | None = getattr(self, "_connection", None)
        if connection is not None:
            connection.close()

    # The clock

    def read_clock_ns(self, folder: Path | None, device: int, *, fresh: bool = True) -> int:
        """The clock of the file system ``device``, read in ``folder``: a folder of ours on it (a store's ``.dm``).

        Without one, the cache's own folder serves (it is made) when it lies on that file system; else this machine's
        clock, less `CLOCK_MARGIN_NS`: no probe file is written to a place that is not ours. ``fresh=False`` gives the
        last reading, which is as safe (an older clock trusts less) and costs nothing.
        """
        if not fresh and device in self._clocks:
            return self._clocks[device]
        from dm.plumbing.fs.clock import read_file_system_clock_ns

        reading = time.time_ns() - CLOCK_MARGIN_NS
        if folder is not None and _is_on(folder, device):
            reading = read_file_system_clock_ns(folder)
        elif not self._off and not self._writes_off:
            own = self.path.parent
            # Who asks for the clock is about to record.
            with suppress(OSError):
                os.makedirs(own, mode=0o700, exist_ok=True)
            if _is_on(own, device):
                reading = read_file_system_clock_ns(own)
        self._clocks[device] = reading
        return reading

    # The database

    def _ask(self, question: str, values: Any) -> list[Any]:
        connection = self._open(create=False)
        if connection is None:
            return []
        import sqlite3

        try:
            return connection.execute(question, values).fetchall()
        except sqlite3.Error as error:
            self._fail(error, writing=False)
            return []

    def _written(self, size_bytes: int) -> None:
        self._pending_bytes += size_bytes
        if not self._depth or self._pending_bytes > _PENDING_BYTES_MAX:
            self._flush()

    def _flush(self) -> None:
        files, folders, forgotten = self._files, self._folders, self._forgotten
        if not (files or folders or forgotten):
            return
        self._files, self._folders, self._forgotten, self._pending_bytes = {}, {}, set(), 0
        for key in forgotten:
            self._loaded.pop(key, None)
        for key in files:
            self._loaded.pop(key, None)
        # Twice: a corrupt database is dropped at the first try and rebuilt at the second.
        for _ in range(2):
            connection = None if self._writes_off else self._open(create=bool(files or folders))
            if connection is None:
                return
            import sqlite3

            try:
                with connection:
                    connection.execute("BEGIN IMMEDIATE")
                    gone = [(key,) for key in forgotten]
                    connection.executemany("DELETE FROM files WHERE path = ?", gone)
                    connection.executemany("DELETE FROM folders WHERE path = ? AND tree = x''", gone)
                    connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?)", files.items())
                    connection.executemany(
                        f"INSERT OR REPLACE INTO folders (path, tree, {_FOLDER_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?)",
                        [(*key, *row) for key, row in folders.items()],
                    )
                return
            except sqlite3.Error as error:
                self._fail(error, writing=True)

    def _open(self, *, create: bool) -> sqlite3.Connection | None:
        """The connection, or None for "no cache". Without ``create`` nothing is made where there is nothing."""
        if self._off:
            return None
        connection = self._connection
        if connection is not None:
            return connection
        # Not before it exists: a question makes neither a folder nor a file.
        if not create and not os.path.exists(self.path):
            return None
        try:
            import sqlite3
        except ImportError as error:
            self._off = True
            self._note(f"this Python has no sqlite3: {error}")
            return None
        try:
            if create:
                os.makedirs(self.path.parent, mode=0o700, exist_ok=True)
            connection = sqlite3.connect(
                self.path, timeout=LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
        except (sqlite3.Error, OSError) as error:
            self._writes_off = True
            self._note(f"cannot open '{self.path}': {error}")
            return None
        try:
            ready = self._prepare(connection, create=create)
        except sqlite3.Error as error:
            connection.close()
            self._fail(error, writing=create)
            return self._open(create=create) if self._dropped and not self._off and create else None
        if not ready:
            connection.close()
            return None
        self._connection = connection
        return connection

    def _prepare(self, connection: sqlite3.Connection, *, create: bool) -> bool:
        """Check the schema of a fresh connection, make it where there is none; whether it can be used."""
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            self._off = True
            self._note(f"'{self.path}' has schema {version}, this dm knows {SCHEMA_VERSION}")
            return False
        connection.execute("PRAGMA synchronous = OFF")
        if version == SCHEMA_VERSION:
            return True
        if not create:
            return False
        import sqlite3

        connection.execute("BEGIN IMMEDIATE")
        # Again under the lock: another process may have made it meanwhile.
        if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise sqlite3.DatabaseError(f"'{self.path}' is another database")
            for statement in filter(None, map(str.strip, _SCHEMA.split(";"))):
                connection.execute(statement)
        connection.execute("COMMIT")
        return True

    def _fail(self, error: sqlite3.Error, *, writing: bool) -> None:
        """Note a failure and decide what is still used: nothing, reading only, or a database made anew."""
        self._note(f"'{self.path}': {error}")
        # An error that Python's module raises by itself has no code: what it read makes no sense.
        code = getattr(error, "sqlite_errorcode", _CORRUPT) & 0xFF
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        if code in (_ERROR, _CORRUPT, _FORMAT, _NOT_A_DATABASE) and not self._dropped:
            self._dropped = True
            self._loaded.clear()
            try:
                for suffix in ("", "-journal", "-wal", "-shm"):
                    _remove(f"{os.fspath(self.path)}{suffix}")
            except OSError as reason:
                self._off = True
                self._note(f"cannot drop '{self.path}': {reason}")
            return
        if writing:
            self._writes_off = True
        else:
            self._off = True

    def _note(self, text: str) -> None:
        self.fault = text
        self.faults += 1


def _key_of(path: Path) -> bytes:
    """The row's key: the absolute path's bytes; empty for a path that has no place in the cache."""
    key = os.fsencode(path)
    return key if key.startswith(b"/") else b""


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _is_on(folder: Path, device: int) -> bool:
    """Whether a folder is there, on this file system, and may be written to."""
    try:
        return os.stat(folder).st_dev == device and os.access(folder, os.W_OK)
    except OSError:
        return False


def _encode_file(key: bytes, record: FileRecord) -> bytes:
    row = _FILE_ROW.pack(*record.stamp, record.id) + encode_checksums(record.checksums)
    return _CHECK.pack(checksum_of(key, row)) + row


def _decode_file(key: bytes, row: object) -> FileRecord | None:
    if not isinstance(row, bytes) or len(row) < _CHECK.size + _FILE_ROW.size:
        return None
    body = row[_CHECK.size :]
    if _CHECK.unpack_from(row)[0] != checksum_of(key, body):
        return None
    *stamp, blob_id = _FILE_ROW.unpack_from(body)
    try:
        checksums = decode_checksums(body[_FILE_ROW.size :])
    except (ValueError, DmError):
        return None
    return FileRecord(Stamp(*stamp), blob_id, checksums)


def _check_folder(key: tuple[bytes, bytes], columns: tuple[Any, ...]) -> int:
    return checksum_of(*key, *[each.encode() if isinstance(each, str) else each for each in columns])


def _decode_folder(key: tuple[bytes, bytes], row: tuple[Any, ...]) -> FolderIndex | None:
    *columns, checksum = row
    try:
        if checksum != _check_folder(key, tuple(columns)):
            return None
        return FolderIndex.decode(*columns)
    except (TypeError, ValueError, DmError):
        return None
