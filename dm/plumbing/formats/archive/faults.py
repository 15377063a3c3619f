"""What can be wrong with an archive, before it is known which archive it is.

The readers raise these; `unpack` adds the archive's name and makes them errors of `dm.errors`.
"""

from __future__ import annotations


class ArchiveFault(Exception):
    """Something is wrong with the archive; ``reason`` completes "cannot unpack 'a.zip': ..."."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class BrokenArchive(ArchiveFault):
    """Cut short, corrupt, or not an archive of this format."""


class UnsupportedArchive(ArchiveFault):
    """In order, but made in a way that cannot be read here."""


class OverLimit(ArchiveFault):
    """More than the limits allow; ``field`` is the config field that would allow more."""

    def __init__(self, reason: str, field: str) -> None:
        super().__init__(reason)
        self.field = field


class UnsafeMember(ArchiveFault):
    """A member that must not be unpacked; ``reason`` completes "member 'x' ..."."""

    def __init__(self, member: bytes, reason: str) -> None:
        super().__init__(reason)
        self.member = member
