"""A function's parameters, seen as the key of a result: bound, completed with their defaults, checked when declared."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from dm.errors import UsageError
from dm.plumbing.records.params import Plain, make_key_table, make_plain_table

#: What replaces the table of arguments as the key: a function of that table, or the names that count.
Key = Callable[[dict[str, Any]], Mapping[str, object]] | Sequence[str]
#: The parameter by which a function is told where to write its file itself.
PATH_PARAMETER = "_path"

_POSITIONAL_ONLY = inspect.Parameter.POSITIONAL_ONLY
_VAR_POSITIONAL = inspect.Parameter.VAR_POSITIONAL
_VAR_KEYWORD = inspect.Parameter.VAR_KEYWORD


class Call(NamedTuple):
    """One call, bound: ``args`` and ``kwargs`` as the function gets them, ``table`` as its key, in plain values."""

    args: tuple[object, ...]
    kwargs: dict[str, Any]
    table: dict[str, Plain]


class Parameters:
    """The parameters of one function and what of them is the key.

    ``signature`` is what callers see: the function's own, without ``_path``. Made once, at decoration; raises
    `UsageError` for ``*args``, a positional-only ``_path``, names in ``ignore`` or ``key`` that are no parameters, and
    names that are never part of a key.
    """

    def __init__(
        self, function: Callable[..., object], *, name: str, ignore: Sequence[str] = (), key: Key | None = None
    ) -> None:
        self.name = name
        signature = inspect.signature(function)
        self.takes_path = PATH_PARAMETER in signature.parameters
        parameters = [each for each in signature.parameters.values() if each.name != PATH_PARAMETER]
        self.signature = signature.replace(parameters=parameters)
        self._positional = [each.name for each in parameters if each.kind is _POSITIONAL_ONLY]
        self._rest = next((each.name for each in parameters if each.kind is _VAR_KEYWORD), None)
        self._named = {each.name for each in parameters if each.kind not in (_VAR_POSITIONAL, _VAR_KEYWORD)}
        self._ignored = frozenset(self._read_names("ignore", ignore))
        self._key: Key | None = key if key is None or callable(key) else self._read_names("key", key)
        self._check(signature)

    def bind(self, args: tuple[object, ...], kwargs: Mapping[str, Any]) -> Call:
        """Bind one call, defaults filled in.

        Raises `TypeError` as the call itself would; `UsageError` for a value that has no plain form (`make_plain`), and
        when a positional-only parameter and a keyword of ``**kwargs`` share a name. What a key function raises passes
        through.
        """
        if PATH_PARAMETER in kwargs and self.takes_path:
            raise TypeError(f"{self.name}() is told '{PATH_PARAMETER}' by dm.cached, not by its caller")
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}(): {error}") from None
        bound.apply_defaults()
        values: dict[str, Any] = dict(bound.arguments)
        rest: dict[str, Any] = {} if self._rest is None else values.pop(self._rest)
        twice = values.keys() & rest.keys()
        if twice:
            raise UsageError(
                f"cannot key a call of '{self.name}': it has two arguments called '{min(twice)}'",
                hint="rename the positional-only parameter",
                code="cached-argument",
            )
        in_order = tuple(values[name] for name in self._positional)
        by_name = {name: value for name, value in values.items() if name not in self._positional}
        return Call(in_order, {**by_name, **rest}, self._make_table({**values, **rest}))

    def _make_table(self, arguments: dict[str, Any]) -> dict[str, Plain]:
        table = {
            name: value
            for name, value in arguments.items()
            if not name.startswith("_") and name not in self._ignored
        }
        if self._key is None:
            return make_key_table(table)
        if not callable(self._key):
            return make_key_table({name: table[name] for name in self._key if name in table})
        replaced = self._key(table)
        if not isinstance(replaced, Mapping):
            raise UsageError(
                f"cannot key a call of '{self.name}': its key function gave '{type(replaced).__name__}', not a table",
                hint="return a dict of what tells one result from another",
                code="cached-argument",
            )
        return make_plain_table(replaced)

    def _check(self, signature: inspect.Signature) -> None:
        for each in signature.parameters.values():
            if each.kind is _VAR_POSITIONAL:
                raise _refused(
                    self.name,
                    f"'*{each.name}' has no names, and a result is known by its parameters' names",
                    "take a list as one parameter instead",
                )
            if each.name == PATH_PARAMETER and each.kind is _POSITIONAL_ONLY:
                raise _refused(self.name, f"'{PATH_PARAMETER}' is positional-only", "write it behind the '/'")
        self._check_names("ignore", self._ignored)
        if self._key is not None and not callable(self._key):
            self._check_names("key", self._key)

    def _read_names(self, option: str, given: object) -> list[str]:
        """The names that an option gives, as one text or several."""
        names: list[Any] = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
        if not all(isinstance(name, str) for name in names):
            raise _refused(self.name, f"'{option}' is no list of its parameters' names", f'write {option}=["…"]')
        return names

    def _check_names(self, option: str, names: Sequence[str] | frozenset[str]) -> None:
        for name in sorted(names):
            if name.startswith("_"):
                raise _refused(
                    self.name, f"'{option}' names '{name}', and parameters that begin with '_' are never in the key"
                )
            if name not in self._named and self._rest is None:
                known = ", ".join(each for each in self.signature.parameters if not each.startswith("_"))
                raise _refused(
                    self.name,
                    f"'{option}' names '{name}', which is no parameter of it",
                    f"its parameters are: {known or 'none'}",
                )


def _refused(name: str, fault: str, hint: str | None = None) -> UsageError:
    return UsageError(f"cannot cache '{name}': {fault}", hint=hint, code="cached-declaration")
