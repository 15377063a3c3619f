"""The digest of a function's source: the same for the same code, another for other code."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dm.decorating.source import Source, digest_source


def load_module(path: Path, text: str) -> ModuleType:
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    exec(compile(text, path, "exec"), module.__dict__)
    return module


def digest_of(folder: Path, text: str) -> str | None:
    path = folder / f"m{len(list(folder.iterdir()))}.py"
    found: Callable[..., Any] = load_module(path, text).f
    return digest_source(found)


PLAIN = "def f(a, b=1):\n    x = a + 'k'\n    return x\n"
SAME = [
    'def f(a, b=1):\n    """Says what."""\n\n    # why\n    x = a + "k"  # here\n    return x\n',
    "def f(\n  a,\n  b=2,\n):\n\tx = (a\n\t  + 'k')\n\treturn (x)\n",
    "def f(a: str, b: int = 1) -> str:\n    x = a + 'k'\n    return x\n",
    "from functools import cache as c\n@c\n@c\ndef f(a, b=1):\n    x = a + 'k'\n    return x\n",
    "def g(a, b=1):\n    x = a + 'k'\n    return x\nf = g\n",
    "class C:\n    @staticmethod\n    def f(a, b=1):\n        x = a + 'k'\n        return x\nf = C.f\n",
]
OTHER = [
    "def f(a, b=1):\n    x = a + 'l'\n    return x\n",
    "def f(a, b=1):\n    x = a + b'k'\n    return x\n",
    "def f(a, b=1):\n    x = a + 'k'\n    return\n",
    "def f(a, c=1):\n    x = a + 'k'\n    return x\n",
    "def f(a, *, b=1):\n    x = a + 'k'\n    return x\n",
    "async def f(a, b=1):\n    x = a + 'k'\n    return x\n",
    "def f(a, b=1):\n    if a:\n        x = a + 'k'\n    return x\n",
]


@pytest.mark.parametrize("text", SAME)
def test_what_means_the_same_has_one_digest(tmp_path: Path, text: str) -> None:
    assert digest_of(tmp_path, PLAIN) == digest_of(tmp_path, text)


@pytest.mark.parametrize("text", OTHER)
def test_what_computes_otherwise_has_another(tmp_path: Path, text: str) -> None:
    assert digest_of(tmp_path, PLAIN) != digest_of(tmp_path, text)


def test_inner_functions_count_without_what_is_said_of_them(tmp_path: Path) -> None:
    bare = "def f():\n    def g(x):\n        return x\n    return g(1)\n"
    told = "def f():\n    def g(x: int) -> int:\n        'Says.'\n        return x\n    return g(1)\n"
    other = "def f():\n    def g(x):\n        return x + 1\n    return g(1)\n"
    assert digest_of(tmp_path, bare) == digest_of(tmp_path, told) != digest_of(tmp_path, other)


def test_the_digest_is_what_every_python_gives(tmp_path: Path) -> None:
    """A frozen sample: a digest that moves with the Python version would warn of code that nobody changed."""
    text = (
        "def f(a, *, b, **c):\n"
        "    total = [1.5, 1e3, -2, 0x10, True, None, ..., b'\\x00', 'é', 3j]\n"
        "    for i, (x, y) in enumerate(zip(a, b, strict=True)):\n"
        "        total.append(f'{x!r:>{i}} {y=}' 'tail')\n"
        "    with open(c['name']) as file:\n"
        "        total += [line for line in file if (n := len(line)) > 3]\n"
        "    match total:\n"
        "        case [first, *_] if first: return first[1:2, ::3]\n"
        "        case {'k': v, **rest}: return lambda q=1: q @ v\n"
        "    try:\n        pass\n    except* (OSError, ValueError) as error:\n        raise KeyError from error\n"
    )
    expected = "python-1:088ea96382ba3acc018213fd52e98daeaf591fd8d17c6ec2ddebc0f52ecdbec4"
    assert digest_of(tmp_path, text) == expected


@pytest.mark.parametrize("name", ["len", "typed", "lambda"])
def test_where_there_is_no_source_there_is_no_digest(name: str) -> None:
    scope: dict[str, Any] = {}
    exec("def typed(a):\n    return a\n", scope)
    functions: dict[str, Callable[..., Any]] = {"len": len, "typed": scope["typed"], "lambda": lambda a: a}
    assert Source(functions[name]).digest() is None


def test_source_that_was_edited_since_it_was_imported_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    function = load_module(path, PLAIN).f
    same, edited = Source(function), Source(function)
    assert same.digest() == digest_source(function)
    path.write_text(PLAIN.replace("'k'", "'other'"), encoding="utf-8")
    assert edited.digest() is None
    assert same.digest() is not None


def test_code_that_is_too_deep_has_no_digest(tmp_path: Path) -> None:
    text = "def f(a):\n    return " + "+".join(["a"] * sys.getrecursionlimit()) + "\n"
    assert digest_of(tmp_path, text) is None
    assert os.listdir(tmp_path) == ["m0.py"]
