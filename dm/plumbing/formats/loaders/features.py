"""Features with a geometry, by geopandas: geojson as `geopandas.GeoDataFrame`, in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dm.plumbing.formats.loaders.kinds import Loader, Saver, Source, need, refuse_value


def _read_geojson(source: Source) -> object:
    return need("geopandas", "geojson").read_file(source)


def _write_geojson(value: Any, path: Path) -> None:
    if not isinstance(value, need("geopandas", "geojson").GeoDataFrame):
        refuse_value(value, "a geopandas.GeoDataFrame")
    if not value.index.equals(need("pandas", "geojson").RangeIndex(len(value))) or value.index.name is not None:
        raise ValueError("its index would be lost: call reset_index() first")
    value.to_file(path, driver="GeoJSON")


LOADERS = (Loader("geojson", "geopandas.read_file", _read_geojson),)
SAVERS = (Saver("geojson", "GeoDataFrame.to_file", _write_geojson),)
