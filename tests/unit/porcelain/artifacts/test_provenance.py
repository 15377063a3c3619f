"""What is told of where an artifact comes from."""

from __future__ import annotations

import importlib.util
import os
import pwd
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from dm.environment import Environment
from dm.plumbing.records.sidecars import decode_metadata, encode_metadata
from dm.porcelain.artifacts.provenance import find_user_name, read_packages, read_provenance, tell_runtime
from dm.version import __version__
from tests.fixtures.machine import needs
from tests.fixtures.sinks import RecordingProgress


def environment(**variables: str) -> Environment:
    return Environment(variables, Path("/nonexistent"), Path("/nonexistent"), "stokes", 1)


def test_the_tool_the_machine_the_user_and_the_runtime_are_told(tmp_path: Path) -> None:
    found = read_provenance(tmp_path, environment=environment(USER="ada"))
    version = ".".join(map(str, sys.version_info[:3]))
    assert (f"dm {__version__}", "stokes", "ada", f"Python {version}") == found[1:5]
    assert ({}, {}) == (found.git, found.packages)
    assert found == decode_metadata(encode_metadata(found))


def test_another_implementation_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.implementation, "name", "pypy")
    assert tell_runtime().endswith(" (pypy)")


def test_a_user_without_variables_is_in_the_password_database() -> None:
    assert pwd.getpwuid(os.getuid()).pw_name == find_user_name(environment())


def test_a_user_whom_nobody_knows_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 3_999_999_999)
    assert "3999999999" == find_user_name(environment())


def test_a_broken_repository_is_told_once_and_left_out(tmp_path: Path) -> None:
    needs("git")
    from dulwich.repo import Repo

    Repo.init(tmp_path).close()
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / ".git" / "refs" / "heads" / "main").write_text("no commit\n")
    progress = RecordingProgress()
    for _ in range(2):
        found = read_provenance(tmp_path, environment=environment(), progress=progress)
        assert {} == found.git
    told = f"the commit of the repository at '{tmp_path}' cannot be told: its HEAD names no commit; left out"
    assert [told] == progress.warnings


LoadModule = Callable[[str, str], ModuleType]


@pytest.fixture
def load_module(tmp_path: Path) -> Iterator[LoadModule]:
    """Loads a module from its text, below the project's root or (``package/…``) elsewhere."""
    names = []

    def load(name: str, text: str) -> ModuleType:
        folder = tmp_path / ("site-packages" if "package" in name else "project")
        folder.mkdir(exist_ok=True)
        file = folder / f"{name}.py"
        file.write_text(text)
        specification = importlib.util.spec_from_file_location(name, file)
        assert specification is not None and specification.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(specification)
        names.append(name)
        specification.loader.exec_module(module)
        return module

    yield load
    for name in names:
        del sys.modules[name]


def test_the_versions_are_those_of_what_the_module_and_the_projects_own_use(
    tmp_path: Path, load_module: LoadModule
) -> None:
    load_module("first_package", "__version__ = '1.1'\nclass Grid: pass\n")
    load_module("second_package", "__version__ = '2.2'\n")
    load_module("third_package", "__version__ = '3.3'\n")
    load_module("fourth_package", "__version__ = '4.4'\n")
    load_module("unused_package", "__version__ = '5.5'\n")
    load_module("odd_package", "__version__ = (6, 6)\n")
    load_module("own_part", "import json\nfrom first_package import Grid\n")
    load_module(
        "own_main",
        "import functools, own_part, odd_package\n"
        "import second_package as s\n"
        "def wrap(f):\n"
        "    @functools.wraps(f)\n"
        "    def call(): return f()\n"
        "    return call\n"
        "def f():\n"
        "    import third_package\n"
        "@wrap\n"
        "def g():\n"
        "    def inner():\n"
        "        from fourth_package import x\n",
    )
    packages = {
        "first_package": "1.1",
        "fourth_package": "4.4",
        "second_package": "2.2",
        "third_package": "3.3",
    }
    assert packages == read_packages("own_main", tmp_path / "project")


def test_globals_that_answer_to_any_name_do_no_harm(tmp_path: Path, load_module: LoadModule) -> None:
    load_module("first_package", "__version__ = '1.1'\nclass Grid: pass\ngrid = Grid()\n")
    load_module(
        "own_main",
        "from first_package import grid\n"
        "class Any:\n"
        "    def __getattr__(self, name): raise RuntimeError(name)\n"
        "any = Any()\n",
    )
    assert {"first_package": "1.1"} == read_packages("own_main", tmp_path / "project")


def test_a_module_that_is_not_loaded_uses_nothing(tmp_path: Path) -> None:
    assert {} == read_packages("no.such.module", tmp_path)
