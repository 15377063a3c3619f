"""Produced datasets on the command line: listed, shown, found, deleted."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest

from dm.errors import Refused
from dm.plumbing.records.params import hash_params
from dm.plumbing.records.sidecars import encode_config
from dm.porcelain.artifacts.describing import list_artifacts
from dm.porcelain.artifacts.opening import open_project
from dm.porcelain.artifacts.recipe import Recipe
from dm.porcelain.cli.list import format_params
from dm.porcelain.cli.render import stream_table
from dm.porcelain.project import Project
from dm.porcelain.verbs.delete import delete
from tests.fixtures.artifacts import HASH, RECIPE, TABLE, Results, make_environment
from tests.fixtures.commands import Ask, assert_one_error, snapshot, write_manifest
from tests.fixtures.homes import Home, RunDm
from tests.fixtures.machine import needs_root
from tests.fixtures.users import OTHER_USER

SHORT = HASH[:12]
EMPTY = hash_params({})


def make_artifact(
    root: Path,
    table: dict[str, Any],
    *,
    cachetype: str = "model.run",
    version: str = "",
    data: bytes = b"a value",
    name: str = "data.txt",
) -> Path:
    """An artifact as a peer makes it, by hand."""
    param_hash = hash_params(table)
    folder = root / cachetype / version / param_hash
    folder.mkdir(parents=True)
    (folder / name).write_bytes(data)
    (folder / "config.toml").write_bytes(encode_config(cachetype, version, table, param_hash))
    (folder / ".complete").touch()
    return folder


def open_here(home: Home, project: Path) -> Project:
    return open_project(make_environment(home, project))


def find_folder(home: Home, project: Path) -> Path:
    """Where this project's artifacts lie."""
    return home.cache / "datamanifest" / open_here(home, project).places.project_id() / "cached"


def read_instances(project: Path) -> dict[str, set[str]]:
    state = tomllib.loads((project / ".datamanifest-state.toml").read_text())
    return {key: set(recipe["instances"]) for key, recipe in state.get("datacache", {}).items()}


def assert_not_found(done: subprocess.CompletedProcess[str], message: str) -> None:
    assert message == assert_one_error(done, 3)


@pytest.fixture
def made(results: Results) -> Results:
    """Two results of one function in two formats, one of another with a version."""
    results.call()
    results.call(Recipe("model.run", ref="model:run", format="txt"))
    results.call(table={})
    results.call(Recipe("model.grid", "v2", "model:make_grid", format="json"), {"n": 1}, value=[1, 2])
    results.artifacts.close()
    return results


# list -----------------------------------------------------------------------------------------------------------------


def test_list_shows_declared_datasets_alone_unless_asked(made: Results, run_dm: RunDm, ask: Ask, project: Path) -> None:
    write_manifest(project, '[a]\nuri = "https://example.org/a.csv"\n')
    assert "NAME  FORMAT  PINNED  KEY\na     csv     -       example.org/a.csv\n" == run_dm("list").stdout
    assert run_dm("list").stdout == run_dm("list", "--kind", "data").stdout
    assert b"a\0" == os.fsencode(run_dm("list", "-z").stdout)
    assert {"format", "command", "outcomes", "datasets", "exit"} == set(ask("list").document)


def test_cached_rows_have_name_formats_size_time_state_and_parameters(made: Results, run_dm: RunDm) -> None:
    done = run_dm("list", "--kind", "cached")
    lines = [re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "T", line) for line in done.stdout.splitlines()]
    lines = [re.sub(r" +\d+ B", " SIZE", line).replace("  ", " ") for line in lines]
    lines = [re.sub(" +", " ", line) for line in lines]
    n = hash_params({"n": 1})[:12]
    assert (0, "") == (done.returncode, done.stderr)
    assert [
        "NAME FORMAT SIZE FILES CREATED STATE PARAMETERS",
        f"model.grid/v2/{n} json SIZE 3 T complete n=1",
        f"model.run/{EMPTY[:12]} pickle SIZE 3 T complete (none)",
        f'model.run/{SHORT} pickle,txt SIZE 4 T complete grid="5x5" skip_models=["CESM.*","FGOALS.*"]',
    ] == lines


