"""Other digests of a blob, measured in the same pass, lead to its id: ``.dm/aliases/<algo>/ab/cdef…``.

An alias is found, not proof: who wrote it may have been wrong. Whoever has a contract in that algorithm checks it.
"""

from __future__ import annotations

from dm.errors import DmError
from dm.plumbing.fs.machine import machine_errors
from dm.values import Digest


def format_alias(blob: Digest) -> bytes:
    """What an alias file holds: the blob's id and a newline."""
    return f"{blob}\n".encode()


def read_alias(path: str) -> Digest | None:
    """The blob id that an alias file holds; None when there is none, or none that can be read (it is a hint)."""
    with machine_errors("read", path):
        try:
            with open(path, "rb") as file:
                text = file.read(200)
        except (FileNotFoundError, NotADirectoryError):
            return None
    try:
        found = Digest.parse(text.decode("ascii"))
    except (DmError, UnicodeDecodeError):
        return None
    return found if found.algorithm == "blake3" else None
