"""Path expressions: text with ``$NAME``, ``${NAME}`` and a leading ``~`` in it.

A symbol is looked up on the ladder, then among the environment's variables. One that is nowhere defined is an error
that names it and where it was used: nothing ever becomes a folder called ``$scratch``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from dm.environment import Environment
from dm.errors import Malformed
from dm.plumbing.records.fields import is_symbol
from dm.plumbing.records.ladder import Ladder, Rung
from dm.values import has_control, printable

#: The built-in folder roots, in the order in which they are searched.
BUILT_IN_ROOTS = ("repo", "data", "cache")


class Use:
    """Where an expression stands, what it may name there, and the rungs that it was found to depend on.

    ``where`` is for messages (``'storage_path' of 'sst'``); ``fault`` makes the error that points there; ``key`` is
    what ``$key`` stands for (None: nothing); ``scope`` the scope of an unset ``$datasets_dir``; ``active`` the symbols
    that are being replaced, against circles; ``rungs`` gathers, by name, what decided.
    """

    __slots__ = ("active", "fault", "key", "rungs", "scope", "where")

    def __init__(
        self,
        where: str,
        fault: Callable[..., Malformed] = Malformed,
        *,
        key: str | None = None,
        scope: str | None = None,
        active: tuple[str, ...] = (),
        rungs: dict[str, Rung] | None = None,
    ) -> None:
        self.where = where
        self.fault = fault
        self.key = key
        self.scope = scope
        self.active = active
        self.rungs: dict[str, Rung] = {} if rungs is None else rungs

    def inside(self, name: str, rung: Rung) -> Use:
        """The use of the symbols in the value that ``rung`` gives to ``name``."""
        self.rungs.setdefault(name, rung)
        return Use(f"'{name}'", rung.fault, scope=self.scope, active=(*self.active, name), rungs=self.rungs)


#: Gives the composed folder that an unset ``datasets_dir`` or ``datacache_dir`` stands for, and its rungs.
Composer = Callable[[str, Use], tuple[str, tuple[Rung, ...]]]


class Expander:
    """Replaces the symbols of expressions. Pure."""

    def __init__(self, ladder: Ladder, project_root: Path | None, environment: Environment, compose: Composer) -> None:
        self._ladder = ladder
        self._base = project_root or environment.working_folder
        self._environment = environment
        self._compose = compose

    def expand(self, expression: str, use: Use) -> str:
        """The expression's text; a relative one stays relative. Raises `Malformed`."""
        if "$" not in expression:
            return self._expand_home(expression, use)
        expanded = [self.resolve(part, use) if is_name else part for is_name, part in split_expression(expression, use)]
        if expression.startswith("~"):
            expanded[0] = self._expand_home(expanded[0], use)
        return "".join(expanded)

    def resolve(self, name: str, use: Use) -> str:
        """What a symbol stands for. Raises `Malformed` for one that is undefined or reaches itself."""
        if name == "key":
            if use.key is None:
                hint = "it stands in a dataset's 'storage_path' only"
                raise use.fault(f"'$key' means nothing in {use.where}", hint=hint, code="symbol-undefined")
            return use.key
        if name in use.active:
            cycle = " → ".join(f"${step}" for step in (*use.active[use.active.index(name) :], name))
            raise use.fault(f"symbol '${name}' reaches itself: {cycle}", code="symbol-cycle")
        rung = self._ladder.lookup(name) if is_symbol(name) else None
        if rung is not None:
            return self.expand(str(rung.value), use.inside(name, rung))
        if name == "project":
            return os.path.basename(os.path.abspath(self._base))
        if name in ("datasets_dir", "datacache_dir"):
            path, rungs = self._compose(name, use)
            for each in rungs:
                use.rungs.setdefault(each.name, each)
            return path
        value = self._environment.get(name)
        if value is not None:
            return value
        message = f"undefined symbol '${name}' in {use.where}"
        raise use.fault(message, hint=self._hint_at_symbol(name), code="symbol-undefined")

    def anchor(self, text: str, use: Use) -> str:
        """Expanded text as an absolute path without ``.`` and ``..``; relative means below the project root."""
        if has_control(text):
            raise use.fault(f"control character in {use.where}: '{printable(text)}'", code="place-malformed")
        path = os.path.normpath(text if text.startswith("/") else f"{self._base}/{text}")
        return path[1:] if path.startswith("//") else path

    def _expand_home(self, text: str, use: Use) -> str:
        if not text.startswith("~"):
            return text
        user, slash, rest = text.partition("/")
        if user == "~":
            return f"{self._environment.home}{slash}{rest}"
        expanded = os.path.expanduser(text)
        if expanded == text:
            raise use.fault(f"no user '{user[1:]}' for '{text}' in {use.where}", code="symbol-undefined")
        return expanded

    def _hint_at_symbol(self, name: str) -> str:
        if name == "repo":
            return "it is the project's folder, and there is no project here"
        if not is_symbol(name):
            return f"'{name}' is a field or a reserved name; name a folder"
        from difflib import get_close_matches

        known = [symbol for symbol in (*BUILT_IN_ROOTS, *self._ladder.list_names()) if is_symbol(symbol)]
        near = get_close_matches(name, known, n=1)
        did_you_mean = f"did you mean '${near[0]}'? else " if near else ""
        return f"{did_you_mean}set it with 'dm config set {name} PATH' or DATAMANIFEST_{name.upper()}_DIR"


def split_expression(expression: str, use: Use) -> list[tuple[bool, str]]:
    """An expression as ``(is a name, text)`` parts; never empty. Raises `Malformed` for an unfinished ``${``."""
    parts: list[tuple[bool, str]] = []
    start = 0
    while (at := expression.find("$", start)) >= 0:
        braced = expression.startswith("{", at + 1)
        first = at + 2 if braced else at + 1
        end = first
        while end < len(expression) and (expression[end].isalnum() or expression[end] == "_"):
            end += 1
        if braced and (end == first or not expression.startswith("}", end)):
            message = f"unfinished '${{' in {use.where}: '{printable(expression)}'"
            raise use.fault(message, hint="write ${NAME}", code="symbol-malformed")
        if at > start:
            parts.append((False, expression[start:at]))
        # A dollar that names nothing is a character like any other.
        parts.append((True, expression[first:end]) if end > first else (False, "$"))
        start = end + 1 if braced else end
    if start < len(expression) or not parts:
        parts.append((False, expression[start:]))
    return parts
