"""`dm.load`: fetched, then read by the first loader that there is; code of a manifest only where it was allowed."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest

import dm
from dm.environment import Environment
from tests.fixtures.commands import Ask, assert_one_error, default_copy, write_manifest
from tests.fixtures.homes import Home, RunDm, RunInterpreter
from tests.fixtures.seaweed import Bucket
from tests.fixtures.servers import HttpServer

TABLE = b"# made by hand\na,b\n1,2\n3,4\n"
#: A loader that says what it was given, and leaves a trace of having run.
READERS = """
import os
from pathlib import Path
Path(__file__).with_name("ran").touch()
def read(path): return "own", type(path).__name__, path
def by_format(path): return "by format", os.path.basename(path)
def explicit(*args, **kwargs): return args, kwargs
class Odd(Exception): pass
def fail(path): raise Odd("cannot read this")
"""


class RunPython(Protocol):
    """Runs Python in the project."""

    def __call__(self, script: str, *, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def run_python(run_interpreter: RunInterpreter) -> RunPython:
    """Run ``python -P -c SCRIPT`` in the project (without it on the path: Python would import anything from there)."""

    def run(script: str, *, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return run_interpreter("-P", "-c", "import dm\n" + script, env=env)

    return run


@pytest.fixture
def open_manifest(home: Home, project: Path) -> Any:
    """Open the project's manifest in this process, with the test's home."""

    def run(*, variables: Mapping[str, str] | None = None, **options: Any) -> dm.Manifest:
        surroundings = {**home.variables(), **(variables or {})}
        environment = Environment(surroundings, home.path, project, "testhost", os.getpid())
        return dm.Manifest.open(environment=environment, **options)

    return run


def declare(project: Path, uri: str, *lines: str, name: str = "sst", others: str = "") -> Path:
    (project / "readers.py").write_text(READERS)
    return write_manifest(project, others, f'[{name}]\nuri = "{uri}"\n' + "".join(f"{line}\n" for line in lines))


def say(done: subprocess.CompletedProcess[str]) -> str:
    assert 0 == done.returncode, done.stderr
    return done.stdout.strip()


# the ladder


def test_a_dataset_is_fetched_and_read_in_one_call_and_the_next_asks_nothing(
    run_python: RunPython, project: Path, home: Home, http_server: HttpServer
) -> None:
    declare(project, http_server.put("/t.csv", TABLE))
    script = "print(dm.load('sst').to_dict('list'))"
    assert "{'a': [1, 3], 'b': [2, 4]}" == say(run_python(script))
    assert TABLE == default_copy(home, "127.0.0.1/t.csv").read_bytes()
    assert 1 == http_server.count("/t.csv")
    assert "{'a': [1, 3], 'b': [2, 4]}" == say(run_python(script))
    assert 1 == http_server.count("/t.csv")
    assert "sha256:" in (project / "datamanifest.toml").read_text()


def test_each_rung_of_the_ladder_beats_those_below_it(
    open_manifest: Any, project: Path, http_server: HttpServer, home: Home
) -> None:
    defaults = '[_LOADERS]\ncsv = "readers:by_format"\nother = "readers:read"\n'
    declare(project, http_server.put("/t.csv", TABLE), 'loader = "readers:read"', others=defaults)
    path = str(default_copy(home, "127.0.0.1/t.csv"))
    with open_manifest(trust=True) as manifest:
        assert ("mine", path) == manifest.load("sst", loader=lambda path: ("mine", path))
        assert "t.csv" == manifest.load("sst", loader="posixpath:basename")
        assert TABLE.decode() == manifest.load("sst", loader="txt")
        assert ("own", "str", path) == manifest.load("sst", loader="other")
        assert ("by format", "t.csv") == manifest.load("sst", loader="CSV")
        assert ("own", "str", path) == manifest.load("sst")
    declare(project, f"{http_server.url}/t.csv", others=defaults)
    with open_manifest(trust=True) as manifest:
        assert ("by format", "t.csv") == manifest.load("sst")
    declare(project, f"{http_server.url}/t.csv")
    with open_manifest(trust=True) as manifest:
        assert [1, 3] == manifest.load("sst")["a"].tolist()


def test_an_explicit_loader_beats_a_bare_one_and_its_arguments_are_all_it_gets(
    open_manifest: Any, project: Path, http_server: HttpServer, home: Home
) -> None:
    explicit = '{ ref = "readers:explicit", args = ["$path", "$key", 3], kwargs = { root = "${project_root}/x" } }'
    declare(
        project, http_server.put("/t.csv", TABLE), 'loader = "readers:fail"', f"_LANG.python.loader = {explicit}"
    )
    with open_manifest(trust=True) as manifest:
        args, kwargs = manifest.load("sst")
    path = default_copy(home, "127.0.0.1/t.csv")
    assert ((str(path), "127.0.0.1/t.csv", 3), {"root": f"{project}/x"}) == (args, kwargs)


def test_the_format_that_is_said_beats_that_of_the_name(
    open_manifest: Any, project: Path, http_server: HttpServer
) -> None:
    declare(project, http_server.put("/t.dat", TABLE), 'format = "csv"')
    with open_manifest() as manifest:
        assert [2, 4] == manifest.load("sst")["b"].tolist()


def test_a_broken_binding_is_an_error_and_never_falls_through(
    run_python: RunPython, project: Path, http_server: HttpServer
) -> None:
    uri = http_server.put("/t.csv", TABLE)
    script = """if True:
        try:
            dm.load("sst")
        except dm.SourceFailed as error:
            print(error.exit_status, error.code, error, type(error.__cause__).__name__, sep="|")
    """
    for ref, reason, cause in (
        ("readers:nosuch", "there is no 'nosuch' in it", "AttributeError"),
        ("nosuch_module:f", "ModuleNotFoundError: No module named 'nosuch_module'", "ModuleNotFoundError"),
        ("readers", "it is not of the form 'module:function'", "NoneType"),
    ):
        for lines, others, origin in (
            ([f'loader = "{ref}"'], "", "[sst] loader"),
            ([], f'[_LOADERS]\ncsv = "{ref}"\n', "[_LOADERS] csv"),
        ):
            declare(project, uri, *lines, others=others)
            told = say(run_python(script, env={"DATAMANIFEST_TRUST": "1"}))
            assert f"5|binding-broken|cannot use '{ref}' ({origin}): {reason}|{cause}" == told


def test_what_a_loader_raises_comes_out_as_it_is(
    run_python: RunPython, project: Path, http_server: HttpServer
) -> None:
    declare(project, http_server.put("/t.csv", TABLE), 'loader = "readers:fail"')
    done = run_python("dm.load('sst')", env={"DATAMANIFEST_TRUST": "1"})
    assert 1 == done.returncode
    assert "readers.Odd: cannot read this" == done.stderr.splitlines()[-1]
    assert 'def fail(path): raise Odd("cannot read this")' in done.stderr, "the traceback leads to the user's line"


def test_what_cannot_be_fetched_or_does_not_exist_is_told_as_fetch_tells_it(
    open_manifest: Any, project: Path, http_server: HttpServer
) -> None:
    declare(project, http_server.put("/t.csv", TABLE), f'checksum = "sha256:{"0" * 64}"')
    with open_manifest() as manifest:
        with pytest.raises(dm.ContentMismatch):
            manifest.load("sst")
        with pytest.raises(dm.NotFound, match="no dataset"):
            manifest.load("nosuch")
        with pytest.raises(TypeError, match="'loader' is a function or a string, not of type 'int'"):
            manifest.load("sst", loader=3)


def test_the_end_of_the_ladder_names_the_format_and_the_ways_out(
    open_manifest: Any, project: Path, http_server: HttpServer
) -> None:
    common = "give a 'loader', or set 'format' or 'loader' in the manifest, or dm.path('sst') is where it lies"
    with_archive = f"set extract = true to have the archive unpacked, or {common}"
    for path, fault, hint in (
        ("/t.grib2", "there is no loader for the format 'grib2'", common),
        ("/plain", "it has no format", common),
        ("/t.zip", "there is no loader for the format 'zip'", with_archive),
    ):
        declare(project, http_server.put(path, TABLE))
        with open_manifest() as manifest, pytest.raises(dm.SourceFailed) as caught:
            manifest.load("sst")
        assert (f"cannot load 'sst': {fault}", "loader-missing") == (str(caught.value), caught.value.code)
        assert hint == caught.value.hint


def test_a_loader_of_no_known_name_is_wrong_usage(open_manifest: Any, project: Path, http_server: HttpServer) -> None:
    declare(project, http_server.put("/t.csv", TABLE))
    with open_manifest() as manifest, pytest.raises(dm.UsageError) as caught:
        manifest.load("sst", loader="grib")
    assert ("there is no loader called 'grib'", "loader-unknown") == (str(caught.value), caught.value.code)
    assert str(caught.value.hint).startswith("give a function, 'module:function', or one of csv, feather, geojson,")
    assert 0 == http_server.count("/t.csv"), "told before anything is fetched"


def test_broken_data_is_told_with_the_file(
    open_manifest: Any, project: Path, home: Home, http_server: HttpServer
) -> None:
    declare(project, http_server.put("/t.json", b"{"))
    with open_manifest() as manifest, pytest.raises(dm.SourceFailed) as caught:
        manifest.load("sst")
    path = default_copy(home, "127.0.0.1/t.json")
    assert str(caught.value).startswith(f"cannot load '{path}' as json (json.loads): JSONDecodeError: Expecting")
    assert "load-failed" == caught.value.code


# folders


def test_a_folder_without_a_loader_is_its_path(
    open_manifest: Any, project: Path, home: Home, http_server: HttpServer
) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("inner.csv")
        member.size = len(TABLE)
        archive.addfile(member, io.BytesIO(TABLE))
    first, second = http_server.put("/d/one.csv", b"1"), http_server.put("/d/two.csv", b"2")
    write_manifest(
        project,
        f'[packed]\nuri = "{http_server.put("/p.tar.gz", packed.getvalue())}"\nextract = true\n',
        f'[several]\nuris = ["{first}", "{second}"]\n',
        f'[called]\nuris = ["{first}", "{second}"]\nkey = "called"\nformat = "csv"\n',
    )
    with open_manifest() as manifest:
        packed_path = manifest.load("packed")
        assert default_copy(home, "127.0.0.1/p") == packed_path
        assert TABLE == (packed_path / "inner.csv").read_bytes()
        assert {"one.csv", "two.csv"} == set(os.listdir(manifest.load("several"))) - {".complete"}
        assert {"one.csv", "two.csv"} == set(manifest.load("several", loader="os:listdir")) - {".complete"}
        with pytest.raises(dm.SourceFailed, match="it is a folder, and pandas"):
            manifest.load("called")


# what the user provides


def test_data_that_its_user_provides_is_read_where_it_lies(open_manifest: Any, project: Path) -> None:
    write_manifest(project, '[mine]\nstorage_path = "raw/t.csv"\nskip_download = true\n')
    with open_manifest() as manifest:
        with pytest.raises(dm.NotFound) as caught:
            manifest.load("mine")
        assert "'mine' is not there, and its user provides it (skip_download)" == str(caught.value)
        assert (f"put it at '{project / 'raw/t.csv'}'", "missing") == (caught.value.hint, caught.value.code)
        (project / "raw").mkdir()
        (project / "raw" / "t.csv").write_bytes(TABLE)
        assert [1, 3] == manifest.load("mine")["a"].tolist()


# trust


def test_a_fresh_clones_loader_runs_only_after_the_user_allowed_it(
    run_python: RunPython, run_dm: RunDm, project: Path, http_server: HttpServer
) -> None:
    uri = http_server.put("/t.csv", TABLE)
    script = """if True:
        try:
            print(*dm.load("sst"))
        except dm.Refused as error:
            print(error.exit_status, error.code, error.hint)
            print(error)
    """
    for lines, others, runs in (
        (['loader = "readers:read"'], "", "loader: readers:read"),
        ([], '[_LANG.python.loaders]\ncsv = "readers:read"\n', "loader: readers:read"),
    ):
        declare(project, uri, *lines, others=others)
        first, *rest = say(run_python(script)).splitlines()
        assert first.startswith("6 untrusted "), first
        assert "dm trust" in first
        assert "load 'sst'" in rest[0] and runs in rest[0], rest
        assert not (project / "ran").exists()
        assert 0 == http_server.count("/t.csv"), "refused before anything was fetched"
    assert 0 == run_dm("trust", "--yes").returncode
    assert say(run_python(script)).startswith("own str ")
    assert (project / "ran").exists()
    (project / "readers.py").write_text(READERS.replace("own", "changed"))
    assert say(run_python(script)).startswith("6 untrusted "), "code that changed is asked for again"


def test_a_loader_of_the_callers_own_needs_nobodys_word_and_gets_no_code_of_the_project(
    run_python: RunPython, project: Path, http_server: HttpServer
) -> None:
    declare(project, http_server.put("/t.csv", TABLE), 'loader = "readers:read"')
    (project / "posixpath.py").write_text("raise SystemExit('hostile')")
    (project / "tabulate_like.py").write_text("raise SystemExit('hostile')")
    script = "print(dm.load('sst', loader=len) > 0, dm.load('sst', loader='posixpath:basename'))"
    assert "True t.csv" == say(run_python(script))
    script = "try: dm.load('sst', loader='tabulate_like:f')\nexcept dm.SourceFailed as error: print(error)"
    told = "cannot use 'tabulate_like:f' (the loader that was asked for): ModuleNotFoundError: No module named"
    assert say(run_python(script)).startswith(told)
    assert not (project / "ran").exists()


@pytest.mark.fresh_process
def test_a_hostile_clones_files_do_not_take_the_place_of_libraries(
    run_python: RunPython, project: Path, http_server: HttpServer
) -> None:
    declare(project, http_server.put("/t.csv", TABLE))
    for name in ("pandas", "bottleneck", "numexpr", "json", "sitecustomize", "dm"):
        (project / f"{name}.py").write_text("open('ran', 'w')")
    assert "[1, 3]" == say(run_python("print(dm.load('sst')['a'].tolist())"))
    assert not (project / "ran").exists()


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_pickle_data_is_read_only_from_an_allowed_manifest(
    run_python: RunPython, run_dm: RunDm, project: Path, http_server: HttpServer
) -> None:
    declare(project, http_server.put("/t.pkl", pickle.dumps(Touch(project / "ran"))))
    script = "try: print(dm.load('sst'))\nexcept dm.Refused as error: print(error.code, error)"
    told = say(run_python(script))
    assert told.startswith("untrusted ") and "pickle" in told, told
    told = say(run_python(script.replace("'sst'", "'sst', loader='pickle'")))
    assert told.startswith("untrusted ")
    assert not (project / "ran").exists()
    assert 0 == run_dm("fetch").returncode, "fetching it runs nothing"
    assert 0 == run_dm("trust", "--yes").returncode
    assert "None" == say(run_python(script))
    assert (project / "ran").exists()


def test_a_manifest_in_memory_runs_code_only_with_trust(
    home: Home, project: Path, http_server: HttpServer
) -> None:
    (project / "readers.py").write_text(READERS)
    tables = {"sst": {"uri": http_server.put("/t.csv", TABLE), "loader": "readers:by_format"}}
    environment = Environment(home.variables(), home.path, project, "testhost", os.getpid())
    with dm.Manifest.of(tables, project_root=project, environment=environment) as manifest:
        with pytest.raises(dm.Refused):
            manifest.load("sst")
    with dm.Manifest.of(tables, project_root=project, environment=environment, trust=True) as manifest:
        assert ("by format", "t.csv") == manifest.load("sst")


# opened in place


def test_lazy_data_is_added_read_in_place_and_left_alone_by_all_else(
    run_dm: RunDm, ask: Ask, run_python: RunPython, project: Path, home: Home, http_server: HttpServer
) -> None:
    uri = http_server.put("/t.csv", TABLE)
    assert 0 == run_dm("init").returncode
    assert 0 == run_dm("add", "--lazy", uri).returncode
    assert 0 == http_server.count("/t.csv"), "nothing is asked for"
    assert "lazy_access = true" in (project / "datamanifest.toml").read_text()
    assert "[1, 3]" == say(run_python("print(dm.load('t')['a'].tolist())"))
    asked = http_server.count("/t.csv")
    assert asked > 0
    for command in ("fetch", "verify", "status"):
        outcome = ask(command).only
        assert ("skipped", "opened in place by its loader (lazy_access)") == (outcome["state"], outcome["message"])
    told = assert_one_error(run_dm("path", "t"), 3)
    assert "'t' has no path: it is opened in place (lazy_access)" == told
    shown = ask("show", "t")
    assert ["skipped"] * 2 == [shown.only["state"], shown.document["dataset"]["state"]]
    assert asked == http_server.count("/t.csv")
    assert not default_copy(home, "127.0.0.1/t.csv").exists()
    assert not (project / ".datamanifest-state.toml").exists()


def test_a_loader_gets_the_uri_of_lazy_data_for_a_path(
    open_manifest: Any, project: Path, http_server: HttpServer
) -> None:
    uri = http_server.put("/t.csv", TABLE)
    explicit = 'loader = { ref = "readers:explicit", args = ["$path", "$uri"] }'
    for line, expected in (
        ('loader = "readers:read"', ("own", "str", uri)),
        (explicit, ((uri, uri), {})),
    ):
        declare(project, uri, line, "lazy_access = true")
        with open_manifest(trust=True) as manifest:
            assert expected == manifest.load("sst")
            assert uri == manifest.load("sst", loader=str)
        with open_manifest() as manifest, pytest.raises(dm.Refused):
            manifest.load("sst")
    assert 0 == http_server.count("/t.csv")


def test_lazy_data_without_a_loader_is_an_error(open_manifest: Any, project: Path, http_server: HttpServer) -> None:
    for path, fault in (
        ("/t.grib", "there is no loader for the format 'grib'"),
        ("/t", "it has no format"),
        ("/t.zip", "there is no loader for the format 'zip'"),
        ("/t.pkl", "data in the format 'pkl' is not opened in place (lazy_access)"),
    ):
        declare(project, f"{http_server.url}{path}", "lazy_access = true")
        with open_manifest(trust=True) as manifest, pytest.raises(dm.SourceFailed) as caught:
            manifest.load("sst")
        assert (f"cannot load 'sst': {fault}", "loader-missing") == (str(caught.value), caught.value.code)
        assert "give a 'loader', or set 'format' or 'loader' in the manifest" == caught.value.hint


def test_several_files_cannot_be_opened_in_place(open_manifest: Any, project: Path) -> None:
    path = write_manifest(project, '[many]\nuris = ["s3://b/one.nc", "s3://b/two.nc"]\nlazy_access = true\n')
    with open_manifest() as manifest, pytest.raises(dm.Malformed) as caught:
        manifest.load("many")
    told = f"{path}:6: dataset 'many' is opened in place (lazy_access), which takes one 'uri'"
    assert (told, "contradiction") == (str(caught.value), caught.value.code)


def test_lazy_data_that_is_not_there_or_broken_is_told_without_secrets(
    open_manifest: Any, project: Path, http_server: HttpServer
) -> None:
    declare(project, f"{http_server.url}/none.csv?token=hush", "lazy_access = true")
    with open_manifest() as manifest, pytest.raises(dm.SourceFailed) as caught:
        manifest.load("sst")
    assert "hush" not in str(caught.value)
    declare(project, http_server.put("/t.json?token=hush", b"{"), "lazy_access = true", 'format = "json"')
    with open_manifest() as manifest, pytest.raises(dm.SourceFailed) as caught:
        manifest.load("sst")
    assert f"cannot load '{http_server.url}/t.json' as json (json.loads): JSONDecodeError" in str(caught.value)


def test_gridded_data_of_a_server_is_read_piece_by_piece(
    open_manifest: Any, project: Path, http_server: HttpServer, tmp_path: Path
) -> None:
    import numpy
    import xarray

    values = numpy.random.default_rng(0).random((64, 65_536))
    xarray.Dataset({"t": (("time", "x"), values)}).to_netcdf(
        tmp_path / "big.nc", engine="netcdf4", encoding={"t": {"chunksizes": (1, 65_536)}}
    )
    body = (tmp_path / "big.nc").read_bytes()
    declare(project, http_server.put("/big.nc", body), "lazy_access = true")
    with open_manifest() as manifest:
        grid = manifest.load("sst")
    assert (64, 65_536) == grid.t.shape
    assert values[3, :5].tolist() == grid.t[3, :5].values.tolist()
    grid.close()
    asked = [each.range for each in http_server.requests if each.method == "GET"]
    assert asked and None not in asked, "by ranges, never the whole file"


def test_data_of_an_object_store_is_read_in_place(
    open_manifest: Any, run_python: RunPython, project: Path, bucket: Bucket, tmp_path: Path
) -> None:
    import xarray

    grid = xarray.Dataset({"t": (("x",), [1.0, 2.0, 3.0])})
    grid.to_netcdf(tmp_path / "g.nc", engine="netcdf4")
    grid.to_zarr(tmp_path / "g.zarr", zarr_format=2)
    uris = {"nc": bucket.put("g.nc", (tmp_path / "g.nc").read_bytes()), "csv": bucket.put("t.csv", TABLE)}
    for path in (tmp_path / "g.zarr").rglob("*"):
        if path.is_file():
            bucket.put(path.relative_to(tmp_path).as_posix(), path.read_bytes())
    uris["zarr"] = f"{bucket.uri}/g.zarr"
    tables = [f'[{name}]\nuri = "{uri}"\nlazy_access = true\n' for name, uri in uris.items()]
    write_manifest(project, *tables)
    with open_manifest(variables=bucket.variables) as manifest:
        assert [1, 3] == manifest.load("csv")["a"].tolist()
        for name in ("nc", "zarr"):
            value = manifest.load(name)
            assert [1.0, 2.0, 3.0] == value.t.values.tolist()
            value.close()
        assert ["skipped"] * 3 == [each.status for each in manifest.fetch()]
    script = "print(float(dm.load('zarr').t.sum()), float(dm.load('nc').t.max()))"
    done = run_python(script, env=bucket.variables)
    assert ("6.0 3.0\n", "") == (done.stdout, done.stderr), "a script that ends says nothing of its connections"


# start-up


@pytest.mark.fresh_process
def test_importing_dm_imports_no_loader(run_python: RunPython) -> None:
    script = """if True:
        import sys, dm.api
        wanted = ("dm.plumbing.formats", "dm.porcelain.verbs", "pandas", "numpy", "xarray", "fsspec")
        print([name for name in sys.modules if name.startswith(wanted)])
    """
    assert "[]" == say(run_python(script))
