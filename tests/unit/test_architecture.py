"""What docs/architecture.md says of the code and import-linter cannot see."""

from __future__ import annotations

import ast
import configparser
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGE = CHECKOUT / "dm"
MODULES = sorted(PACKAGE.rglob("*.py"))
BELOW_THE_CLI = [
    path
    for path in MODULES
    if not path.is_relative_to(PACKAGE / "plumbing" / "cli")
    and not path.is_relative_to(PACKAGE / "porcelain" / "cli")
    and path != PACKAGE / "__main__.py"
]
#: Names of what only the command line may touch: the terminal, and the surroundings that come as an Environment.
LOUD_CALLS = {"print", "input", "breakpoint"}
SURROUNDINGS = {
    "os": {"environ", "environb", "getenv", "getenvb", "getcwd", "getcwdb", "putenv", "chdir"},
    "os.path": {"expanduser", "expandvars"},
    "sys": {"stdout", "stderr", "stdin", "argv", "exit"},
    "Path": {"cwd", "home"},
    "pathlib.Path": {"cwd", "home"},
    "socket": {"gethostname", "getfqdn"},
    "platform": {"node"},
}
ALLOWED = {
    PACKAGE / "environment.py": {"os.environ", "os.environb", "os.getcwd", "Path.cwd", "os.path.expanduser"},
    # ``~user`` asks the password database; ``~`` itself is the environment's home
    PACKAGE / "plumbing" / "records" / "expressions.py": {"os.path.expanduser"},
}


def name_of(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def find_loud_words(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in LOUD_CALLS:
            yield node.lineno, f"{node.func.id}()"
        elif isinstance(node, ast.Attribute) and node.attr in SURROUNDINGS.get(ast.unparse(node.value), ()):
            yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and node.module in SURROUNDINGS:
            for alias in node.names:
                if alias.name in SURROUNDINGS[node.module]:
                    yield node.lineno, f"from {node.module} import {alias.name}"


def test_the_search_below_finds_each_kind_of_loud_word() -> None:
    code = """
import os, sys
from os import environ, path
from pathlib import Path
def shout():
    print(os.environ["HOME"], file=sys.stderr)
    return Path.home(), os.path.expanduser("~"), input()
"""
    expected = {"print()", "os.environ", "sys.stderr", "Path.home", "os.path.expanduser", "input()"}
    assert expected | {"from os import environ"} == {word for _, word in find_loud_words(ast.parse(code))}


@pytest.mark.parametrize("path", BELOW_THE_CLI, ids=name_of)
def test_the_library_is_mute_and_reads_no_surroundings(path: Path) -> None:
    found = find_loud_words(ast.parse(path.read_text(encoding="utf-8")))
    assert [] == [(line, word) for line, word in found if word not in ALLOWED.get(path, set())]


def find_permissions(tree: ast.AST) -> Iterator[int]:
    """Lines that make, or take hold of the maker of, a `Permission`: every use of the name but as a type."""
    types = {
        id(part)
        for node in ast.walk(tree)
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if annotation is not None
        for part in ast.walk(annotation)
    }
    types |= {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance"
        for part in ast.walk(node.args[1])
    }
    # ``Callable[[Permission], …]`` as an alias of a type
    types |= {id(part) for node in ast.walk(tree) if isinstance(node, ast.Subscript) for part in ast.walk(node.slice)}
    for node in ast.walk(tree):
        named = isinstance(node, ast.Name) and node.id == "Permission"
        if (named or (isinstance(node, ast.Attribute) and node.attr == "Permission")) and id(node) not in types:
            yield node.lineno
        elif isinstance(node, ast.Constant) and node.value == "Permission":
            yield node.lineno  # getattr(values, "Permission")
        elif isinstance(node, ast.alias) and node.name == "Permission" and node.asname is not None:
            yield node.lineno


def test_only_trust_makes_a_permission() -> None:
    code = """
from dm.values import Permission, Permission as P
import dm.values
def run(permission: Permission) -> Callable[[Permission], None]:
    isinstance(permission, Permission)
    Permission(None), dm.values.Permission(None), P(None), getattr(dm.values, "Permission")
    make = Permission
"""
    assert [2, 6, 6, 6, 7] == sorted(find_permissions(ast.parse(code)))
    makers = {name_of(path) for path in MODULES if list(find_permissions(ast.parse(path.read_text(encoding="utf-8"))))}
    assert {"dm/plumbing/records/trust.py"} == makers


def test_no_module_is_named_for_nothing_or_after_the_standard_library() -> None:
    empty = {"utils", "util", "helpers", "helper", "misc", "common", "tools", "lib", "core", "base"}
    # dm.plumbing.formats.tarfile and the like would read as the standard library's.
    names = {path: path.parent.name if path.stem == "__init__" else path.stem for path in MODULES}
    assert [] == [name_of(path) for path, name in names.items() if name in empty]
    allowed = {"__main__", "select"}  # the selection grammar; nothing here waits for descriptors
    assert [] == [name_of(path) for path, name in names.items() if name in sys.stdlib_module_names - allowed]


def test_init_files_hold_no_code_but_the_packages_own() -> None:
    for path in MODULES:
        if path.name != "__init__.py" or path == PACKAGE / "__init__.py":
            continue
        body = ast.parse(path.read_text(encoding="utf-8")).body
        kinds = [type(node).__name__ for node in body if not isinstance(node, ast.Expr | ast.Import | ast.ImportFrom)]
        assert (name_of(path), []) == (name_of(path), [kind for kind in kinds if kind != "Assign"])


def test_every_module_has_a_floor_in_the_import_contract() -> None:
    """A module that the contract does not name would be free to import anything."""
    contracts = configparser.ConfigParser(inline_comment_prefixes=("#",))
    contracts.read(CHECKOUT / ".importlinter")
    floors = set(re.findall(r"dm[\w.]+", contracts["importlinter:contract:floors"]["layers"]))
    unnamed = []
    for path in MODULES:
        parts = path.relative_to(CHECKOUT).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        is_named = any(module == floor or module.startswith(floor + ".") for floor in floors)
        is_parent = path.name == "__init__.py" and any(floor.startswith(module + ".") for floor in floors)
        if not is_named and not is_parent:
            unnamed.append(module)
    assert [] == unnamed
