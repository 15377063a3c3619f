"""The verbs that keep datasets, results and stores in order, from Python: what the commands of these names do."""

from __future__ import annotations

import builtins
import inspect
import os
import re
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import dm
from dm.environment import Environment
from tests.fixtures.artifacts import HASH, RECIPE, TABLE, Results, flip, make_environment
from tests.fixtures.commands import Ask, default_copy, snapshot, store_root, write_manifest
from tests.fixtures.forks import CHECKOUT
from tests.fixtures.homes import Home
from tests.fixtures.servers import HttpServer

ADDRESS = f"model.run/{HASH}"


def declare(project: Path, server: HttpServer, *names: str) -> None:
    tables = [f'[{name}]\nuri = "{server.put(f"/{name}.txt", f"data of {name}")}"\n' for name in names]
    write_manifest(project, *tables)


def describe(outcomes: Iterable[dm.Outcome]) -> list[tuple[object, ...]]:
    """What ``--json`` says of outcomes."""
    return [
        (
            each.name,
            each.status,
            None if each.path is None else str(each.path),
            each.state,
            None if each.digest is None else str(each.digest),
            each.size_bytes,
            each.code,
            each.message,
            each.hint,
        )
        for each in outcomes
    ]


def read(outcomes: list[dict[str, Any]]) -> list[tuple[object, ...]]:
    """The same of a document's."""
    fields = ("name", "status", "path", "state", "digest", "bytes", "code", "message", "hint")
    return [tuple(each.get(field) for field in fields) for each in outcomes]


@pytest.fixture
def result(here: Path, home: Home) -> Path:
    """The folder of a result that a function of the project here produced."""
    write_manifest(here)
    results = Results(make_environment(home, here))
    results.call()
    results.artifacts.close()
    found = results.artifacts.find(RECIPE, TABLE)
    assert found is not None
    return found.parent


def test_each_function_answers_what_its_command_answers(here: Path, http_server: HttpServer, ask: Ask) -> None:
    declare(here, http_server, "a", "b")
    dm.fetch("a")
    for call, words in (
        (lambda: dm.fetch(dry_run=True), ["fetch", "--dry-run"]),
        (lambda: dm.list(), ["list"]),
        (lambda: dm.refresh(dry_run=True), ["refresh", "--dry-run"]),
        (lambda: dm.refresh(), ["refresh"]),
        (lambda: dm.verify(quick=True), ["verify", "--quick"]),
        (lambda: dm.verify(older_than="30d"), ["verify", "--older-than", "30d"]),
        (lambda: dm.verify(["a"], contract=True, jobs=1), ["verify", "a", "--contract", "-j", "1"]),
        (lambda: dm.unlock(["a"], dry_run=True), ["unlock", "a", "--dry-run"]),
        (lambda: dm.lock(["a"]), ["lock", "a"]),
        (lambda: dm.pin(["a", "b"], dry_run=True, check=False), ["pin", "a", "b", "--dry-run"]),
        (lambda: dm.remove(["a"], delete=True, dry_run=True), ["rm", "a", "--delete", "--dry-run"]),
        (lambda: dm.dedup(dry_run=True), ["dedup", "--dry-run"]),
        (lambda: dm.prune(grace=0, dry_run=True), ["prune", "--grace", "0", "--dry-run"]),
    ):
        assert read(ask(*words).outcomes) == describe(call()), words


def test_a_project_is_started_and_entries_are_added_listed_shown_and_removed(
    here: Path, home: Home, http_server: HttpServer, ask: Ask
) -> None:
    started = dm.init("paper")
    assert (here / "paper" / "datamanifest.toml", "created") == (started.path, started.message)
    with pytest.raises(dm.Refused):
        dm.init("paper")
    os.chdir("paper")  # `here` puts the working folder back
    one = dm.add(http_server.put("/one.csv", "x\n1\n"), name="one", doi="10.1/x")
    assert isinstance(one, dm.Outcome) and ("one", "ok") == (one.name, one.status)
    Path("own.txt").write_text("mine")
    assert here / "paper" / "own.txt" == Path(dm.add(Path("own.txt")))
    with pytest.raises(dm.Refused):
        dm.add("own.txt", name="one")
    planned = dm.add(f"{http_server.url}/gone", name="late", fetch=False, format="csv", dry_run=True)
    assert "would be declared" == planned.message

    rows = dm.list()
    assert [("data", "one", "csv"), ("data", "own", "txt")] == [
        (row.fields["kind"], row.name, row.fields["format"]) for row in rows
    ]
    assert [row.digest for row in rows] == [row.fields["pinned"] for row in rows]
    document = ask("list", cwd=here / "paper").document
    assert [[*row.fields] for row in rows] == [[*each] for each in document["datasets"]]

    shown: dict[str, Any] = dm.show("one")
    copy = default_copy(home, "127.0.0.1/one.csv")
    assert ("data", copy, "10.1/x") == (shown["kind"], shown["path"], shown["declared"]["doi"])
    assert [*ask("show", "one", cwd=here / "paper").document["dataset"]] == [*shown]

    with pytest.raises(dm.NotFound):
        dm.remove("two")
    assert "failed" == dm.remove(["two"], check=False)[0].status
    assert "ok" == dm.remove("one", delete=True).status
    assert (["own"], False) == ([row.name for row in dm.list()], copy.exists())


