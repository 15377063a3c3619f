"""`dm verify --repair --dry-run` says what would be mended and from where, changes nothing, and keeps its word."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.cli.test_repair import break_link
from tests.cli.test_repair_sources import put
from tests.cli.test_verify import copy_of, fetched, overwrite, store_folder
from tests.fixtures.commands import NO_RETRIES, Ask, snapshot, store_root, write_manifest
from tests.fixtures.homes import Home, RunDm
from tests.fixtures.servers import HttpServer

DRY = ("verify", "--repair", "--dry-run")


def nothing_changes(home: Home) -> object:
    """All data, objects and refs, without what may be recorded of a look."""
    found = snapshot(store_root(home))
    return {name: each for name, each in found.items() if not re.search(r"/\.dm/(refs|looked|locks)", f"/{name}")}


def test_a_dataset_names_the_object_that_it_would_be_mended_from(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    fetched(project, http_server, run_dm, "a", "b")
    break_link(copy_of(home, "a"), b"wrong")
    before = nothing_changes(home)
    first = ask(*DRY).outcomes[0]
    assert ("failed", "would-mend", 4) == (first["status"], first["code"], ask(*DRY).status)
    objects = store_root(home) / ".dm" / "objects"
    assert re.search(rf"; would mend 1 path: from '{objects}/\w\w/\w+'$", first["message"])
    assert before == nothing_changes(home)
    assert 0 == ask("verify", "--repair").status


def test_a_folder_names_each_path(home: Home, tmp_path: Path, project: Path, run_dm: RunDm, ask: Ask) -> None:
    write_manifest(project)
    folder = store_folder(home, run_dm, tmp_path)
    overwrite(folder / "a", b"X")
    break_link(folder / "sub" / "b", b"wrong")
    (folder / "added").write_text("added")
    pool = tmp_path / "pool"
    put(pool / "folder" / "a", b"content of a")
    before = nothing_changes(home)
    answer = ask(*DRY, folder, env={"DATAMANIFEST_DATASETS_POOLS": os.fspath(pool)})
    assert (4, "would-mend") == (answer.status, answer.only["code"])
    told = answer.only["message"].partition("would mend ")[2]
    objects = store_root(home) / ".dm" / "objects"
    assert told.startswith(f"3 paths: a from '{pool}/folder/a', added put aside, sub/b from '{objects}/")
    assert before == nothing_changes(home)


def test_what_only_the_source_has_is_said_and_not_fetched(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    fetched(project, http_server, run_dm, "a")
    overwrite(copy_of(home, "a"), b"X")
    asked = http_server.count("/a.bin")
    told = ask(*DRY, env=NO_RETRIES).only
    assert ("would-mend", True) == (
        told["code"], told["message"].endswith("no sound copy is in reach: it would be fetched again"),
    )  # fmt: skip
    assert asked == http_server.count("/a.bin")


@pytest.mark.parametrize("in_pool", [False, True])
def test_all_plans_objects_copies_and_what_is_untidy(
    home: Home, tmp_path: Path, project: Path, run_dm: RunDm, ask: Ask, in_pool: bool
) -> None:
    write_manifest(project)
    folder = store_folder(home, run_dm, tmp_path)
    overwrite(folder / "sub" / "c", b"X")
    stray = folder.with_name("gone.bin.complete")
    stray.touch()
    pool = tmp_path / "pool"
    if in_pool:
        put(pool / "folder" / "sub" / "c", b"content of sub/c")
    before = nothing_changes(home)
    answer = ask(*DRY, "--all", env={"DATAMANIFEST_DATASETS_POOLS": os.fspath(pool)})
    assert (4, before) == (answer.status, nothing_changes(home))
    told = {item["code"]: item["message"] for item in answer.outcomes if item.get("code")}
    assert told["marker-stray"].endswith("; would be removed")
    if in_pool:
        object_told, copy_told = [item["message"] for item in answer.outcomes if item.get("code") == "would-mend"]
        assert object_told.endswith(f"; would be mended from '{pool}/folder/sub/c'")
        assert copy_told.endswith(f"; would mend 1 path: sub/c from '{pool}/folder/sub/c'")
    else:
        assert "no sound copy of" in told["object-damaged"]
        assert "would-mend" not in told


def test_a_dry_run_without_a_repair_is_refused(project: Path, run_dm: RunDm) -> None:
    write_manifest(project)
    assert 2 == run_dm("verify", "--dry-run").returncode
