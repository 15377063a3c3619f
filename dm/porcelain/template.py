"""The variables of a dataset, and a ``shell`` template with the words of the command that it stands for.

Split as a shell splits words, then substituted, so that no value ever becomes more than a part of its word: blanks,
quotes and shell characters in a path stay what they are (SCHEMA.md, "Shell commands"). Pure.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dm.errors import Malformed
from dm.plumbing.formats.bindings import substitute
from dm.values import printable

if TYPE_CHECKING:
    from pathlib import Path

    from dm.plumbing.records.dataset import Dataset
    from dm.porcelain.order import Required

#: Where a variable of a dataset without a path was put in; no word of a command may hold it.
_NO_PATH = "\0"


def list_variables(dataset: Dataset, project_root: Path) -> dict[str, str]:
    """The variables that every command and explicit call has (SCHEMA.md, "Bindings"); empty where the manifest says
    nothing.
    """
    return {
        "project_root": os.fspath(project_root),
        "uri": "" if dataset.is_list or not dataset.uris else dataset.uris[0],
        "key": dataset.key.text,
        "version": dataset.version or "",
        "doi": dataset.doi or "",
        "format": dataset.format or "",
        "branch": dataset.branch or "",
    }


def sanitize_identifier(identifier: str) -> str:
    """How an identifier stands in ``$path_<name>``: ``/`` and ``.`` become ``_``, as the peers have it."""
    return identifier.replace("/", "_").replace(".", "_")


def expand_template(template: str, variables: Mapping[str, str], required: Sequence[Required] = ()) -> list[str]:
    """The program and its arguments.

    ``required`` adds ``$path_<i>`` (from 1, in the order of ``requires``), ``$path_<name>`` and ``$requires_paths``.
    The last becomes one word for each path where it is a word of its own, and all of them with blanks between inside
    one. Raises `Malformed` for an unclosed quote, an empty command, and a path that a dataset does not have.
    """
    try:
        words = shlex.split(template)
    except ValueError as error:
        raise Malformed(
            f"cannot read 'shell': {str(error).lower().rstrip('.')}",
            hint="close the quote, or write it as \\' or \\\"",
            code="shell-malformed",
        ) from error
    if not words or not words[0]:
        hint = "it begins with the name of a program, or the path of one"
        raise Malformed("'shell' names no program", hint=hint, code="shell-malformed")
    paths = [os.fspath(each.path) for each in required if each.path is not None]
    known = {**variables, **_name_paths(required), "requires_paths": " ".join(paths)}
    found: list[str] = []
    for word in words:
        if word in ("$requires_paths", "${requires_paths}"):
            found += paths
            continue
        text = substitute(word, known)
        assert isinstance(text, str)
        if _NO_PATH in text:
            name = text.partition(_NO_PATH)[2].partition(_NO_PATH)[0]
            raise Malformed(
                f"'shell' uses the path of '{printable(name)}', which has none: it is opened in place (lazy_access)",
                hint="fetch that one too: take out its 'lazy_access'",
                code="path-missing",
            )
        found.append(text)
    return found


def _name_paths(required: Sequence[Required]) -> dict[str, str]:
    """The variables of single paths; a name beats a number."""
    texts = [f"{_NO_PATH}{each.name}{_NO_PATH}" if each.path is None else os.fspath(each.path) for each in required]
    numbered = {f"path_{number}": text for number, text in enumerate(texts, 1)}
    named = {}
    for each, text in zip(required, texts, strict=True):
        named[f"path_{sanitize_identifier(each.identifier)}"] = text
        named.setdefault(f"path_{sanitize_identifier(each.name)}", text)
    return {**numbered, **named}
