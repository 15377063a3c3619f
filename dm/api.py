"""The Python face: the same verbs as the command line, returning values.

::

    import dm

    dm.fetch()                                  # everything that the manifest here declares
    table = dm.load("co2")                      # one dataset, as what its format is: here a pandas.DataFrame
    path = dm.fetch("co2")                      # the same as a file; an outcome is an os.PathLike

    with dm.Manifest.open("paper/datamanifest.toml") as manifest:
        manifest.status()

The module-level functions are the methods of `Manifest` of the same names (`path` is `Manifest.path_of`), on the
manifest of the working directory, found anew at each call. A `Manifest` is opened once and keeps the configuration it
was opened with; several can be open at once. Nothing is printed: pass ``progress`` to hear what goes on.
"""

from __future__ import annotations

import builtins
import functools
import inspect
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from dm.answers import Failed
from dm.environment import Environment
from dm.errors import UsageError
from dm.manifest import Loader, Manifest
from dm.porcelain.project import Project
from dm.values import Outcome

__all__ = [
    "Failed",
    "Loader",
    "Manifest",
    "add",
    "dedup",
    "delete",
    "fetch",
    "hash_params",
    "init",
    "list",
    "load",
    "lock",
    "path",
    "pin",
    "prune",
    "refresh",
    "remove",
    "show",
    "status",
    "unlock",
    "verify",
]

P = ParamSpec("P")
R = TypeVar("R")


class _On:
    """Makes methods of `Manifest` functions that open the manifest themselves, with the same options, types and help.

    ``open_one`` opens it and is told the arguments of the call by name. (The method is the one argument, since then
    type checkers carry its overloads over.)
    """

    def __init__(self, open_one: Callable[[Mapping[str, object]], Manifest]) -> None:
        self._open_one = open_one

    def __call__(self, method: Callable[Concatenate[Manifest, P], R]) -> Callable[P, R]:
        open_one = self._open_one
        described = inspect.signature(method, eval_str=True)
        signature = described.replace(parameters=[*described.parameters.values()][1:])

        @functools.wraps(method)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            arguments = signature.bind(*args, **kwargs)
            arguments.apply_defaults()
            with open_one(arguments.arguments) as manifest:
                return method(manifest, *args, **kwargs)

        del call.__wrapped__  # its signature begins with the manifest
        call.__signature__ = signature  # type: ignore[attr-defined]
        call.__module__, call.__name__ = __name__, method.__name__.removesuffix("_of")  # `path_of` is `path` here
        call.__qualname__ = call.__name__
        where = "It is done on the manifest that is found from the working directory, anew at each call."
        call.__doc__ = f"{inspect.cleandoc(method.__doc__ or '')}\n\n{where}"
        return call


def _open_anywhere(_arguments: Mapping[str, object]) -> Manifest:
    """For results of functions, which need no manifest."""
    from dm.porcelain.artifacts.opening import open_project

    return Manifest(open_project(Environment.read()))


def _open_as_named(arguments: Mapping[str, object]) -> Manifest:
    """For what may be about a result, by its name or by ``kind``; a dataset needs a manifest."""
    from dm.porcelain.artifacts.catalogue import is_artifact_name

    named = arguments.get("name") or arguments.get("names") or ()
    names = named if isinstance(named, tuple | builtins.list) else [named]
    is_of_results = arguments.get("kind", "data") != "data" or any(is_artifact_name(str(name)) for name in names)
    return _open_anywhere(arguments) if is_of_results else Manifest.open()


def _open_for_verify(arguments: Mapping[str, object]) -> Manifest:
    """For stores and paths, which need no manifest; names do, unless they are of results."""
    names = arguments.get("names")
    given = names if isinstance(names, tuple | builtins.list) else () if names is None else (names,)
    if any(isinstance(each, str) for each in given):
        return _open_as_named(arguments)
    is_of_stores = bool(given) or arguments.get("all") or arguments.get("root") is not None
    return _open_stores(arguments) if is_of_stores else Manifest.open()


def _open_stores(_arguments: Mapping[str, object]) -> Manifest:
    return Manifest(Project.open_anywhere(Environment.read()))


_here = _On(lambda _arguments: Manifest.open())
_anywhere = _On(_open_anywhere)
_as_named = _On(_open_as_named)
_stores_here = _On(_open_stores)

add = _here(Manifest.add)
dedup = _stores_here(Manifest.dedup)
delete = _anywhere(Manifest.delete)
fetch = _here(Manifest.fetch)
list = _as_named(Manifest.list)
load = _here(Manifest.load)
lock = _here(Manifest.lock)
path = _as_named(Manifest.path_of)
pin = _here(Manifest.pin)
prune = _stores_here(Manifest.prune)
refresh = _here(Manifest.refresh)
remove = _here(Manifest.remove)
show = _as_named(Manifest.show)
status = _here(Manifest.status)
unlock = _here(Manifest.unlock)
verify = _On(_open_for_verify)(Manifest.verify)


def init(folder: str | PathLike[str] = ".") -> Outcome:
    """Start a project in a folder, made if need be: an empty ``datamanifest.toml`` and the ignore entries of what `dm`
    keeps beside it. Return an outcome with the manifest's path.

    Never overwrites: raises `Refused` where a manifest of any name lies there already, `MachineFailed` where nothing
    can be written.
    """
    from dm.porcelain.verbs.start import start

    environment = Environment.read()
    return start(Path(environment.working_folder, folder), environment)


def hash_params(table: Mapping[str, object]) -> str:
    """The parameter hash of a key table, 64 hex digits: what the folder of a cached function's result is named by.

    Raises `UsageError` for a value that has no plain form, as ``@dm.cached`` does.
    """
    from dm.plumbing.records.params import hash_params as run

    if not isinstance(table, Mapping):
        raise UsageError(f"a key table is a mapping, not {type(table).__name__}")
    return run(table)
