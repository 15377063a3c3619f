"""A manifest that names how results are written and read: a saver and a loader for a format that dm does not know."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import dm
from dm.decorating.telling import ToldToPython
from dm.environment import Environment
from dm.errors import Malformed, Refused, SourceFailed, UsageError
from tests.fixtures.commands import write_manifest
from tests.fixtures.homes import Home, RunDm, RunInterpreter

PAIR = """
from pathlib import Path

def save(value, path):
    Path(path).write_text(type(path).__name__ + repr(value))

def load(path):
    return "loaded", Path(path).read_text()

def write(what, *, to, about):
    Path(to, "part").mkdir(parents=True)
    Path(to, "part", "x").write_text(f"{what!r} {about}")

def read(path, more):
    return Path(path, "part", "x").read_text() + more

def fail(value, path):
    raise OSError("cannot write this")
"""
LOADERS = '[_LOADERS]\ngrid = "pair:load"\nother = "pair:load"\n'
NAMED = '[_SAVERS]\ngrid = "pair:save"\n' + LOADERS
ASK = """
import dm
def make(x):
    print("computed")
    return x, "$path"
try:
    print(dm.cached(cachetype="pair", format="grid")(make)(5))
except dm.DmError as error:
    print(error.code, error, error.hint)
"""


class Results:
    """A function of the project whose results are kept, and how often it was computed."""

    def __init__(self, home: Home, project: Path) -> None:
        self.environment = Environment(home.variables(), home.path, project, "testhost", os.getpid())
        self.computed = 0

    def cache(self, data_format: str = "grid", *, trust: bool = True, **options: Any) -> Any:
        def make(x: object) -> object:
            self.computed += 1
            return x

        manifest = dm.Manifest.open(environment=self.environment, trust=trust, progress=ToldToPython())
        return manifest.cached(cachetype=f"made.{data_format}", format=data_format, **options)(make)


@pytest.fixture
def results(home: Home, project: Path) -> Results:
    (project / "pair.py").write_text(PAIR)
    return Results(home, project)


def test_a_pair_is_refused_then_allowed_and_read_in_another_process_and_asked_for_again_when_its_file_changes(
    run_interpreter: RunInterpreter, run_dm: RunDm, project: Path
) -> None:
    (project / "pair.py").write_text(PAIR)
    write_manifest(project, NAMED)

    def ask() -> str:
        done = run_interpreter("-P", "-c", ASK)
        assert 0 == done.returncode, done.stderr
        return done.stdout

    assert (
        "untrusted cannot keep results in the format 'grid': it would run saver: pair:save, loader: pair:load, and you "
        "have not allowed what this manifest runs dm trust shows all of it, and asks\n"
    ) == ask()
    shown = run_dm("trust", "--yes").stderr + run_dm("trust", "--show").stdout
    assert "  savers by format\n      grid: pair:save\n" in shown
    assert "computed\n('loaded', \"str(5, '$path')\")\n" == ask()
    assert "('loaded', \"str(5, '$path')\")\n" == ask()
    (project / "pair.py").write_text(PAIR + "# changed\n")
    told = ask()
    assert told.startswith("untrusted ") and "what this manifest runs has changed since you allowed it" in told
    assert 0 == run_dm("trust", "--yes").returncode
    assert "('loaded', \"str(5, '$path')\")\n" == ask()


@pytest.mark.parametrize("table", ["_SAVERS", "_LANG.python.savers"])
def test_arguments_are_given_as_they_are_named_and_the_value_itself(
    results: Results, project: Path, table: str
) -> None:
    kwargs = '{ to = "${path}", about = ["$format", "$version", "$key", "$value!", "$value"] }'
    saver = f'{{ ref = "pair:write", args = ["${{value}}"], kwargs = {kwargs} }}'
    loader = '{ ref = "pair:read", args = ["$path", " of $version"] }'
    write_manifest(project, f"[{table}]\nGrid = {saver}\n[_LOADERS]\ngrid = {loader}\n")
    make = results.cache(version="v1", key=lambda given: {})
    value = {"a": "$path"}
    expected = f"{value!r} ['grid', 'v1', '', '$value!', {value!r}] of v1"
    assert [expected, expected] == [make(value), make(value)]
    assert (1, "data.grid") == (results.computed, make.path(value).name)


def test_the_callers_own_and_the_built_in_ones_come_first(results: Results, project: Path) -> None:
    write_manifest(project, '[_SAVERS]\ngrid = "pair:save"\njson = "pair:fail"\n' + LOADERS)
    own = results.cache(loader=lambda path: "own")
    assert ["own", "own"] == [own(5), own(5)]
    assert "str5" == own.path(5).read_text()
    also = results.cache("other", saver=lambda value, path: path.write_text("own"))
    assert [("loaded", "own")] * 2 == [also(5), also(5)]
    built_in = results.cache("json", trust=False)
    assert [5, 5] == [built_in(5), built_in(5)]


def test_a_saver_needs_a_loader_and_a_loader_alone_writes_nothing(results: Results, project: Path) -> None:
    write_manifest(project, '[_SAVERS]\ngrid = "pair:save"\n[_LOADERS]\nother = "pair:load"\n')
    for data_format, missing, table in (("grid", "loader", "_LOADERS"), ("other", "saver", "_SAVERS")):
        with pytest.raises(UsageError, match=f"there is no {missing} for the format '{data_format}'") as caught:
            results.cache(data_format)(5)
        assert f"name one in [{table}] of the manifest" in str(caught.value.hint)
    assert 0 == results.computed


@pytest.mark.parametrize("saver", ["absent:save", "pair:absent", "pair"])
def test_a_saver_that_is_there_and_broken_is_an_error_before_anything_is_computed(
    results: Results, project: Path, saver: str
) -> None:
    write_manifest(project, f'[_SAVERS]\ngrid = "{saver}"\n' + LOADERS)
    with pytest.raises(SourceFailed) as caught:
        results.cache()(5)
    assert "binding-broken" == caught.value.code
    assert f"cannot use '{saver}' ([_SAVERS] grid): " in str(caught.value)
    write_manifest(project, NAMED)
    assert (("loaded", "str5"), 1) == (results.cache()(5), results.computed)  # the lock was given back


def test_a_malformed_saver_is_an_error_and_validate_tells_it(results: Results, project: Path, run_dm: RunDm) -> None:
    write_manifest(project, '[_SAVERS]\ngrid = { ref = "pair:save", args = ["$path"] }\n' + LOADERS)
    with pytest.raises(Malformed) as caught:
        results.cache()(5)
    fault = "[_SAVERS] grid is no saver: none of its arguments is '$value', what it is to save"
    assert (fault, "binding-malformed") == (str(caught.value), caught.value.code)
    found = json.loads(run_dm("validate", "--json").stdout)["findings"]
    assert [("_SAVERS", fault)] == [(each["field"], each["message"]) for each in found]
    write_manifest(project, "[_SAVERS]\ngrid = 5\n" + LOADERS)
    found = json.loads(run_dm("validate", "--json").stdout)["findings"]
    told = "'grid' must be a string 'module:function', or a table with 'ref', 'args' and 'kwargs', not a number"
    assert [("_SAVERS.grid", told)] == [(each["field"], each["message"]) for each in found]


def test_a_saver_that_fails_costs_the_keeping_and_not_the_value(results: Results, project: Path) -> None:
    write_manifest(project, '[_SAVERS]\ngrid = "pair:fail"\n' + LOADERS)
    make = results.cache()
    with pytest.warns(dm.CacheWarning, match="cannot save a value of type 'int' as grid .*: OSError: cannot write"):
        assert 5 == make(5)
    assert not make.is_cached(5)


def test_nothing_is_computed_or_written_by_what_is_not_trusted(results: Results, project: Path, home: Home) -> None:
    write_manifest(project, NAMED)
    make = results.cache(trust=False)
    for ask in (make, make.fresh, make.is_cached, make.path, make.forget):
        with pytest.raises(Refused, match="cannot keep results in the format 'grid': it would run saver: pair:save"):
            ask(5)
    assert (0, False) == (results.computed, (home.cache / "datamanifest" / "projects").exists())