def test_a_copy_is_unlocked_edited_pinned_and_locked(here: Path, home: Home, http_server: HttpServer) -> None:
    declare(here, http_server, "a")
    dm.fetch()
    private = Path(dm.unlock("a"))
    assert default_copy(home, "127.0.0.1/a.txt") != private == dm.path("a")
    assert "unlocked" == dm.list()[0].code
    private.write_text("edited")
    with pytest.raises(dm.ContentMismatch):
        dm.lock("a")
    assert "failed" == dm.lock("a", check=False).status
    before = snapshot(here)
    assert "would be pinned" in str(dm.pin("a", dry_run=True).message)
    assert before == snapshot(here)
    assert "ok" == dm.pin("a").status
    assert ("ok", private) == (dm.lock("a").status, dm.path("a"))
    assert 0o444 == private.stat().st_mode & 0o777


def test_what_was_moved_is_known_after_a_refresh(here: Path, home: Home, http_server: HttpServer) -> None:
    declare(here, http_server, "a", "b")
    dm.fetch()
    copy = default_copy(home, "127.0.0.1/a.txt")
    copy.with_name("a.txt.complete").unlink()
    copy.parent.chmod(0o755)
    copy.unlink()
    assert ["missing", "clean"] == [each.state for each in dm.refresh()]
    assert "failed" == dm.refresh("nobody", check=False).status
    with pytest.raises(dm.NotFound):
        dm.refresh("nobody")


def test_results_are_listed_found_shown_verified_and_deleted(result: Path, here: Path, ask: Ask) -> None:
    (row,) = dm.list("cached")
    assert (ADDRESS, result, "complete", TABLE) == (row.name, row.path, row.state, row.fields["params"])
    document = ask("list", "--kind", "all").document
    assert read(document["outcomes"]) == describe(dm.list("all"))
    assert [[*each] for each in document["artifacts"]] == [[*row.fields]]
    assert result == dm.path("model.run/83")
    assert ("cached", TABLE, result) == tuple(dm.show("model.run/83")[field] for field in ("kind", "params", "path"))
    assert "ok" == dm.verify("model.run/83").status

    before = snapshot(here, result)
    assert ["would be removed"] == [each.message for each in dm.delete("model.run/83", dry_run=True)]
    assert before == snapshot(here, result)
    assert [(ADDRESS, "removed")] == [(each.name, each.message) for each in dm.delete("model.run/83")]
    assert ([], False) == (dm.list("cached"), result.exists())
    with pytest.raises(dm.NotFound):
        dm.delete("model.run/83")
    with pytest.raises(dm.UsageError, match="'results'"):
        dm.list("results")


def test_results_need_no_manifest_and_datasets_do(result: Path, here: Path) -> None:
    (here / "datamanifest.toml").unlink()
    (here / ".git").mkdir()
    assert [ADDRESS] == [row.name for row in dm.list("cached")]
    assert result == dm.path(ADDRESS) == dm.show(ADDRESS)["path"] == dm.verify(ADDRESS).path
    for call in (lambda: dm.list(), lambda: dm.path("a"), lambda: dm.show("a"), lambda: dm.verify(["a"])):
        with pytest.raises(dm.NotFound, match="no manifest"):
            call()
    with pytest.raises(dm.UsageError):
        dm.delete("a")
    assert ["ok"] == [each.status for each in dm.delete(ADDRESS)]


def test_damage_in_any_folder_of_a_result_is_raised(result: Path, here: Path, home: Home, tmp_path: Path) -> None:
    """It lies in two folders, of which the first is sound."""
    other = Results(make_environment(home, here, DATAMANIFEST_DATACACHE_DIR=str(tmp_path / "second")))
    other.call(fresh=True)
    other.artifacts.close()
    second = other.artifacts.find(RECIPE, TABLE)
    assert second is not None and result != second.parent
    assert result == dm.verify("model.run/83").path
    flip(second)
    with pytest.raises(dm.ContentMismatch):
        dm.verify("model.run/83")


