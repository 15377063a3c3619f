"""Where a store keeps its things, and who owns a copy.

``<root>/.dm/`` holds ``format`` (``dm store 1``), ``.gitignore`` (``*``), ``objects/ab/cdef…``, ``refs/<copy>``,
``aliases/<algo>/ab/cdef…``, ``locks/``, ``partial/``, ``quarantine/`` and ``unlocked/``; the copies lie beside it.
Nothing is made before the first write, and a store without ``.dm`` reads as an empty one. See SCHEMA.md, "The store".
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from dm.errors import Malformed, Refused
from dm.plumbing.fs.machine import display_path, machine_errors
from dm.plumbing.fs.publish import (
    ensure_folder,
    place,
    remove_tree,
    share_with_group,
    temporary_name,
    write_file,
)
from dm.plumbing.hashing import blake3_of
from dm.plumbing.store.refs import check_ref_name
from dm.values import Digest

#: The store format that this `dm` reads and writes; a higher one is refused.
STORE_FORMAT = 1
_FORMAT_WORDS = "dm store "
#: For who comes here since a program said "permission denied".
_README = """\
This folder belongs to dm. It holds the bytes of the data beside it, once each.

The files beside it are read-only since they share their bytes with the objects in here, and with the copies of other
projects: an edit of one would be an edit of all. To change data:

    dm unlock NAME    a private copy that you may write to; dm path NAME says where
    dm pin NAME       what you made of it is the dataset from now on
    dm lock NAME      read-only again