def test_the_document_has_all_of_a_row(made: Results, ask: Ask, home: Home, project: Path) -> None:
    answer = ask("list", "--kind", "cached")
    row = answer.document["artifacts"][-1]
    path = find_folder(home, project) / "model.run" / HASH
    size = sum(file.stat().st_size for file in path.iterdir())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row.pop("created"))
    assert {
        "kind": "cached",
        "name": f"model.run/{HASH}",
        "cachetype": "model.run",
        "version": None,
        "hash": HASH,
        "params": TABLE,
        "formats": ["pickle", "txt"],
        "state": "complete",
        "path": str(path),
        "bytes": size,
        "files": 4,
    } == row
    assert [row["name"] for row in answer.document["artifacts"]] == [each["name"] for each in answer.outcomes]
    assert ("complete", size, str(path)) == tuple(answer.outcomes[-1][field] for field in ("state", "bytes", "path"))


def test_all_kinds_are_two_tables_and_names_are_whole_with_z(made: Results, run_dm: RunDm, project: Path) -> None:
    write_manifest(project, '[a]\nuri = "https://example.org/a.csv"\n')
    first, second = run_dm("list", "--kind", "all").stdout.split("\n\n")
    assert (first.startswith("NAME  FORMAT  PINNED"), second.startswith("NAME ")) == (True, True)
    n = hash_params({"n": 1})
    names = ["a", f"model.grid/v2/{n}", f"model.run/{EMPTY}", f"model.run/{HASH}"]
    assert names == run_dm("list", "--kind", "all", "-z").stdout.rstrip("\0").split("\0")


def test_nothing_cached_is_said(run_dm: RunDm, project: Path) -> None:
    write_manifest(project, "")
    done = run_dm("list", "--kind", "cached")
    assert (0, "", "no artifacts: nothing was computed here by a cached function\n") == (
        done.returncode,
        done.stdout,
        done.stderr,
    )


def test_without_a_manifest_artifacts_are_those_of_the_folders_project(home: Home, project: Path, ask: Ask) -> None:
    (project / "pyproject.toml").write_text('[project]\nname = "storms"\n')
    (project / "deep").mkdir()
    Results(make_environment(home, project / "deep")).call()
    names = [row["name"] for row in ask("list", "--kind", "cached", cwd=project / "deep").document["artifacts"]]
    assert [f"model.run/{HASH}"] == names
    assert f"model.run/{HASH}" == ask("show", "model.run/8").document["artifact"]["name"]
    assert 3 == ask("list").status
    assert 0 == ask("delete", "model.run/8").status
    assert [] == ask("list", "--kind", "cached").document["artifacts"]
    assert ["deep", "pyproject.toml"] == sorted(os.listdir(project))


def test_states_say_what_is_off(made: Results, home: Home, project: Path) -> None:
    root = find_folder(home, project)
    make_artifact(root, {"a": 1})
    (make_artifact(root, {"a": 2}) / ".complete").unlink()
    (make_artifact(root, {"a": 3}) / "config.toml").write_text("a = 4\n")
    (make_artifact(root, {"a": 5}) / "config.toml").unlink()
    make_artifact(root, {"a": 6}).rename(root / "model.run" / hash_params({"a": 7}))
    make_artifact(root, {"a": 8}, cachetype="other").rename(root / "model.run" / hash_params({"a": 8}))
    made.artifacts.forget(RECIPE, {})
    state = project / ".datamanifest-state.toml"
    state.write_text(state.read_text().replace("[_META]", f'[datacache.gone.instances]\n{EMPTY} = "gone"\n[_META]'))
    found = {facts.spot.address: facts for facts in list_artifacts(open_here(home, project))}
    n = hash_params({"n": 1})
    assert {
        f"model.run/{HASH}": ("complete", None),
        f"model.grid/v2/{n}": ("complete", None),
        f"model.run/{hash_params({'a': 1})}": ("untracked", None),
        f"model.run/{hash_params({'a': 2})}": ("partial", "it has no marker that says it is complete"),
        f"model.run/{hash_params({'a': 3})}": ("malformed", found[f"model.run/{hash_params({'a': 3})}"].fault),
        f"model.run/{hash_params({'a': 5})}": ("malformed", "its 'config.toml' is lost"),
        f"model.run/{hash_params({'a': 7})}": ("malformed", "its 'config.toml' is of another artifact"),
        f"model.run/{hash_params({'a': 8})}": ("malformed", "its 'config.toml' is of another artifact"),
        f"gone/{EMPTY}": ("missing", None),
    } == {name: (facts.state, facts.fault) for name, facts in found.items()}
    # what only lies where others write has size and files by looking
    facts = found[f"model.run/{hash_params({'a': 1})}"]
    size = sum(file.stat().st_size for file in root.joinpath("model.run", facts.spot.hash).iterdir())
    assert (size, 2, ["txt"]) == (facts.size_bytes, facts.files, facts.formats)


