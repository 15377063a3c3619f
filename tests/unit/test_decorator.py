"""``dm.cached`` as scientists use it: computed once, found again, itself in every other way."""

from __future__ import annotations

import asyncio
import inspect
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import tomllib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import polars
import pytest

import dm
from dm.decorator import Decorator
from dm.errors import MachineFailed, NotFound, Refused, SourceFailed, UsageError
from dm.plumbing.records.params import hash_params
from tests.fixtures.artifacts import flip
from tests.fixtures.homes import Home


@pytest.fixture(autouse=True)
def here(home: Home, project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with an empty manifest, which is the working folder."""
    for name in list(os.environ):
        if name.startswith(("DATAMANIFEST", "DATASETS", "XDG_")):
            monkeypatch.delenv(name)
    for name, value in home.variables().items():
        monkeypatch.setenv(name, value)
    (project / "datamanifest.toml").write_text("[_META]\nschema = 1\n")
    monkeypatch.chdir(project)
    return project


class Counted:
    """A function that counts its calls; cached under ``name`` with these options."""

    def __init__(self, name: str, **options: Any) -> None:
        self.calls: list[int] = []

        def square(x: int, y: int = 0) -> object:
            """The square, moved."""
            self.calls.append(x)
            return (x * x + y, None)

        self.function = dm.cached(cachetype=name, **options)(square)


@dm.cached
def at_top(x: int, /, y: int = 2, *, z: float = 1.5) -> tuple[int, int, float]:
    """What is said of it."""
    return (x, y, z)


# the call -------------------------------------------------------------------------------------------------------------


def test_a_result_is_computed_once_and_found_by_its_parameters() -> None:
    counted = Counted("once")
    assert [(9, None)] * 3 == [counted.function(3), counted.function(x=3), counted.function(3, 0)]
    assert (10, None) == counted.function(3, y=1)
    assert [3, 3] == counted.calls


def test_none_is_a_result_like_any_other() -> None:
    calls: list[int] = []

    @dm.cached(cachetype="nothing")
    def nothing(x: int) -> None:
        calls.append(x)

    assert [None, None] == [nothing(1), nothing(1)]
    assert [1] == calls


def test_the_function_is_itself_in_every_other_way() -> None:
    assert ("at_top", "What is said of it.") == (at_top.__name__, at_top.__doc__)
    assert "(x: 'int', /, y: 'int' = 2, *, z: 'float' = 1.5)" in str(inspect.signature(at_top))
    assert (1, 2, 1.5) == at_top.__wrapped__(1) == at_top.uncached(1)
    assert inspect.isfunction(at_top)


def test_a_decorated_function_is_pickled_by_its_name() -> None:
    assert at_top is pickle.loads(pickle.dumps(at_top))


def test_what_can_be_asked_of_a_function() -> None:
    counted = Counted("asked", format="json")
    function = counted.function
    assert {"x": 3, "y": 0} == function.key(3)
    assert hash_params({"x": 3, "y": 0}) == function.hash(3)
    assert not function.is_cached(3)
    assert ("data.json", function.hash(3)) == (function.path(3).name, function.path(3).parent.name)
    assert not function.path(3).exists() and not function.forget(3)
    function(3)
    assert (True, b"[9, null]") == (function.is_cached(3), function.path(3).read_bytes().strip())
    assert [3] == counted.calls
    function.fresh(3)
    assert [3, 3] == counted.calls
    assert function.forget(3) and not function.is_cached(3) and not function.path(3).exists()
    function.uncached(4)
    assert not function.is_cached(4)


def test_what_the_function_raises_passes_through_and_nothing_is_kept() -> None:
    class Broken(Exception):
        pass

    @dm.cached(cachetype="raises")
    def broken(x: int) -> int:
        raise Broken(x)

    for _ in range(2):
        with pytest.raises(Broken):
            broken(1)
    assert not broken.path(1).parent.exists()


def test_no_version_may_be_said_as_none() -> None:
    one, two = Counted("no-version"), Counted("no-version", version=None)
    one.function(1), two.function(1)
    assert ([1], []) == (one.calls, two.calls)


def test_a_version_is_another_place_and_no_other_hash() -> None:
    first, second = Counted("versioned").function, Counted("versioned", version="v2").function
    first(1), second(1)
    assert first.path(1).parent.name == second.path(1).parent.name
    assert (first.path(1).parent.parent / "v2" / first.hash(1)) == second.path(1).parent


def test_the_place_can_be_chosen(tmp_path: Path, home: Home, here: Path) -> None:
    named = Counted("placed", version="a", cache_dir=tmp_path / "mine").function
    shared = Counted("placed", version="b", scope="").function
    stored = Counted("placed", version="c", store="$repo", basename="sst").function
    expected = [
        tmp_path / f"mine/placed/a/{named.hash(1)}/data.pickle",
        home.cache / f"datamanifest/cached/placed/b/{named.hash(1)}/data.pickle",
    ]
    assert expected == [named.path(1), shared.path(1)]
    assert stored.path(1).is_relative_to(here) and stored.path(1).name == "sst.pickle"


def test_a_flipped_bit_is_computed_again_and_told() -> None:
    counted = Counted("flipped")
    counted.function(3)
    flip(counted.function.path(3))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert (9, None) == counted.function(3)
    assert [3, 3] == counted.calls
    assert "is computed again: the bytes of its 'data.pickle' are not those that were published" in str(told[0].message)
    assert {(dm.CacheWarning, __file__)} == {(each.category, each.filename) for each in told}


@pytest.mark.parametrize("name", ["csv", "parquet"])
def test_tables_of_polars_come_back_where_the_function_says_so(name: str) -> None:
    counted = []

    @dm.cached(cachetype="tables", format=name)
    def table(rows: int) -> polars.DataFrame:
        counted.append(rows)
        return polars.DataFrame({"n": list(range(rows))})

    @dm.cached(cachetype="unsaid", format=name)
    def unsaid(rows: int) -> Any:
        return polars.DataFrame({"n": list(range(rows))})

    for _ in range(2):
        assert polars.DataFrame({"n": [0, 1, 2]}).equals(table(3))
    assert [3] == counted
    with pytest.warns(dm.CacheWarning, match=r"is not kept: .* not one of polars; .* say '-> polars.DataFrame'"):
        assert 3 == len(unsaid(3))
    assert not unsaid.is_cached(3)


def make_values() -> dict[str, Any]:
    """A value for each format that comes back as another one."""
    import numpy
    import pandas
    import xarray

    table = pandas.DataFrame({"a": ["007", ""], "t": pandas.to_datetime(["2020-01-01", "2021-01-01"])})
    grid = xarray.DataArray([1.5, 2.5], dims="x", name="t")
    return {
        "json": {"a": (1, 2), 3: 4}, "jsonl": ((1,), 2), "yaml": (1, [2]), "toml": {"a": (1, 2)},
        "csv": table, "tsv": table, "xlsx": table,
        "parquet": pandas.DataFrame({"a": [(1, 2), (3, 4)]}), "feather": pandas.DataFrame({"a": [{"x": 1}, {"y": 2}]}),
        "npy": [numpy.float32(1), 2], "npz": {3: [1, 2]}, "nc": grid, "zarr": grid,
        "txt": "one\r\ntwo\rthree\n", "md": "\r\n", "pickle": ({1}, 2),
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore:numpy.ndarray size changed:RuntimeWarning")
@pytest.mark.parametrize("name", sorted(make_values()))
def test_the_call_that_computes_returns_what_later_calls_do(name: str) -> None:
    calls, value = [], make_values()[name]

    @dm.cached(cachetype=f"same.{name}", format=name)
    def make() -> object:
        calls.append(1)
        return value

    values: list[Any] = [make(), make()]
    assert [1] == calls
    assert type(values[0]) is type(values[1])
    if name == "npy":
        assert [each.tolist() for each in values] == [[1.0, 2.0]] * 2 and values[0].dtype == values[1].dtype
    elif name == "npz":
        assert [{key: each.tolist() for key, each in found.items()} for found in values] == [{"3": [1, 2]}] * 2
    elif hasattr(values[0], "identical"):
        assert values[0].identical(values[1])
    elif hasattr(values[0], "dtypes"):
        assert values[0].dtypes.equals(values[1].dtypes)
        assert repr(values[0].to_dict()) == repr(values[1].to_dict())
    else:
        assert repr(values[0]) == repr(values[1])


def test_a_value_that_is_known_to_come_back_as_it_is_is_not_read_back() -> None:
    import numpy

    array = numpy.arange(3)
    for name, value in (("npy", array), ("npz", {"a": array}), ("txt", "a\r\nb"), ("pickle", {1})):

        @dm.cached(cachetype=f"itself.{name}", format=name, key=lambda given: {})
        def make(value: object) -> object:
            return value

        assert value is make(value)
        if name in ("txt", "pickle"):
            assert value == make(value)


def test_what_cannot_be_read_back_is_not_kept_and_told(home: Home) -> None:
    import pandas

    @dm.cached(cachetype="empty", format="csv")
    def make() -> pandas.DataFrame:
        return pandas.DataFrame()

    words = "a result of 'empty' is not kept: cannot load .*EmptyDataError"
    for _ in range(2):
        with pytest.warns(dm.CacheWarning, match=words) as told:
            assert make().empty
        assert 1 == len(told)
    assert not make.is_cached()
    assert [] == [path for path in home.cache.rglob("*") if "quarantine" in path.name and any(path.iterdir())]


def test_a_manifest_that_is_opened_without_a_sink_warns_as_dm_cached_does(here: Path) -> None:
    with dm.Manifest.open(here) as manifest:

        @manifest.cached(cachetype="told")
        def double(x: int) -> int:
            return 2 * x

        double(1)
        flip(double.path(1))
        with pytest.warns(dm.CacheWarning, match="is computed again"):
            assert 2 == double(1)


@pytest.mark.parametrize(("check", "computed"), [("always", 2), ("never", 1)])
def test_without_a_check_bytes_are_taken_as_they_are(check: str, computed: int) -> None:
    def save(value: tuple[int, None], path: Path) -> None:
        path.write_text(str(value[0]))

    counted = Counted(f"check-{check}", format="txt", saver=save, check=check)
    counted.function(3)
    flip(counted.function.path(3), at=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        counted.function(3)
    assert computed == len(counted.calls)


def test_a_call_of_itself_with_the_same_arguments_is_refused() -> None:
    @dm.cached(cachetype="recursive")
    def factorial(n: int, broken: bool = False) -> int:
        return 1 if n == 0 else n * factorial(n if broken else n - 1, broken)

    assert 120 == factorial(5)
    assert factorial.is_cached(4)
    with pytest.raises(UsageError, match="asks for the result that it is computing"):
        factorial(5, broken=True)


def test_threads_that_ask_for_the_same_compute_it_once() -> None:
    started, go, calls, values = threading.Event(), threading.Event(), [0], []

    @dm.cached(cachetype="threads")
    def slow(x: int) -> int:
        calls[0] += 1
        started.set()
        assert go.wait(60)
        return x

    threads = [threading.Thread(target=lambda: values.append(slow(1))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert started.wait(60)
    go.set()
    for thread in threads:
        thread.join()
    assert ([1], [1] * 8) == (calls, values)


# files ----------------------------------------------------------------------------------------------------------------


def test_a_function_may_write_its_file_itself() -> None:
    seen: list[Path] = []

    @dm.cached(cachetype="writes", format="txt")
    def write(text: str, *, _path: Path = Path()) -> None:
        seen.append(_path)
        _path.write_text(text)

    assert cast(object, "hello") == write("hello") == write("hello")
    assert (1, "data.txt") == (len(seen), seen[0].name)
    assert seen[0] != write.path("hello")
    assert "text" in inspect.signature(write).parameters and "_path" not in inspect.signature(write).parameters


def test_what_a_function_wrote_and_its_format_cannot_read_is_an_error_and_no_result() -> None:
    @dm.cached(cachetype="broken", format="json")
    def broken(*, _path: Path) -> None:
        _path.write_text("{broken")

    for _ in range(2):
        with warnings.catch_warnings(), pytest.raises(SourceFailed, match="Expecting property name"):
            warnings.simplefilter("error")
            broken()
    assert (False, False) == (broken.is_cached(), broken.path().parent.exists())


@pytest.mark.filterwarnings("ignore:numpy.ndarray size changed:RuntimeWarning")
@pytest.mark.parametrize("format", ["nc", "zarr", "tif"])
def test_what_a_function_wrote_and_its_format_cannot_open_is_no_result_either(format: str) -> None:
    @dm.cached(cachetype=f"unreadable.{format}", format=format)
    def write(*, _path: Path) -> None:
        _path.write_bytes(b"no grid")

    with pytest.raises((SourceFailed, MachineFailed), match=f"data.{format}"):
        write()  # type: ignore[call-arg]
    assert not write.is_cached() and not write.path().parent.exists()  # type: ignore[call-arg]


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/etc/hostname", path)])
def test_what_is_neither_a_file_nor_a_folder_is_no_result_and_not_waited_for(make: Callable[[Path], None]) -> None:
    @dm.cached(cachetype="special.itself", format="json")
    def write(*, _path: Path) -> None:
        make(_path)

    with pytest.raises(SourceFailed, match=r"write' wrote neither a file nor a folder to '.*data\.json'"):
        write()  # type: ignore[call-arg]

    @dm.cached(cachetype="special.saver", format="x", saver=lambda value, path: make(path), loader=Path.read_text)
    def give() -> int:
        return 1

    with pytest.warns(dm.CacheWarning, match="the saver of 'special.saver' wrote neither a file nor a folder"):
        assert 1 == give()
    assert not give.is_cached()


def test_what_a_store_does_not_take_costs_the_keeping_and_not_the_value() -> None:
    def save(value: object, path: Path) -> None:
        path.mkdir()
        os.mkfifo(path / "pipe")

    @dm.cached(cachetype="pipes", format="x", saver=save, loader=lambda path: 1)
    def give() -> int:
        return 1

    with pytest.warns(dm.CacheWarning, match="a result of 'pipes' is not kept: cannot take in .*: it is a fifo"):
        assert 1 == give()
    assert not give.is_cached()


def test_without_a_format_what_it_wrote_is_given_as_its_path() -> None:
    @dm.cached(cachetype="writes-folder")
    def write(x: int, *, _path: Path = Path()) -> None:
        _path.mkdir()
        (_path / "part").write_text(str(x))

    for _ in range(2):
        folder: object = write(1)
        assert write.path(1) == folder
        assert "1" == (write.path(1) / "part").read_text()


def test_what_a_function_that_writes_itself_returns_is_not_lost_in_silence() -> None:
    @dm.cached(cachetype="writes-returns")
    def write(x: int, *, _path: Path = Path()) -> int:
        _path.write_text("x")
        return x

    with pytest.raises(SourceFailed) as caught:
        write(1)
    assert str(caught.value) == (
        "cannot keep what 'test_what_a_function_that_writes_itself_returns_is_not_lost_in_silence.<locals>.write' "
        "returned, of type 'int': it takes '_path', so that what it writes there is its result"
    )
    assert caught.value.hint == "return nothing; or leave '_path' out and return the value"
    assert not write.is_cached(1)


def test_a_saver_and_a_loader_of_ones_own() -> None:
    def save(value: complex, path: Path) -> None:
        path.write_text(f"{value.real} {value.imag}")

    def load(path: Path) -> complex:
        return complex(*map(float, path.read_text().split()))

    @dm.cached(cachetype="own-pair", format="complex", saver=save, loader=load)
    def make(x: float) -> complex:
        return complex(x, 1)

    assert [2 + 1j] * 2 == [make(2.0), make(2.0)]
    assert "2.0 1.0" == make.path(2.0).read_text()


def test_a_loader_by_name_is_imported_as_the_process_imports() -> None:
    counted = Counted("named-loader", format="json", loader="pathlib:Path")
    counted.function(3)
    assert cast(object, counted.function.path(3)) == counted.function(3)


def test_a_loader_that_cannot_be_imported_says_nothing_of_the_results() -> None:
    Counted("broken-loader", format="json").function(3)
    again = Counted("broken-loader", format="json", loader="absent_module:load")
    with pytest.raises(SourceFailed, match="cannot use 'absent_module:load' \\(the loader of a cached function\\)"):
        again.function(3)
    assert Counted("broken-loader", format="json").function.is_cached(3)


def test_a_loader_whose_library_is_missing_says_nothing_of_the_results() -> None:
    def load(path: Path) -> object:
        import absent_library  # type: ignore[import-not-found]

        return absent_library.open(path)

    counted = Counted("missing-library", loader=load)
    with pytest.warns(dm.CacheWarning, match="cannot be read back: .*No module named 'absent_library'"):
        assert (9, None) == counted.function(3)
    with pytest.raises(SourceFailed) as caught:
        counted.function(3)
    assert "ModuleNotFoundError: No module named 'absent_library'" in str(caught.value)
    assert ("extra-missing", "install what the loader needs") == (caught.value.code, caught.value.hint)
    assert [3] == counted.calls


def test_formats_lie_side_by_side() -> None:
    one, two = Counted("side", format="json"), Counted("side", format="pickle")
    one.function(3), two.function(3)
    assert {"data.json", "data.pickle"} < set(os.listdir(one.function.path(3).parent))
    assert one.function.is_cached(3) and two.function.is_cached(3)


def test_the_manifest_may_name_the_loader_of_a_format_that_dm_does_not_read(here: Path) -> None:
    code = "from pathlib import Path\ndef load(path):\n    return ('loaded', Path(path).read_text())\n"
    (here / "own_formats.py").write_text(code)
    (here / "datamanifest.toml").write_text('[_META]\nschema = 1\n[_LOADERS]\ngrid = "own_formats:load"\n')

    def make(x: int) -> str:
        return str(x)

    def save(value: str, path: Path) -> None:
        path.write_text(value)

    trusted, untrusted = (dm.Manifest.open(trust=trust).cached for trust in (True, False))
    read = trusted(cachetype="grid", format="grid", saver=save)(make)
    assert [("loaded", "5"), ("loaded", "5")] == [read(5), read(5)]
    with pytest.raises(Refused) as caught:
        untrusted(cachetype="grid", format="grid", saver=save)(make)(5)
    assert "cannot load results in the format 'grid': it would run loader: own_formats:load" in str(caught.value)


# declarations ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (
            {"format": ""},
            "there is no saver for data without a format",
            "give a saver= of your own, or one of the formats csv, feather, geojson, json, jsonl, md, nc, npy, npz, "
            "parquet, pickle, tif, toml, tsv, txt, xlsx, yaml, zarr",
        ),
        ({"version": 2}, "its version is no text but of type 'int'", 'write version="2"'),
        ({"scope": 1.5}, "its scope is no text but of type 'float'", 'write scope="1.5"'),
        ({"check": "often"}, "there is no check 'often'", "it is one of always, once, never"),
        ({"code_changed": "ask"}, "there is no code_changed 'ask'", "it is one of ignore, warn, recompute"),
        ({"ignore": [1]}, "'ignore' is no list of its parameters' names", 'write ignore=["…"]'),
        ({"key": 5}, "'key' is no list of its parameters' names", 'write key=["…"]'),
        ({"saver": 5}, "its saver is no function but of type 'int'", 'give a function, or "module:function"'),
        ({"loader": 5}, "its loader is no function but of type 'int'", 'give a function, or "module:function"'),
        ({"ignore": ["z"]}, "'ignore' names 'z', which is no parameter of it", "its parameters are: x"),
    ],
)
def test_a_wrong_declaration_is_refused_where_it_stands(
    options: dict[str, Any], message: str, hint: str | None
) -> None:
    def f(x: int) -> int:
        return x

    with pytest.raises(UsageError) as caught:
        dm.cached(cachetype="wrong", **options)(f)
    assert str(caught.value) == f"cannot cache '{f.__qualname__}': {message}"
    assert hint is None or hint == caught.value.hint


def test_a_format_that_nobody_writes_is_refused_before_anything_is_computed() -> None:
    counted = Counted("unwritten", format="hologram")
    for ask in (counted.function, counted.function.is_cached, counted.function.path, counted.function.forget):
        with pytest.raises(UsageError, match="there is no saver for the format 'hologram'") as caught:
            ask(1)
        assert str(caught.value.hint).startswith(
            "give a saver= of your own, or name one in [_SAVERS] of the manifest, or one of the formats csv, "
        )
    assert [] == counted.calls


def test_a_format_that_only_a_saver_knows_needs_a_loader() -> None:
    @dm.cached(cachetype="no-loader", format="hologram", saver=lambda value, path: path.write_text("x"))
    def f(x: int) -> int:
        return x

    with pytest.raises(UsageError, match="there is no loader for the format 'hologram'"):
        f(1)


def test_a_saver_beside_a_path_is_refused() -> None:
    def f(*, _path: Path) -> None: ...

    with pytest.raises(UsageError) as caught:
        dm.cached(cachetype="both", format="txt", saver=lambda value, path: None)(f)
    assert str(caught.value).endswith("it takes '_path' and writes itself, and 'saver' would too")
    assert caught.value.hint == "keep one of them"


def test_a_function_is_cached_once() -> None:
    with pytest.raises(UsageError, match="cannot cache 'at_top': it is cached already"):
        dm.cached(at_top)


def test_two_functions_of_one_name_are_refused_and_both_are_named() -> None:
    def one(x: int) -> int:
        return x

    def other(x: int) -> int:
        return -x

    kept = dm.cached(cachetype="shared-name")(one)
    with pytest.raises(UsageError) as caught:
        dm.cached(cachetype="shared-name")(other)
    assert "<locals>.other' as 'shared-name'" in str(caught.value) and "<locals>.one' is cached" in str(caught.value)
    assert dm.cached(cachetype="shared-name")(one) is not kept  # a notebook's cell, run again


def test_a_static_method_may_be_cached() -> None:
    class Model:
        @staticmethod
        @dm.cached(cachetype="static")
        def run(x: int) -> int:
            return x + 1

    assert (3, 3) == (Model.run(2), Model().run(2))
    assert Model.run.is_cached(2)


# changed code ---------------------------------------------------------------------------------------------------------


def define(folder: Path, body: str, **options: Any) -> Callable[..., Any]:
    """A function ``f(x)`` from a source file of its own, cached as ``code``."""
    path = folder / f"code_{len(list(folder.glob('code_*')))}.py"
    text = f"def f(x):\n    return {body}\n"
    path.write_text(text)
    names: dict[str, Any] = {"__name__": "code"}
    exec(compile(text, path, "exec"), names)
    return cast(Callable[..., Any], dm.cached(cachetype="code", **options)(names["f"]))


def test_changed_code_is_told_once_and_what_was_kept_is_returned(tmp_path: Path) -> None:
    before = define(tmp_path, "x + 1")
    before(1), before(2)
    after = define(tmp_path, "x + 2")
    with pytest.warns(dm.CodeChanged) as told:
        assert [2, 3, 2] == [after(1), after(2), after(1)]
    assert [
        f"'f' has changed since the result in '{after.path(1).parent}' was computed, which is returned; f.fresh(…) "  # type: ignore[attr-defined]
        'computes it again, another version= all of them, code_changed="recompute" or "ignore" decides for good'
    ] == [str(each.message) for each in told]
    assert __file__ == told[0].filename


def test_code_that_says_the_same_in_other_words_is_not_told(tmp_path: Path) -> None:
    define(tmp_path, "x + 1")(1)
    assert 2 == define(tmp_path, "(  x+1 )  # sum")(1)


def test_changed_code_may_compute_again(tmp_path: Path) -> None:
    define(tmp_path, "x + 1")(1)
    after = define(tmp_path, "x + 2", code_changed="recompute")
    assert [3, 3] == [after(1), after(1)]
    assert 3 == define(tmp_path, "1 / 0 or x + 2", code_changed="ignore")(1)


def test_changed_code_that_fails_does_not_have_its_next_call_return_what_the_old_code_made(tmp_path: Path) -> None:
    define(tmp_path, "x + 1")(1)
    after = define(tmp_path, "int(__import__('pathlib').Path('source').read_text())", code_changed="recompute")
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            after(1)
    Path("source").write_text("3")
    assert [3, 3] == [after(1), after(1)]


def test_what_changed_code_computed_again_is_not_computed_again_where_another_format_lies_beside(
    tmp_path: Path,
) -> None:
    options: dict[str, Any] = {"code_changed": "recompute"}
    old = define(tmp_path, "x + 1", **options)
    old(1), define(tmp_path, "x + 1", format="json", **options)(1)
    path = cast(Any, old).path(1)
    assert 3 == define(tmp_path, "x + 2", **options)(1)
    computed = path.stat()
    assert 3 == define(tmp_path, "x + 2", **options)(1)
    assert 3 == define(tmp_path, "x + 2")(1)  # and nothing is told
    assert (computed.st_ino, computed.st_mtime_ns) == (path.stat().st_ino, path.stat().st_mtime_ns)
    beside = path.with_name("data.json").stat()
    assert 2 == define(tmp_path, "x + 1", format="json", **options)(1)
    assert beside.st_ino == path.with_name("data.json").stat().st_ino
    assert 3 == define(tmp_path, "x + 2", format="json", **options)(1)


# sessions -------------------------------------------------------------------------------------------------------------


def test_results_are_those_of_the_working_folders_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted("here")
    counted.function(1)
    first = counted.function.path(1)
    other = tmp_path / "other"
    other.mkdir()
    (other / "datamanifest.toml").write_text("")
    monkeypatch.chdir(other)
    assert not counted.function.is_cached(1)
    monkeypatch.chdir(tmp_path / "project")
    assert (True, first) == (counted.function.is_cached(1), counted.function.path(1))


def test_changed_settings_are_followed(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    function = Counted("settings").function
    places = [function.path(1)]
    (here / "datamanifest.toml").write_text('[_META]\nschema = 1\n[_STORAGE]\nscope = "manifest"\n')
    places.append(function.path(1))
    (here / ".datamanifest").mkdir(exist_ok=True)
    (here / ".datamanifest" / "config.toml").write_text('scope = "checkout"\n')
    places.append(function.path(1))
    monkeypatch.setenv("DATAMANIFEST_SCOPE", "variable")
    places.append(function.path(1))
    inner = here / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    places.append(function.path(1))
    monkeypatch.delenv("DATAMANIFEST_SCOPE")
    (inner / "datamanifest.toml").write_text('[_STORAGE]\nscope = "nearer"\n')
    places.append(function.path(1))
    scopes = [path.parents[3].name for path in places]
    assert ["manifest", "checkout", "variable", "variable", "nearer"] == scopes[1:]


def test_without_a_manifest_results_are_kept_by_place_alone(here: Path) -> None:
    (here / "datamanifest.toml").unlink()
    (here / "pyproject.toml").write_text('[project]\nname = "glaciers"\n')
    counted = Counted("bare")
    assert counted.function(2) == counted.function(2)
    assert ([2], "glaciers") == (counted.calls, counted.function.path(2).parents[3].name)
    assert ["pyproject.toml"] == os.listdir(here)


def test_a_named_manifest_that_is_gone_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    function = Counted("gone").function
    monkeypatch.setenv("DATAMANIFEST_TOML", "absent.toml")
    with pytest.raises(NotFound, match="no manifest"):
        function(1)


def test_a_manifest_keeps_results_in_its_own_project(tmp_path: Path) -> None:
    root = tmp_path / "memory"
    root.mkdir()
    with dm.Manifest.of({}, project_root=root) as manifest:
        assert isinstance(manifest.cached, Decorator)

        @manifest.cached(cachetype="mine", store="$repo")
        def f(x: int) -> int:
            return x

        f(1)
        assert f.path(1).is_relative_to(root)
    state = tomllib.loads((root / ".datamanifest-state.toml").read_text())
    assert [f.hash(1)] == list(state["datacache"]["mine"]["instances"])


# tasks ----------------------------------------------------------------------------------------------------------------


class Slow:
    """A coroutine function that waits for ``go``, and counts."""

    def __init__(self, name: str) -> None:
        self.calls = 0
        self.started, self.go = asyncio.Event(), asyncio.Event()

        @dm.cached(cachetype=name)
        async def slow(x: int) -> int:
            self.calls += 1
            self.started.set()
            await self.go.wait()
            return x

        self.function = slow


def test_a_coroutine_function_stays_one() -> None:
    async def run() -> None:
        slow = Slow("coroutine")
        slow.go.set()
        assert inspect.iscoroutinefunction(slow.function)
        assert [1, 1, 1] == [await slow.function(1), await slow.function(x=1), await slow.function.fresh(1)]
        assert (2, True) == (slow.calls, slow.function.is_cached(1))
        assert 1 == await slow.function.uncached(1)

    asyncio.run(run())


def test_tasks_that_ask_for_the_same_compute_it_once_and_the_loop_goes_on() -> None:
    async def run() -> None:
        slow = Slow("tasks")
        tasks = [asyncio.create_task(slow.function(1)) for _ in range(40)]  # more than the default executor has threads
        await slow.started.wait()
        assert 7 == await asyncio.to_thread(lambda: 7)
        slow.go.set()
        assert [1] * 40 == await asyncio.gather(*tasks)
        assert 1 == slow.calls

    asyncio.run(run())


def test_a_cancelled_task_leaves_nothing_and_lets_others_compute() -> None:
    async def run() -> None:
        slow = Slow("cancelled")
        first, second = (asyncio.create_task(slow.function(1)) for _ in range(2))
        await slow.started.wait()
        for task in (first, second):  # one computes, the other waits for it
            task.cancel()
        assert [asyncio.CancelledError] * 2 == [
            type(error) for error in await asyncio.gather(first, second, return_exceptions=True)
        ]
        assert not slow.function.path(1).parent.exists()
        slow.go.set()
        assert 1 == await asyncio.wait_for(slow.function(1), 60)

    asyncio.run(run())


def test_a_task_that_asks_for_its_own_result_is_refused() -> None:
    async def run() -> None:
        @dm.cached(cachetype="task-recursion")
        async def again(x: int) -> int:
            (value,) = await asyncio.gather(again(x))
            return int(value)

        with pytest.raises(UsageError, match="asks for the result that it is computing"):
            await asyncio.wait_for(again(1), 60)

    asyncio.run(run())


def test_what_a_computation_began_and_outlives_it_may_ask_for_its_result() -> None:
    async def run() -> None:
        computed, tasks = asyncio.Event(), []

        @dm.cached(cachetype="outlived")
        async def f(x: int) -> int:
            if not tasks:
                tasks.append(asyncio.create_task(ask_later()))
            return x

        async def ask_later() -> int:
            await computed.wait()
            return await f.fresh(1)

        assert 1 == await f(1)
        computed.set()
        assert 1 == await asyncio.wait_for(tasks[0], 60)

    asyncio.run(run())


# processes ------------------------------------------------------------------------------------------------------------


def run_script(folder: Path, text: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a script in the working folder, as a user does."""
    (folder / "script.py").write_text(textwrap.dedent(text))
    return subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False)


