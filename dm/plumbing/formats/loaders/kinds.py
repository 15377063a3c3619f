"""What a built-in loader and a saver are, and how their libraries and faults are told."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from dm.errors import DmError, SourceFailed
from dm.plumbing.fs.machine import machine_errors, machine_failed
from dm.plumbing.fs.publish import ensure_folder, replace
from dm.plumbing.fs.remove import remove_tree
from dm.plumbing.fs.temporary import temporary_name
from dm.values import Permission, printable

#: What a loader reads: a path; or what was opened in place, a file-like object or the mapping of a folder of objects.
Source = Path | BinaryIO | Mapping[str, bytes]
#: What a loader reads in place: one object through a file-like object, a folder of objects through a mapping.
InPlace = Literal["file", "mapping"]

#: What the machine, not the data, is to blame for. (Libraries raise `OSError` for data that they cannot read, too.)
_MACHINE_FAULTS = frozenset(
    {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ELOOP}
)
_WRITE_FAULTS = _MACHINE_FAULTS | {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG}


class Loader(NamedTuple):
    """A built-in loader: reads one format.

    ``how`` names the library's function, for messages; ``read`` is the function of a source and gives the value.
    ``in_place`` says what it reads of data that stays where it is (None: it needs a path), ``keeps_open`` that the
    value reads on from what was opened, ``takes_folder`` that a path may be a folder, ``runs_code`` that what it reads
    may run code, so that it needs a permission.
    """

    format: str
    how: str
    read: Callable[[Any], object]
    in_place: InPlace | None = "file"
    keeps_open: bool = False
    takes_folder: bool = False
    runs_code: bool = False

    def load(self, source: Source, *, label: str | None = None, permission: Permission | None = None) -> object:
        """Read the value. ``label`` names the source in messages where it is no path.

        Raises `SourceFailed`: ``extra-missing`` for a library that is not installed, ``load-failed`` (chained) for data
        that the library cannot read, or for a folder where one file is read; `MachineFailed` for a file that cannot be
        opened. Nothing is written, beside the data or elsewhere.
        """
        self._demand(permission)
        shown = printable(label or (str(source) if isinstance(source, Path) else "an open file"))
        try:
            if isinstance(source, Path) and not self.takes_folder and source.is_dir():
                raise SourceFailed(
                    f"cannot load '{shown}' as {self.format}: it is a folder, and {self.how} reads one file",
                    hint="name a loader that takes a folder, or a 'format' that is one",
                    code="load-failed",
                )
            return self.read(source)
        except DmError:
            raise
        except Exception as error:
            if isinstance(source, Path) and isinstance(error, OSError) and error.errno in _MACHINE_FAULTS:
                raise machine_failed(error, "load", source) from error
            way_out = "another 'format' or 'loader' reads it otherwise"
            if isinstance(source, Path):  # what is opened in place has no digest to be held against
                way_out = f"dm verify tells whether its bytes are right; {way_out}"
            raise SourceFailed(
                f"cannot load '{shown}' as {self.format} ({self.how}): {describe_error(error)}",
                hint=way_out,
                code="load-failed",
            ) from error


    @property
    def reads_bytes(self) -> bool:
        """Whether `load_bytes` works: the data is one file, and the value does not read on from it."""
        # What runs code is kept from being opened in place for that alone.
        return self.runs_code or (self.in_place == "file" and not self.keeps_open)

    def load_bytes(self, data: bytes, *, label: str, permission: Permission | None = None) -> object:
        """Read the value from a file's bytes, which were checked before; ``label`` names it. Raises as `load` does."""
        self._demand(permission)
        from io import BytesIO

        try:
            return self.read(BytesIO(data))
        except DmError:
            raise
        except Exception as error:
            raise SourceFailed(
                f"cannot load '{printable(label)}' as {self.format} ({self.how}): {describe_error(error)}",
                code="load-failed",
            ) from error

    def _demand(self, permission: Permission | None) -> None:
        if self.runs_code and not isinstance(permission, Permission):
            raise TypeError(f"'{self.format}' may run code: it is loaded by a Permission only")


class Saver(NamedTuple):
    """A built-in saver: writes a value in one format, so that the loader of that format reads it again.

    ``write`` is the function of a value and a path that does not exist yet, which it makes a file or a folder.
    ``keeps`` says of a value, without writing it, whether it is known to come back as it is.
    """

    format: str
    how: str
    write: Callable[[Any, Path], object]
    keeps: Callable[[Any], bool] = lambda _value: False

    def save(self, value: object, path: Path) -> None:
        """Write a value to ``path``, whole or not at all; a file that lies there is replaced, a folder is refused.

        It is written in a temporary folder beside ``path`` and renamed; it is not flushed to disk, which is for who
        publishes it. Raises `SourceFailed`: ``extra-missing``, or ``save-failed`` (chained) for a value that the format
        cannot hold; `MachineFailed` for faults of the disk; `Refused` when a folder lies there. A crash leaves at most
        the temporary folder.
        """
        folder = path.parent / temporary_name()
        ensure_folder(path.parent)
        with machine_errors("write", path):
            folder.mkdir()
        staged = folder / path.name
        try:
            self._write_safely(value, staged, path)
            replace(staged, path)
        finally:
            with suppress(DmError):
                remove_tree(folder)

    def _write_safely(self, value: object, staged: Path, path: Path) -> None:
        try:
            self.write(value, staged)
        except DmError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _WRITE_FAULTS:
                raise machine_failed(error, "write", path) from error
            raise SourceFailed(
                f"cannot save a value of type '{type(value).__name__}' as {self.format} ({self.how}): "
                f"{describe_error(error)}",
                code="save-failed",
            ) from error


def need(module: str, extra: str) -> Any:
    """A library of the field, imported. Raises `SourceFailed` (``extra-missing``) with the extra that installs it."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        reason = "it is not installed" if error.name == module.partition(".")[0] else describe_error(error)
        raise SourceFailed(
            f"cannot use the library '{module.partition('.')[0]}': {reason}",
            hint=f"pip install 'dm[{extra}]'",
            code="extra-missing",
        ) from error


def refuse_value(value: object, wanted: str) -> None:
    """Raise `TypeError` for a value that is not what a saver writes."""
    raise TypeError(f"{wanted} is wanted, not '{type(value).__name__}'")


def describe_error(error: BaseException) -> str:
    """An error of somebody else's code on one line: its type and the first line of what it says."""
    first_line = printable(str(error).strip().partition("\n")[0])
    return f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__
