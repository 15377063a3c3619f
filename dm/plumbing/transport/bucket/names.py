"""From the keys below a prefix to the names of a folder, or a refusal.

A key is any text; a path is not. Nothing is renamed or passed over: a prefix with one key that cannot be a path, or two
that would be one, is refused with that key's name, before anything is fetched.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from dm.errors import Refused
from dm.plumbing.transport.bucket.address import BucketAddress
from dm.plumbing.transport.bucket.backend import Found
from dm.values import has_control, printable

#: Longest name of a file on the file systems of Linux and macOS, bytes.
_NAME_BYTES_MAX = 255


class Folder(NamedTuple):
    """What a prefix is as a folder: objects by relative name, sorted, and the folders that markers name."""

    files: dict[str, Found]
    folders: tuple[str, ...]


def make_folder(address: BucketAddress, prefix: str, listed: Sequence[Found]) -> Folder:
    """The folder that the objects below a prefix are.

    A key that ends in ``/`` and holds nothing is a folder, empty or not; that of the prefix itself is nothing. Raises
    `Refused` with code ``key-unsafe`` for a key with an empty part, ``.``, ``..``, NUL, a control character or a part
    over 255 bytes, for one that ends in ``/`` and holds data, for one that is an object and a folder of others, and for
    two that are equal in Unicode's normal form.
    """
    files: dict[str, Found] = {}
    folders: list[str] = []
    for found in listed:
        name = found.key[len(prefix) :]
        if found.is_folder:
            if name:
                _check_name(address, found.key, name.removesuffix("/"))
                folders.append(name.removesuffix("/"))
            continue
        if not name or name.endswith("/"):
            raise _refused(address, found.key, "it ends in '/' and holds data")
        _check_name(address, found.key, name)
        files[name] = found
    _check_collisions(address, prefix, files, folders)
    return Folder(dict(sorted(files.items())), tuple(sorted(set(folders))))


def _check_name(address: BucketAddress, key: str, name: str) -> None:
    for part in name.split("/"):
        if part in ("", ".", ".."):
            raise _refused(address, key, f"it has the part '{part}'")
        if has_control(part):
            raise _refused(address, key, "it has a control character")
        try:
            size = len(part.encode())
        except UnicodeEncodeError:
            raise _refused(address, key, "it is not text") from None
        if size > _NAME_BYTES_MAX:
            raise _refused(address, key, f"a part is longer than {_NAME_BYTES_MAX} bytes")


def _check_collisions(address: BucketAddress, prefix: str, files: dict[str, Found], folders: Sequence[str]) -> None:
    normal: dict[str, str] = {}
    above: set[str] = set()
    for name in (*files, *folders):
        parts = name.split("/")
        paths = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        above.update(paths[:-1])
        for path in paths:
            other = normal.setdefault(path if path.isascii() else unicodedata.normalize("NFC", path), path)
            if other != path:
                raise _refused(address, prefix + path, f"'{printable(prefix + other)}' is the same name")
    for name in files:
        if name in above or name in folders:
            raise _refused(address, prefix + name, "it is an object and a folder of others")


def _refused(address: BucketAddress, key: str, fault: str) -> Refused:
    message = f"cannot fetch '{address.shown}': the key '{printable(key)}' cannot be a path: {fault}"
    hint = "nothing was fetched; name the objects that you need by themselves, in 'uris'"
    return Refused(message, hint=hint, code="key-unsafe")
