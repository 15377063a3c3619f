"""Built-in loaders and savers: what each format gives, in place too, and what broken data and missing libraries say."""

from __future__ import annotations

import gc
import io
import json
import os
import pickle
import stat
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, Literal

import pytest

from dm.errors import MachineFailed, Refused, SourceFailed
from dm.plumbing.formats.loaders import FORMATS, LIBRARIES, find_loader, find_saver
from dm.plumbing.formats.loaders.kinds import Loader, Saver
from dm.plumbing.fs.temporary import is_temporary
from dm.values import Permission
from tests.fixtures.machine import MakeTmpfs, needs_root
from tests.fixtures.users import OTHER_USER

ALLOWED = Permission(None)
#: Libraries of the field warn about each other's old ways; what they say is not `dm`'s.
pytestmark = [
    pytest.mark.filterwarnings("default::DeprecationWarning"),
    pytest.mark.filterwarnings("default::PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:numpy.ndarray size changed:RuntimeWarning"),
]


def the_loader(name: str) -> Loader:
    found = find_loader(name)
    assert found is not None, name
    return found


def the_saver(name: str) -> Saver:
    found = find_saver(name)
    assert found is not None, name
    return found


def make_table() -> Any:
    import pandas

    return pandas.DataFrame({"n": [1, 2, 3], "s": ["a", "ü # no comment", 'q"t'], "f": [0.5, float("nan"), -1e300]})


def make_grid() -> Any:
    import numpy
    import xarray

    values = numpy.arange(6.0).reshape(2, 3)
    return xarray.Dataset({"t": (("y", "x"), values, {"units": "K"})}, coords={"x": [1, 2, 3]})


def make_raster() -> Any:
    import rioxarray  # noqa: F401 - gives arrays their .rio
    import xarray

    data = xarray.DataArray(
        [[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]],
        dims=("band", "y", "x"),
        coords={"band": [1], "x": [0.5, 1.5, 2.5], "y": [1.5, 0.5]},
    )
    return data.rio.write_crs("EPSG:4326")


def make_features() -> Any:
    import geopandas
    import shapely

    points = [shapely.Point(0, 0), shapely.Point(1, 2)]
    return geopandas.GeoDataFrame({"a": [1, 2]}, geometry=points, crs="EPSG:4326")


def make_value(name: str) -> Any:
    import numpy

    made: dict[str, Any] = {
        "csv": make_table, "tsv": make_table, "parquet": make_table, "feather": make_table, "xlsx": make_table,
        "nc": make_grid, "zarr": make_grid, "tif": make_raster, "geojson": make_features,
        "json": {"a": [1, None, "ü"], "b": {"c": 1.5}}, "jsonl": [{"a": 1}, [2], "ü", None],
        "yaml": {"a": [1, None, "ü"], "b": {"c": 1.5}}, "toml": {"a": [1, "ü"], "b": {"c": 1.5}},
        "txt": "one\nü two\n", "md": "# title\n", "pickle": {"a": {1, 2}},
        "npy": numpy.arange(6, dtype="f4").reshape(2, 3),
        "npz": {"a": numpy.arange(3), "b/c": numpy.zeros((2, 2))},
    }  # fmt: skip
    value = made[name]
    return value() if callable(value) else value


def assert_same(expected: Any, got: Any) -> None:
    """That two values are equal, by the rules of their library."""
    import numpy

    kind = type(expected).__name__
    assert kind == type(got).__name__ or kind == "DataArray"
    if kind == "DataFrame":
        import pandas

        pandas.testing.assert_frame_equal(expected, got, check_dtype=False)
    elif kind == "GeoDataFrame":
        assert expected.geometry.to_wkt().tolist() == got.geometry.to_wkt().tolist()
        assert (expected["a"].tolist(), expected.crs) == (got["a"].tolist(), got.crs)
    elif kind == "Dataset":
        assert expected.identical(got.load())
    elif kind == "DataArray":
        assert expected.values.tolist() == got.values.tolist()
        assert expected.rio.crs == got.rio.crs
    elif kind == "ndarray":
        numpy.testing.assert_array_equal(expected, got)
    elif kind == "dict":
        assert list(expected) == list(got)
        for name in expected:
            assert_same(expected[name], got[name])
    else:
        assert expected == got


@pytest.fixture
def file_of(tmp_path: Path) -> Any:
    """Writes a value in a format by its saver and gives the path."""

    def write(name: str) -> Path:
        path = tmp_path / f"data.{name}"
        the_saver(name).save(make_value(name), path)
        return path

    return write


