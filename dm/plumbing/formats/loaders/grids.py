"""Gridded data, by xarray: nc and zarr as `xarray.Dataset`, tif as `xarray.DataArray`.

The values are read piece by piece when they are used, and hold their file open, for reading only, until they are closed
or collected.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, cast

from dm.plumbing.formats.loaders.kinds import Loader, Saver, Source, need, refuse_value
from dm.values import printable

#: GDAL would go by the content, and among the formats that it knows are some that say what else is to be read (VRT).
_TIF_DRIVER = "GTiff"
#: The codec that `_without_pickle` took out, once for each that is at it: the first has it, the others None.
_taken: list[Any] = []
_taking = Lock()
#: What of a variable's encoding says how its numbers are packed, rounded, or taken for missing.
_ROUNDING = frozenset({"least_significant_digit", "significant_digits", "quantize_mode"})
_MISSING = frozenset({"_FillValue", "missing_value"})
_PACKING = frozenset({"dtype", "scale_factor", "add_offset", "_Unsigned"}) | _ROUNDING | _MISSING
#: What says how the chunks of a zarr store were cut and coded, which its other versions and other chunks do not take.
_CHUNKING = frozenset({"chunks", "preferred_chunks", "shards", "compressor", "compressors", "filters", "serializer"})


def _read_nc(source: Any) -> object:
    xarray = need("xarray", "netcdf")
    if isinstance(source, Path):
        need("netCDF4", "netcdf")
        return xarray.open_dataset(source, engine="netcdf4")
    if source.read(4)[:3] == b"CDF":
        return _read_classic_nc(source)
    need("h5py", "netcdf")
    source.seek(0)
    need("h5netcdf", "netcdf")  # with h5py the one that reads from an open file
    return xarray.open_dataset(source, engine="h5netcdf")


def _read_classic_nc(file: Any) -> object:
    """NetCDF-3 from an open file: no library reads it piece by piece without a path, so all of it is read at once."""
    file.seek(0)
    dataset = need("netCDF4", "netcdf").Dataset("in place", memory=file.read())
    return need("xarray", "netcdf").open_dataset(need("xarray.backends", "netcdf").NetCDF4DataStore(dataset))


def _read_zarr(source: Source) -> object:
    need("zarr", "zarr")
    xarray, consolidated = need("xarray", "zarr"), _is_consolidated(source)
    with _without_pickle():
        return xarray.open_zarr(source, consolidated=consolidated)


@contextmanager
def _without_pickle() -> Iterator[None]:
    """While a store of zarr is opened, numcodecs knows no codec ``pickle``: it would run what the data says.

    Releases of numcodecs before 0.16.6 decode with it unasked. Every array's codecs are made when it is opened, so that
    what is read later has none either.
    """
    codecs = need("numcodecs.registry", "zarr").codec_registry
    with _taking:
        _taken.append(codecs.pop("pickle", None))
    try:
        yield
    finally:
        with _taking:
            codec = _taken.pop()
            if not _taken and codec is not None:
                codecs["pickle"] = codec


def _is_consolidated(source: Any) -> bool:
    """Whether a store's metadata are also in one place. Looked up, since guessing wrong is a warning or an error."""

    def read(name: str) -> bytes | None:
        if isinstance(source, Mapping):
            return source.get(name)
        place = source / name
        return place.read_bytes() if place.is_file() else None

    if read(".zmetadata") is not None:
        return True
    root = read("zarr.json")
    return root is not None and bool(json.loads(root).get("consolidated_metadata"))


def _read_tif(source: Source) -> object:
    rioxarray = need("rioxarray", "tif")
    if isinstance(source, Path):
        # GDAL would take scale, missing values, place and mask from files beside it as well, which no digest of this
        # one speaks of: in a store that several projects share, another may have put them there.
        alone = {"opener": _Alone(source)} if _has_company(source) else {}
        return rioxarray.open_rasterio(source, driver=_TIF_DRIVER, **alone)
    # Given the open file itself, rasterio would read all of it, and keep it only for as long as its own handle lives.
    shared = _SharedFile(cast(BinaryIO, source))
    return rioxarray.open_rasterio(shared.name, opener=shared, driver=_TIF_DRIVER)


def _has_company(path: Path) -> bool:
    """Whether something lies beside a file that may be about it: its name begins as the file's does."""
    own = {path.name, f"{path.name}.complete", f"{path.name}.lock"}
    stem = path.stem.casefold()
    try:
        names = os.listdir(path.parent)
    except PermissionError:
        return True  # it cannot be told
    return any(name.casefold().startswith(stem) and name not in own for name in names)


