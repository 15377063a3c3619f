"""Python objects, by pickle. Reading one may run any code: it takes the user's permission, and a copy with a path."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, BinaryIO, cast

from dm.plumbing.formats.loaders.kinds import Loader, Saver, Source


def _read_pickle(source: Source) -> object:
    if isinstance(source, Path):
        with source.open("rb") as file:
            return pickle.load(file)
    return pickle.loads(cast(BinaryIO, source).read())


def _write_pickle(value: Any, path: Path) -> None:
    with path.open("wb") as file:
        pickle.dump(value, file, protocol=5)  # the first that keeps the byte order of arrays


LOADERS = (Loader("pickle", "pickle.load", _read_pickle, in_place=None, runs_code=True),)
SAVERS = (Saver("pickle", "pickle.dump", _write_pickle, keeps=lambda _value: True),)