def close(value: object) -> None:
    if hasattr(value, "close"):
        value.close()


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_format_gives_back_what_its_saver_wrote(file_of: Any, name: str) -> None:
    path = file_of(name)
    value = the_loader(name).load(path, permission=ALLOWED)
    assert_same(make_value(name), value)
    close(value)
    assert [path.name] == sorted(os.listdir(path.parent)), "neither wrote anything beside it"


@pytest.mark.parametrize("name", sorted(LIBRARIES["polars"]))
def test_a_table_of_polars_comes_back_as_one_where_that_is_asked_for(tmp_path: Path, name: str) -> None:
    import polars
    import polars.testing

    table = polars.DataFrame({"n": [1, 2, None], "s": ["a", "ü # no comment", 'q"t\n'], "f": [0.5, 2.0, -1e300]})
    path = tmp_path / f"data.{name}"
    saver, loader = find_saver(name, library="polars"), find_loader(name, library="polars")
    assert saver is not None and loader is not None
    saver.save(table, path)
    polars.testing.assert_frame_equal(table, loader.load(path))
    polars.testing.assert_frame_equal(table, loader.load_bytes(path.read_bytes(), label="data"))
    usual = the_loader(name).load(path)
    assert ["n", "s", "f"] == list(usual) and "ü # no comment" == usual["s"][1], "pandas reads it too"
    with pytest.raises(SourceFailed, match=r"a polars.DataFrame is wanted, not 'DataFrame'"):
        saver.save(make_table(), path)
    with pytest.raises(SourceFailed, match=r"a pandas.DataFrame is wanted, not one of polars"):
        the_saver(name).save(table, path)


@pytest.mark.parametrize("name", sorted(name for name in FORMATS if name not in ("pickle", "zarr")))
def test_a_format_of_one_file_is_read_from_what_is_open(file_of: Any, name: str) -> None:
    with file_of(name).open("rb") as file:
        value = the_loader(name).load(file)
        assert_same(make_value(name), value)
        close(value)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_format_that_reads_bytes_gives_the_same_from_them(file_of: Any, name: str) -> None:
    loader = the_loader(name)
    assert loader.reads_bytes == (name not in ("nc", "tif", "zarr"))
    if loader.reads_bytes:
        assert_same(make_value(name), loader.load_bytes(file_of(name).read_bytes(), label=name, permission=ALLOWED))


def test_what_keeps_its_file_open_is_said_by_the_loader(file_of: Any) -> None:
    def list_open(path: Path) -> list[str]:
        folder = f"/proc/{os.getpid()}/fd"
        links = [os.readlink(f"{folder}/{name}") for name in os.listdir(folder) if os.path.lexists(f"{folder}/{name}")]
        return [link for link in links if link.startswith(str(path))]

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no /proc here")
    for name in FORMATS:
        path = file_of(name)
        value = the_loader(name).load(path, permission=ALLOWED)
        if list_open(path):
            assert the_loader(name).keeps_open, name
        close(value)
        assert [] == list_open(path), name


def test_a_tif_is_read_without_what_lies_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    the_saver("tif").save(make_raster(), path)
    (tmp_path / "x.tif.complete").touch()
    with the_loader("tif").load(path) as alone:  # type: ignore[attr-defined]
        expected = alone.load()
    (tmp_path / "x.tif.aux.xml").write_text(
        '<PAMDataset><Metadata><MDI key="whose">other</MDI></Metadata><PAMRasterBand band="1"><NoDataValue>1'
        "</NoDataValue><Offset>100</Offset><Scale>7</Scale></PAMRasterBand></PAMDataset>"
    )
    (tmp_path / "X.tfw").write_text("9\n0\n0\n-9\n500\n500\n")
    before = sorted(os.listdir(tmp_path))
    with pytest.warns(UserWarning, match=r"'x\.tif\.aux\.xml' beside '.*/x\.tif' is not read"):
        value: Any = the_loader("tif").load(path)
    import pickle

    for got in (value, pickle.loads(pickle.dumps(value))):  # as it is handed to another process
        with got:
            assert expected.identical(got.load())
            assert expected.rio.bounds() == got.rio.bounds()
    assert before == sorted(os.listdir(tmp_path))


