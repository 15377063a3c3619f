"""Bindings: arguments, imports from a project and its environment, calls."""

from __future__ import annotations

import importlib._bootstrap_external
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from dm.errors import SourceFailed
from dm.plumbing.formats import project_modules
from dm.plumbing.formats.bindings import call_binding, call_fetcher, import_function, import_own, substitute
from dm.values import Binding, Permission

ALLOWED = Permission(None)


@pytest.fixture(autouse=True)
def own_modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Each test has its own finder, and leaves modules and path as they were."""
    before, path = dict(sys.modules), list(sys.path)
    served = project_modules._finder.served  # of tests that ran before in this process, in projects of their own
    for name in [name for name in sys.modules if name.partition(".")[0] in served]:
        del sys.modules[name]
    monkeypatch.setattr(project_modules, "_finder", project_modules._ProjectFinder())
    yield
    sys.meta_path[:] = [each for each in sys.meta_path if not isinstance(each, project_modules._ProjectFinder)]
    sys.path[:] = path
    for name in set(sys.modules) - set(before):
        module = sys.modules[name]
        places = [getattr(module, "__file__", None) or "", *getattr(module, "__path__", [])]
        if any(place.startswith(str(tmp_path)) for place in places):
            del sys.modules[name]
    sys.modules.update(before)


def write(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def call(root: Path, ref: str, *args: object, **variables: str) -> object:
    binding = Binding(ref, args, origin="[sst] loader")
    return call_binding(
        binding, project_root=root, variables=variables, conventional=lambda f: f("there"), permission=ALLOWED
    )


def fail_to_import(root: Path, ref: str) -> SourceFailed:
    with pytest.raises(SourceFailed) as caught:
        import_function(Binding(ref, origin="[sst] loader"), project_root=root, permission=ALLOWED)
    assert (5, "binding-broken") == (caught.value.exit_status, caught.value.code)
    return caught.value


# arguments


def test_variables_are_put_into_strings_at_any_depth_and_nowhere_else() -> None:
    value = ["$path", {"$path": "a/${path}/b", "n": 3, "deep": ["$key!", None, True, 1.5]}]
    expected = ["/d", {"$path": "a//d/b", "n": 3, "deep": ["k!", None, True, 1.5]}]
    assert expected == substitute(value, {"path": "/d", "key": "k"})


def test_the_longest_name_counts_and_what_was_put_in_is_not_looked_at_again() -> None:
    variables = {"path": "$key", "path_1": "one", "path_10": "ten", "key": "K"}
    assert "ten one0 $key $keyx K_v2" == substitute("$path_10 ${path_1}0 $path ${path}x $key_v2", variables)


def test_names_that_are_not_known_stay_as_they_are() -> None:
    objects: dict[str, object] = {"value": ["$key"]}
    texts = ["$value", "${value}", "$values $key", "x$value", "$$value", "${value", "$value}"]
    expected = [["$key"], ["$key"], "$values K", "x$value", "$$value", "${value", "$value}"]
    assert expected == substitute(texts, {"key": "K"}, objects=objects)
    assert "$nosuch ${nosuch} ${key $ $K ${}" == substitute("$nosuch ${nosuch} ${key $ $$key ${}", {"key": "K"})


def test_a_binding_with_arguments_is_called_with_them_and_nothing_else(tmp_path: Path) -> None:
    root = write(tmp_path, {"mine.py": "def f(*args, **kwargs): return args, kwargs"})
    binding = Binding("mine:f", ("$path", 2), {"kind": ["${key}"]})
    got = call_binding(
        binding,
        project_root=root,
        variables={"path": "/d", "key": "k"},
        conventional=lambda f: pytest.fail("called conventionally"),
        permission=ALLOWED,
    )
    assert (("/d", 2), {"kind": ["k"]}) == got


def test_a_binding_without_arguments_is_called_conventionally(tmp_path: Path) -> None:
    root = write(tmp_path, {"mine.py": "def f(path): return path.upper()"})
    assert "THERE" == call(root, "mine:f")


def test_what_a_function_raises_passes_through_as_it_is(tmp_path: Path) -> None:
    root = write(tmp_path, {"mine.py": "class Mine(Exception): pass\ndef f(path): raise Mine('no')"})
    with pytest.raises(Exception, match="no") as caught:
        call(root, "mine:f")
    assert "Mine" == type(caught.value).__name__


def test_nothing_is_imported_without_a_permission(tmp_path: Path) -> None:
    root = write(tmp_path, {"mine.py": "raise SystemExit('ran')"})
    with pytest.raises(TypeError, match="by a Permission only"):
        import_function(Binding("mine:f"), project_root=root, permission=None)  # type: ignore[arg-type]
    assert "mine" not in sys.modules


# imports


def test_dotted_attributes_and_nested_packages_with_relative_imports_are_found(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "pkg/__init__.py": "",
            "pkg/sub/__init__.py": "from ..helper import name",
            "pkg/sub/deep.py": "from . import name\nclass Readers:\n    @staticmethod\n    def read(path): return name",
            "pkg/helper.py": "name = 'relative'",
        },
    )
    assert "relative" == call(root, "pkg.sub.deep:Readers.read")


def test_a_folder_without_init_is_a_package_where_it_holds_the_module(tmp_path: Path) -> None:
    root = write(tmp_path, {"scripts/read.py": "from .also import f", "scripts/also.py": "def f(path): return 1"})
    assert 1 == call(root, "scripts.read:f")


def test_a_data_folder_named_like_a_library_does_not_hide_it(tmp_path: Path) -> None:
    write(tmp_path, {"numpy/data.txt": ""})
    function = import_function(Binding("numpy:asarray"), project_root=tmp_path, permission=ALLOWED)
    assert [1] == list(function([1]))  # type: ignore[call-overload]


def test_a_file_and_a_folder_of_one_name_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path, {"two.py": "def f(path): pass", "two/x.py": ""})
    expected = "cannot use 'two:f' ([sst] loader): 'two' is both a file and a folder of the project"
    assert expected == str(fail_to_import(root, "two:f"))


def test_a_module_that_a_project_does_not_have_comes_from_the_environment(tmp_path: Path) -> None:
    assert "there" == call(tmp_path, "posixpath:normpath")


def test_a_project_file_never_hides_the_standard_library(tmp_path: Path) -> None:
    root = write(tmp_path, {"json.py": "loads = 1", "wave.py": "raise Exception('ran')", "mine.py": "import wave"})
    assert json.loads is import_function(Binding("json:loads"), project_root=root, permission=ALLOWED)
    sys.modules.pop("wave", None)
    import_function(Binding("mine:wave.open"), project_root=root, permission=ALLOWED)
    assert not sys.modules["wave"].__file__.startswith(str(root))  # type: ignore[union-attr]


def test_other_modules_of_the_project_are_found_after_those_of_the_environment(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "mine.py": "import helper_of_mine, tomlkit\ndef f(path): return helper_of_mine.x, tomlkit.__file__",
            "helper_of_mine.py": "x = 5",
            "tomlkit.py": "raise Exception('hid the environment')",
        },
    )
    sys.modules.pop("tomlkit", None)
    number, file = call(root, "mine:f")  # type: ignore[misc]
    assert 5 == number
    assert not file.startswith(str(root))
    assert str(root) == sys.path[-1]


def test_a_library_that_tries_an_optional_import_does_not_get_a_file_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = "def f(path):\n try:\n  import optional_extra\n except ImportError:\n  return 'without'\n"
    write(tmp_path / "environment", {"a_library.py": library})
    monkeypatch.syspath_prepend(str(tmp_path / "environment"))
    root = write(
        tmp_path / "project",
        {
            "optional_extra.py": "raise Exception('ran')",
            "pkg/__init__.py": "import a_library\ndef f(path): return a_library.f(path)",
        },
    )
    assert "without" == call(root, "a_library:f")
    assert str(root) not in sys.path
    assert "without" == call(root, "pkg:f")
    assert str(root) == sys.path[-1]


def test_a_project_that_the_process_has_on_its_path_already_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(tmp_path, {"mine.py": "def f(path): return 1", "scripts_own.py": "x = 1"})
    monkeypatch.syspath_prepend(str(root))
    call(root, "mine:f")
    import scripts_own  # type: ignore[import-not-found]

    assert 1 == scripts_own.x


def test_bytecode_that_came_with_a_clone_never_runs(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "pkg/__init__.py": "",
            "pkg/inner.py": "def f(path): return 'source'",
            "mine.py": "import beside, pkg.inner\ndef f(path): return beside.who, pkg.inner.f(path)",
            "beside.py": "who = 'source'",
        },
    )
    evil = compile("who = 'bytecode'\ndef f(path): return 'bytecode'", "evil", "exec")
    for source in ("mine.py", "beside.py", "pkg/__init__.py", "pkg/inner.py"):
        # An unchecked hash-based .pyc (PEP 552): Python's own finder takes it without a look at the source.
        data = importlib._bootstrap_external._code_to_hash_pyc(evil, b"12345678", False)
        cached = Path(importlib.util.cache_from_source(str(root / source)))
        cached.parent.mkdir(exist_ok=True)
        cached.write_bytes(data)
    control = subprocess.run(
        [sys.executable, "-c", "import beside; print(beside.who)"],
        cwd=root, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(root)},
    )  # fmt: skip
    assert "bytecode" == control.stdout.strip()
    assert ("source", "source") == call(root, "mine:f")
    assert "source" == call(root, "pkg.inner:f")


def test_bytecode_without_a_source_is_no_module(tmp_path: Path) -> None:
    evil = compile("def f(path): return 'bytecode'", "evil", "exec")
    data = importlib._bootstrap_external._code_to_hash_pyc(evil, b"12345678", False)
    (tmp_path / "lonely.pyc").write_bytes(data)
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("")
    (tmp_path / "pkg" / "lonely.pyc").write_bytes(data)
    assert "No module named 'lonely'" in str(fail_to_import(tmp_path, "lonely:f"))
    assert "No module named 'pkg.lonely'" in str(fail_to_import(tmp_path, "pkg.lonely:f"))


def test_importing_leaves_no_bytecode_in_the_project(tmp_path: Path) -> None:
    root = write(tmp_path, {"pkg/__init__.py": "", "pkg/m.py": "def f(path): return 1"})
    call(root, "pkg.m:f")
    assert [] == list(root.rglob("*.pyc"))


def test_importing_twice_gives_the_same_module_also_when_its_source_changed(tmp_path: Path) -> None:
    root = write(tmp_path, {"mine.py": "def f(path): return object"})
    first = import_function(Binding("mine:f"), project_root=root, permission=ALLOWED)
    write(root, {"mine.py": "def f(path): return 'changed'"})
    assert first is import_function(Binding("mine:f"), project_root=root, permission=ALLOWED)


def test_a_module_that_the_process_imported_from_the_project_itself_is_that_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(tmp_path, {"mine.py": "def f(path): return 1", "pkg/__init__.py": "", "pkg/m.py": "def g(path): 0"})
    monkeypatch.syspath_prepend(str(root))
    import mine  # type: ignore[import-not-found]
    import pkg  # type: ignore[import-not-found]

    assert mine.f is import_function(Binding("mine:f"), project_root=root, permission=ALLOWED)
    call(root, "pkg.m:g")
    assert pkg is sys.modules["pkg"]


def test_two_projects_with_modules_of_one_name_each_get_their_own(tmp_path: Path) -> None:
    one = write(tmp_path / "one", {"readers.py": "import names\ndef f(path): return names.x", "names.py": "x = 1"})
    two = write(tmp_path / "two", {"readers.py": "import names\ndef f(path): return names.x", "names.py": "x = 2"})
    first = import_function(Binding("readers:f"), project_root=one, permission=ALLOWED)
    assert [1, 2, 1, 2] == [call(root, "readers:f") for root in (one, two, one, two)]
    assert first is import_function(Binding("readers:f"), project_root=one, permission=ALLOWED)


def test_a_module_of_that_name_from_elsewhere_is_not_taken_for_the_projects(tmp_path: Path) -> None:
    import tomlkit

    root = write(tmp_path, {"tomlkit.py": "def f(path): pass"})
    error = fail_to_import(root, "tomlkit:f")
    expected = (
        f"cannot use 'tomlkit:f' ([sst] loader): the module 'tomlkit' of the project is hidden by that of "
        f"'{os.path.realpath(tomlkit.__file__)}', which is imported already"
    )
    assert (expected, "rename the project's module") == (str(error), error.hint)


def test_threads_that_import_at_once_get_one_module(tmp_path: Path) -> None:
    text = "import time\ntime.sleep(0.05)\nmade = object()\ndef f(path): return made"
    root = write(tmp_path, {"slow.py": text})
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(call(root, "slow:f"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (8, 1) == (len(found), len(set(map(id, found))))


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        ("json", "it is not of the form 'module:function'"),
        (":loads", "it is not of the form 'module:function'"),
        ("json:", "it is not of the form 'module:function'"),
        ("../evil:f", "it is not of the form 'module:function'"),
        (".rel:f", "it is not of the form 'module:function'"),
        ("json:loads()", "it is not of the form 'module:function'"),
        ("nosuch_module:f", "ModuleNotFoundError: No module named 'nosuch_module'"),
        ("json:nosuch", "there is no 'nosuch' in it"),
        ("json:decoder.nosuch", "there is no 'nosuch' in it"),
        ("json:__name__", "it is no function, but of type 'str'"),
        ("raises:f", "ValueError: first line"),
        ("exits:f", "SystemExit: 3"),
        ("wrong:f", "SyntaxError: invalid syntax (wrong.py, line 1)"),
    ],
)
def test_a_broken_binding_is_told_with_its_origin_and_reason(tmp_path: Path, ref: str, reason: str) -> None:
    root = write(
        tmp_path,
        {"raises.py": "raise ValueError('first line\\nsecond')", "exits.py": "exit(3)", "wrong.py": "def f(:"},
    )
    error = fail_to_import(root, ref)
    assert f"cannot use '{ref}' ([sst] loader): {reason}" == str(error)
    assert (error.__cause__ is None) == ("of the form" in reason or "no function" in reason)


# the caller's own


def test_the_callers_own_string_is_never_looked_for_in_a_project(tmp_path: Path) -> None:
    root = write(tmp_path, {"mine.py": "def f(path): return 1", "callers_own.py": "raise Exception('ran')"})
    assert json.loads is import_own("json:loads", origin="loader")
    with pytest.raises(SourceFailed, match=r"cannot use 'callers_own:f' \(loader\): ModuleNotFoundError"):
        import_own("callers_own:f", origin="loader")
    assert root.exists()


# the conventional call of a fetcher

CONTEXT = {"download_path": "/p", "project_root": "/r", "uri": "u", "key": "k"}


def test_a_fetcher_gets_the_keywords_that_it_names() -> None:
    assert "/p u" == call_fetcher(lambda download_path, uri: f"{download_path} {uri}", CONTEXT)
    assert ("k", 1) == call_fetcher(lambda *, key, other=1: (key, other), CONTEXT)
    assert () == call_fetcher(lambda *args: args, CONTEXT)


def test_a_fetcher_with_open_keywords_gets_all() -> None:
    assert CONTEXT == call_fetcher(lambda **context: context, CONTEXT)
    assert ("k", set(CONTEXT) - {"key"}) == call_fetcher(lambda key, **others: (key, set(others)), CONTEXT)
    assert ("/p", set(CONTEXT) - {"download_path"}) == call_fetcher(
        lambda download_path, /, **others: (download_path, set(others)), CONTEXT
    )


def test_a_fetcher_that_tells_no_signature_gets_all() -> None:
    assert CONTEXT == call_fetcher(dict, CONTEXT)


def test_a_fetcher_that_asks_for_something_else_is_broken() -> None:
    with pytest.raises(SourceFailed) as caught:
        call_fetcher(lambda path: None, CONTEXT)
    assert "a fetcher asks for 'path', which it is not given" == str(caught.value)
    hint = "it may name download_path, project_root, uri, key; or give it 'args' and 'kwargs' in the manifest"
    assert (hint, "binding-broken") == (caught.value.hint, caught.value.code)
