"""What a type checker sees of ``import dm``; checked by mypy, never run. An error that is not there is an error too."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, assert_type

import dm


def use_functions() -> None:
    assert_type(dm.init("paper"), dm.Outcome)
    assert_type(dm.add(Path("own.csv"), name="own", pick="*.nc", fetch=False), dm.Outcome | list[dm.Outcome])
    assert_type(dm.fetch("a", force=True), dm.Outcome)
    assert_type(dm.fetch(), list[dm.Outcome])
    assert_type(dm.fetch(["a"], dry_run=True, fail_fast=True, jobs=2, delegate=False), list[dm.Outcome])
    assert_type(dm.load("a", loader="csv"), Any)
    assert_type(dm.path("a"), Path)
    assert_type(dm.status("a"), dm.Outcome)
    assert_type(dm.status(("a", "b")), list[dm.Outcome])
    assert_type(dm.verify("a", quick=True, check=False), dm.Outcome)
    assert_type(dm.verify(older_than="30d", max_time=timedelta(minutes=10), repair=True), list[dm.Outcome])
    assert_type(dm.verify(Path("copy")), list[dm.Outcome])
    assert_type(dm.verify([Path("copy"), Path("other")], all=False, root="store"), list[dm.Outcome])
    assert_type(dm.remove("a", delete=True), dm.Outcome)
    assert_type(dm.remove(["a"], dry_run=True), list[dm.Outcome])
    assert_type(dm.pin("a"), dm.Outcome)
    assert_type(dm.unlock("a"), dm.Outcome)
    assert_type(dm.lock(["a"], check=False), list[dm.Outcome])
    assert_type(dm.refresh(), list[dm.Outcome])
    assert_type(dm.list("cached"), list[dm.Outcome])
    assert_type(dm.show("a"), dict[str, object])
    assert_type(dm.delete("model.run/83", dry_run=True), list[dm.Outcome])
    assert_type(dm.dedup(include_pool=[Path("pool"), "other"], root="store"), list[dm.Outcome])
    assert_type(dm.prune(grace=0, gone=True, quarantine=True), list[dm.Outcome])
    assert_type(dm.hash_params({"grid": "5x5"}), str)
    assert_type(dm.list()[0].fields["key"], object)
    open(dm.fetch("a")).close()


def use_methods(manifest: dm.Manifest) -> None:
    assert_type(manifest.names, list[str])
    assert_type(manifest.path, Path | None)
    assert_type(manifest.path_of("a"), Path)
    assert_type(manifest.fetch("a"), dm.Outcome)
    assert_type(manifest.pin(["a"]), list[dm.Outcome])
    assert_type(manifest.list(), list[dm.Outcome])


def refuse() -> None:
    dm.fetch(1)  # type: ignore[call-overload]
    dm.fetch("a", forc=True)  # type: ignore[call-overload]
    dm.pin()  # type: ignore[call-overload]
    dm.load()  # type: ignore[call-arg]
    dm.add("a", nmae="b")  # type: ignore[call-arg]
    dm.prune(grace=[])  # type: ignore[arg-type]