@pytest.mark.parametrize("name", ["nc", "classic nc", "tif", "npy", "npz", "parquet", "feather"])
def test_what_was_read_from_an_open_file_does_not_lie_in_memory_that_is_free(tmp_path: Path, name: str) -> None:
    """Each file holds other numbers, and what was freed is used again before the value is looked at."""
    import numpy
    import pandas
    import xarray

    name, options = name.rpartition(" ")[2], {"format": "NETCDF3_64BIT"} if " " in name else {}
    for turn in range(10):
        numbers = numpy.random.default_rng(turn).random((1, 40, 50))
        grid = xarray.DataArray(numbers, dims=("band", "y", "x"), name="t")
        path = tmp_path / f"{turn}.{name}"
        if name == "nc":
            grid.to_netcdf(path, engine="netcdf4", **options)
        elif name == "tif":
            grid.assign_coords(y=range(40), x=range(50)).rio.write_crs("EPSG:4326").rio.to_raster(path)
        else:
            table = pandas.DataFrame({"t": numbers.ravel()})
            the_saver(name).save({"npy": numbers, "npz": {"t": numbers}}.get(name, table), path)
        with io.BytesIO(path.read_bytes()) as file:
            got: Any = the_loader(name).load(file)
            gc.collect()
            filled = [bytearray(os.urandom(len(numbers.tobytes()) + extra)) for extra in range(0, 4096, 64)]
            read = got if name in ("npy", "tif") else got["t"]
            assert numbers.ravel().tolist() == numpy.asarray(read).ravel().tolist()
            del filled
            close(got)


