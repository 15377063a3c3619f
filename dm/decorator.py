"""``dm.cached``: a function whose results are kept. docs/cached.md is for who uses it.

The pieces are in `dm.decorating`; here is the face: its options, what a decorated function offers, and its types.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast, get_args, overload

from dm.decorating.arguments import Key, Parameters
from dm.decorating.calling import CodeChange, Maker
from dm.decorating.naming import check_function, claim, find_name
from dm.decorating.sessions import Sessions, find_own_sessions
from dm.decorating.storing import Loader, Saver, choose_storing, find_library
from dm.decorating.telling import CacheWarning, CodeChanged
from dm.errors import UsageError
from dm.values import printable

if TYPE_CHECKING:
    from dm.plumbing.records.params import Plain
    from dm.porcelain.artifacts.recipe import Check

__all__ = ["CacheWarning", "CachedFunction", "CodeChanged", "Decorator", "cached"]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

#: What is set on a function that is cached, so that it is not cached twice.
_MARK = "__dm_cached__"


class CachedFunction(Protocol[P, R_co]):
    """A function whose results are kept. It is called as the function itself; that is ``__wrapped__`` too.

    The others take the same arguments. Of a coroutine function ``fresh`` and ``uncached`` are awaited like the call;
    the rest is not, and ``forget`` may wait for somebody who computes the same result.
    """

    __name__: str
    __qualname__: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """The result: found and checked, else computed and kept. It is what its format gives back, each time.

        Raises what the function raises, `UsageError` for an argument that has no plain form, and what opening the
        project raises. A crash leaves the whole result or none.
        """

    def fresh(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Compute again, and keep that instead of what was kept."""

    def uncached(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """The function itself: nothing is looked for or kept."""

    def is_cached(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Whether the result is there and may be used. Nothing is computed or loaded."""

    def path(self, *args: P.args, **kwargs: P.kwargs) -> Path:
        """Where the result's file is, or will be."""

    def forget(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Remove the result; whether there was one."""

    def key(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, Plain]:
        """The key table: what tells this result from the function's others."""

    def hash(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The hash of the key table, 64 hex digits: the name of the result's folder."""

    @property
    def __wrapped__(self) -> Callable[P, R_co]: ...


class _Configured(Protocol):
    def __call__(self, function: Callable[P, R], /) -> CachedFunction[P, R]: ...


class Decorator:
    """Keep a function's results: compute each once, then find it by the function's arguments.

    Use it bare (``@dm.cached``) or with options (``@dm.cached(format="nc")``). Results lie in the project of the
    working folder, by ``manifest.cached`` in that of the manifest.

    ``cachetype``: the name that results are kept under; by default the function's ``module.qualname``. ``version``:
    another one means other results. ``format``: of the file (default ``pickle``; docs/formats.md lists them), named
    ``<basename>.<format>``. Tables are those of pandas, or of polars where the function is annotated to return a
    ``polars.DataFrame``. ``saver`` and ``loader``: functions ``saver(value, path)`` and ``loader(path)``, or
    ``"module:function"``, in place of the built-in ones. For a format that `dm` does not know and that they are not
    given for, those that the manifest names (``[_SAVERS]``, ``[_LOADERS]``), which the user must have allowed.

    ``ignore``: parameters that do not change the result. ``key``: the names that alone do, or a function that makes
    the key table from the table of arguments. Parameters that begin with ``_`` are never in the key; one called
    ``_path`` is given the path at which the function writes its file itself, and then it returns nothing.

    ``cache_dir``, or ``store`` and ``scope``: the place (docs/configuration.md). ``check``: how often the bytes of a
    result are compared with what was kept: ``always``, ``once`` in a process and while the file looks unchanged,
    ``never``. ``code_changed``: what happens when a result was made by other code than the function has now: ``warn``
    (once for a function), ``ignore`` or ``recompute``.

    Raises `UsageError` with the reason for what cannot be cached: methods, generators, ``*args``, a function without a
    lasting name, a name that another function has; `Refused` for names that are unsafe as paths. A format that neither
    `dm` nor the manifest writes and reads is a `UsageError` of the call.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    @overload
    def __call__(self, function: Callable[P, R], /) -> CachedFunction[P, R]: ...

    @overload
    def __call__(
        self,
        *,
        cachetype: str | None = None,
        version: str | None = None,
        format: str | None = None,
        basename: str = "data",
        saver: Saver | None = None,
        loader: Loader | None = None,
        ignore: Sequence[str] = (),
        key: Key | None = None,
        cache_dir: str | Path | None = None,
        store: str | None = None,
        scope: str | None = None,
        check: Check = "always",
        code_changed: CodeChange = "warn",
    ) -> _Configured: ...

    def __call__(self, *functions: Any, **options: Any) -> Any:
        """Decorate a function, or make a decorator with these options."""
        decorate = functools.partial(self._decorate, **options)
        return decorate(*functions) if functions else decorate

    def close(self) -> None:
        """Write the records that are still gathered; it happens at the end of the process, too."""
        self._sessions.close()

    def _decorate(
        self,
        function: Callable[..., Any],
        /,
        *,
        cachetype: str | None = None,
        version: str | None = None,
        format: str | None = None,
        basename: str = "data",
        saver: Saver | None = None,
        loader: Loader | None = None,
        ignore: Sequence[str] = (),
        key: Key | None = None,
        cache_dir: str | Path | None = None,
        store: str | None = None,
        scope: str | None = None,
        check: Check = "always",
        code_changed: CodeChange = "warn",
    ) -> CachedFunction[..., Any]:
        from dm.porcelain.artifacts.recipe import Check, Recipe, make_data_name

        check_function(function)
        told = function.__qualname__
        if hasattr(function, _MARK):
            raise UsageError(f"cannot cache '{told}': it is cached already", code="cached-declaration")
        _check_texts(told, basename=basename)
        choices = {"cachetype": cachetype, "version": version, "format": format, "store": store, "scope": scope}
        _check_texts(told, **{option: text for option, text in choices.items() if text is not None})
        _check_word(told, "check", check, get_args(Check))
        _check_word(told, "code_changed", code_changed, get_args(CodeChange))
        name = find_name(function, cachetype=cachetype, version=version or "")
        parameters = Parameters(function, name=told, ignore=ignore, key=key)
        storing = choose_storing(told, format, saver=saver, loader=loader, takes_path=parameters.takes_path)
        recipe = Recipe(
            *name,
            format=storing.format,
            library=find_library(function),
            basename=basename,
            writes_itself=parameters.takes_path,
            cache_dir=cache_dir,
            store=store,
            scope=scope,
            check=check,
        )
        make_data_name(recipe)
        maker = Maker(
            function, parameters, recipe, storing=storing, sessions=self._sessions, code_changed=code_changed
        )
        wrapper = _wrap(function, maker)
        claim(name, wrapper)
        return wrapper


def _wrap(function: Callable[..., Any], maker: Maker) -> CachedFunction[..., Any]:
    """A plain function around another: help, Sphinx, pickle and `inspect` take it for what it is."""
    wrapper: Any
    fresh: Callable[..., Any]
    if inspect.iscoroutinefunction(function):

        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return await maker.call_async(args, kwargs)

        async def fresh(*args: Any, **kwargs: Any) -> Any:
            return await maker.call_async(args, kwargs, fresh=True)
    else:

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return maker.call(args, kwargs)

        def fresh(*args: Any, **kwargs: Any) -> Any:
            return maker.call(args, kwargs, fresh=True)

    functools.update_wrapper(wrapper, function)
    if maker.parameters.takes_path:
        wrapper.__signature__ = maker.parameters.signature
    setattr(wrapper, _MARK, True)
    wrapper.fresh = fresh
    wrapper.uncached = function
    wrapper.is_cached = lambda *args, **kwargs: maker.is_cached(args, kwargs)
    wrapper.path = lambda *args, **kwargs: maker.path(args, kwargs)
    wrapper.forget = lambda *args, **kwargs: maker.forget(args, kwargs)
    wrapper.key = lambda *args, **kwargs: maker.key(args, kwargs)
    wrapper.hash = lambda *args, **kwargs: maker.hash(args, kwargs)
    return cast("CachedFunction[..., Any]", wrapper)


def _check_texts(name: str, **options: object) -> None:
    for option, value in options.items():
        if not isinstance(value, str):
            raise UsageError(
                f"cannot cache '{name}': its {option} is no text but of type '{type(value).__name__}'",
                hint=f'write {option}="{printable(str(value))}"',
                code="cached-declaration",
            )


def _check_word(name: str, option: str, word: str, known: Sequence[str]) -> None:
    if word not in known:
        raise UsageError(
            f"cannot cache '{name}': there is no {option} '{printable(str(word))}'",
            hint=f"it is one of {', '.join(known)}",
            code="cached-declaration",
        )


#: `Decorator` for the project of the working folder, found at each call.
cached = Decorator(find_own_sessions())
