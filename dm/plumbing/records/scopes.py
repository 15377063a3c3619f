"""Scopes, prefixes and the project's id: the partitions of the composed layout."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from dm.errors import Refused
from dm.plumbing.records.fields import OBJECT_KINDS
from dm.plumbing.records.ladder import BUILT_IN, Ladder, Rung
from dm.values import find_key_fault, printable

#: Scopes that would be taken for the peers' or the store's own folders.
_RESERVED_SCOPES = frozenset(("datasets", "cached", "shared", "projects"))
#: Bytes of the folder's name in a project id that is made from it: room for the digest in a part of a path.
_NAME_LENGTH_MAX = 60


class Scopes:
    """The scope and the prefix of each kind of object (``datasets``, ``cached``). Pure."""

    def __init__(self, ladder: Ladder, folder: Path, find_project_name: Callable[[], Rung | None] | None) -> None:
        """``folder`` is the project root, or the working folder without a project."""
        self._ladder = ladder
        self._folder = folder
        self._find_project_name = find_project_name
        self._project_id: Rung | None = None

    def find_scope(self, kind: str, given: str | None, *, where: str = "'scope'") -> tuple[str, Rung | None]:
        """The scope in force and its rung: the one ``given`` (``""`` counts), else ``_SCOPE.<kind>``, else ``scope``,
        else shared for ``datasets`` and the project's id for ``cached``.

        Raises `Refused` for a name that cannot be a scope; ``where`` says in it where a given one stands.
        """
        if given is not None:
            self._check_scope(given, where)
            return given, None
        rung = self._ladder.lookup(f"_SCOPE.{kind}") or self._ladder.lookup("scope")
        if rung is None and kind == "cached":
            rung = self.find_project_id()
        if rung is None:
            return "", None
        self._check_scope(str(rung.value), rung.origin)
        return str(rung.value), rung

    def _check_scope(self, scope: str, where: str) -> None:
        if not scope:
            return
        fault = find_segment_fault(scope)
        if fault is None and scope.casefold() in _RESERVED_SCOPES:
            fault = "the tools use a folder of that name"
        if fault is None and scope.casefold() in {self.find_prefix(kind)[0].casefold() for kind in OBJECT_KINDS}:
            fault = "it is a prefix in force"
        if fault is not None:
            raise Refused(
                f"cannot use '{printable(scope)}' as a scope ({where}): {fault}",
                hint="use a plain folder name",
                code="scope-refused",
            )

    def find_prefix(self, kind: str) -> tuple[str, Rung | None]:
        """The prefix in force and its rung. Raises `Refused` for one that is not a safe part of a path."""
        rung = self._ladder.lookup(f"_PREFIX.{kind}")
        prefix = OBJECT_KINDS[kind] if rung is None else str(rung.value)
        fault = find_segment_fault(prefix)
        if fault is not None:
            origin = "built in" if rung is None else rung.origin
            raise Refused(
                f"cannot use '{printable(prefix)}' as a prefix ({origin}): {fault}",
                hint="use a plain folder name",
                code="prefix-refused",
            )
        return prefix, rung

    def find_project_id(self) -> Rung:
        """The project's id: ``project`` on the ladder, else what its own files declare, else its folder's name with 8
        hex digits of the SHA-256 of its absolute path. Raises `Malformed` when one of its files is.
        """
        if self._project_id is None:
            rung = self._ladder.lookup("project")
            if rung is None and self._find_project_name is not None:
                rung = self._find_project_name()
            if rung is None:
                rung = Rung("project", _make_id(self._folder), BUILT_IN, "built in: the project folder's name and path")
            self._project_id = rung
        return self._project_id


def _make_id(project_root: Path) -> str:
    from hashlib import sha256

    folder = os.path.abspath(project_root)
    digest = sha256(os.fsencode(folder)).hexdigest()[:8]
    name = os.path.basename(folder)
    name = "".join(character if character.isalnum() or character in "-_." else "_" for character in name)
    while len(os.fsencode(name)) > _NAME_LENGTH_MAX:
        name = name[:-1]
    return f"{name.lstrip('.') or 'project'}-{digest}"


def find_segment_fault(text: str) -> str | None:
    """Why a text cannot be one part of a path that `dm` composes; None when it can."""
    if "/" in text:
        return "it is not one part of a path"
    if text.startswith("."):
        return "it begins with a '.'"
    if "$" in text:
        return "symbols are not replaced here"
    return find_key_fault(text)