def test_a_raster_in_place_is_read_piece_by_piece(tmp_path: Path) -> None:
    import numpy
    import rioxarray  # noqa: F401 - makes `.rio`
    import xarray

    numbers = numpy.random.default_rng(0).random((1, 512, 512))
    grid = xarray.DataArray(numbers, dims=("band", "y", "x"), coords={"y": range(512), "x": range(512)})
    grid.rio.write_crs("EPSG:4326").rio.to_raster(tmp_path / "x.tif", tiled=True, blockxsize=64, blockysize=64)
    taken = []

    class Counted(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            taken.append(len(data))
            return data

    body = (tmp_path / "x.tif").read_bytes()
    value: Any = the_loader("tif").load(Counted(body))
    assert numbers[0, :64, :64].tolist() == value[0, :64, :64].values.tolist()
    assert sum(taken) < len(body) / 4
    value.close()


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("consolidated", [True, False])
@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
def test_zarr_of_both_versions_is_read_from_a_folder_and_from_a_mapping(
    tmp_path: Path, version: Any, consolidated: bool
) -> None:
    import fsspec  # type: ignore[import-untyped]

    path = tmp_path / "grid.zarr"
    make_grid().to_zarr(path, zarr_format=version, consolidated=consolidated)
    loader = the_loader("zarr")
    assert_same(make_grid(), loader.load(path))
    assert_same(make_grid(), loader.load(fsspec.get_mapper(path.as_uri())))


def test_classic_netcdf_is_read_from_what_is_open_too(tmp_path: Path) -> None:
    path = tmp_path / "classic.nc"
    make_grid().to_netcdf(path, engine="netcdf4", format="NETCDF3_64BIT")
    assert b"CDF" == path.read_bytes()[:3]
    with path.open("rb") as file:
        value: Any = the_loader("nc").load(file)
    assert [0.0, 1.0, 2.0] == value.t[0].values.tolist()
    value.close()


def test_comments_of_csv_and_tsv_are_passed_over(tmp_path: Path) -> None:
    import pandas

    expected = pandas.DataFrame({"a": [1], "b": [2]})
    for name, separator in (("csv", ","), ("tsv", "\t")):
        path = tmp_path / f"x.{name}"
        path.write_text(f"# made by hand\na{separator}b\n1{separator}2 # sic\n")
        assert_same(expected, the_loader(name).load(path))


def test_a_parquet_folder_of_parts_is_one_table(tmp_path: Path) -> None:
    make_table().to_parquet(tmp_path / "parts", partition_cols=["n"])
    value: Any = the_loader("parquet").load(tmp_path / "parts")
    assert (3, {"n", "s", "f"}) == (len(value), set(value.columns))


def test_formats_are_found_by_any_spelling_and_nothing_else_is() -> None:
    for spelling, name in (
        (".CSV", "csv"), ("yml", "yaml"), ("tiff", "tif"), ("PKL", "pickle"), ("netcdf", "nc"), ("nc4", "nc"),
        ("dimstack", "nc"), ("ndjson", "jsonl"),
    ):  # fmt: skip
        assert (name, name) == (the_loader(spelling).format, the_saver(spelling).format)
    for unknown in ("", "zip", "tar.gz", "bin", "exe"):
        assert (None, None) == (find_loader(unknown), find_saver(unknown))


def test_asking_for_a_loader_imports_no_library() -> None:
    script = """if True:
        import sys
        from dm.plumbing.formats.loaders import FORMATS, LIBRARIES, find_loader, find_saver
        for name in FORMATS: find_loader(name), find_saver(name)
        heavy = "pandas numpy xarray zarr netCDF4 h5netcdf pyarrow openpyxl yaml geopandas rioxarray rasterio".split()
        print([name for name in heavy if name in sys.modules])
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.strip()


# refusals


def test_a_pickle_is_read_by_permission_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.pickle"
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(TypeError, match="'pickle' may run code: it is loaded by a Permission only"):
        the_loader("pickle").load(path)
    assert {"a": 1} == the_loader("pkl").load(path, permission=ALLOWED)
    with pytest.raises(TypeError, match="'pickle' may run code: it is loaded by a Permission only"):
        the_loader("pickle").load_bytes(path.read_bytes(), label="x")


def test_what_only_looks_like_data_is_never_unpickled(tmp_path: Path) -> None:
    import numpy

    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(ran),)

    numpy.save(tmp_path / "x.npy", numpy.array([Evil()], dtype=object), allow_pickle=True)
    numpy.savez(tmp_path / "x.npz", a=numpy.array([Evil()], dtype=object))
    (tmp_path / "plain.npy").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "x.yaml").write_text(f"!!python/object/apply:os.mkdir ['{ran}']")
    for name in ("x.npy", "x.npz", "plain.npy", "x.yaml"):
        with pytest.raises(SourceFailed) as caught:
            the_loader(name.rpartition(".")[2]).load(tmp_path / name)
        assert "load-failed" == caught.value.code
    assert not ran.exists()


@pytest.mark.parametrize("place", ["filters", "compressor"])
@pytest.mark.parametrize("axis", ["x", "other"])
def test_zarr_never_unpickles_also_where_numcodecs_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, axis: str
) -> None:
    import numcodecs.pickles
    import zarr

    # As releases of numcodecs before 0.16.6 are.
    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(ran),)

    path = tmp_path / "grid.zarr"
    zarr.open_group(path, mode="w", zarr_format=2)
    (path / "x").mkdir()
    described = {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "fill_value": None, "order": "C"}
    filters, pickled = [{"id": "vlen-utf8"}], {"id": "pickle", "protocol": 4}
    described["filters"] = [*filters, pickled] if place == "filters" else filters
    described["compressor"] = pickled if place == "compressor" else None
    (path / "x" / ".zarray").write_text(json.dumps(described))
    (path / "x" / ".zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": [axis]}))
    (path / "x" / "0").write_bytes(pickle.dumps([Evil(), (1,)]))
    with pytest.raises(SourceFailed, match="pickle"):
        the_loader("zarr").load(path).load()  # type: ignore[attr-defined]
    assert not ran.exists()
    assert numcodecs.pickles.Pickle is numcodecs.registry.codec_registry["pickle"], "others have theirs back"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tif", '<VRTDataset rasterXSize="2" rasterYSize="2"><GeoTransform>0,1,0,0,0,1</GeoTransform>'
         '<VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename>{other}.tif</SourceFilename>'
         "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
         "</VRTDataset>"),
        ("geojson", '<OGRVRTDataSource><OGRVRTLayer name="other"><SrcDataSource>{other}.csv</SrcDataSource>'
         "</OGRVRTLayer></OGRVRTDataSource>"),
        ("geojson", '{{"type": "gdal_streamed_alg", "command_line": "gdal vector pipeline ! read {other}.csv"}}'),
    ],
)  # fmt: skip
def test_data_does_not_say_what_else_is_to_be_read(tmp_path: Path, name: str, content: str) -> None:
    other = tmp_path / "other"
    the_saver("tif").save(make_raster(), other.with_suffix(".tif"))
    other.with_suffix(".csv").write_text("a,b\n1,2\n")
    path = tmp_path / f"x.{name}"
    path.write_text(content.format(other=other))
    with path.open("rb") as file:
        for source in (path, file):
            with pytest.raises(SourceFailed) as caught:
                the_loader(name).load(source)
            assert "load-failed" == caught.value.code


def test_features_are_read_from_a_file_of_any_name(file_of: Any, tmp_path: Path) -> None:
    for name in ("a#2.geojson", "b?x=1.geojson", "c%20d e!f.geojson", "ü.geojson#v1"):
        (tmp_path / name).write_bytes(file_of("geojson").read_bytes())
        assert 2 == len(the_loader("geojson").load(tmp_path / name)), name  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(name for name in FORMATS if name not in ("txt", "md", "zarr")))
def test_broken_data_is_told_with_file_format_and_library(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"broken.{name}"
    path.write_bytes(b'a,b\n"1\xff' if name in ("csv", "tsv") else b'[ "\x80 \x00not this: {')
    with pytest.raises(SourceFailed) as caught:
        the_loader(name).load(path, permission=ALLOWED)
    error = caught.value
    assert (5, "load-failed") == (error.exit_status, error.code)
    assert str(error).startswith(f"cannot load '{path}' as {name} ({the_loader(name).how}): ")
    assert error.__cause__ is not None
    if the_loader(name).reads_bytes:
        with pytest.raises(SourceFailed, match=f"cannot load 'it' as {name} "):
            the_loader(name).load_bytes(path.read_bytes(), label="it", permission=ALLOWED)
    assert type(error.__cause__).__name__ in str(error)
    assert "\n" not in str(error)
    assert "dm verify tells whether its bytes are right; another 'format' or 'loader' reads it otherwise" == error.hint


def test_of_broken_data_in_place_no_digest_is_spoken_of() -> None:
    with pytest.raises(SourceFailed) as caught:
        the_loader("json").load(io.BytesIO(b"{"), label="https://e.x/a.json")
    assert "another 'format' or 'loader' reads it otherwise" == caught.value.hint


def test_an_empty_file_is_broken_data(tmp_path: Path) -> None:
    for name in sorted(set(FORMATS) - {"zarr", "txt", "md", "jsonl", "yaml", "toml"}):
        path = tmp_path / f"empty.{name}"
        path.touch()
        with pytest.raises(SourceFailed, match="cannot load"):
            the_loader(name).load(path, permission=ALLOWED)


def test_text_that_is_no_utf_8_is_told(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes("ü".encode("latin-1"))
    with pytest.raises(SourceFailed) as caught:
        the_loader("txt").load(path)
    start = f"cannot load '{path}' as txt (text in UTF-8): UnicodeDecodeError: 'utf-8' codec can't decode byte 0xfc"
    assert str(caught.value).startswith(start)


def test_a_broken_zarr_is_told(tmp_path: Path) -> None:
    path = tmp_path / "grid.zarr"
    path.mkdir()
    with pytest.raises(SourceFailed, match=r"cannot load '.*grid.zarr' as zarr \(xarray.open_zarr\)"):
        the_loader("zarr").load(path)


def test_a_folder_is_not_read_as_a_file(tmp_path: Path) -> None:
    with pytest.raises(SourceFailed) as caught:
        the_loader("csv").load(tmp_path)
    expected = f"cannot load '{tmp_path}' as csv: it is a folder, and pandas.read_csv reads one file"
    assert (expected, "load-failed") == (str(caught.value), caught.value.code)
    assert "name a loader that takes a folder, or a 'format' that is one" == caught.value.hint


def test_a_file_that_cannot_be_opened_is_the_machines_fault(tmp_path: Path) -> None:
    for name in ("csv", "nc", "json", "npy"):
        with pytest.raises(MachineFailed, match=f"cannot load '{tmp_path}/none': no such file or folder"):
            the_loader(name).load(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [
        ("csv", "pandas", "csv"), ("tsv", "pandas", "csv"), ("parquet", "pyarrow", "parquet"),
        ("feather", "pyarrow", "parquet"), ("xlsx", "openpyxl", "xlsx"), ("npy", "numpy", "numpy"),
        ("npz", "numpy", "numpy"), ("nc", "netCDF4", "netcdf"), ("nc", "xarray", "netcdf"), ("zarr", "zarr", "zarr"),
        ("yaml", "yaml", "yaml"), ("geojson", "geopandas", "geojson"), ("tif", "rioxarray", "tif"),
    ],
)  # fmt: skip
def test_a_missing_library_is_told_with_the_extra_that_brings_it(
    file_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, library: str, extra: str
) -> None:
    path, value = file_of(name), make_value(name)
    monkeypatch.setitem(sys.modules, library, None)
    for act in (lambda: the_loader(name).load(path), lambda: the_saver(name).save(value, tmp_path / "new")):
        with pytest.raises(SourceFailed) as caught:
            act()
        assert f"cannot use the library '{library}': it is not installed" == str(caught.value)
        assert (f"pip install 'dm[{extra}]'", "extra-missing") == (caught.value.hint, caught.value.code)
    assert not (tmp_path / "new").exists()


def test_a_library_that_is_installed_and_broken_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "yaml").mkdir()
    (tmp_path / "yaml" / "__init__.py").write_text("import nosuch_library")
    (tmp_path / "x.yaml").write_text("a: 1")
    monkeypatch.delitem(sys.modules, "yaml", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SourceFailed) as caught:
        the_loader("yaml").load(tmp_path / "x.yaml")
    told = "cannot use the library 'yaml': ModuleNotFoundError: No module named 'nosuch_library'"
    assert told == str(caught.value)


def test_each_extra_of_a_hint_is_declared() -> None:
    import re
    import tomllib

    checkout = Path(__file__).parents[3]
    declared = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    folder = checkout / "dm" / "plumbing" / "formats" / "loaders"
    asked = {
        (module, extra)
        for path in folder.glob("*.py")
        for module, extra in re.findall(r'need\("([\w.]+)", "(\w+)"\)', path.read_text())
    }
    assert len(asked) > 10
    names = {"yaml": "PyYAML"}
    brought_along = {("xarray", "tif"), ("rasterio", "tif"), ("pandas", "geojson")}  # by what the extra names
    for module, extra in asked:
        library = module.partition(".")[0]
        wanted = names.get(library, library)
        if (library, extra) not in brought_along:
            assert any(line.startswith(wanted + ">") for line in declared[extra]), (library, extra)


# the store's files


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_store_that_may_only_be_read_is_enough(name: str) -> None:
    """Modes as in a store that another user owns: 0444 files in 0555 folders, and nobody writes a lock beside them."""
    needs_root()
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others by any pytest that starts
        path = Path(folder, f"data.{name}")
        the_saver(name).save(make_value(name), path)
        for each in [path, *path.rglob("*"), path.parent]:
            each.chmod(0o555 if each.is_dir() else 0o444)
        assert type(make_value(name)).__name__ == load_as_other_user(name, path)
        assert [path.name] == os.listdir(folder)


def load_as_other_user(name: str, path: Path) -> str:
    """Load a file as a user who owns nothing; the value's type."""
    # Read once as root, from a copy: the libraries themselves may be root's alone.
    script = f"""if True:
        import os, shutil, sys, tempfile
        from pathlib import Path
        from dm.plumbing.formats.loaders import find_loader
        from dm.values import Permission
        path = Path({str(path)!r})
        def load(path):
            value = find_loader({name!r}).load(path, permission=Permission(None))
            return (value.load() if hasattr(value, "load") else value), getattr(value, "close", lambda: None)()
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, path.name)
            shutil.copytree(path, copy) if path.is_dir() else shutil.copy(path, copy)
            load(copy)
        os.setgroups([]); os.setgid({OTHER_USER}); os.setuid({OTHER_USER})
        try:
            (path.parent / "beside").touch()
        except PermissionError:
            print(type(load(path)[0]).__name__)
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr
    return done.stdout.strip()


def test_reading_leaves_a_writable_folder_as_it_is(file_of: Any, tmp_path: Path) -> None:
    """GDAL keeps statistics in files beside the data when it may."""
    path = file_of("tif")
    value: Any = the_loader("tif").load(path)
    assert 5.0 == float(value.max())
    value.close()
    before = {each.name: each.stat().st_mtime_ns for each in tmp_path.iterdir()}
    assert ["data.tif"] == list(before)


# savers


def test_a_saver_replaces_a_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "x.json"
    the_saver("json").save([1], path)
    the_saver("json").save([2], path)
    assert [2] == json.loads(path.read_text())
    assert ["x.json"] == os.listdir(path.parent)


def test_a_value_that_a_format_cannot_hold_leaves_the_old_file(tmp_path: Path) -> None:
    import numpy
    import pandas

    indexed = pandas.DataFrame({"a": [1]}, index=["x"])
    levels = pandas.DataFrame({("a", "b"): [1]})
    twice = pandas.DataFrame([[1, 2]], columns=["a", "a"])
    array = "TypeError: an array is wanted, not"
    index = "ValueError: its index would be lost: call reset_index() first, or use parquet, which keeps it"
    for name, value, told in (
        ("json", {"a": {1}}, "'dict' as json (json.dumps): TypeError: Object of type set is not JSON serializable"),
        ("json", [float("nan")], "'list' as json (json.dumps): ValueError: Out of range float values"),
        ("jsonl", "text", "'str' as jsonl (json.dumps, line by line): TypeError: a list is wanted, not 'str'"),
        ("toml", {"a": None}, "'dict' as toml (tomli_w.dump): TypeError"),
        ("yaml", {"a": object()}, "'dict' as yaml (yaml.safe_dump): RepresenterError"),
        ("txt", b"x", "'bytes' as txt (text in UTF-8): TypeError: a str is wanted, not 'bytes'"),
        ("csv", [1], "'list' as csv (DataFrame.to_csv): TypeError: a pandas.DataFrame is wanted, not 'list'"),
        ("csv", indexed, f"'DataFrame' as csv (DataFrame.to_csv): {index}"),
        ("tsv", indexed, f"'DataFrame' as tsv (DataFrame.to_csv): {index}"),
        ("xlsx", indexed, f"'DataFrame' as xlsx (DataFrame.to_excel): {index}"),
        ("feather", indexed, f"'DataFrame' as feather (DataFrame.to_feather): {index}"),
        ("parquet", 1, "'int' as parquet (DataFrame.to_parquet): TypeError: a pandas.DataFrame is wanted"),
        ("nc", 1, "'int' as nc (Dataset.to_netcdf): TypeError: an xarray.Dataset or DataArray is wanted, not 'int'"),
        ("zarr", 1, "'int' as zarr (Dataset.to_zarr): TypeError: an xarray.Dataset or DataArray is wanted"),
        ("tif", 1, "'int' as tif (DataArray.rio.to_raster): TypeError: an xarray.DataArray is wanted"),
        ("geojson", 1, "'int' as geojson (GeoDataFrame.to_file): TypeError: a geopandas.GeoDataFrame is wanted"),
        ("npy", [object()], "'list' as npy (numpy.save): ValueError: Object arrays cannot be saved"),
        ("npz", {"a": [object()]}, "'dict' as npz (numpy.savez): ValueError: arrays of Python objects are not saved"),
        ("npy", numpy.ma.array([1, 2], mask=[0, 1]), f"'MaskedArray' as npy (numpy.save): {array} 'MaskedArray'"),
        ("npy", pandas.Series([1], index=["x"]), f"'Series' as npy (numpy.save): {array} 'Series'"),
        ("npz", {"a": indexed}, f"'dict' as npz (numpy.savez): {array} 'DataFrame'"),
        ("npz", {1: [1], "1": [2]}, "'dict' as npz (numpy.savez): ValueError: two of its names are the same as texts"),
        ("npz", {"a\0b": [1]}, "'dict' as npz (numpy.savez): ValueError: a name of it would be cut off"),
        ("csv", levels, "'DataFrame' as csv (DataFrame.to_csv): ValueError: the levels of its columns would come back"),
        ("xlsx", levels, "'DataFrame' as xlsx (DataFrame.to_excel): ValueError: the levels of its columns would come"),
        ("tsv", twice, "'DataFrame' as tsv (DataFrame.to_csv): ValueError: two of its columns have one name, and one"),
        ("xlsx", twice, "'DataFrame' as xlsx (DataFrame.to_excel): ValueError: two of its columns have one name"),
        ("json", [{1: 1, "1": 2}], "'list' as json (json.dumps): ValueError: one of its tables has two names that are"),
        ("jsonl", iter([1]), "'list_iterator' as jsonl (json.dumps, line by line): TypeError: a list is wanted"),
        ("xlsx", pandas.DataFrame({"a": ["x", ""]}), "'DataFrame' as xlsx (DataFrame.to_excel): ValueError: rows"),
        ("zarr", make_grid().rename(t="t/u"), "'Dataset' as zarr (Dataset.to_zarr): ValueError: 't/u' would be lost"),
        ("npz", [1], "'list' as npz (numpy.savez): TypeError: a table of arrays by name is wanted, not 'list'"),
        ("pickle", lambda: 0, "'function' as pickle (pickle.dump): "),
    ):
        path = tmp_path / f"x.{name}"
        path.write_text("old")
        with pytest.raises(SourceFailed) as caught:
            the_saver(name).save(value, path)
        assert str(caught.value).startswith(f"cannot save a value of type {told}")
        assert ("save-failed", "old") == (caught.value.code, path.read_text())
        assert caught.value.__cause__ is not None
    assert [] == [each for each in os.listdir(tmp_path) if is_temporary(each)]


def test_arrays_of_any_name_come_back_under_it(tmp_path: Path) -> None:
    import numpy

    names = ["x", "x.npy", "x.npy.npy", "file", "allow_pickle", "args", "", "a/b", "../é", ".npy"]
    arrays = {name: numpy.array([number]) for number, name in enumerate(names)}
    the_saver("npz").save(arrays, tmp_path / "x.npz")
    assert_same(arrays, the_loader("npz").load(tmp_path / "x.npz"))


def test_a_pickled_array_keeps_its_byte_order(tmp_path: Path) -> None:
    import numpy

    array = numpy.array([1.0, 2.0], ">f8")
    the_saver("pickle").save(array, tmp_path / "x.pickle")
    loaded: Any = the_loader("pickle").load(tmp_path / "x.pickle", permission=ALLOWED)
    assert (array.dtype, array.tolist()) == (loaded.dtype, loaded.tolist())


@pytest.mark.parametrize("name", ["csv", "tsv"])
def test_a_text_with_a_lone_carriage_return_is_one_field(tmp_path: Path, name: str) -> None:
    import pandas

    table = pandas.DataFrame({"a": ["x\ry", "z\r"], "b": [1, 2]})
    the_saver(name).save(table, tmp_path / "x")
    assert_same(table, the_loader(name).load(tmp_path / "x"))


@pytest.mark.parametrize("name", ["nc", "zarr"])
def test_a_grid_is_written_with_its_numbers_and_not_as_the_file_it_came_from_had_packed_them(
    tmp_path: Path, name: str
) -> None:
    import numpy
    import xarray

    grid = xarray.Dataset({"t": ("x", [0.123456, 1e6, numpy.nan]), "n": ("x", [1, 2, 3])}, {"x": [0.5, 1.25, 2.0]})
    packing = {"dtype": "int16", "scale_factor": 0.1, "add_offset": 0.0, "_FillValue": -999}
    grid.t.encoding.update(packing)
    grid.x.encoding["dtype"] = numpy.dtype("int32")
    for value in (grid, grid.t):
        path = tmp_path / f"{type(value).__name__}.{name}"
        the_saver(name).save(value, path)
        loaded: Any = the_loader(name).load(path)
        expected = grid if value is grid else grid[["t"]]
        assert_same(expected, loaded)
        assert {each: expected[each].dtype for each in expected} == {each: loaded[each].dtype for each in loaded}
        close(loaded)
    assert packing == grid.t.encoding, "the caller's stays as it is"


@pytest.mark.parametrize("name", ["nc", "zarr"])
def test_a_grid_keeps_what_the_file_it_came_from_took_for_missing_or_rounded(tmp_path: Path, name: str) -> None:
    import numpy
    import xarray

    days = numpy.array(["2020-01-01T00:00:00.001", "NaT"], "datetime64[ns]")
    grid = xarray.Dataset(
        {"n": ("x", [0, 1]), "f": ("x", [0.0, numpy.nan]), "r": ("x", [0.123456, 1.0]), "t": ("x", days)}
    )
    for each in ("n", "f"):
        grid[each].encoding.update(_FillValue=0, missing_value=0)
    grid.r.encoding.update(zlib=True, least_significant_digit=1)
    grid.t.encoding.update(dtype="int32", units="days since 1850-01-01")
    for value in (grid, grid.chunk(x=1)):
        path = tmp_path / f"{len(value.chunksizes)}.{name}"
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Times can't be serialized faithfully")
            the_saver(name).save(value, path)
        loaded: Any = the_loader(name).load(path)
        assert_same(grid, loaded)
        assert {each: grid[each].dtype for each in grid} == {each: loaded[each].dtype for each in loaded}
        close(loaded)


@pytest.mark.parametrize("version", [2, 3])
def test_what_was_opened_from_a_zarr_store_of_any_version_is_saved_whatever_chunks_it_has_since(
    tmp_path: Path, version: Literal[2, 3]
) -> None:
    import xarray

    xarray.Dataset({"t": ("x", [1.0, 2.0, 3.0, 4.0, 5.0])}, {"x": [1, 2, 3, 4, 5]}).chunk(x=2).to_zarr(
        tmp_path / "source", zarr_format=version, consolidated=False
    )
    opened = xarray.open_zarr(tmp_path / "source", consolidated=False)
    uneven = opened.chunk(x=2).isel(x=slice(1, None))
    for number, value in enumerate((opened, opened.compute(), opened.chunk(x=3), uneven)):
        path = tmp_path / f"{number}.zarr"
        the_saver("zarr").save(value, path)
        assert_same(value, the_loader("zarr").load(path))
    assert "compressors" in opened.t.encoding, "the caller's stays as it is"


def test_parquet_keeps_an_index(tmp_path: Path) -> None:
    import pandas

    indexed = pandas.DataFrame({"a": [1, 2]}, index=pandas.Index(["x", "y"], name="who"))
    the_saver("parquet").save(indexed, tmp_path / "x.parquet")
    assert_same(indexed, the_loader("parquet").load(tmp_path / "x.parquet"))


def test_a_folder_in_the_way_of_a_saver_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.zarr").mkdir()
    (tmp_path / "x.zarr" / "kept").touch()
    with pytest.raises(Refused):
        the_saver("zarr").save(make_grid(), tmp_path / "x.zarr")
    assert ["kept"] == os.listdir(tmp_path / "x.zarr")
    assert ["x.zarr"] == os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["pickle", "txt", "npy"])
def test_a_full_disk_while_saving_is_the_machines_fault(small_tmpfs: MakeTmpfs, name: str) -> None:
    disk = small_tmpfs(1 << 20)
    value = {"pickle": b"x" * (8 << 20), "txt": "x" * (8 << 20), "npy": list(range(1 << 20))}[name]
    with pytest.raises(MachineFailed, match="disk full"):
        the_saver(name).save(value, disk / "x")
    assert [] == os.listdir(disk)


def test_a_file_like_object_without_a_name_is_told_so() -> None:
    with pytest.raises(SourceFailed, match="cannot load 'an open file' as json"):
        the_loader("json").load(io.BytesIO(b"{"))
    with pytest.raises(SourceFailed, match="cannot load 's3://b/k' as json"):
        the_loader("json").load(io.BytesIO(b"{"), label="s3://b/k")


def test_a_saved_file_has_the_users_usual_mode(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        the_saver("json").save(1, tmp_path / "x.json")
    finally:
        os.umask(mask)
    assert 0o640 == stat.S_IMODE((tmp_path / "x.json").stat().st_mode)
