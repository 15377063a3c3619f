"""file: a file or a folder of this machine, copied.

The user's own file is never linked into a store and never touched: it is cloned where the file system can do that
(copy on write, no bytes move) and copied where not.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from dm.errors import MachineFailed, Refused, SourceFailed
from dm.plumbing.fs.link import link_file
from dm.plumbing.fs.machine import AnyPath, display_path, machine_errors
from dm.plumbing.fs.publish import ensure_folder, remove_tree
from dm.plumbing.fs.walk import Entry, scan_tree
from dm.plumbing.transport.address import describe_uri
from dm.plumbing.transport.partial import BUFFER_BYTES, Partial
from dm.plumbing.transport.protocol import Fetched, FetchRequest
from dm.progress import Progress, Task

#: What `copy_file_range` answers where it cannot serve: other file systems, old kernels, special mounts.
_NO_COPY_RANGE = frozenset(
    {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EPERM, errno.EBADF, errno.EIO}
)
_COPY_RANGE_BYTES = 64 << 20


class FileFetcher:
    """The file transport. A file arrives hashed; a folder arrives as a tree with its modes and inner links.

    Nothing is resumed: a copy is quick, and a part of one is removed.
    """

    schemes = frozenset({"file"})

    def fetch(self, request: FetchRequest, *, task: Task, progress: Progress) -> Fetched:
        """Copy what ``request.uri`` names (see `protocol.Fetcher`).

        Raises `SourceFailed` when nothing is there or it changes while it is copied; `Refused` for a device, a fifo, a
        socket, a link that leads out of a folder, and a folder that holds the place it is copied to.
        """
        source = read_file_path(request.uri)
        target = request.folder / request.file_name
        ensure_folder(request.folder)
        remove_tree(target)
        try:
            about = os.stat(source)
        except (FileNotFoundError, NotADirectoryError) as error:
            message = f"cannot fetch '{describe_uri(request.uri)}': there is no '{display_path(source)}'"
            raise SourceFailed(message, hint="check the 'uri'; is the disk mounted?", code="no-such-file") from error
        except OSError as error:
            with machine_errors("read", source):
                raise error
        try:
            if stat.S_ISDIR(about.st_mode):
                size_bytes = _copy_folder(source, target, task)
                return Fetched(target, {}, size_bytes)
            if stat.S_ISREG(about.st_mode):
                return _copy_file(request, source, target, task)
        except BaseException:
            remove_tree(target)
            raise
        message = f"cannot fetch '{describe_uri(request.uri)}': it is neither a file nor a folder"
        raise Refused(message, hint="datasets hold files, folders and links only", code="special-file")

    def close(self) -> None:
        """Nothing is held between two calls."""


def read_file_path(uri: str) -> Path:
    """The path that a file URI names (RFC 8089): ``file:///a%20b``, ``file://localhost/a``, ``file:/a``.

    Percent escapes are decoded to bytes; a query and a fragment do not belong to the path. Raises `SourceFailed` for
    another host, a relative path, and a NUL.
    """
    from urllib.parse import unquote_to_bytes

    subject = f"cannot fetch '{describe_uri(uri)}'"
    hint = "write file:///path/from/the/root"
    rest = uri.partition(":")[2].partition("#")[0].partition("?")[0]
    if rest.startswith("//"):
        host, slash, rest = rest[2:].partition("/")
        rest = slash + rest
        if host.lower() not in ("", "localhost"):
            message = f"{subject}: a file URI names this machine, not '{host}'"
            raise SourceFailed(message, hint=hint, code="uri-malformed")
    path = unquote_to_bytes(rest)
    if not path.startswith(b"/"):
        raise SourceFailed(f"{subject}: its path is not absolute", hint=hint, code="uri-malformed")
    if b"\0" in path:
        raise SourceFailed(f"{subject}: its path holds a NUL", hint=hint, code="uri-malformed")
    return Path(os.fsdecode(path))


def _copy_file(request: FetchRequest, source: Path, target: Path, task: Task) -> Fetched:
    with machine_errors("read", source):
        descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        before = os.fstat(descriptor)
        task.resize(before.st_size)
        executable = bool(before.st_mode & stat.S_IXUSR)
        partial = _clone(request, source, target, executable)
        if partial is None:
            partial = _copy_and_hash(request, descriptor, source, target, task, executable)
        else:
            task.advance(partial.size_bytes)
        try:
            _check_unchanged(request, before, descriptor, partial.size_bytes)
            return Fetched(target, partial.digests(), partial.size_bytes)
        finally:
            partial.close()
    finally:
        os.close(descriptor)


def _clone(request: FetchRequest, source: Path, target: Path, executable: bool) -> Partial | None:
    """A clone, hashed; None where the file system cannot clone (or the file is empty)."""
    try:
        link_file(os.path.realpath(source), target, modes=("reflink",), executable=executable)
    except MachineFailed:
        return None
    with machine_errors("write", target):
        os.chmod(target, os.stat(target).st_mode | stat.S_IWUSR)
    partial = Partial.reopen(target, request.algorithms, lambda size_bytes: size_bytes)
    if partial is None:
        remove_tree(target)
    return partial


def _copy_and_hash(
    request: FetchRequest, descriptor: int, source: Path, target: Path, task: Task, executable: bool
) -> Partial:
    size_bytes = os.fstat(descriptor).st_size

    def read(view: memoryview) -> int:
        with machine_errors("read", source):
            return os.readv(descriptor, [view])

    partial = Partial.create(target, request.algorithms, executable=executable)
    try:
        partial.reserve(size_bytes)
        partial.take_in(read, size_bytes, task.advance)
    except BaseException:
        partial.close()
        raise
    return partial


def _check_unchanged(request: FetchRequest, before: os.stat_result, descriptor: int, size_bytes: int) -> None:
    after = os.fstat(descriptor)
    if size_bytes == before.st_size == after.st_size and before.st_mtime_ns == after.st_mtime_ns:
        return
    message = f"cannot fetch '{describe_uri(request.uri)}': the file changed while it was copied"
    raise SourceFailed(message, hint="wait until whoever writes it is done, then try again", code="source-changing")


def _copy_folder(source: Path, target: Path, task: Task) -> int:
    """Copy a tree; return the bytes of its files."""
    real = Path(os.path.realpath(source))
    if Path(os.path.realpath(target)).is_relative_to(real):
        message = f"cannot copy '{display_path(source)}': the store itself lies in it"
        raise Refused(message, hint="name the folder that holds the data only", code="folder-holds-store")
    entries = scan_tree(source)
    task.resize(sum(entry.size for entry in entries if entry.kind == "file"))
    root, copy = os.fsencode(source), os.fsencode(target)
    folders: list[tuple[bytes, int]] = [(copy, os.stat(root).st_mode)]
    size_bytes = 0
    with machine_errors("write", target):
        os.mkdir(copy, 0o700)
    for entry in entries:
        name, made = root + b"/" + entry.name, copy + b"/" + entry.name
        if entry.kind == "folder":
            with machine_errors("write", made):
                os.mkdir(made, 0o700)
            folders.append((made, entry.mode))
        elif entry.kind == "link":
            _copy_link(entry, name, made)
        else:
            count = _copy_one(name, made, entry.mode)
            task.advance(count)
            size_bytes += count
    for folder, mode in reversed(folders):
        with machine_errors("write", folder):
            os.chmod(folder, mode & 0o777 | 0o700)
    return size_bytes


def _copy_link(entry: Entry, name: bytes, made: bytes) -> None:
    with machine_errors("read", name):
        text = os.readlink(name)
    check_inner_link(entry.name, text, name)
    with machine_errors("write", made):
        os.symlink(text, made)


def check_inner_link(name: bytes, text: bytes, shown: AnyPath) -> None:
    """Raise `Refused` for a link of a folder that leads out of it; ``name`` is its path below the folder, ``text`` what
    it holds, ``shown`` how messages name it.
    """
    inside = os.path.normpath(os.path.join(os.path.dirname(name), text))
    if text.startswith(b"/") or inside == b".." or inside.startswith(b"../"):
        message = f"cannot copy the link '{display_path(shown)}': it leads out of the folder, to '{display_path(text)}'"
        raise Refused(message, hint="put a copy of what it leads to in its place", code="link-leaves")


def _copy_one(name: bytes, made: bytes, mode: int) -> int:
    with machine_errors("read", name):
        source = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        with machine_errors("write", made):
            target = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                count = _copy_bytes(source, target)
                os.fchmod(target, mode & 0o777 | 0o600)
            finally:
                os.close(target)
            return count
    finally:
        os.close(source)


def _copy_bytes(source: int, target: int) -> int:
    """Copy all bytes from one descriptor to another, inside the kernel where it can (which clones on btrfs and xfs)."""
    count = 0
    while hasattr(os, "copy_file_range"):
        try:
            copied = os.copy_file_range(source, target, _COPY_RANGE_BYTES)
        except OSError as error:
            if error.errno not in _NO_COPY_RANGE:
                raise
            break
        if not copied:
            break
        count += copied
    # Also after a clean end: some virtual files answer 0 to copy_file_range and hold bytes all the same.
    while data := os.read(source, BUFFER_BYTES):
        view = memoryview(data)
        while view:
            written = os.write(target, view)
            count += written
            view = view[written:]
    return count
