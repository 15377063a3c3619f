"""What the store's objects are made of: the canonical bytes of a tree, and their id.

A blob is a file's bytes, its id BLAKE3 of them. A tree is a folder: its entries sorted by the raw bytes of their names,
each ``<mode> SP <hex id> SP <size> TAB <name> NUL``; its id is BLAKE3 of these bytes in key derivation mode (context
``dm tree v1``), so that no file can pass for a folder. See SCHEMA.md, "Objects", with test vectors.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dm.errors import Malformed, NotFound, Refused
from dm.plumbing.hashing import tree_id_of
from dm.values import Digest, printable

FILE_MODE = "100644"
EXECUTABLE_MODE = "100755"
LINK_MODE = "120000"
FOLDER_MODE = "040000"

_MODES = {mode.encode(): mode for mode in (FILE_MODE, EXECUTABLE_MODE, LINK_MODE, FOLDER_MODE)}
_ENCODED = {mode: encoded for encoded, mode in _MODES.items()}
_ID_BYTES = 32
#: Sizes are kept in 64-bit words in the stat cache and by file systems.
_SIZE_MAX = (1 << 63) - 1
_NO_NAMES = frozenset((b"", b".", b".."))
#: The store's own folder: a copy that held one would be taken for a store.
STORE_FOLDER_NAME = b".dm"


class TreeEntry(NamedTuple):
    """One name of a folder: ``mode`` as six octal digits, ``id`` of 32 bytes, ``size`` in bytes.

    ``100644`` a file, ``100755`` a file that its owner may execute, ``120000`` a link (the blob is its target's text),
    ``040000`` a folder (the size is the sum below it).
    """

    name: bytes
    mode: str
    id: bytes
    size: int

    @property
    def is_folder(self) -> bool:
        """Whether the id is a tree's."""
        return self.mode == FOLDER_MODE


def encode_tree(entries: Iterable[TreeEntry]) -> bytes:
    """The canonical bytes of a folder's entries, given in any order.

    Raises `Malformed` for what no folder can hold: an unknown mode, an id that is not 32 bytes, a negative size, a name
    that is empty, ``.``, ``..``, holds ``/`` or NUL, or occurs twice.
    """
    ordered = sorted(entries)
    names = [entry[0] for entry in ordered]
    _check_names(names)
    try:
        lines = [
            b"%b %b %d\t%b\0" % (_ENCODED[mode], id.hex().encode(), size, name)
            for name, mode, id, size in ordered
        ]
    except KeyError as error:
        raise _malformed(f"unknown mode {error}") from error
    for entry in ordered:
        if len(entry.id) != _ID_BYTES or not 0 <= entry.size <= _SIZE_MAX:
            raise _malformed(f"the id or size of '{_show(entry.name)}' is out of range")
    return b"".join(lines)


def decode_tree(data: bytes) -> list[TreeEntry]:
    """Read what `encode_tree` wrote, in the order of the names' bytes.

    Raises `Malformed` for anything else: only the one canonical form of a folder has a meaning.
    """
    if not data:
        return []
    records = data.split(b"\0")
    if records.pop():
        raise _malformed("it does not end with NUL")
    entries = []
    for record in records:
        head, _, name = record.partition(b"\t")
        words = head.split(b" ")
        if len(words) != 3 or words[0] not in _MODES:
            raise _malformed(f"'{_show(record[:120])}' is not an entry")
        try:
            entries.append(TreeEntry(name, _MODES[words[0]], bytes.fromhex(words[1].decode("ascii")), int(words[2])))
        except ValueError as error:
            raise _malformed(f"'{_show(record[:120])}' is not an entry") from error
    # Sorting, lower case, leading zeros, signs …: whatever is not as we would write it shows here.
    if encode_tree(entries) != data:
        raise _malformed("it is not in canonical form")
    return entries


def tree_id(entries: Iterable[TreeEntry]) -> bytes:
    """The id, 32 bytes, of a folder's entries. Raises as `encode_tree`."""
    return tree_id_of(encode_tree(entries))


def refuse_unsafe_names(names: Sequence[bytes], *, folds_case: bool = False, folder: bytes = b"") -> None:
    """Refuse the names of one folder that must not be written to a store.

    Raises `Refused` for two names that are equal in Unicode NFC (macOS takes them for one), or equal but for case with
    ``folds_case``; and for ``.dm`` in any case. ``folder`` is the folder's relative path, for the message.
    """
    joined = b"\0".join(names).lower()
    if not folds_case and b".dm" not in joined and joined.isascii():
        return
    seen: dict[str, bytes] = {}
    for name in names:
        if name.lower() == STORE_FOLDER_NAME:
            raise Refused(
                f"cannot store '{_show(_join(folder, name))}': '.dm' is the store's own folder",
                hint="leave it out, or store the folders beside it one by one",
                code="name-reserved",
            )
        shape = _fold(name, folds_case=folds_case)
        other = seen.setdefault(shape, name)
        if other is not name:
            how = "but for case" if folds_case else "in Unicode NFC"
            raise Refused(
                f"cannot store '{_show(_join(folder, other))}' beside '{_show(name)}': the names are equal {how}",
                hint="rename one of them",
                code="names-clash",
            )


def no_object(digest: Digest, where: str) -> NotFound:
    """The error for an object that a store does not have; ``where`` says which store, in a word or two."""
    kind = "tree" if digest.is_tree else "blob"
    return NotFound(f"no {kind} {digest} {where}", hint="dm list-objects lists what is there", code="no-object")


def _fold(name: bytes, *, folds_case: bool) -> str:
    text = os.fsdecode(name)
    if not text.isascii():
        import unicodedata

        text = unicodedata.normalize("NFC", text)
    if not folds_case:
        return text
    folded = text.casefold()
    if folded.isascii():
        return folded
    import unicodedata

    return unicodedata.normalize("NFC", folded)


def _check_names(names: Sequence[bytes]) -> None:
    joined = b"\0".join(names)
    if joined.count(b"\0") != max(len(names) - 1, 0) or b"/" in joined or not _NO_NAMES.isdisjoint(names):
        bad = next(name for name in names if name in _NO_NAMES or b"/" in name or b"\0" in name)
        raise _malformed(f"'{_show(bad)}' is not a name")
    if len(set(names)) != len(names):
        seen: set[bytes] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _malformed(f"'{_show(twice)}' occurs twice")


def _malformed(reason: str) -> Malformed:
    return Malformed(f"malformed tree: {reason}", hint="the object is damaged, or of a newer dm", code="tree-malformed")


def _join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


def _show(name: bytes) -> str:
    return printable(os.fsdecode(name))
