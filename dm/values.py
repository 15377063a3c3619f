"""Values that every floor shares: frozen, small, without input or output.

They are named tuples: a `dataclass` costs a millisecond each to define, which a command would pay at every start.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from dm.errors import DmError, Malformed, Refused

#: Hex digits of each digest algorithm that `dm` knows (SCHEMA.md, "Checksums").
DIGEST_HEX_LENGTHS = {
    "sha256": 64,
    "md5": 32,
    "sha1": 40,
    "sha512": 128,
    "blake2b": 128,
    "blake3": 64,
    "blake3-tree": 64,
}
_HEX_DIGITS = frozenset("0123456789abcdef")
#: The longest part of a key, in bytes: room for the suffixes that markers, locks and staging add below 255.
KEY_PART_BYTES_MAX = 240
_RESERVED_KEY_SUFFIXES = (".lock", ".tmp", ".complete")


class Digest(NamedTuple):
    """A digest: algorithm and lower-case hex. ``str()`` gives ``<algo>:<hex>``."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read ``<algo>:<hex>``; bare hex means sha256; upper-case hex is accepted.

        Raises `Malformed` for an unknown algorithm, a wrong length or a character that is not hex.
        """
        algorithm, colon, hexadecimal = text.strip().rpartition(":")
        algorithm = algorithm.lower() if colon else "sha256"
        hexadecimal = hexadecimal.lower()
        length = DIGEST_HEX_LENGTHS.get(algorithm)
        if length is None:
            known = ", ".join(DIGEST_HEX_LENGTHS)
            raise Malformed(f"unknown digest algorithm '{algorithm}'", hint=f"known are {known}", code="digest-unknown")
        if len(hexadecimal) != length or not _HEX_DIGITS.issuperset(hexadecimal):
            raise Malformed(f"'{text}' is not a {algorithm} digest of {length} hex digits", code="digest-malformed")
        return cls(algorithm, hexadecimal)

    @classmethod
    def of_blob(cls, raw: bytes) -> Digest:
        """The id of a blob from its 32 bytes."""
        return cls("blake3", raw.hex())

    @classmethod
    def of_tree(cls, raw: bytes) -> Digest:
        """The id of a tree from its 32 bytes."""
        return cls("blake3-tree", raw.hex())

    @property
    def raw(self) -> bytes:
        """The digest's bytes."""
        return bytes.fromhex(self.hex)

    @property
    def is_tree(self) -> bool:
        """Whether this is the Merkle digest of a folder."""
        return self.algorithm == "blake3-tree"

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    @property
    def short(self) -> str:
        """The first 12 hex digits with the algorithm, for messages."""
        return f"{self.algorithm}:{self.hex[:12]}…"


class Key(NamedTuple):
    """A storage key: a relative path of safe parts. Made by `Key.parse` only, so that every Key is safe to join."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Key:
        """Check a key and return it.

        Raises `Refused` (exit 6) for a key that is absolute or empty; has an empty part, ``.`` or ``..``, NUL or a
        control character, a part over 240 bytes, a part that is ``.dm`` in any case, or one that ends in ``.lock``,
        ``.tmp`` or ``.complete`` (SCHEMA.md, "Keys").
        """
        fault = find_key_fault(text)
        if fault is not None:
            message = f"unsafe key '{printable(text)}': {fault}"
            raise Refused(message, hint="set a plain relative 'key'", code="key-unsafe")
        return cls(text)

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts between slashes."""
        return tuple(self.text.split("/"))

    def __str__(self) -> str:
        return self.text


def find_key_fault(text: str) -> str | None:
    """Say why a key is unsafe, or None when it is safe."""
    if _is_plain_key(text):
        return None
    if not text:
        return "it is empty"
    if text.startswith("/"):
        return "it is absolute"
    for part in text.split("/"):
        if part in ("", ".", ".."):
            return f"it has the part '{part}'"
        if has_control(part):
            return "it has a control character"
        if len(part if part.isascii() else os.fsencode(part)) > KEY_PART_BYTES_MAX:
            return f"a part is longer than {KEY_PART_BYTES_MAX} bytes"
        if part.casefold() == ".dm":
            return "'.dm' is the store's own folder"
        if part.endswith(_RESERVED_KEY_SUFFIXES):
            return f"a part ends in '.{part.rpartition('.')[2]}', which the store uses itself"
    return None