def test_a_fifo_for_a_sidecar_is_not_waited_for(home: Home, project: Path) -> None:
    write_manifest(project)
    first, second = (make_artifact(find_folder(home, project), {"a": number}) for number in (1, 2))
    (first / "config.toml").unlink()
    os.mkfifo(first / "config.toml")
    os.mkfifo(second / "metadata.toml")
    states = {facts.spot.hash: facts.state for facts in list_artifacts(open_here(home, project))}
    assert {first.name: "malformed", second.name: "untracked"} == states


def test_what_is_no_artifact_is_not_entered(made: Results, home: Home, project: Path) -> None:
    """A dataset's copy, a store further in, a link: none of them is looked through."""
    root = find_folder(home, project)
    for name in ("copy", "store", "hidden"):
        make_artifact(root / name, {"a": 1})
    (root / "copy" / ".complete").touch()
    (root / "store" / ".dm").mkdir()
    (root / "hidden").rename(root / ".hidden")
    (root / "linked").symlink_to(root / "model.run")
    (root / "model.run" / hash_params({"b": 1})).symlink_to(root / "model.run" / HASH)
    assert 3 == len(list(list_artifacts(open_here(home, project))))


def test_pools_and_the_peers_folder_are_listed_after_ones_own(
    made: Results, home: Home, project: Path, tmp_path: Path
) -> None:
    write_manifest(project, f'[_STORAGE]\ndatacache_pools = ["{tmp_path}/pool"]\n')
    make_artifact(tmp_path / "pool", TABLE)
    make_artifact(tmp_path / "pool", {"a": 1})
    make_artifact(home.cache / "datamanifest" / "projects" / "project" / "cached", {"a": 2})
    found = [facts.spot.folder for facts in list_artifacts(open_here(home, project))]
    expected = [
        find_folder(home, project) / "model.run" / HASH,
        tmp_path / "pool" / "model.run" / hash_params({"a": 1}),
        home.cache / "datamanifest/projects/project/cached/model.run" / hash_params({"a": 2}),
    ]
    assert expected == [folder for folder in found if folder in expected]
    assert 5 == len(found)


def test_long_tables_are_drawn_while_they_are_made(capfd: pytest.CaptureFixture[str]) -> None:
    def make_rows() -> Any:
        for number in range(1000):
            if number == 999:
                drawn.append(len(capfd.readouterr().out.splitlines()))
            yield "x" * (1 + number // 500 * 9), str(number)

    drawn: list[int] = []
    assert stream_table(("a", "b"), make_rows())
    last = capfd.readouterr().out.splitlines()[-1]
    assert (drawn[0] > 300, "xxxxxxxxxx  999") == (True, last)
    assert not stream_table(("a", "b"), [])


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ({}, "(none)"),
        ({"b": True, "a": 1.0, "s": "word"}, "b=true a=1.0 s=word"),
        ({"s": "two words", "t": "true", "n": "1", "e": ""}, 's="two words" t="true" n="1" e=""'),
        ({"t": {"x": [1, "é"]}, "l": "[1]"}, 't={"x":[1,"é"]} l="[1]"'),
        ({"long": "x" * 300}, "long=" + "x" * 194 + "…"),
    ],
)
def test_parameters_have_one_line(table: dict[str, Any], line: str) -> None:
    assert line == format_params(table)