def test_a_script_is_told_what_to_do(here: Path) -> None:
    done = run_script(here, "import dm\n@dm.cached\ndef f(x):\n    return x\n", "script.py")
    assert "cannot cache 'f': it is defined in a script, a notebook or at a prompt" in done.stderr


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_of_multiprocessing_share_results(here: Path, method: str) -> None:
    text = f"""
        import multiprocessing, os, dm

        @dm.cached
        def f(x):
            with open("calls.txt", "a") as file:
                file.write(f"{{x}}\\n")
            return os.getpid(), x

        if __name__ == "__main__":
            own = f(0)
            with multiprocessing.get_context("{method}").Pool(2) as pool:
                values = pool.map(f, [0, 1, 1, 2, 2, 1, 0, 2], chunksize=1)
            assert own == values[0] == values[6]
            assert len(set(values)) == 3, values
            assert f.__module__ == "__main__" and f.path(0).parent.parent.name == "script.f"
    """
    done = run_script(here, text, "-m", "script")
    assert (0, "") == (done.returncode, done.stderr)
    assert ["0", "1", "2"] == sorted((here / "calls.txt").read_text().split())


def test_functions_of_a_script_or_notebook_go_to_the_processes_of_joblib(here: Path) -> None:
    text = """
        import cloudpickle, joblib, dm

        factor = 3

        @dm.cached(cachetype="sent")
        def f(x):
            with open("calls.txt", "a") as file:
                file.write(f"{x}\\n")
            return factor * x

        @dm.Manifest.open("datamanifest.toml").cached(cachetype="sent.json", format="json")
        def g(x):
            return [x]

        for function, expected in ((f, [0, 3, 0, 3]), (g, [[0], [1], [0], [1]])):
            tasks = [joblib.delayed(function)(x % 2) for x in range(4)]
            assert expected == joblib.Parallel(2, backend="loky")(tasks)
            assert function.is_cached(0) and function.is_cached(1)
            assert "python-1:" in (function.path(0).parent / "metadata.toml").read_text()

        try:
            cloudpickle.dumps(dm.Manifest.of({}).cached(cachetype="in-memory")(g.uncached))
        except TypeError as error:
            print(error)
    """
    done = run_script(here, text, "script.py")
    told = "a cached function of a manifest without a file cannot be sent to another process\n"
    assert (0, told, "") == (done.returncode, done.stdout, done.stderr)
    assert ["0", "1"] == sorted((here / "calls.txt").read_text().split())


def test_who_waits_for_another_process_is_told(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = """
        import dm, sys
        @dm.cached(cachetype="waited")
        def f(x):
            print("computing", flush=True)
            sys.stdin.readline()
            return x
        f(1)
    """
    (here / "script.py").write_text(textwrap.dedent(text))
    other = subprocess.Popen([sys.executable, "script.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdin is not None and other.stdout is not None

    @dm.cached(cachetype="waited", code_changed="ignore")
    def f(x: int) -> int:
        raise AssertionError("the other process computes it")

    values: list[int] = []
    with other, caplog.at_level("WARNING", logger="dm"):
        assert "computing\n" == other.stdout.readline()
        waiting = threading.Thread(target=lambda: values.append(f(1)))
        waiting.start()
        while "waiting for" not in caplog.text and waiting.is_alive():
            waiting.join(0.05)
        other.stdin.write("\n")
        other.stdin.flush()
        waiting.join()
    assert [1] == values
    assert f"process {other.pid} on " in caplog.text
