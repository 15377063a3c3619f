"""Features with a geometry, by geopandas: geojson as `geopandas.GeoDataFrame`, in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, cast

from dm.plumbing.formats.loaders.kinds import Loader, Saver, Source, need, refuse_value

#: What a document may be (RFC 7946, section 1.4).
_TYPES = frozenset(
    (
        "Feature", "FeatureCollection", "GeometryCollection", "LineString", "MultiLineString", "MultiPoint",
        "MultiPolygon", "Point", "Polygon",
    )
)  # fmt: skip


def _read_geojson(source: Source) -> object:
    """Only as GeoJSON: GDAL would go by the content, and among the formats that it knows are some that say what else is
    to be read or done (VRT, GDALG).
    """
    read_file = need("geopandas", "geojson").read_file
    need("pyogrio", "geojson")
    if isinstance(source, Path):
        return read_file(f"GeoJSON:{source.absolute()}", engine="pyogrio")
    # What is open has no name to put a driver before.
    document = json.loads(cast(BinaryIO, source).read())
    if not isinstance(document, Mapping) or document.get("type") not in _TYPES:
        raise ValueError("it is no GeoJSON")
    return read_file(BytesIO(json.dumps(document).encode()), engine="pyogrio")


def _write_geojson(value: Any, path: Path) -> None:
    if not isinstance(value, need("geopandas", "geojson").GeoDataFrame):
        refuse_value(value, "a geopandas.GeoDataFrame")
    if not value.index.equals(need("pandas", "geojson").RangeIndex(len(value))) or value.index.name is not None:
        raise ValueError("its index would be lost: call reset_index() first")
    value.to_file(path, driver="GeoJSON")


LOADERS = (Loader("geojson", "geopandas.read_file", _read_geojson),)
SAVERS = (Saver("geojson", "GeoDataFrame.to_file", _write_geojson),)
