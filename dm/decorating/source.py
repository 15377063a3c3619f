"""The digest of a function's source: the same for the same code, however it is laid out.

It is taken from the syntax tree, not from the text: comments, line breaks, quotes, brackets and commas that mean
nothing do not enter. Nor do the docstring, decorators, type annotations and the function's own name, or the defaults of
its parameters (what they are is in the key of each result). What the function calls is not looked at.
"""

from __future__ import annotations

import ast
import inspect
import os
from collections.abc import Callable, Iterator
from typing import Any

from dm.plumbing import hashing

#: What a digest begins with; another number would mean another way to take it, and that two cannot be compared.
SCHEME = "python-1"
#: Fields of the tree that differ between versions of Python, or say nothing of what is computed.
_SILENT_FIELDS = frozenset({"annotation", "ctx", "kind", "returns", "type_comment"})

_Function = ast.FunctionDef | ast.AsyncFunctionDef
#: A file's modification time (ns), size and inode.
Stamp = tuple[int, int, int]


class Source:
    """The source of one function as of now, digested when it is first asked for.

    Made at decoration. When the file has been edited by the time the digest is asked for, what it says is no longer
    what runs, and there is none.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._file = _find_file(function)
        self._stamp = _read_stamp(self._file)
        self._digest: str | None = None
        self._is_read = False

    def __getstate__(self) -> dict[str, Any]:
        self.digest()  # another process has not the notebook's cell that it is read from
        return self.__dict__

    def digest(self) -> str | None:
        """``python-1:<hex>``; None where there is no source (typed at a prompt, compiled, a lambda)."""
        if not self._is_read:
            if _read_stamp(self._file) == self._stamp:
                self._digest = digest_source(self._function)
            self._is_read = True
        return self._digest


def digest_source(function: Callable[..., Any]) -> str | None:
    """The digest of what a function's source says now; None where there is none, or it cannot be parsed."""
    try:
        text = inspect.getsource(function)
        tree = ast.parse(f"if 1:\n{text}" if text[:1] in " \t" else text)
        found = next((node for node in ast.walk(tree) if isinstance(node, _Function)), None)
        if found is None:
            return None
        code = "".join(_encode_outermost(found))
    except (OSError, TypeError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return f"{SCHEME}:{hashing.blake3_of(code.encode('utf-8', 'surrogatepass')).hex()}"


def _encode_outermost(node: _Function) -> Iterator[str]:
    yield f"{type(node).__name__}("
    yield from (f"{kind}:{name} " for kind, name in _list_parameters(node.args))
    yield from _encode(_without_docstring(node.body))
    yield ")"


def _list_parameters(parameters: ast.arguments) -> Iterator[tuple[str, str]]:
    for kind, group in (
        ("positional", parameters.posonlyargs),
        ("any", parameters.args),
        ("rest", [parameters.vararg]),
        ("keyword", parameters.kwonlyargs),
        ("others", [parameters.kwarg]),
    ):
        yield from ((kind, each.arg) for each in group if each is not None)


def _encode(value: object) -> Iterator[str]:
    """A tree as text: types and fields by name, empty ones left out, since newer Pythons add fields that are empty."""
    if isinstance(value, ast.AST):
        yield f"{type(value).__name__}("
        for name, part in sorted(ast.iter_fields(value)):
            if name == "body" and isinstance(value, _Function):
                part = _without_docstring(value.body)
            if name in _SILENT_FIELDS or part is None or part == []:
                continue
            yield f"{name}="
            yield from _encode(part)
        yield ")"
    elif isinstance(value, list):
        yield "["
        for part in value:
            yield from _encode(part)
        yield "]"
    else:
        yield f"{type(value).__name__}:{value!r} "


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return body[1:]
    return body


def _find_file(function: Callable[..., Any]) -> str | None:
    try:
        return inspect.getsourcefile(inspect.unwrap(function))
    except (TypeError, ValueError):
        return None


def _read_stamp(file: str | None) -> Stamp | None:
    """When the file was last written; None for one that is not there, like a notebook's cell."""
    if file is None:
        return None
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
