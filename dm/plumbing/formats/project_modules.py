"""Import modules of a project: from their source alone, never from bytecode that came along.

A clone may hold ``__pycache__`` files of the unchecked kind (PEP 552), which Python runs without a look at the source
beside them: code that nobody saw, under the name of code that the user allowed. So modules below a project root are
found by a finder of our own, which reads and compiles the source (or loads an extension module) and neither reads nor
writes bytecode.

What is imported from a project root (SCHEMA.md, "Bindings"):

* the top-level name of a module that a binding names, where the project has it, also when the environment has one of
  that name; never a name of the standard library;
* any other top-level name that a module of the project imports, where the environment has none: the project root is at
  the end of ``sys.path``. Not for modules of the environment: many try to import what may be missing, and a file of
  that name in a project, which nobody named, must not run.

A module that the project does not have is imported from the environment alone, and the project stays out of it.

A module is imported once in a process: a source that changes later is not read again, as everywhere in Python, also
when the user has allowed the new one. Two projects may have modules of the same name: those of the project whose
binding is being called are the ones in ``sys.modules``; the others are kept and come back with their project's turn.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from importlib import import_module as import_by_name
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder, ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

from dm.errors import SourceFailed

# Guards everything below, and is held while a module is imported: imports of projects take turns.
_lock = threading.RLock()


class _SourceOnly(SourceFileLoader):
    """Compiles what the source says now; there is no bytecode for it, neither read nor written."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


#: As Python orders them, without the loader of bytecode.
_LOADERS: tuple[Any, ...] = ((ExtensionFileLoader, EXTENSION_SUFFIXES), (_SourceOnly, [".py"]))
_SUFFIXES = (*EXTENSION_SUFFIXES, ".py")


class _ProjectFinder:
    """The finder of projects' modules, before all others on ``sys.meta_path``."""

    def __init__(self) -> None:
        self.roots: list[str] = []
        #: top-level names that bindings named, with the root that each is imported from now
        self.claimed: dict[str, str] = {}
        #: top-level names found here, each with its root
        self.served: dict[str, str] = {}
        self.shelves: dict[str, dict[str, ModuleType]] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module below a project root; None for all others (`importlib.abc.MetaPathFinder`)."""
        top, _, below = name.partition(".")
        if below:
            root = self.served.get(top)
            if root is None or path is None:
                return None
            for folder in path:
                if os.path.realpath(folder).startswith(root + os.sep):
                    _keep_bytecode_out(folder)
            return _search(name, path)
        if name in sys.stdlib_module_names:
            return None
        claimed = self.claimed.get(name)
        for root in [claimed] if claimed is not None else self.roots:
            spec = _search(name, [root])
            if spec is None:
                continue
            if claimed is None and (not _is_asked_by_project() or self._is_in_environment(name)):
                return None
            self.served[name] = root
            return spec
        return None

    def _is_in_environment(self, name: str) -> bool:
        """Whether another finder knows a module, without the project roots on its path."""
        from importlib.machinery import PathFinder

        others = [entry for entry in sys.path if os.path.realpath(entry or ".") not in self.roots]
        for finder in sys.meta_path:
            if finder is PathFinder:
                spec = PathFinder.find_spec(name, others)
            elif finder is self:
                continue
            else:
                spec = finder.find_spec(name, None)
            if spec is not None and spec.loader is not None:
                return True
        return False

    def activate(self, root: str) -> None:
        """Make the modules of a project those of ``sys.modules``; another's of the same names are kept aside."""
        if self.roots[:1] == [root]:
            return
        for top, owner in list(self.served.items()):
            if owner != root and (os.path.isdir(os.path.join(root, top)) or _has_module(root, top)):
                self.shelves.setdefault(owner, {}).update(_take_modules(top))
                self.served.pop(top)
                self.claimed.pop(top, None)
        if root in self.roots:
            self.roots.remove(root)
        else:
            if root not in (os.path.realpath(entry or ".") for entry in sys.path):
                # Python's own finder finds nothing there: what may come from there comes from this one.
                sys.path_importer_cache[root] = _FindsNothing()
            sys.path.append(root)
        self.roots.insert(0, root)
        for name, module in self.shelves.pop(root, {}).items():
            sys.modules[name] = module
            self.served[name.partition(".")[0]] = root

    def claim(self, top: str, root: str) -> None:
        """Take a top-level name for a project; `SourceFailed` when this process has another module of that name."""
        present = sys.modules.get(top)
        if present is not None and self.served.get(top) != root:
            lies_at = _find_file(present)
            if lies_at is None or not _is_module_file(lies_at, os.path.join(root, top)):
                raise SourceFailed(
                    f"the module '{top}' of the project is hidden by that of '{lies_at or 'this process'}', "
                    "which is imported already",
                    hint="rename the project's module",
                    code="binding-broken",
                )
        self.claimed[top] = root
        self.served[top] = root