# path, show -----------------------------------------------------------------------------------------------------------


def test_path_prints_the_folder(made: Results, run_dm: RunDm, home: Home, project: Path) -> None:
    folder = find_folder(home, project) / "model.grid" / "v2" / hash_params({"n": 1})
    for name in ("model.grid/v2/", "model.grid@v2/", "model.grid/"):
        done = run_dm("path", name + folder.name[:3].upper())
        assert (0, f"{folder}\n", "") == (done.returncode, done.stdout, done.stderr)


def test_path_of_a_partial_one_is_not_there(made: Results, run_dm: RunDm, home: Home, project: Path) -> None:
    (find_folder(home, project) / "model.run" / HASH / ".complete").unlink()
    assert_not_found(run_dm("path", "model.run/83"), f"'model.run/{SHORT}' is not there")


def test_show_tells_all_that_is_known(made: Results, ask: Ask, run_dm: RunDm, home: Home, project: Path) -> None:
    facts = ask("show", "model.run/83").document["artifact"]
    folder = find_folder(home, project) / "model.run" / HASH
    assert (TABLE, "model:run", str(folder), str(home.cache / "datamanifest"), True) == tuple(
        facts[name] for name in ("params", "ref", "path", "store_root", "recorded")
    )
    sizes = {file.name: file.stat().st_size for file in folder.glob("data.*")}
    assert sizes == {each["name"]: each["bytes"] for each in facts["data"]}
    assert facts["digest"].startswith("blake3-tree:")
    assert "here" == facts["made"]["host"]
    assert ({}, str(project / ".datamanifest-state.toml")) == (facts["made"]["git"], facts["made"]["state_file"])
    lines = run_dm("show", "model.run/83").stdout.splitlines()
    assert {"  grid: 5x5", f"path: {folder}", "state: complete", "  host: here"} <= set(lines)


def test_show_tells_where_each_format_comes_from(
    made: Results, ask: Ask, run_dm: RunDm, home: Home, project: Path
) -> None:
    by_other_code = Recipe("model.run", ref="model:run", format="yaml", code_digest="python-1:00")
    made.call(by_other_code)
    facts = ask("show", "model.run/83").document["artifact"]
    assert "python-1:00" == facts["made"]["code_digest"]
    assert ["data.pickle", "data.txt"] == sorted(facts["earlier"])
    assert [None, None] == [each["code_digest"] for each in facts["earlier"].values()]
    folder = find_folder(home, project) / "model.run" / HASH
    kept = tomllib.loads((folder / "metadata.toml").read_text())["earlier"]
    assert {name: each["created"] for name, each in kept.items()} == {
        name: each["created"] for name, each in facts["earlier"].items()
    }
    assert "  data.txt:" in run_dm("show", "model.run/83").stdout.splitlines()
    (folder / "data.txt").unlink()
    assert ["data.pickle"] == list(ask("show", "model.run/83").document["artifact"]["earlier"])


def test_a_declared_dataset_of_that_name_comes_first(made: Results, ask: Ask, project: Path) -> None:
    write_manifest(project, '["model.run/83"]\nuri = "https://example.org/a.csv"\n')
    assert "dataset" in ask("show", "model.run/83").document
    assert "artifact" in ask("show", "model.run/834").document


@pytest.mark.parametrize("command", ["show", "path"])
def test_a_name_that_nothing_has_is_not_found(made: Results, run_dm: RunDm, command: str) -> None:
    error = "there is no dataset and no artifact 'model.run/f00'"
    assert_not_found(run_dm(command, "model.run/f00"), error)
    assert_not_found(run_dm(command, "model.run"), "no dataset 'model.run'")


