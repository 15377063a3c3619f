"""Faults of the machine become one clear line."""

from __future__ import annotations

import errno
import os

import pytest

from dm.errors import MachineFailed, Refused
from dm.plumbing.fs.machine import display_path, machine_errors


@pytest.mark.parametrize(
    ("number", "reason", "code"),
    [
        (errno.ENOSPC, "disk full", "disk-full"),
        (errno.EDQUOT, "disk quota exceeded", "disk-full"),
        (errno.EACCES, "permission denied", "permission"),
        (errno.EPERM, "operation not permitted", "permission"),
        (errno.EROFS, "read-only file system", "read-only"),
        (errno.EIO, "input/output error", "io-error"),
        (errno.ESTALE, "stale file handle", "io-error"),
        (errno.EMFILE, "too many open files", "open-files"),
        (errno.ENFILE, "too many open files on this machine", "open-files"),
        (errno.ENAMETOOLONG, "name too long", "name-too-long"),
        (errno.ENOENT, "no such file or folder", "missing"),
        (errno.ELOOP, "too many symbolic links, or a link where none may be", "link"),
    ],
)
def test_a_known_fault_is_named_with_its_code_and_a_hint(number: int, reason: str, code: str) -> None:
    with pytest.raises(MachineFailed) as caught, machine_errors("write", "/data/x.nc"):
        raise OSError(number, os.strerror(number), "/data/x.nc")
    assert str(caught.value) == f"cannot write '/data/x.nc': {reason}"
    assert caught.value.code == code
    assert caught.value.hint
    assert caught.value.exit_status == 8
    assert isinstance(caught.value.__cause__, OSError)


def test_any_other_fault_is_told_in_the_systems_own_words() -> None:
    with pytest.raises(MachineFailed) as caught, machine_errors("read", b"/data/x.nc"):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
    assert str(caught.value) == "cannot read '/data/x.nc': device or resource busy"
    assert (caught.value.code, caught.value.hint) == ("machine-failed", None)


def test_a_fault_without_a_number_is_told_by_its_kind() -> None:
    with pytest.raises(MachineFailed) as caught, machine_errors("read", "x"):
        raise OSError("odd")
    assert str(caught.value) == "cannot read 'x': oserror"


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(Refused, match="not you"), machine_errors("write", "x"):
        raise Refused("not you")


def test_a_path_from_outside_stays_on_its_line() -> None:
    assert display_path(b"a\nb\x1b[2J\xff") == "a\\nb\\x1b[2J\\udcff"
