"""Tables, by polars: csv, tsv, parquet, feather. The value is a `polars.DataFrame`, in memory.

Files do not say which library's table they held, so that whoever loads one has to: `find_loader` with ``library``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dm.plumbing.formats.loaders.kinds import Loader, Saver, Source, need, refuse_value


def _library() -> Any:
    return need("polars", "polars")


def _read_csv(source: Source, separator: str = ",") -> object:
    return _library().read_csv(source, separator=separator)


def _read_tsv(source: Source) -> object:
    return _read_csv(source, "\t")


def _read_parquet(source: Source) -> object:
    return _library().read_parquet(source)


def _read_feather(source: Source) -> object:
    return _library().read_ipc(source)


def _write_csv(value: Any, path: Path, separator: str = ",") -> None:
    frame = _check(value)
    frame.write_csv(path, separator=separator)
    if b"#" in path.read_bytes():
        # Outside quotes a '#' begins a comment for the loader by pandas.
        frame.write_csv(path, separator=separator, quote_style="non_numeric")


def _write_tsv(value: Any, path: Path) -> None:
    _write_csv(value, path, "\t")


def _write_parquet(value: Any, path: Path) -> None:
    _check(value).write_parquet(path)


def _write_feather(value: Any, path: Path) -> None:
    _check(value).write_ipc(path)


def _check(value: Any) -> Any:
    if not isinstance(value, _library().DataFrame):
        refuse_value(value, "a polars.DataFrame")
    return value


LOADERS = (
    Loader("csv", "polars.read_csv", _read_csv),
    Loader("tsv", "polars.read_csv", _read_tsv),
    Loader("parquet", "polars.read_parquet", _read_parquet),
    Loader("feather", "polars.read_ipc", _read_feather),
)
SAVERS = (
    Saver("csv", "DataFrame.write_csv", _write_csv),
    Saver("tsv", "DataFrame.write_csv", _write_tsv),
    Saver("parquet", "DataFrame.write_parquet", _write_parquet),
    Saver("feather", "DataFrame.write_ipc", _write_feather),
)
