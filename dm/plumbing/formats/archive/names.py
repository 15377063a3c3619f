"""Names of members: what they may be, and which two are one.

A member's name is bytes from outside. It becomes a path relative to the folder being filled, or it is refused.
"""

from __future__ import annotations

import re
import unicodedata

from dm.plumbing.formats.archive.faults import UnsafeMember

#: The longest file name of the usual file systems, in bytes (NAME_MAX).
PART_BYTES_MAX = 255
#: The longest path of a member, in bytes: half of Linux's PATH_MAX, the other half is for where the folder lies.
PATH_BYTES_MAX = 2048
#: The deepest nesting of a member: no data set comes near, and tools that walk by recursion survive it.
DEPTH_MAX = 100

# A name that matches none of these is plain and needs no closer look.
_UNUSUAL = re.compile(rb"[\x00-\x1f\x7f\\]|\xc2[\x80-\x9f]|(?:^|/)(?:\.|/|$)|^[A-Za-z]:")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]|\xc2[\x80-\x9f]")
_DRIVE = re.compile(rb"[A-Za-z]:[/\\]")


def clean_member_name(name: bytes) -> bytes:
    """The path that a member's name stands for: relative, without ``.`` and empty parts; empty for the folder itself.

    Raises `UnsafeMember` for a name that is absolute (also as Windows has it: a drive, a leading backslash); has a part
    ``..``, between backslashes too; holds NUL or another control character; has a part that is ``.dm`` in any case,
    where a store keeps its own files; or is too long or too deep.
    """
    if len(name) <= PART_BYTES_MAX and name.count(b"/") < DEPTH_MAX and _UNUSUAL.search(name) is None:
        return name
    if _CONTROL.search(name):
        raise UnsafeMember(name, "has a control character in its name")
    slashed = name.replace(b"\\", b"/")
    if slashed.startswith(b"/") or _DRIVE.match(name):
        raise UnsafeMember(name, "has an absolute name")
    if b".." in slashed.split(b"/"):
        raise UnsafeMember(name, "has '..' in its name")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if any(part.lower() == b".dm" for part in parts):
        raise UnsafeMember(name, "has the name '.dm', which is the store's own folder")
    if any(len(part) > PART_BYTES_MAX for part in parts):
        raise UnsafeMember(name, f"has a name longer than {PART_BYTES_MAX} bytes")
    cleaned = b"/".join(parts)
    if len(cleaned) > PATH_BYTES_MAX:
        raise UnsafeMember(name, f"has a path longer than {PATH_BYTES_MAX} bytes")
    if len(parts) > DEPTH_MAX:
        raise UnsafeMember(name, f"lies more than {DEPTH_MAX} folders deep")
    return cleaned


def fold_name(path: bytes, *, ignore_case: bool) -> bytes:
    """What two paths have in common when they are one: Unicode NFC, and letter case where that does not count.

    Bytes that are not UTF-8 stand for themselves.
    """
    if path.isascii():
        return path.lower() if ignore_case else path
    text = unicodedata.normalize("NFC", path.decode("utf-8", "surrogateescape"))
    if ignore_case:
        text = unicodedata.normalize("NFC", text.casefold())
    return text.encode("utf-8", "surrogateescape")