class _Alone:
    """An opener, as `rasterio.open` takes them, of one file and none beside it. It is slower than GDAL's own."""

    def __init__(self, path: Path) -> None:
        self._path = os.path.abspath(path)

    def __call__(self, path: str, mode: str = "rb") -> BinaryIO:
        if os.path.normpath(path) != self._path or mode not in ("r", "rb"):
            if os.path.isfile(path):
                import warnings

                told = f"'{printable(os.path.basename(path))}' beside '{printable(self._path)}' is not read"
                warnings.warn(told, stacklevel=2)
            raise FileNotFoundError(path)
        return open(self._path, "rb")


class _SharedFile:
    """One open file for all the handles that GDAL opens on it: an opener, as `rasterio.open` takes them.

    It has a name of its own, since GDAL remembers what it read by name, and nothing lies beside it.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.lock = Lock()
        self.name = f"{os.urandom(16).hex()}.tif"

    def __call__(self, path: str, mode: str = "rb") -> _Handle:
        if os.path.basename(path) != self.name:
            raise FileNotFoundError(path)
        return _Handle(self)


class _Handle(RawIOBase):
    """A place in a shared file. Closing it leaves the file open."""

    def __init__(self, shared: _SharedFile) -> None:
        self._shared = shared
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        with self._shared.lock:
            if whence == 1:
                offset, whence = self._position + offset, 0
            self._position = self._shared.file.seek(offset, whence)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        with self._shared.lock:
            self._shared.file.seek(self._position)
            data = self._shared.file.read(-1 if size is None else size)
            self._position += len(data)
        return data


def _write_nc(value: Any, path: Path) -> None:
    need("netCDF4", "netcdf")
    _without_packing(_check(value, "netcdf")).to_netcdf(path, engine="netcdf4")


def _write_zarr(value: Any, path: Path) -> None:
    need("zarr", "zarr")
    grid = _check(value, "zarr")
    names = [*grid.coords, *(grid.data_vars if hasattr(grid, "data_vars") else [grid.name])]
    nested = next((name for name in names if "/" in str(name)), None)
    if nested is not None:
        raise ValueError(f"'{nested}' would be lost: in zarr a name with '/' lies in another group")
    whole = _cut_evenly(_without_packing(grid))
    for variable in _list_variables(whole):
        variable.encoding = {name: each for name, each in variable.encoding.items() if name not in _CHUNKING}
    whole.to_zarr(path, mode="w-", consolidated=False)


def _without_packing(grid: Any) -> Any:
    """A grid that is written with the numbers that it holds.

    What was opened remembers how its file had packed them (as whole numbers, with a scale), and that stays with what is
    computed from it: other numbers would be rounded to it, or overflow.
    """
    copy = grid.copy(deep=False)
    for variable in _list_variables(copy):
        encoding = variable.encoding
        if variable.dtype.kind in "iufcmM":
            encoding = {name: each for name, each in encoding.items() if name not in _PACKING}
        if variable.dtype.kind in "mM" and "units" in encoding:
            if variable.chunks is None:
                encoding["dtype"] = "int64"  # in finer units where these would lose something
            else:
                del encoding["units"]  # times that are not there yet cannot be held against them
        variable.encoding = encoding
    return copy


def _list_variables(grid: Any) -> list[Any]:
    variables = list(grid.variables.values()) if hasattr(grid, "data_vars") else [grid.variable]
    return [*variables, *(each.variable for each in grid.coords.values())]


def _cut_evenly(grid: Any) -> Any:
    """A grid whose chunks zarr can take: all of one size, but for a smaller one at the end."""
    uneven = {
        dimension: max(sizes)
        for variable in _list_variables(grid)
        for dimension, sizes in variable.chunksizes.items()
        if len(set(sizes[:-1])) > 1 or sizes[-1] > sizes[0]
    }
    return grid.chunk(uneven) if uneven else grid


def _write_tif(value: Any, path: Path) -> None:
    need("rioxarray", "tif")
    if not isinstance(value, need("xarray", "tif").DataArray):
        refuse_value(value, "an xarray.DataArray")
    value.rio.to_raster(path, driver="GTiff")


def _check(value: Any, extra: str) -> Any:
    xarray = need("xarray", extra)
    if not isinstance(value, xarray.Dataset | xarray.DataArray):
        refuse_value(value, "an xarray.Dataset or DataArray")
    return value


LOADERS = (
    Loader("nc", "xarray.open_dataset", _read_nc, keeps_open=True),
    Loader("zarr", "xarray.open_zarr", _read_zarr, "mapping", keeps_open=True, takes_folder=True),
    Loader("tif", "rioxarray.open_rasterio", _read_tif, keeps_open=True),
)
SAVERS = (
    Saver("nc", "Dataset.to_netcdf", _write_nc),
    Saver("zarr", "Dataset.to_zarr", _write_zarr),
    Saver("tif", "DataArray.rio.to_raster", _write_tif),
)
