"""Which loader and which saver a format has. Each is imported when it is asked for, its library when it is used."""

from __future__ import annotations

from types import ModuleType

from dm.plumbing.formats.loaders.kinds import Loader, Saver

#: The module here that reads and writes each format.
FORMATS = {
    "csv": "tables",
    "feather": "tables",
    "geojson": "features",
    "json": "documents",
    "jsonl": "documents",
    "md": "documents",
    "nc": "grids",
    "npy": "arrays",
    "npz": "arrays",
    "parquet": "tables",
    "pickle": "pickles",
    "tif": "grids",
    "toml": "documents",
    "tsv": "tables",
    "txt": "documents",
    "xlsx": "tables",
    "yaml": "documents",
    "zarr": "grids",
}
#: Libraries other than the usual one of a format: the module here for each format that they read and write.
LIBRARIES = {"polars": dict.fromkeys(("csv", "feather", "parquet", "tsv"), "polars_tables")}
#: Other names of a format; ``dimstack`` is the Julia package's name for NetCDF that it reads as one of its own types.
_SYNONYMS = {
    "dimstack": "nc",
    "nc4": "nc",
    "ndjson": "jsonl",
    "netcdf": "nc",
    "pkl": "pickle",
    "tiff": "tif",
    "yml": "yaml",
}


def find_loader(data_format: str, *, library: str = "") -> Loader | None:
    """The built-in loader of a format, in any case and with or without a leading dot; None when there is none.

    ``library`` (a name of `LIBRARIES`) asks for the one whose values are that library's, where the format has one.
    """
    name, family = _find_family(data_format, library)
    return None if family is None else next(loader for loader in family.LOADERS if loader.format == name)


def find_saved_loader(data_format: str, *, library: str = "") -> Loader | None:
    """The loader that gives back what the saver of a format wrote, to the letter; as `find_loader` else."""
    name, family = _find_family(data_format, library)
    exact = next((loader for loader in getattr(family, "SAVED_LOADERS", ()) if loader.format == name), None)
    return exact or find_loader(data_format, library=library)


def find_saver(data_format: str, *, library: str = "") -> Saver | None:
    """The built-in saver of a format, named as for `find_loader`; None when there is none."""
    name, family = _find_family(data_format, library)
    return None if family is None else next(saver for saver in family.SAVERS if saver.format == name)


def _find_family(data_format: str, library: str) -> tuple[str, ModuleType | None]:
    name = data_format.strip().lower().lstrip(".")
    name = _SYNONYMS.get(name, name)
    family = LIBRARIES.get(library, {}).get(name) or FORMATS.get(name)
    if family is None:
        return name, None
    from importlib import import_module

    return name, import_module(f"{__package__}.{family}")