def quote_word(text: str) -> str:
    """A name as a word of a shell command, for hints."""
    import shlex

    return shlex.quote(text)


def _is_plain_key(text: str) -> bool:
    """Whether a key is safe at a glance: most are, and each part is looked at for ten times as long (5 µs)."""
    return (
        text.isascii()
        and text.isprintable()
        and 0 < len(text) <= KEY_PART_BYTES_MAX
        and text[0] not in "./"
        and text[-1] != "/"
        and "//" not in text
        and "/." not in text
        and not any(suffix in text for suffix in _RESERVED_KEY_SUFFIXES)
    )


def has_control(text: str) -> bool:
    """Whether a control character is in a text: C0, DEL, or C1, which terminals obey as well."""
    return not text.isprintable() and any(ord(each) < 32 or 127 <= ord(each) < 160 for each in text)


def printable(text: str) -> str:
    """Text from outside, safe to print on one line of a terminal: control characters and lone surrogates escaped."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )


class Difference(NamedTuple):
    """One path of a copy that is not as its digest says.

    ``path`` is relative to the copy ("." for the copy itself), with bytes that are not UTF-8 as lone surrogates
    (`os.fsdecode`); ``how`` is one of ``changed``, ``lost``, ``added``, ``mode``, ``type``.
    """

    path: str
    how: str


class Outcome(NamedTuple):
    """What became of one item of a command. The API returns it, the terminal draws it, ``--json`` prints it.

    ``status`` is ``ok``, ``unchanged``, ``skipped`` or ``failed``; ``state`` one of the words of SCHEMA.md, "States";
    ``size_bytes`` the item's bytes; ``exit_status`` what this item adds to the command's exit; ``error`` what made
    it fail, with its chain of causes (not in JSON); ``digests`` what was held against each other: ``contract``,
    ``seen`` and ``disk``, with ``disk_checksum`` where that was measured in the contract's algorithm; ``fields`` a
    row's fields by name (of ``list``; in JSON they are a list of their own). An outcome with a path is an
    `os.PathLike`.
    """

    name: str
    status: str
    path: Path | None = None
    state: str | None = None
    digest: Digest | None = None
    size_bytes: int | None = None
    code: str | None = None
    message: str | None = None
    hint: str | None = None
    differences: Sequence[Difference] = ()
    exit_status: int = 0
    error: DmError | None = None
    digests: Mapping[str, Digest | None] = MappingProxyType({})
    fields: Mapping[str, object] = MappingProxyType({})

    def __fspath__(self) -> str:
        if self.path is None:
            raise TypeError(f"'{self.name}' has no path: {self.message or self.status}")
        return os.fspath(self.path)

    def __reduce__(self) -> tuple[object, ...]:
        # It goes from process to process, and a read-only view of a dict does not.
        return Outcome, tuple([dict(each) if isinstance(each, MappingProxyType) else each for each in self])

    @property
    def failed(self) -> bool:
        """Whether this item failed."""
        return self.status == "failed"


class Binding(NamedTuple):
    """Code that a manifest names: ``ref`` is ``module:function``, ``origin`` the place in the manifest that says so.

    Without ``args`` and ``kwargs`` the call is conventional (SCHEMA.md, "Bindings").
    """

    ref: str
    args: tuple[object, ...] = ()
    kwargs: Mapping[str, object] = MappingProxyType({})
    origin: str = ""

    def describe(self) -> str:
        """The call as one line of text: ``module:function``, with its arguments where it has some."""
        words = [repr(value) for value in self.args]
        words += [f"{name}={value!r}" for name, value in self.kwargs.items()]
        return printable(f"{self.ref}({', '.join(words)})" if words else self.ref)


class Permission:
    """The user's word that what a manifest names may run: a value that only `dm.plumbing.records.trust` makes.

    Whatever runs code of a manifest takes one, so that none is run by accident; a test holds that nothing else makes
    one. ``manifest`` is the manifest's file that it was given for, None for one in memory.
    """

    __slots__ = ("manifest",)

    def __init__(self, manifest: Path | None) -> None:
        self.manifest = manifest


def fail(name: str, error: DmError) -> Outcome:
    """The outcome of an item whose work ended in an error."""
    return Outcome(
        name,
        "failed",
        code=error.code,
        message=error.message,
        hint=error.hint,
        exit_status=error.exit_status,
        error=error,
    )