_finder = _ProjectFinder()


def import_module(name: str, *, project_root: Path) -> ModuleType:
    """Import a module that a binding names: from the project root where its top-level name lies there, else from the
    environment. Whoever calls this has the user's permission to run it.

    Raises `SourceFailed` for a name that stands for two things in the project or is taken in this process, and
    whatever the import raises.
    """
    root = os.path.realpath(project_root)
    with _lock:
        if _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)
        if _is_of_project(name, root):
            _finder.activate(root)
            _finder.claim(name.partition(".")[0], root)
        return import_by_name(name)


def _is_of_project(name: str, root: str) -> bool:
    """Whether a module's top-level name lies below the project root: a package, a file, or a folder with its next
    part in it.
    """
    top, _, rest = name.partition(".")
    if top in sys.stdlib_module_names:
        return False
    place = os.path.join(root, top)
    is_folder, is_file = os.path.isdir(place), _has_module(root, top)
    if is_folder and is_file and not _has_module(place, "__init__"):
        raise SourceFailed(
            f"'{top}' is both a file and a folder of the project", hint="rename one of them", code="binding-broken"
        )
    if not is_folder:
        return is_file
    following = rest.partition(".")[0]
    return _has_module(place, "__init__") or bool(
        following and (_has_module(place, following) or os.path.isdir(os.path.join(place, following)))
    )


def _has_module(folder: str, name: str) -> bool:
    return any(os.path.isfile(os.path.join(folder, name + suffix)) for suffix in _SUFFIXES)


class _FindsNothing:
    """The entry of a folder on ``sys.path`` in which Python's own finder is to find nothing."""

    def find_spec(self, name: str, target: ModuleType | None = None) -> ModuleSpec | None:
        return None

    def invalidate_caches(self) -> None:
        return None


def _is_asked_by_project() -> bool:
    """Whether the code that is importing, the nearest frame outside the import machinery, is a project's module."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if name != __name__ and name.partition(".")[0] != "importlib":
            return isinstance(getattr(frame.f_globals.get("__spec__"), "loader", None), _SourceOnly)
        frame = frame.f_back
    return False


def _keep_bytecode_out(folder: str) -> None:
    """Let Python's own finder, which is asked for what was not found here, not take a lone ``.pyc`` from a folder."""
    sys.path_importer_cache[folder] = FileFinder(folder, *_LOADERS)


def _is_module_file(file: str, place: str) -> bool:
    """Whether a module's file is that of the project's module at ``place`` (the path without a suffix)."""
    folder = os.path.realpath(place)
    if folder in (file, os.path.dirname(file)):
        return True
    return any(os.path.realpath(place + suffix) == file for suffix in _SUFFIXES)


def _search(name: str, folders: Sequence[str]) -> ModuleSpec | None:
    """The spec of a module in one of these folders; for a folder without ``__init__`` a namespace of those found."""
    portions: list[str] = []
    for folder in folders:
        spec = FileFinder(folder, *_LOADERS).find_spec(name)
        if spec is None:
            continue
        if spec.loader is not None:
            spec.cached = None
            return spec
        portions += spec.submodule_search_locations or []
    if not portions:
        return None
    namespace = ModuleSpec(name, None, is_package=True)
    namespace.submodule_search_locations = portions
    return namespace


def _find_file(module: ModuleType) -> str | None:
    """Where a module's file, or a namespace's first folder, lies; None for one without any."""
    file = getattr(module, "__file__", None)
    if file is None:
        file = next(iter(getattr(module, "__path__", [])), None)
    return None if file is None else os.path.realpath(file)


def _take_modules(top: str) -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name == top or name.startswith(top + ".")]
    return {name: sys.modules.pop(name) for name in names}