@pytest.mark.parametrize("command", ["show", "path", "delete"])
def test_a_name_that_fits_several_names_them(
    made: Results, run_dm: RunDm, home: Home, command: str
) -> None:
    made.call(Recipe("model.run", "v1"))
    before = snapshot(home.path)
    done = run_dm(command, "model.run/83")
    error = f"'model.run/83' names 2 artifacts: model.run/{HASH}, model.run/v1/{HASH}"
    assert_not_found(done, error)
    assert "hint: write more digits of its hash, or one of them as it stands\n" in done.stderr
    assert before == snapshot(home.path)


def test_a_whole_address_names_one_though_others_have_the_hash(made: Results, home: Home, project: Path) -> None:
    made.call(Recipe("model.run", "v1"))
    (outcome,) = delete(open_here(home, project), f"model.run/{HASH}")
    names = {facts.spot.address for facts in list_artifacts(open_here(home, project))}
    assert (f"model.run/{HASH}", True, False) == (
        outcome.name,
        f"model.run/v1/{HASH}" in names,
        f"model.run/{HASH}" in names,
    )


# delete ---------------------------------------------------------------------------------------------------------------


def test_a_dry_run_says_exactly_what_goes_and_changes_nothing(
    made: Results, run_dm: RunDm, ask: Ask, home: Home, project: Path
) -> None:
    folder = find_folder(home, project) / "model.run" / HASH
    size = sum(file.stat().st_size for file in folder.iterdir())
    before = (snapshot(home.cache), snapshot(project))
    answer = ask("delete", "--dry-run", "model.run/83")
    assert (0, str(folder), size, "would be removed") == (
        answer.status,
        *(answer.only[field] for field in ("path", "bytes", "message")),
    )
    assert f"({size} B) -> {folder} [would be removed]" in run_dm("delete", "--dry-run", "model.run/83").stdout
    assert before == (snapshot(home.cache), snapshot(project))


def test_delete_takes_folder_ref_record_and_empty_folders_and_nothing_else(
    made: Results, ask: Ask, home: Home, project: Path
) -> None:
    root, store = find_folder(home, project), home.cache / "datamanifest"
    objects = snapshot(store / ".dm" / "objects")
    n = hash_params({"n": 1})
    assert {"model.run": {HASH, EMPTY}, "model.grid@v2": {n}} == read_instances(project)
    answer = ask("delete", f"model.grid/v2/{n}")
    assert (0, "ok", "removed") == (answer.status, answer.only["status"], answer.only["message"])
    assert ["model.run"] == os.listdir(root)
    assert {"model.run": {HASH, EMPTY}} == read_instances(project)
    assert 0 == ask("delete", "model.run/83").status
    assert ([EMPTY], {"model.run": {EMPTY}}) == (os.listdir(root / "model.run"), read_instances(project))
    refs = [path.name for path in (store / ".dm" / "refs").rglob("*") if path.is_file()]
    assert ([EMPTY], objects) == (refs, snapshot(store / ".dm" / "objects"))
    assert 3 == ask("delete", "model.run/83").status
    assert 0 == ask("delete", "model.run/44").status
    assert ([], {}) == (os.listdir(root), read_instances(project))


@pytest.mark.parametrize("name", ["co2", "model.run/83"])
def test_who_deletes_a_declared_dataset_is_told_what_does_that(project: Path, run_dm: RunDm, name: str) -> None:
    write_manifest(project, f'["{name}"]\nuri = "https://example.org/a.csv"\n')
    done = run_dm("delete", name)
    assert f"'{name}' is a declared dataset" == assert_one_error(done, 2)
    assert f"hint: dm rm --delete {name} " in done.stderr


def test_a_deleted_one_is_computed_again(made: Results, home: Home, project: Path) -> None:
    computed = made.computed
    delete(open_here(home, project), "model.run/83")
    assert ("again", computed + 1) == (made.call(value="again"), made.computed)


def test_a_computation_in_progress_is_waited_for(made: Results, home: Home, project: Path) -> None:
    here = open_here(home, project)
    folder = find_folder(home, project) / "model.run" / HASH
    thread = threading.Thread(target=lambda: delete(open_here(home, project), "model.run/83"))
    with here.open_store(home.cache / "datamanifest").lock_copy(folder):
        thread.start()
        thread.join(0.2)
        assert (True, True) == (thread.is_alive(), folder.exists())
    thread.join()
    assert not folder.exists()


