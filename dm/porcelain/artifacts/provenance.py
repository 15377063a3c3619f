"""Where an artifact comes from: the tool, the machine, the user, the commit of the project, the versions of packages.

It is told in ``metadata.toml`` for people; nothing is judged by it, so that nothing here stops a computation.
"""

from __future__ import annotations

import inspect
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

from dm.environment import Environment
from dm.plumbing.records.sidecars import Metadata
from dm.plumbing.transport.git.provenance import WorkingTree, WorkingTrees
from dm.progress import SILENT, Progress
from dm.values import printable
from dm.version import __version__

#: So many modules of the project are searched for what they import.
_MODULES_MAX = 200


def read_provenance(
    project_root: Path, *, environment: Environment, module_name: str | None = None, progress: Progress = SILENT
) -> Metadata:
    """Where what is computed now, in this process, for the project at ``project_root`` comes from.

    Best asked before the computation. ``created``, ``duration_s``, ``state_file`` and ``code_digest`` are the caller's
    to fill in. ``git`` is empty outside a repository, has no ``branch`` on a detached HEAD, and no ``dirty`` where that
    was not found out; how old its facts may be is in `dm.plumbing.transport.git.provenance`. ``module_name`` is the
    module of the function that computes, for `read_packages`.

    What is wrong with the repository is told to ``progress`` once in a process, and its facts are left out. Raises
    nothing.
    """
    return Metadata(
        tool=f"dm {__version__}",
        host=environment.host_name,
        user=find_user_name(environment),
        runtime=tell_runtime(),
        git=_read_git(project_root, progress),
        packages={} if module_name is None else read_packages(module_name, project_root),
    )


def find_user_name(environment: Environment) -> str:
    """The user's login name: from the variables that hold it, else from the password database, else their number."""
    for variable in ("LOGNAME", "USER"):
        name = environment.get(variable)
        if name is not None:
            return name
    import pwd

    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:  # a container with a number of its own
        return str(number)


def tell_runtime() -> str:
    """What runs the function, like ``Python 3.11.2``; with the implementation's name where that is not CPython."""
    told = f"Python {'.'.join(map(str, sys.version_info[:3]))}"
    name = sys.implementation.name
    return told if name == "cpython" else f"{told} ({name})"


_trees = WorkingTrees()
_told: set[Path] = set()
_told_lock = threading.Lock()


def _read_git(project_root: Path, progress: Progress) -> dict[str, str | bool]:
    tree = _trees.read(project_root)
    if tree is None:
        return {}
    if tree.fault is not None:
        with _told_lock:
            is_new = project_root not in _told
            _told.add(project_root)
        if is_new:
            what = "commit" if tree.commit is None else "changed files"
            where = printable(str(project_root))
            progress.warn(f"the {what} of the repository at '{where}' cannot be told: {tree.fault}; left out")
    return tell_git(tree)


def tell_git(tree: WorkingTree) -> dict[str, str | bool]:
    """The fields of ``[git]``: those that are known."""
    known = {"commit": tree.commit, "branch": tree.branch, "dirty": tree.dirty}
    return {} if tree.commit is None else {name: value for name, value in known.items() if value is not None}


def read_packages(module_name: str, project_root: Path) -> dict[str, str]:
    """The versions of the packages that a module uses, by import name.

    Those that it, its functions, and the modules of the project that it uses in turn, name and that are loaded; the
    standard library has none. A version is what the package says as ``__version__``: nothing is imported and no file is
    read. A package without one is left out. The answer is kept while no other module is loaded.
    """
    key = (module_name, project_root, len(sys.modules))
    if key not in _packages:
        _packages.clear()
        _packages[key] = _find_packages(module_name, project_root)
    return dict(_packages.get(key, {}))


_packages: dict[tuple[str, Path, int], dict[str, str]] = {}


def _find_packages(module_name: str, project_root: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    root = os.path.join(project_root, "")
    first = _find_module(module_name)
    waiting = [] if first is None else [first]
    seen: set[int] = set()
    while waiting and len(seen) < _MODULES_MAX:
        module = waiting.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        for name in set(_list_used_modules(module)):
            used = sys.modules.get(name)
            top = name.partition(".")[0]
            if used is None or top in sys.stdlib_module_names:
                continue
            if _is_of_project(used, root):
                waiting.append(used)
            elif top not in found and isinstance(version := vars(sys.modules.get(top, used)).get("__version__"), str):
                found[top] = version
    return dict(sorted(found.items()))


def _find_module(name: str) -> ModuleType | None:
    """A loaded module; one that was started with ``python -m`` is loaded as ``__main__``."""
    module = sys.modules.get(name)
    if module is None:
        main = sys.modules.get("__main__")
        specification = getattr(main, "__spec__", None)
        if specification is not None and specification.name == name:
            return main
    return module


def _is_of_project(module: ModuleType, root: str) -> bool:
    """Whether a module is the project's own code: below its root, and not installed into it."""
    file = vars(module).get("__file__")
    return isinstance(file, str) and file.startswith(root) and "site-packages" not in file


def _list_used_modules(module: ModuleType) -> Iterator[str]:
    """Names of modules that a module's globals are, or come from, and that the code of its functions names."""
    for value in list(vars(module).values()):
        if isinstance(value, ModuleType):
            yield value.__name__
            continue
        # Not asked of the value itself: one that makes up its attributes has any.
        inner = inspect.unwrap(value) if inspect.getattr_static(value, "__wrapped__", None) is not None else value
        source = inner if isinstance(inner, type | FunctionType) else type(inner)
        home = getattr(source, "__module__", None)
        if isinstance(home, str) and home != module.__name__:
            yield home
        elif isinstance(inner, FunctionType):
            yield from _list_names(inner.__code__)


def _list_names(code: CodeType) -> Iterator[str]:
    """The names in a function's code: those of what it imports are among them."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _list_names(constant)
