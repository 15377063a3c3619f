"""When every object of a store was last read, and how far a look that was cut short has come: ``.dm/looked``.

One line: ``<whole> <begun> <next>``, ``-`` where there is nothing to say. ``whole`` is when the last look at every
object began that found them all sound; ``begun`` when the one under way did (``-`` also when it has found something: it
will not count); ``next`` the first id, in hex, that it has still to read. The file can be made again by looking.
"""

from __future__ import annotations

from typing import NamedTuple

from dm.errors import MachineFailed
from dm.plumbing.fs.publish import write_file
from dm.plumbing.store.layout import Layout

_NAME = "looked"
_ID_LENGTH = 64


class LookRecord(NamedTuple):
    """What is known of looks at a store's objects. Times are RFC 3339; ``next`` is an id, the first still to be read;
    None where no look is under way. ``begun`` is None too when the look under way found damage.
    """

    whole: str | None = None
    begun: str | None = None
    next: bytes | None = None


def read_look(layout: Layout) -> LookRecord:
    """What the file says; nothing known where it is missing, cannot be read or is none."""
    try:
        words = (layout.meta / _NAME).read_text(encoding="ascii", errors="replace").split()
        whole, begun, next_hex = (None if word == "-" else word for word in words)
        if next_hex is None:
            return LookRecord(whole)
        return LookRecord(whole, begun, bytes.fromhex(next_hex) if len(next_hex) == _ID_LENGTH else None)
    except (OSError, ValueError):
        return LookRecord()


def write_look(layout: Layout, look: LookRecord) -> None:
    """Write it by one rename. In a store that cannot be written to it is not known next time, which is fine."""
    next_hex = None if look.next is None else look.next.hex()
    line = " ".join(word or "-" for word in (look.whole, look.begun, next_hex))
    try:
        write_file(layout.meta / _NAME, f"{line}\n".encode(), durable=False)
    except MachineFailed:
        return