def test_stores_are_kept_in_order_with_and_without_a_manifest(
    here: Path, home: Home, tmp_path: Path, http_server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(here, http_server, "a", "b")
    dm.fetch()
    pool = tmp_path / "pool"
    pool.mkdir()
    (pool / "equal.txt").write_text("data of a")
    joined = dm.dedup(include_pool="../pool", dry_run=True)
    assert [(str(here / "../pool/equal.txt"), 9)] == [(each.name, each.size_bytes) for each in joined]
    dm.remove("a", delete=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(dm.NotFound, match="no store"):
        dm.prune(root=tmp_path / "nothing")
    assert [] == dm.prune() == dm.prune(grace="1d") == dm.prune(grace=timedelta(hours=1)) == dm.prune(grace=3600)
    with pytest.raises(dm.UsageError, match="no length of time"):
        dm.prune(grace="long")
    going = {each.name for each in dm.prune(grace=0, dry_run=True) if each.code == "object"}
    gone = {each.name for each in dm.prune(grace=timedelta(0), root=store_root(home)) if each.code == "object"}
    assert (1, going) == (len(going), gone)
    assert [] == dm.dedup(root=os.fspath(store_root(home)))


def test_a_store_that_a_project_may_not_choose_is_told_and_raised(here: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    write_manifest(here, f'[_STORAGE]\ndatasets_dir = "{outside}"\n')
    for call in (dm.prune, dm.dedup):
        with pytest.raises(dm.Failed) as caught:
            call()
        assert (6, ["place-untrusted"]) == (caught.value.exit_status, [each.code for each in caught.value.outcomes])
        assert str(caught.value.hint).startswith("dm trust shows it")
        assert ["failed"] == [each.status for each in call(check=False)]
    assert [] == dm.dedup(root=outside)
    assert [] == list(outside.iterdir())


def test_the_methods_work_on_a_manifest_in_memory(
    environment: Environment, project: Path, http_server: HttpServer
) -> None:
    uris = {name: {"uri": http_server.put(f"/{name}.txt", name)} for name in ("a", "b")}
    with dm.Manifest.of(uris, project_root=project, environment=environment) as manifest:
        manifest.fetch()
        pinned = manifest.pin(["a"])
        assert ["unchanged"] == [each.status for each in pinned]
        assert "ok" == manifest.unlock("a").status
        assert "ok" == manifest.lock("a").status
        assert ["clean", "clean"] == [each.state for each in manifest.refresh()]
        assert ["ok"] == [each.status for each in manifest.remove(["a"])]
        assert (["b"], ["b"]) == (manifest.names, [row.name for row in manifest.list()])
        assert "b" == manifest.show("b")["name"]
        assert [] == manifest.prune() == manifest.dedup()
    assert not (project / "datamanifest.toml").exists()


def test_one_name_gives_its_own_outcome_also_where_it_requires_others(here: Path, http_server: HttpServer) -> None:
    uri = http_server.put("/a.txt", "a")
    write_manifest(here, f'[a]\nuri = "{uri}"\n', f'[b]\nuri = "{uri}"\nkey = "b"\nrequires = ["a"]\naliases = ["c"]\n')
    assert ("b", "ok") == dm.fetch("b", dry_run=True)[:2] == dm.fetch("c", dry_run=True)[:2]
    assert ["missing", "missing"] == [each.state for each in dm.status()]
    for jobs in (0, 257):
        with pytest.raises(dm.UsageError, match=f"jobs is {jobs}"):
            dm.fetch("b", jobs=jobs)


def test_none_for_a_name_never_means_all(here: Path, http_server: HttpServer) -> None:
    declare(here, http_server, "a", "b")
    dm.fetch()
    (row, _) = dm.list()
    before = snapshot(here)
    for function in (dm.remove, dm.pin, dm.unlock, dm.lock, dm.show, dm.path, dm.load, dm.delete):
        for name in (None, row, 5):
            with pytest.raises(dm.UsageError, match="text"):
                function(name)
    for function in (dm.fetch, dm.verify, dm.status, dm.refresh, dm.remove, dm.pin, dm.unlock, dm.lock):
        assert [] == function([]) == function(())
        for names in (row, [row], [None], 5):
            with pytest.raises(dm.UsageError, match="text"):
                function(names)
    assert before == snapshot(here)
    assert ["a", "b"] == [each.name for each in dm.status(name for name in ("a", "b"))]


def test_the_first_failure_ends_a_fetch_that_is_to_fail_fast(here: Path, http_server: HttpServer) -> None:
    declare(here, http_server, "a")
    with pytest.raises(dm.Failed) as caught:
        dm.fetch(["nobody", "a"], fail_fast=True)
    assert ["nobody"] == [each.name for each in caught.value.outcomes]
    assert "missing" == dm.status("a").state


def test_repair_mends_what_verify_finds(here: Path, home: Home, http_server: HttpServer) -> None:
    declare(here, http_server, "a")
    copy = Path(dm.fetch("a"))
    copy.unlink()
    copy.write_text("data of b")
    found = dm.verify("a", repair=True, dry_run=True, check=False)
    assert ("failed", "would-mend", "data of b") == (found.status, found.code, copy.read_text())
    assert ("ok", "mended", "data of a") == (*dm.verify("a", repair=True)[1:7:5], copy.read_text())
    with pytest.raises(dm.UsageError):
        dm.verify(quick=True, contract=True)
    with pytest.raises(dm.UsageError):
        dm.verify(dry_run=True)
    assert [] == dm.verify(max_time=0, older_than=timedelta(days=1))


def test_stores_and_paths_are_verified_as_the_command_does_it(
    here: Path, home: Home, tmp_path: Path, http_server: HttpServer, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(here, http_server, "a", "b")
    dm.fetch()
    store, copy = store_root(home), default_copy(home, "127.0.0.1/a.txt")
    copy.chmod(0o644)
    copy.write_text("data of x")
    for call, words in (
        (lambda: dm.verify(all=True, check=False), ["--all"]),
        (lambda: dm.verify(all=True, repair=True, dry_run=True, check=False), ["--all", "--repair", "--dry-run"]),
        (lambda: dm.verify(root=store, check=False), ["--root", str(store)]),
        (lambda: dm.verify(copy, check=False), [str(copy)]),
        (lambda: dm.verify(["b", copy.parent], check=False), ["b", str(copy.parent)]),
        (lambda: dm.verify(all=True, max_time="0s", check=False), ["--all", "--max-time", "0"]),
    ):
        answer = ask("verify", *words)
        assert sorted(read(answer.outcomes), key=repr) == sorted(describe(call()), key=repr), words
    monkeypatch.chdir(tmp_path)
    with pytest.raises(dm.Failed) as caught:
        dm.verify(Path("home") / copy.relative_to(home.path))
    assert (4, [copy]) == (caught.value.exit_status, [each.path for each in caught.value.outcomes])
    assert dm.verify(all=True, check=False) and dm.verify(root=store, check=False)
    with pytest.raises(dm.NotFound, match="no store"):
        dm.verify(root=tmp_path)
    with pytest.raises(dm.UsageError, match="without names"):
        dm.verify(copy, all=True)
    with pytest.raises(dm.NotFound, match="no manifest"):
        dm.verify()


def test_a_hash_is_of_the_parameters_as_a_result_has_it() -> None:
    assert HASH == dm.hash_params(TABLE)
    for table in ({"x": None}, [1], {1: "x"}):
        with pytest.raises(dm.UsageError):
            dm.hash_params(table)


def test_a_star_import_leaves_the_builtin_names_alone() -> None:
    taken: dict[str, object] = {}
    exec("from dm import *", taken)
    del taken["__builtins__"]
    assert set(dm.__all__) == set(taken)
    assert set() == set(taken) & {name for name in vars(builtins) if not name.startswith("_")}
    assert {*dm.__all__, "list"} == set(dir(dm))


@pytest.mark.parametrize("name", [name for name in dir(dm) if inspect.isfunction(getattr(dm, name))])
def test_each_function_says_what_it_takes_and_does(name: str) -> None:
    function = getattr(dm, name)
    assert (name, True) == (function.__name__, bool(inspect.getdoc(function)))
    method = getattr(dm.Manifest, {"path": "path_of"}.get(name, name), None)
    if inspect.isfunction(method):
        assert [*inspect.signature(method).parameters][1:] == [*inspect.signature(function).parameters]


def test_the_page_has_each_function_with_its_options() -> None:
    page = (CHECKOUT / "docs" / "python.md").read_text(encoding="utf-8")
    said = dict(re.findall(r"^\| `dm\.(\w+)\((.*?)\)`", page, re.MULTILINE))
    for name in dir(dm):
        function = getattr(dm, name)
        if not inspect.isfunction(function) or name in ("add", "lock"):  # whose options are told in words
            continue
        words = []
        for each in inspect.signature(function).parameters.values():
            if each.kind is each.KEYWORD_ONLY and "*" not in words:
                words.append("*")
            default = "" if each.default is each.empty else f"={each.default!r}".replace("'", '"')
            words.append(f"{each.name}{default}")
        assert ", ".join(words) == said[name], name
    options = [*inspect.signature(dm.add).parameters][1:]
    (row,) = re.findall(r"^\| `dm\.add\(.*$", page, re.MULTILINE)
    assert set(options) <= set(re.findall(r"`(\w+)`", row))
