"""How much an archive may unpack to before it is taken for a bomb."""

from __future__ import annotations

from typing import NamedTuple

from dm.plumbing.formats.archive.faults import OverLimit


class ArchiveLimits(NamedTuple):
    """Limits on what one archive unpacks to; None turns a limit off. Counted while writing, never from headers.

    ``ratio``: bytes unpacked per byte of archive. Text and grids reach 5 to 50, fill values and masks a hundred or
    two; deflate cannot exceed 1032, where a bomb sits, and xz and zstd bombs are far beyond.
    ``total_bytes``: 1 TiB, more than one archive of a data set holds and less than what a bomb of many layers wants.
    ``members``: files, links, folders and the folders they imply. Two million is above the largest collections
    of small files and below the inodes of a common disk (ext4 makes one for each 16 KiB).
    ``ratio_from_bytes``: below so many unpacked bytes the ratio does not matter: 32 MiB of zeros harm nobody.
    """

    ratio: float | None = 250.0
    total_bytes: int | None = 1 << 40
    members: int | None = 2_000_000
    ratio_from_bytes: int = 32 << 20


#: The limits of who set none.
DEFAULT_LIMITS = ArchiveLimits()


class Meter:
    """Holds one archive against its limits."""

    def __init__(self, limits: ArchiveLimits, archive_bytes: int) -> None:
        self._limits = limits
        by_ratio = None if limits.ratio is None else max(limits.ratio * archive_bytes, limits.ratio_from_bytes)
        ceilings = [ceiling for ceiling in (by_ratio, limits.total_bytes) if ceiling is not None]
        self._ceiling = min(ceilings, default=None)
        self._ceiling_is_ratio = self._ceiling is not None and self._ceiling != limits.total_bytes
        self._members_max = limits.members

    def check_bytes(self, size_bytes: int) -> None:
        """Raise `OverLimit` when so many unpacked bytes are too many."""
        if self._ceiling is not None and size_bytes > self._ceiling:
            if self._ceiling_is_ratio:
                raise OverLimit(f"it unpacks to more than {self._limits.ratio:g} times its size", "archive_max_ratio")
            raise OverLimit(f"it unpacks to more than {self._limits.total_bytes} bytes", "archive_max_bytes")

    def check_count(self, count: int) -> None:
        """Raise `OverLimit` when so many members are too many."""
        if self._members_max is not None and count > self._members_max:
            raise OverLimit(f"it holds more than {self._members_max} files and folders", "archive_max_files")
