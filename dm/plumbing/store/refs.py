"""What was last seen of a working copy, as one line: ``<digest> <bytes> <files> <verified> <source id>``.

``-`` stands for what is not known. See SCHEMA.md, "Refs".
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from dm.errors import DmError, Malformed, Refused
from dm.values import Digest, find_key_fault, printable

_FIELDS = 5


class Ref(NamedTuple):
    """What was last seen of a copy.

    ``digest`` is the id of its blob or tree; ``size_bytes`` and ``files`` count files and links; ``verified`` is when
    its bytes were last found to be the digest's (RFC 3339); ``source_id`` is the BLAKE3 hex of the source list without
    secrets. None: not known.
    """

    digest: Digest | None = None
    size_bytes: int | None = None
    files: int | None = None
    verified: str | None = None
    source_id: str | None = None

    def format(self) -> str:
        """The line, without its newline. Raises ValueError for a field that is no single word."""
        words = ["-" if field is None else str(field) for field in self]
        for word in words:
            if not word or word.split() != [word]:
                raise ValueError(f"not a field of a ref: {word!r}")
        return " ".join(words)

    @classmethod
    def parse(cls, line: str, *, file: str | Path | None = None) -> Ref:
        """Read a line, with or without its newline. Raises `Malformed` (``file`` is named) for anything else."""
        words = [None if word == "-" else word for word in line.removesuffix("\n").split(" ")]
        if len(words) != _FIELDS:
            raise _malformed(line, file)
        digest, size_bytes, files, verified, source_id = words
        try:
            return cls(
                None if digest is None else Digest.parse(digest),
                None if size_bytes is None else _count(size_bytes),
                None if files is None else _count(files),
                verified,
                source_id,
            )
        except (ValueError, DmError) as error:
            raise _malformed(line, file) from error


def check_ref_name(name: str) -> str:
    """Return the name of a ref, a copy's ``/``-joined path below its root, if it is safe to join to a folder.

    Raises `Refused` as `Key.parse` does: the same rules keep a copy clear of the store's own files.
    """
    fault = find_key_fault(name)
    if fault is not None:
        raise Refused(
            f"unsafe place '{printable(name)}' in a store: {fault}", hint="choose a plain path", code="place-unsafe"
        )
    return name


def _count(word: str) -> int:
    if not (word.isascii() and word.isdecimal()):
        raise ValueError(word)
    return int(word)


def _malformed(line: str, file: str | Path | None) -> Malformed:
    return Malformed(
        f"'{printable(line[:200])}' is not a ref (digest, bytes, files, verified, source id)",
        hint="remove the file; dm verify writes it anew" if file is not None else None,
        code="ref-malformed",
        file=None if file is None else Path(file),
    )
