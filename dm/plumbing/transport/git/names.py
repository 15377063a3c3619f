"""Which names of a tree may become files here, whatever file system they come to lie on."""

from __future__ import annotations

#: Code points that HFS+ leaves out when it compares names (git's utf8.c, `next_hfs_char`).
_UNSEEN = frozenset([*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF])


def find_name_fault(name: bytes) -> str | None:
    """Say why a name of a tree entry is refused; None for a good one.

    Refused are an empty name, ``.``, ``..``, a slash, and every spelling of ``.git`` that some file system takes for
    it: in any case, with trailing dots, blanks or a stream (NTFS), as ``git~1`` (its short name), with code points
    that HFS+ does not see; also after a backslash, which parts a path on NTFS.
    """
    if name in (b"", b".", b".."):
        return f"is '{name.decode()}'"
    if b"/" in name or b"\0" in name:
        return "has a slash or a NUL in it"
    if b"git" not in name.lower() and name.isascii():
        return None
    if any(_is_repository(part) for part in name.split(b"\\")):
        return "is '.git' to some file systems"
    return None


def _is_repository(name: bytes) -> bool:
    if name.partition(b":")[0].rstrip(b". ").lower() in (b".git", b"git~1"):
        return True
    if name.isascii():
        return False
    seen = "".join(character for character in name.decode("utf-8", "replace") if ord(character) not in _UNSEEN)
    return seen.casefold() == ".git"