dm status shows what was edited.
"""


class Layout:
    """The paths of one store. ``root`` is absolute; ``meta`` is ``<root>/.dm``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.meta = root / ".dm"
        self.format = self.meta / "format"
        self.objects = self.meta / "objects"
        self.refs = self.meta / "refs"
        self.aliases = self.meta / "aliases"
        self.locks = self.meta / "locks"
        self.partial = self.meta / "partial"
        self.quarantine = self.meta / "quarantine"
        self.unlocked = self.meta / "unlocked"
        self._prepared = False
        self._checked = False
        self._made: set[str] = set()
        self._clear_of_others: set[str] = set()
        self._folds_case: bool | None = None
        self._shared: bool | None = None
        self._prefix = f"{os.fspath(root)}/" if os.fspath(root) != "/" else "/"

    # The format

    def is_there(self) -> bool:
        """Whether there is a store to read; its format and its folders are checked the first time.

        Raises `Malformed` for a format that this `dm` does not know, and where links lead out of the store.
        """
        if not self._checked:
            self._refuse_links([self.meta])
            try:
                with machine_errors("read", self.format):
                    text = self._read_format()
            except _NoStore:
                return False
            self._check_format(text)
            self._refuse_links([*self._folders()])
            self._checked = True
        return True

    def refuse_inner_links(self) -> None:
        """Raise `Malformed` where a folder of objects or aliases is a link: who removes objects looks first."""
        algorithms = _list_folder(self.aliases)
        self._refuse_links(algorithms)
        self._refuse_links([folder for each in (self.objects, *algorithms) for folder in _list_folder(each)])

    def _folders(self) -> tuple[Path, ...]:
        return self.objects, self.refs, self.aliases, self.locks, self.partial, self.quarantine, self.unlocked

    def _refuse_links(self, folders: Sequence[Path]) -> None:
        """A store may come with a clone: what it writes and removes must not be somebody else's."""
        for folder in folders:
            if os.path.islink(folder):
                raise Malformed(
                    "it is a symbolic link, and a store's own folders lie in the store",
                    hint="look where it leads and remove it; the root itself may be a link",
                    code="store-linked",
                    file=folder,
                )

    def prepare(self) -> None:
        """Make ``.dm`` and what belongs in it, unless it is there. Safe for several processes at once.

        Raises `Malformed` for a format that this `dm` does not know, `MachineFailed` where nothing can be written.
        After a crash half-way the next call makes the rest. One that was removed meanwhile is made again.
        """
        if self._prepared:
            if os.path.exists(self.format):
                return
            self._made, self._clear_of_others, self._checked = set(), set(), False
        if not self.is_there():
            for folder in (self.meta, self.objects, self.refs, self.locks, self.partial):
                ensure_folder(folder, root=self.root)
            write_file(self.meta / ".gitignore", b"*\n", durable=False)
            write_file(self.meta / "README", _README.encode(), durable=False)
            # Never over one that is there: its inode is what `flock` is held on.
            staged = self.meta / temporary_name()
            write_file(staged, f"{_FORMAT_WORDS}{STORE_FORMAT}\n".encode())
            self._share_format(staged)
            if not place(staged, self.format):
                remove_tree(staged)
            self.is_there()
        self._prepared = True

    def _share_format(self, staged: Path) -> None:
        """Whose umask it was that made the store, all who share it have to read the file and to lock it."""
        with machine_errors("share", staged):
            descriptor = os.open(staged, os.O_RDONLY)
            try:
                share_with_group(descriptor, staged)
            finally:
                os.close(descriptor)

    def _read_format(self) -> str:
        try:
            descriptor = os.open(self.format, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            raise _NoStore from None
        try:
            return os.read(descriptor, 200).decode("ascii", "replace")
        finally:
            os.close(descriptor)

    def _check_format(self, text: str) -> None:
        number = text.rstrip("\n").removeprefix(_FORMAT_WORDS)
        if not text.startswith(_FORMAT_WORDS) or not (number.isascii() and number.isdecimal()):
            raise Malformed(
                f"it does not say 'dm store {STORE_FORMAT}'",
                hint="this is no store of dm's, or a damaged one; look at what lies there",
                code="store-format",
                file=self.format,
            )
        if int(number) > STORE_FORMAT:
            raise Malformed(
                f"the store has format {number}, this dm knows formats up to {STORE_FORMAT}",
                hint="use a newer dm for this store",
                code="store-format",
                file=self.format,
            )

    # Paths

    def object_path(self, raw: bytes) -> str:
        """Where the object with this id, 32 bytes, lies."""
        name = raw.hex()
        return f"{self._prefix}.dm/objects/{name[:2]}/{name[2:]}"

    def alias_path(self, digest: Digest) -> str:
        """Where the blake3 id of the blob with this other digest is kept."""
        return f"{self._prefix}.dm/aliases/{digest.algorithm}/{digest.hex[:2]}/{digest.hex[2:]}"

    def ref_path(self, name: str) -> str:
        """Where the ref of a copy lies; ``name`` was checked (`ref_name`, `check_ref_name`)."""
        return f"{self._prefix}.dm/refs/{name}"

    def partial_folder(self, identity: str) -> Path:
        """The private folder for work on what ``identity`` names: the same for every run."""
        return self.partial / blake3_of(identity.encode("utf-8", "surrogateescape")).hex()

    def ensure_folder_once(self, folder: str) -> None:
        """Make a folder of the store, unless this process did so before."""
        if folder in self._made:
            return
        if self._shared is None:
            self._shared = bool(self.group_bits())
        # The usual case needs no more than this: a thousand objects lie in hundreds of folders.
        if self._shared or not _make_folder(folder):
            ensure_folder(Path(folder), root=self.root)
        self._made.add(folder)

    # Copies

    def ref_name(self, copy: Path) -> str:
        """A copy's ``/``-joined path below the root: the name of its ref.

        Raises `Refused` when it is not below the root, is unsafe, or belongs to a store further in.
        """
        text = os.fspath(copy)
        if not text.startswith(self._prefix) or "/../" in f"{text}/" or "/./" in text or "//" in text:
            text = self._find_below(copy)
        name = check_ref_name(text[len(self._prefix) :])
        self._refuse_inner_store(os.path.dirname(text))
        return name

    def _find_below(self, copy: Path) -> str:
        # Another spelling of the same place: through a link above the root, or with dots. The copy itself may be a
        # link and is not followed.
        plain = os.path.normpath(os.path.abspath(copy))
        if plain.startswith(self._prefix):
            return plain
        real = os.path.join(os.path.realpath(os.path.dirname(plain)), os.path.basename(plain))
        root = os.path.realpath(self.root)
        if real.startswith(f"{root}/"):
            return self._prefix + real[len(root) + 1 :]
        raise Refused(
            f"'{display_path(copy)}' is not below the store root '{display_path(self.root)}'",
            hint="name a path below it, or another --root",
            code="outside-store",
        )

    def _refuse_inner_store(self, folder: str) -> None:
        while len(folder) >= len(self._prefix) and folder not in self._clear_of_others:
            if os.path.exists(f"{folder}/.dm/format"):
                raise Refused(
                    f"'{display_path(folder)}' is a store of its own inside '{display_path(self.root)}'",
                    hint=f"use --root {display_path(folder)}",
                    code="inner-store",
                )
            self._clear_of_others.add(folder)
            folder = os.path.dirname(folder)

    def owns(self, path: Path) -> bool:
        """Whether ``path`` lies below the root and not in its ``.dm``, by its spelling alone."""
        text = os.path.normpath(os.path.abspath(path))
        return text.startswith(self._prefix) and not f"{text}/".startswith(f"{self._prefix}.dm/")

    def folds_case(self) -> bool:
        """Whether the file system takes names that differ in case for one. False before `prepare`."""
        if self._folds_case is None and self._prepared:
            self._folds_case = os.path.exists(self.root / ".DM" / "FORMAT")
        return bool(self._folds_case)

    def group_bits(self) -> int:
        """Group permissions and setgid that folders of a shared store take from the root folder; 0: not shared."""
        bits = os.stat(self.root).st_mode & (stat.S_IRWXG | stat.S_ISGID)
        return bits if bits & (stat.S_IWGRP | stat.S_ISGID) else 0


def _make_folder(folder: str) -> bool:
    try:
        os.mkdir(folder)
    except OSError:
        return False
    return True


def _list_folder(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in sorted(os.listdir(folder))]
    except (FileNotFoundError, NotADirectoryError):
        return []


class _NoStore(Exception):
    """There is no store here (yet)."""


def find_store_root(path: Path, *, above: Path | None = None) -> Path | None:
    """The innermost folder above ``path`` that is a store, not looking above ``above``; None: there is none.

    Of nested roots the innermost owns a copy.
    """
    for folder in path.parents:
        if os.path.exists(folder / ".dm" / "format"):
            return folder
        if folder == above:
            return None
    return None