def test_what_lies_in_a_pool_stays(made: Results, ask: Ask, home: Home, project: Path, tmp_path: Path) -> None:
    write_manifest(project, f'[_STORAGE]\ndatacache_pools = ["{tmp_path}/pool"]\n')
    pooled = make_artifact(tmp_path / "pool", TABLE)
    make_artifact(tmp_path / "pool", {"a": 1})
    before = snapshot(tmp_path / "pool")
    first, second = ask("delete", "model.run/83").outcomes
    assert ("ok", "skipped", str(pooled)) == (first["status"], second["status"], second["path"])
    assert f"'{pooled}' stays: it lies in no store of this project's" == second["message"]
    with pytest.raises(Refused, match=r"cannot delete '.*': it lies in no store of this project's"):
        delete(open_here(home, project), "model.run/83")
    with pytest.raises(Refused):
        delete(open_here(home, project), f"model.run/{hash_params({'a': 1})}")
    assert before == snapshot(tmp_path / "pool")


def test_a_killed_peers_leftover_in_ones_own_folder_goes(home: Home, project: Path) -> None:
    write_manifest(project, "")
    folder = make_artifact(find_folder(home, project), TABLE)
    (folder / ".complete").unlink()
    (folder / "config.toml").unlink()
    (outcome,) = delete(open_here(home, project), "model.run/83")
    assert ("removed", "partial", False) == (outcome.message, outcome.state, folder.exists())


def test_one_that_a_calls_own_cache_dir_holds_is_found_by_its_record(
    results: Results, home: Home, project: Path, tmp_path: Path
) -> None:
    results.call(Recipe("model.run", cache_dir=tmp_path / "elsewhere"))
    results.artifacts.close()
    (facts,) = list_artifacts(open_here(home, project))
    assert ("complete", tmp_path / "elsewhere" / "model.run" / HASH) == (facts.state, facts.spot.folder)
    (outcome,) = delete(open_here(home, project), "model.run/83")
    assert ("removed", [".dm"]) == (outcome.message, os.listdir(tmp_path / "elsewhere"))


