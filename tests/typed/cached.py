"""What a type checker sees of ``dm.cached``; checked by mypy, never run. An error that is not there is an error too."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, assert_type

import dm


@dm.cached
def bare(x: int, y: str = "a") -> float:
    return x * 1.0


@dm.cached(format="json", ignore=["y"], key=lambda table: {"x": table["x"]}, saver="module:save")
def configured(x: int, y: object = None) -> list[int]:
    return [x]


@dm.cached
async def coroutine(x: int) -> str:
    return str(x)


@dm.Manifest.of({}).cached(version="2")
def of_manifest(x: int, *, _path: Path = Path()) -> None: ...


class Model:
    @staticmethod
    @dm.cached
    def run(x: int) -> int:
        return x


def use_functions() -> None:
    assert_type(bare(1, y="b"), float)
    assert_type(bare.fresh(1), float)
    assert_type(bare.uncached(1), float)
    assert_type(bare.path(1), Path)
    assert_type(bare.is_cached(1), bool)
    assert_type(bare.forget(1), bool)
    assert_type(bare.hash(1), str)
    assert_type(configured(1), list[int])
    assert_type(Model.run(1), int)
    of_manifest(1)
    plain: Callable[[int], float] = bare
    plain(1)


async def use_coroutines() -> None:
    started: Coroutine[Any, Any, str] = coroutine(1)
    assert_type(await started, str)
    assert_type(await coroutine.fresh(1), str)
    assert_type(coroutine.is_cached(1), bool)


def refuse() -> None:
    bare("no")  # type: ignore[arg-type]
    bare.path()  # type: ignore[call-arg]
    configured(1, z=2)  # type: ignore[call-arg]
    dm.cached(fromat="json")  # type: ignore[call-overload]
    dm.cached(check="often")  # type: ignore[call-overload]
