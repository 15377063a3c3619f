"""Plain arrays, by numpy: npy as `numpy.ndarray`, npz as a table of them by name; in memory, never unpickled."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from dm.plumbing.formats.loaders.kinds import Loader, Saver, Source, need, refuse_value

#: What numpy makes an array of that holds all of it.
_NUMBERS = (bool, int, float, complex, str, bytes, list, tuple)


def _read_npy(source: Source) -> object:
    numpy = need("numpy", "numpy")
    array = numpy.load(source, allow_pickle=False)
    if not isinstance(array, numpy.ndarray):
        raise ValueError("it is no single array")
    return array


def _read_npz(source: Source) -> object:
    numpy = need("numpy", "numpy")
    with numpy.load(source, allow_pickle=False) as arrays:
        if isinstance(arrays, numpy.ndarray):
            raise ValueError("it is a single array")
        # By the names of its members: what one is called without its ending may be another one's whole name.
        return {name.removesuffix(".npy"): arrays[name] for name in arrays.zip.namelist()}


class _Written:
    """A file that can only be written to: numpy would write to the descriptor of another and not say why it failed."""

    def __init__(self, file: BinaryIO) -> None:
        self.write = file.write


def _write_npy(value: Any, path: Path) -> None:
    with path.open("wb") as file:
        need("numpy", "numpy").save(_Written(file), _check(value), allow_pickle=False)


def _write_npz(value: Any, path: Path) -> None:
    numpy = need("numpy", "numpy")
    if not isinstance(value, Mapping):
        refuse_value(value, "a table of arrays by name")
    arrays = {str(name): numpy.asanyarray(_check(array)) for name, array in value.items()}
    if any(array.dtype.hasobject for array in arrays.values()):
        raise ValueError("arrays of Python objects are not saved")
    if len(arrays) < len(value):
        raise ValueError("two of its names are the same as texts, and one would be lost")
    if any("\0" in name for name in arrays):
        raise ValueError("a name of it would be cut off at its NUL character")
    # What numpy.savez does, which takes some names for its own parameters.
    with zipfile.ZipFile(path, "w") as file:
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                numpy.lib.format.write_array(member, array, allow_pickle=False)


def _check(value: Any) -> Any:
    """An array, or numbers and texts in lists. What says more than its numbers do (a mask, units, labels) would lose
    that without a word.
    """
    numpy = need("numpy", "numpy")
    kinds = (numpy.ndarray, numpy.memmap, numpy.matrix, numpy.recarray)
    if type(value) not in kinds and not isinstance(value, (*_NUMBERS, numpy.generic)):
        told = f"an array is wanted, not '{type(value).__name__}'"
        raise TypeError(f"{told}: numpy.asarray(…) says that its numbers alone are meant")
    dtype = numpy.asanyarray(value).dtype
    form = numpy.lib.format
    if not dtype.hasobject and form.descr_to_dtype(form.dtype_to_descr(dtype)) != dtype:
        raise ValueError(f"its type '{dtype}' would come back as another one")
    return value


def _is_array(value: Any) -> bool:
    return type(value) is need("numpy", "numpy").ndarray


def _is_table_of_arrays(value: Any) -> bool:
    return type(value) is dict and all(type(name) is str and _is_array(array) for name, array in value.items())


LOADERS = (Loader("npy", "numpy.load", _read_npy), Loader("npz", "numpy.load", _read_npz))
SAVERS = (
    Saver("npy", "numpy.save", _write_npy, keeps=_is_array),
    Saver("npz", "numpy.savez", _write_npz, keeps=_is_table_of_arrays),
)
