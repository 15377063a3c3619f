"""What a cached function says of its results: how they are named, written, read back and checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from dm.errors import Refused
from dm.plumbing.records.sidecars import SIDECAR_NAMES
from dm.plumbing.store.markers import MARKER_NAME
from dm.values import find_key_fault, printable

#: How often the bytes of a result are compared with what was published: at every load, once in a process and while
#: stat data are unchanged, never.
Check = Literal["always", "once", "never"]


class Recipe(NamedTuple):
    """How the results of one function are kept (SCHEMA.md, "Produced datasets").

    ``ref`` is ``module:qualname``, for people. ``format`` is the ending of the data's name and picks the built-in saver
    and loader where none is given, with ``library`` where the values are of another one than the usual (``polars``).
    ``writes_itself``: the function is given a path and writes there. ``cache_dir``, ``store`` and ``scope`` choose the
    place. ``code_digest`` of the function's source goes into ``metadata.toml``.
    """

    cachetype: str
    version: str = ""
    ref: str = ""
    format: str = "pickle"
    library: str = ""
    basename: str = "data"
    saver: Callable[[object, Path], object] | None = None
    loader: Callable[[Path], object] | None = None
    writes_itself: bool = False
    cache_dir: Path | str | None = None
    store: str | None = None
    scope: str | None = None
    check: Check = "always"
    code_digest: str | None = None


def make_data_name(recipe: Recipe) -> str:
    """The name of a recipe's data in an artifact's folder: ``<basename>.<format>``.

    Raises `Refused` for one that is no plain file name, or that the folder's own files have.
    """
    ending = recipe.format.strip().lstrip(".")
    name = f"{recipe.basename}.{ending}" if ending else recipe.basename
    fault = "it is not one part of a path" if "/" in name else find_key_fault(name)
    if fault is None and (name in SIDECAR_NAMES or name.startswith(".") or name == MARKER_NAME):
        fault = "the name is kept for what belongs to every artifact" if name in SIDECAR_NAMES else "it is hidden"
    if fault is not None:
        raise Refused(
            f"cannot keep results of '{printable(recipe.cachetype)}' as '{printable(name)}': {fault}",
            hint="choose another 'basename' or 'format'",
            code="basename-refused",
        )
    return name
