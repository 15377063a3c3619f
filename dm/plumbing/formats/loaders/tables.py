"""Tables, by pandas: csv, tsv, parquet, feather, xlsx. The value is a `pandas.DataFrame`, in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dm.plumbing.formats.loaders.kinds import Loader, Saver, Source, need, refuse_value


def _read_csv(source: Source) -> object:
    return need("pandas", "csv").read_csv(source, comment="#")


def _read_tsv(source: Source) -> object:
    return need("pandas", "csv").read_csv(source, sep="\t", comment="#")


def _read_parquet(source: Source) -> object:
    need("pyarrow", "parquet")
    return need("pandas", "parquet").read_parquet(source)


def _read_feather(source: Source) -> object:
    need("pyarrow", "parquet")
    return need("pandas", "parquet").read_feather(source)


def _read_xlsx(source: Source) -> object:
    need("openpyxl", "xlsx")
    return need("pandas", "xlsx").read_excel(source, engine="openpyxl")


def _write_csv(value: Any, path: Path, separator: str = ",") -> None:
    import csv

    frame = _check_columns(_check_table(value, "csv"))
    frame.to_csv(path, sep=separator, index=False)
    written = path.read_bytes()
    if b"#" in written or b"\r" in written:
        # Outside quotes a '#' begins a comment for the loader, and a '\\r' ends a line.
        frame.to_csv(path, sep=separator, index=False, quoting=csv.QUOTE_NONNUMERIC)


def _write_tsv(value: Any, path: Path) -> None:
    _write_csv(value, path, "\t")


def _write_parquet(value: Any, path: Path) -> None:
    need("pyarrow", "parquet")
    _check_frame(value, "parquet").to_parquet(path)


def _write_feather(value: Any, path: Path) -> None:
    need("pyarrow", "parquet")
    _check_table(value, "parquet").to_feather(path)


def _write_xlsx(value: Any, path: Path) -> None:
    need("openpyxl", "xlsx")
    frame = _check_columns(_check_table(value, "xlsx"))
    with path.open("wb") as file:
        frame.to_excel(file, index=False, engine="openpyxl")
    if need("pandas", "xlsx").read_excel(path, engine="openpyxl").shape != frame.shape:
        raise ValueError("rows or columns of it would be lost: xlsx keeps no empty ones at the end")


def _check_frame(value: Any, extra: str) -> Any:
    if type(value).__module__.partition(".")[0] == "polars":
        told = "a pandas.DataFrame is wanted, not one of polars; of a cached function, say '-> polars.DataFrame'"
        raise TypeError(told)
    if not isinstance(value, need("pandas", extra).DataFrame):
        refuse_value(value, "a pandas.DataFrame")
    return value


def _check_table(value: Any, extra: str) -> Any:
    """A frame without an index of its own: these formats would lose it without a word."""
    frame = _check_frame(value, extra)
    pandas = need("pandas", extra)
    if not frame.index.equals(pandas.RangeIndex(len(frame))) or frame.index.name is not None:
        raise ValueError("its index would be lost: call reset_index() first, or use parquet, which keeps it")
    return frame


def _check_columns(frame: Any) -> Any:
    """A frame whose header is one row of different names: more would come back as rows, or under other names."""
    if frame.columns.nlevels > 1:
        raise ValueError("the levels of its columns would come back as rows: use parquet, which keeps them")
    names = [str(name) for name in frame.columns]
    if len(set(names)) < len(names):
        raise ValueError("two of its columns have one name, and one would come back under another")
    return frame


LOADERS = (
    Loader("csv", "pandas.read_csv", _read_csv),
    Loader("tsv", "pandas.read_csv", _read_tsv),
    Loader("parquet", "pandas.read_parquet", _read_parquet, takes_folder=True),
    Loader("feather", "pandas.read_feather", _read_feather),
    Loader("xlsx", "pandas.read_excel", _read_xlsx),
)
SAVERS = (
    Saver("csv", "DataFrame.to_csv", _write_csv),
    Saver("tsv", "DataFrame.to_csv", _write_tsv),
    Saver("parquet", "DataFrame.to_parquet", _write_parquet),
    Saver("feather", "DataFrame.to_feather", _write_feather),
    Saver("xlsx", "DataFrame.to_excel", _write_xlsx),
)
