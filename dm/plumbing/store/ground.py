"""What the file system under a store can do: which link modes work there, whether it keeps modes, and the umask."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dm.plumbing.fs.link import LinkMode, find_working_modes
from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.fs.publish import temporary_name


class Ground(NamedTuple):
    """``rungs``: those of the link modes asked for that work, in order. ``keeps_modes``: whether files have an execute
    bit of their own (vfat has none). ``umask``: the bits that new files do not get.
    """

    rungs: tuple[LinkMode, ...]
    keeps_modes: bool
    umask: int

    @property
    def executable_rungs(self) -> tuple[LinkMode, ...]:
        """The modes for an executable file: never a hard link, whose mode the object would share; a copy is always
        allowed.
        """
        return ("reflink", "copy") if "reflink" in self.rungs else ("copy",)

    @property
    def file_mode(self) -> int:
        """The mode of objects and of the files of a copy."""
        return 0o444 & ~self.umask

    @property
    def executable_mode(self) -> int:
        """The mode of the executable files of a copy."""
        return 0o555 & ~self.umask


def survey_ground(folder: Path, link: Sequence[LinkMode]) -> Ground:
    """Try out what works in ``folder``; a few probe files are made there and removed again.

    Raises `MachineFailed` when nothing can be written.
    """
    probe = folder / temporary_name()
    with machine_errors("make a probe file in", folder):
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o777))
        try:
            made = os.stat(probe).st_mode & 0o777
            os.chmod(probe, 0o600)
            plain = os.stat(probe).st_mode & 0o100
            os.chmod(probe, 0o700)
            executable = os.stat(probe).st_mode & 0o100
        except PermissionError:
            plain = executable = 0  # vfat refuses the modes that it cannot keep
        finally:
            os.unlink(probe)
    working = find_working_modes(folder)
    return Ground(
        tuple(mode for mode in link if working[mode] == "works"),
        keeps_modes=not plain and bool(executable),
        umask=~made & 0o777 if not plain and executable else 0,
    )
