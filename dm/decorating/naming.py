"""What a function is called as a maker of results, and which functions have no such name.

The name (its *cachetype*) is ``module.qualname`` unless one is given, as the peers have it (SCHEMA.md, "Produced
datasets"). It must be the same tomorrow and on the next machine: what a script, a notebook or a nested function is
called says nothing then, so an explicit one is asked for.
"""

from __future__ import annotations

import functools
import inspect
import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from dm.errors import UsageError
from dm.plumbing.records.artifact_names import check_cachetype, check_version

#: The module that a program started, by the names it has there and in a child of multiprocessing's "spawn".
_MAIN_MODULES = ("__main__", "__mp_main__")

# Guards _claims.
_lock = threading.Lock()
#: The function that holds each (cachetype, version) in this process.
_claims: dict[tuple[str, str], _Claim] = {}


class Name(NamedTuple):
    """``cachetype`` and ``version`` are the address of a function's results, ``ref`` (``module:qualname``) says whose
    they are.
    """

    cachetype: str
    version: str
    ref: str


class _Claim(NamedTuple):
    ref: str
    function: weakref.ref[Callable[..., Any]]


def check_function(function: object) -> None:
    """Raise `UsageError` with the reason for what cannot be cached: classes, methods, generators, what has no name."""
    told = _describe(function)
    if isinstance(function, staticmethod | classmethod):
        kind = type(function).__name__
        hint = "write @staticmethod above @dm.cached" if kind == "staticmethod" else _HOW_WITH_STATE
        raise _refused(told, f"it is a {kind} already", hint)
    if isinstance(function, type):
        raise _refused(told, "it is a class", "decorate a function that returns an instance of it")
    if not callable(function):
        raise TypeError(f"dm.cached takes a function, not a value of type '{type(function).__name__}'")
    if inspect.ismethod(function) or _is_method(function):
        raise _refused(told, "it is a method, and what it depends on in its object is not in the key", _HOW_WITH_STATE)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        hint = "return a list of what it would yield"
        raise _refused(told, "it is a generator, which has no one value to keep", hint)
    if isinstance(function, functools.partial):  # a name that it was given does not tell what it fills in
        raise _refused(told, "it is a functools.partial, and what it fills in is not in the key", _HOW_CALLED)
    if not isinstance(getattr(function, "__qualname__", None), str) or not isinstance(
        getattr(function, "__module__", None), str
    ):
        raise _refused(told, "it has no name of its own", _HOW_CALLED)
    try:
        inspect.signature(function)
    except (TypeError, ValueError):
        raise _refused(told, "it tells no signature", _HOW_CALLED) from None
    if inspect.isbuiltin(function):
        raise _refused(told, "it is built in, and its code changes with Python", _HOW_CALLED)


_HOW_CALLED = "write a function with 'def' that calls it"
_HOW_WITH_STATE = "decorate a function that takes what it needs as parameters, and call that from the method"


def find_name(function: Callable[..., Any], *, cachetype: str | None, version: str) -> Name:
    """The name of a function: the given ``cachetype``, else ``module.qualname``.

    The module of ``python -m pkg.mod`` is ``pkg.mod``, also in processes that it starts. Raises `UsageError` where
    there is no such name (a script, ``python -c``, the REPL, a notebook, a nested function, a lambda), saying what to
    write, and what `check_cachetype` and `check_version` raise.
    """
    module, qualname = function.__module__, function.__qualname__
    if module in _MAIN_MODULES:
        module = _find_started_module(function) or "__main__"
    if cachetype is None:
        _demand_lasting_name(function, module, qualname)
        cachetype = f"{module}.{qualname}"
    check_cachetype(cachetype)
    if version:
        check_version(version)
    return Name(cachetype, version, f"{module}:{qualname}")


def claim(name: Name, function: Callable[..., Any]) -> None:
    """Take a name for a function in this process; raise `UsageError` naming both when another live function has it.

    One of the same module and qualified name is the same function again: a reload, a notebook's cell that is run
    again, the instances of a nested function.
    """
    place = (name.cachetype, name.version)
    with _lock:
        held = _claims.get(place)
        if held is not None and held.ref != name.ref and held.function() is not None:
            versioned = f" version '{name.version}'" if name.version else ""
            raise UsageError(
                f"cannot cache '{name.ref}' as '{name.cachetype}'{versioned}: '{held.ref}' is cached under this name",
                hint="give one of them another cachetype= or version=; a function that is gone holds none",
                code="cached-conflict",
            )
        _claims[place] = _Claim(name.ref, weakref.ref(function))


def _find_started_module(function: Callable[..., Any]) -> str | None:
    """The module that ``python -m`` started, when the function is of it; None for a script and the like."""
    surroundings = getattr(inspect.unwrap(function), "__globals__", {})
    found = getattr(surroundings.get("__spec__"), "name", None)
    return found if isinstance(found, str) and found not in _MAIN_MODULES else None


def _demand_lasting_name(function: Callable[..., Any], module: str, qualname: str) -> None:
    shown = qualname.rpartition(".")[2]
    suggestion = shown if shown.isidentifier() else "name"
    if module == "__main__":
        raise _refused(
            _describe(function),
            "it is defined in a script, a notebook or at a prompt, so its module has no name to find its results by",
            f'give it one: @dm.cached(cachetype="my_project.{suggestion}"), or put it into a module and import it',
        )
    if "<lambda>" in qualname or "<locals>" in qualname:
        what = "a lambda" if qualname.endswith("<lambda>") else "defined inside another function"
        raise _refused(
            _describe(function),
            f"it is {what}, so its name is not its own",
            f'give it one: cachetype="{module}.{suggestion}"; what it takes from around it is not in the key',
        )


def _is_method(function: Callable[..., Any]) -> bool:
    """Whether a function stands in a class and takes the object or the class first."""
    outer = getattr(function, "__qualname__", "").rpartition(".")[0]
    if not outer or outer.endswith("<locals>"):
        return False
    try:
        first = next(iter(inspect.signature(function).parameters), None)
    except (TypeError, ValueError):
        return False
    return first in ("self", "cls")


def _describe(function: object) -> str:
    return str(getattr(function, "__qualname__", None) or f"a value of type {type(function).__name__}")


def _refused(told: str, fault: str, hint: str) -> UsageError:
    return UsageError(f"cannot cache '{told}': {fault}", hint=hint, code="cached-declaration")