def test_what_another_project_made_stays_though_the_state_leads_to_it(
    results: Results, home: Home, project: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_manifest(other, "")
    recipe = RECIPE._replace(format="json", cache_dir=tmp_path / "once-a-pool")
    results.call(recipe)
    results.artifacts.close()
    folder = results.artifacts.path(recipe, TABLE).parent
    (other / ".datamanifest-state.toml").write_bytes((project / ".datamanifest-state.toml").read_bytes())
    reason = f"cannot delete '{folder}': another project made it, whose state is '{project}/.datamanifest-state.toml'"
    with pytest.raises(Refused, match=re.escape(reason)):
        delete(open_here(home, other), "model.run/83")
    project.rename(tmp_path / "moved")
    (outcome,) = delete(open_here(home, tmp_path / "moved"), "model.run/83")
    assert ("removed", False) == (outcome.message, folder.exists())


def test_what_another_user_made_stays_though_the_state_leads_to_it(
    results: Results, home: Home, project: Path, tmp_path: Path
) -> None:
    needs_root()
    recipe = RECIPE._replace(format="json", cache_dir=tmp_path / "once-a-pool")
    results.call(recipe)
    results.artifacts.close()
    folder = results.artifacts.path(recipe, TABLE).parent
    shutil.move(project, tmp_path / "moved")
    os.chown(folder, OTHER_USER, -1)
    with pytest.raises(Refused, match=re.escape(f"cannot delete '{folder}': another user made it")):
        delete(open_here(home, tmp_path / "moved"), "model.run/83")
    assert folder.exists()


def test_a_record_of_what_is_gone_is_removed(made: Results, ask: Ask, home: Home, project: Path) -> None:
    shutil.rmtree(find_folder(home, project) / "model.run" / HASH)
    assert "its record would be removed; it was not there" == ask("delete", "model.run/83", "--dry-run").only["message"]
    answer = ask("delete", "model.run/83")
    assert ("missing", "its record is removed; it was not there") == (answer.only["state"], answer.only["message"])
    assert {EMPTY} == read_instances(project)["model.run"]


@pytest.mark.parametrize("kind", ["no artifact", "another artifact", "no ref", "no store"])
def test_a_state_that_came_with_a_clone_deletes_nothing_of_others(
    home: Home, project: Path, tmp_path: Path, kind: str
) -> None:
    other = tmp_path / "others"
    folder = make_artifact(other, TABLE)
    store = open_here(home, project).open_store(other)
    if kind != "no store":
        store.prepare()
    if kind in ("no artifact", "another artifact"):
        store.adopt(folder, store.ingest(folder, write=True, owned=False).digest)
    if kind == "no artifact":
        (folder / "config.toml").unlink()
    named = "precious.f" if kind == "another artifact" else "model.run"
    write_manifest(project, "")
    (project / ".datamanifest-state.toml").write_text(
        f'[_META]\nschema = 5\n[datacache."{named}".instances]\n{HASH} = "{folder}"\n'
    )
    before = snapshot(other)
    reasons = {
        "no artifact": "its 'config.toml' is lost",
        "another artifact": "its 'config.toml' is of another artifact",
        "no ref": f"the store '{other}' knows nothing of it",
        "no store": "it lies in no store of this project's",
    }
    with pytest.raises(Refused, match=re.escape(f"cannot delete '{folder}': {reasons[kind]}")):
        delete(open_here(home, project), f"{named}/83")
    assert before == snapshot(other)


def test_nothing_is_deleted_where_an_untrusted_manifest_leads(home: Home, project: Path, tmp_path: Path) -> None:
    write_manifest(project, f'[_STORAGE]\ndatacache_dir = "{tmp_path}/others"\n')
    make_artifact(tmp_path / "others", TABLE)
    before = snapshot(tmp_path / "others")
    with pytest.raises(Refused) as caught:
        delete(open_here(home, project), "model.run/83")
    assert ("dm trust shows what the project asks for", before) == (caught.value.hint, snapshot(tmp_path / "others"))


# the peer -------------------------------------------------------------------------------------------------------------


def test_the_peers_artifacts_are_listed_and_deleted_where_both_write(
    peer_executable: Path, home: Home, project: Path, ask: Ask
) -> None:
    write_manifest(project, '[_STORAGE]\ndatacache_dir = "results"\n')
    (project / "model.py").write_text(
        "from datamanifest.cache import cached\n"
        "@cached(cachetype='model.run', format='json')\n"
        "def run(*, grid, skip_models): return grid\n"
        "@cached(cachetype='model.run', version='v2', format='json')\n"
        "def run2(*, n): return n\n"
    )
    subprocess.run(
        [peer_executable.parent / "python", "-c", f"import model; model.run(**{TABLE}); model.run2(n=1)"],
        cwd=project,
        env={**home.variables(), "PYTHONPATH": str(project)},
        check=True,
        capture_output=True,
    )
    rows = ask("list", "--kind", "cached").document["artifacts"]
    n = hash_params({"n": 1})
    assert [(f"model.run/{HASH}", TABLE, ["json"]), (f"model.run/v2/{n}", {"n": 1}, ["json"])] == [
        (row["name"], row["params"], row["formats"]) for row in rows
    ]
    assert {"complete"} == {row["state"] for row in rows}
    made = ask("show", f"model.run/v2/{n}").document["artifact"]["made"]
    assert made["tool"] == "datamanifestpy 0.19.2"
    assert 0 == ask("delete", f"model.run/v2/{n}").status
    assert [HASH] == os.listdir(project / "results" / "model.run")
    state = tomllib.loads((project / ".datamanifest" / "state.toml").read_text())
    assert {"model.run": {HASH}} == {key: set(each["instances"]) for key, each in state["datacache"].items()}
