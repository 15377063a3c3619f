"""Produce or load: what is a hit, where it lies, what is recorded (dm/porcelain/artifacts)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import multiprocessing
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dm.environment import Environment
from dm.errors import DmError, MachineFailed, Refused, SourceFailed, UsageError
from dm.plumbing.records.sidecars import Metadata, decode_config, decode_metadata
from dm.plumbing.records.state import read_state
from dm.porcelain.artifacts.recipe import Recipe
from dm.porcelain.artifacts.session import Artifacts, Loaded, Pending
from tests.fixtures.artifacts import HASH, RECIPE, TABLE, Results, make_environment
from tests.fixtures.homes import Home

Open = Callable[..., Results]


def _begin(results: Results, recipe: Recipe = RECIPE, **table: object) -> Pending:
    begun = results.artifacts.begin(recipe, table or TABLE)
    assert isinstance(begun, Pending)
    return begun


# Computed once


def test_a_value_is_computed_once_and_loaded_afterwards(results: Results, open_anew: Open) -> None:
    assert {"a": [1, 2]} == results.call(value={"a": [1, 2]})
    assert {"a": [1, 2]} == results.call(value="not this")
    other = open_anew()
    assert {"a": [1, 2]} == other.call(value="nor this")
    assert (1, 0) == (results.computed, other.computed)


def test_an_artifact_lies_where_the_peers_look_with_all_that_they_need(results: Results, home: Home) -> None:
    results.call()
    path = results.artifacts.path(RECIPE, TABLE)
    folder = path.parent
    assert f"cached/model.run/{HASH}/data.pickle" == "/".join(path.parts[-4:])
    assert (home.cache / "datamanifest") in path.parents
    names = {".complete", "config.toml", "data.pickle", "metadata.toml"}
    assert names == set(os.listdir(folder))
    assert b"" == (folder / ".complete").read_bytes()
    config = decode_config((folder / "config.toml").read_bytes())
    assert (TABLE, "model.run", "", HASH) == config
    metadata = decode_metadata((folder / "metadata.toml").read_bytes())
    assert metadata.created.endswith("Z")
    assert metadata.tool.startswith("dm ")


def test_a_result_is_an_object_with_a_ref(results: Results, home: Home) -> None:
    results.call()
    store = results.artifacts._project.open_store(home.cache / "datamanifest")
    folder = results.artifacts.path(RECIPE, TABLE).parent
    ref = store.read_ref(folder)
    assert ref is not None
    assert ref.digest is not None
    names = {b"config.toml", b"data.pickle", b"metadata.toml"}
    assert names == {entry.name for entry in store.read_tree(ref.digest)}


def test_a_version_is_a_folder_and_not_in_the_hash(results: Results) -> None:
    recipe = RECIPE._replace(version="v2")
    assert 1 == results.call(recipe, value=1)
    assert 2 == results.call(value=2)
    assert f"model.run/v2/{HASH}" in str(results.artifacts.path(recipe, TABLE))
    assert {"model.run", "model.run@v2"} == set(read_state(results.artifacts._project.root).datacache)


def test_a_cache_dir_of_the_call_is_used_as_it_is(results: Results, project: Path) -> None:
    recipe = RECIPE._replace(cache_dir="out")
    results.call(recipe)
    assert project / "out" / "model.run" / HASH / "data.pickle" == results.artifacts.path(recipe, TABLE)
    assert (project / "out" / ".dm" / "refs" / "model.run" / HASH).is_file()


def test_a_store_and_a_scope_of_the_call_choose_the_place(results: Results, home: Home) -> None:
    recipe = RECIPE._replace(store="$data", scope="")
    results.call(recipe)
    expected = home.data / "datamanifest" / "cached" / "model.run" / HASH / "data.pickle"
    assert expected == results.artifacts.path(recipe, TABLE)


def test_a_store_on_another_file_system_keeps_results(
    results: Results, small_tmpfs: Callable[[int], Path]
) -> None:
    recipe = RECIPE._replace(cache_dir=small_tmpfs(1 << 20))
    assert "there" == results.call(recipe, value="there")
    assert "there" == results.call(recipe, value="not this")


def test_the_path_of_a_result_is_told_before_there_is_one(results: Results) -> None:
    path = results.artifacts.path(RECIPE, TABLE)
    assert not path.exists()
    results.call()
    assert path.exists()


def test_find_says_what_would_be_loaded_and_loads_nothing(results: Results) -> None:
    recipe = RECIPE._replace(saver=lambda value, path: path.write_text("x"), loader=lambda path: 1 / 0, format="odd")
    assert results.artifacts.find(recipe, TABLE) is None
    results.call(recipe)
    assert "data.odd" == getattr(results.artifacts.find(recipe, TABLE), "name", None)


# Formats


@pytest.mark.parametrize(
    ("data_format", "value"),
    [("json", {"a": [1, None]}), ("txt", "text\n"), ("yaml", {"a": 1}), ("toml", {"a": 1}), ("pickle", {1, 2})],
)
def test_a_value_comes_back_from_each_format(
    results: Results, open_anew: Open, data_format: str, value: object
) -> None:
    recipe = RECIPE._replace(format=data_format)
    results.call(recipe, value=value)
    other = open_anew()
    assert value == other.call(recipe, value="not this")
    assert 0 == other.computed
    assert f"data.{data_format}" == results.artifacts.path(recipe, TABLE).name


def test_an_array_comes_back(results: Results, open_anew: Open) -> None:
    numpy = pytest.importorskip("numpy")
    recipe = RECIPE._replace(format="npy")
    results.call(recipe, value=numpy.arange(5))
    loaded = open_anew().call(recipe)
    assert [0, 1, 2, 3, 4] == list(loaded)  # type: ignore[call-overload]


def test_a_format_that_is_a_folder_is_proven_too(results: Results, open_anew: Open) -> None:
    def save(value: object, path: Path) -> None:
        path.mkdir()
        (path / "part").write_text(str(value))

    def load(path: Path) -> str:
        return (path / "part").read_text()

    recipe = RECIPE._replace(format="parts", saver=save, loader=load)
    assert "7" == results.call(recipe, value="7")
    other = open_anew()
    assert "7" == other.call(recipe, value="not this")
    part = results.artifacts.path(recipe, TABLE) / "part"
    part.chmod(0o644)
    part.write_text("8")
    assert "9" == other.call(recipe, value="9")
    assert "data.parts" in other.warnings[0]


def test_formats_lie_side_by_side_and_each_is_loaded(results: Results, open_anew: Open) -> None:
    as_json = RECIPE._replace(format="json")
    results.call(value=[1])
    results.call(as_json, value=[1])
    assert 2 == results.computed
    other = open_anew()
    assert ([1], [1]) == (other.call(), other.call(as_json))
    assert (0, []) == (other.computed, other.warnings)
    folder = results.artifacts.path(RECIPE, TABLE).parent
    assert {"data.json", "data.pickle"} == {name for name in os.listdir(folder) if name.startswith("data")}
    ref = other.artifacts._project.open_store(folder.parents[3]).read_ref(folder)
    assert ref is not None
    assert 4 == ref.files


def test_a_function_that_writes_itself_gets_a_path_and_its_file_is_loaded(results: Results, open_anew: Open) -> None:
    recipe = RECIPE._replace(format="json", writes_itself=True)
    given: list[Path] = []

    def write(path: Path) -> None:
        given.append(path)
        path.write_text("[3]")
        (path.parent / "scratch").write_text("not part of it")

    assert [3] == results.call(recipe, value=None, write=write)
    assert [3] == open_anew().call(recipe)
    assert not given[0].exists()
    assert "scratch" not in os.listdir(results.artifacts.path(recipe, TABLE).parent)


def test_what_has_no_loader_is_given_as_its_path(results: Results) -> None:
    recipe = RECIPE._replace(format="bin", writes_itself=True)
    path = results.call(recipe, value=None, write=lambda path: path.write_bytes(b"\0"))
    assert results.artifacts.path(recipe, TABLE) == path
    assert path == results.call(recipe)


def test_a_function_that_writes_nothing_is_told(results: Results) -> None:
    recipe = RECIPE._replace(format="bin", writes_itself=True)
    with pytest.raises(SourceFailed, match=r"'model:run' wrote nothing to '.*data\.bin'"):
        results.call(recipe, value=None, write=lambda path: None)
    assert results.artifacts.find(recipe, TABLE) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"basename": "config", "format": "toml"}, "is kept for what belongs to every artifact"),
        ({"basename": "a/b"}, "not one part of a path"),
        ({"basename": ".hidden"}, "it is hidden"),
        ({"cachetype": "../up"}, "cachetype"),
        ({"version": "a/b"}, "version"),
    ],
)
def test_names_that_could_lead_elsewhere_are_refused(results: Results, change: dict[str, str], words: str) -> None:
    with pytest.raises(Refused, match=words):
        results.call(RECIPE._replace(**change))  # type: ignore[arg-type]


def test_a_format_that_nobody_writes_is_refused_before_anything_is_computed(results: Results) -> None:
    with pytest.raises(SourceFailed, match="there is no saver for the format 'odd'"):
        results.call(RECIPE._replace(format="odd"))
    with pytest.raises(SourceFailed, match="there is no loader for the format 'odd'"):
        results.call(RECIPE._replace(format="odd", saver=lambda value, path: None))
    assert 0 == results.computed


def test_a_value_that_cannot_be_written_is_returned_with_a_warning(results: Results) -> None:
    value = threading.Lock()
    assert value is results.call(value=value)
    assert "a result of 'model.run' is not kept: cannot save a value of type 'lock' as pickle" in results.warnings[0]
    assert results.artifacts.find(RECIPE, TABLE) is None


# Leaving


def _list_staged(results: Results) -> list[str]:
    root = results.artifacts.path(RECIPE, TABLE).parents[4]
    partial = root / ".dm" / "partial"
    locks = [str(path) for path in root.rglob("*.lock")]
    return [*os.listdir(partial), *locks]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_whatever_ends_a_computation_leaves_nothing(results: Results, error: type[BaseException]) -> None:
    with pytest.raises(error), _begin(results) as pending:
        pending.data_path.write_bytes(b"half")
        raise error
    assert [] == _list_staged(results)
    assert results.artifacts.find(RECIPE, TABLE) is None
    assert "after" == results.call(value="after")


def test_a_function_that_changes_the_working_folder_is_kept_where_it_belongs(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPE._replace(cache_dir="out")
    with _begin(results, recipe) as pending:
        monkeypatch.chdir(tmp_path)
        pending.commit(5)
    assert 5 == results.call(recipe)


def test_cached_calls_nest_and_the_same_one_inside_itself_is_refused(results: Results) -> None:
    with _begin(results, a=1) as outer:
        with _begin(results, a=2) as inner:
            inner.commit(2)
        with pytest.raises(UsageError, match="'model:run' asks for the result that it is computing") as caught:
            results.artifacts.begin(RECIPE, {"a": 1})
        assert "recursion" == caught.value.code
        outer.commit(1)
    assert (1, 2) == (results.call(table={"a": 1}), results.call(table={"a": 2}))


def test_a_forked_child_does_not_let_go_of_what_its_parent_holds(results: Results) -> None:
    with _begin(results) as pending:
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                pending.__exit__(None, None, None)
            os._exit(0)
        os.waitpid(child, 0)
        assert pending.data_path.parent.is_dir()
        pending.commit(1)
    assert 1 == results.call()


def test_a_forked_child_that_goes_on_has_its_value_and_keeps_nothing(results: Results) -> None:
    with _begin(results) as pending:
        child = os.fork()
        if child == 0:
            answer = None
            with contextlib.suppress(BaseException):
                answer = pending.commit("the child's")
            os._exit(0 if answer == "the child's" else 1)
        assert 0 == os.waitpid(child, 0)[1]
        assert results.artifacts.find(RECIPE, TABLE) is None
        pending.commit("the parent's")
    assert "the parent's" == results.call()


# One of many


def test_threads_that_ask_for_the_same_compute_it_once(results: Results) -> None:
    got: list[object] = []
    threads = [threading.Thread(target=lambda: got.append(results.call(value="one"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (1, ["one"] * 8) == (results.computed, got)


def test_threads_compute_once_where_the_file_system_has_no_flock(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    test_threads_that_ask_for_the_same_compute_it_once(results)


def _run_one(environment: Environment, barrier: object, answers: object) -> None:
    results = Results(environment._replace(process_id=os.getpid()))
    barrier.wait()  # type: ignore[attr-defined]
    value = results.call(value=os.getpid())
    answers.put((value, results.computed, results.warnings))  # type: ignore[attr-defined]


def test_sixteen_processes_compute_one_result(results: Results, home: Home, project: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(16), context.SimpleQueue()
    environment = make_environment(home, project)
    processes = [context.Process(target=_run_one, args=(environment, barrier, answers)) for _ in range(16)]
    for process in processes:
        process.start()
    told = [answers.get() for _ in processes]
    for process in processes:
        process.join()
    assert 1 == len({value for value, _, _ in told})
    assert (1, []) == (sum(computed for _, computed, _ in told), [each for _, _, many in told for each in many])


def test_a_session_that_was_forked_goes_on_by_itself(results: Results) -> None:
    results.call(table={"a": 1}, value=1)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            values = (results.call(table={"a": 1}), results.call(table={"a": 2}, value=2))
            os.write(writer, repr((values, results.computed)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        assert "((1, 2), 2)" == answer.read()
    assert 2 == results.call(table={"a": 2})


def test_the_lock_of_a_dead_process_is_taken_over(results: Results) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        pending = results.artifacts.begin(RECIPE, TABLE)
        pending.data_path.write_bytes(b"half")  # type: ignore[union-attr]
        os.write(writer, b"held")
        os.kill(os.getpid(), 9)
    assert b"held" == os.read(reader, 4)
    os.waitpid(child, 0)
    os.close(reader)
    os.close(writer)
    assert results.artifacts.path(RECIPE, TABLE).parent.with_name(f"{HASH}.lock").exists()
    assert "whole" == results.call(value="whole")
    assert [] == _list_staged(results)


def test_waiting_for_another_ends_when_it_should(results: Results, open_anew: Open) -> None:
    pending = _begin(results)
    with pytest.raises(MachineFailed) as caught:
        open_anew().artifacts.begin(RECIPE, TABLE, should_stop=lambda: True)
    assert "interrupted" == caught.value.code
    pending.abandon()


def test_all_who_waited_load_at_the_same_time(results: Results, open_anew: Open) -> None:
    together = threading.Barrier(4)  # with who computed it and reads it back

    def load(path: Path) -> str:
        together.wait(60)
        return path.read_text()

    recipe = RECIPE._replace(format="odd", saver=lambda value, path: path.write_text(str(value)), loader=load)
    answers: list[object] = []
    others = [open_anew() for _ in range(3)]
    threads = [threading.Thread(target=lambda each=each: answers.append(each.call(recipe))) for each in others]
    with _begin(results, recipe) as pending:
        for thread in threads:
            thread.start()
        while any(not each.progress.notes for each in others):
            threads[0].join(0.01)  # each says that it waits
        pending.commit("once")
    for thread in threads:
        thread.join()
    assert ["once"] * 3 == answers


def test_a_computation_waits_for_a_peers_lock(results: Results) -> None:
    folder = results.artifacts.path(RECIPE, TABLE).parent
    folder.parent.mkdir(parents=True)
    lock = folder.with_name(f"{HASH}.lock")
    lock.write_text(f"{os.getppid()} here")
    looks: list[int] = []

    def is_enough() -> bool:
        looks.append(1)
        if len(looks) == 3:
            lock.unlink()
        return False

    begun = results.artifacts.begin(RECIPE, TABLE, should_stop=is_enough)
    assert isinstance(begun, Pending)
    with begun:
        begun.commit(1)
    assert 3 == len(looks)


# Fresh and forgotten


def test_fresh_computes_again_and_replaces_while_readers_keep_what_they_have_open(results: Results) -> None:
    results.call(value="old")
    with results.artifacts.path(RECIPE, TABLE).open("rb") as reader:
        assert "new" == results.call(value="new", fresh=True)
        assert b"old" in reader.read()
    assert "new" == results.call(value="not this")


def test_fresh_leaves_the_other_formats_and_the_old_object(results: Results, home: Home) -> None:
    as_json = RECIPE._replace(format="json")
    results.call(value="old")
    results.call(as_json, value="as json")
    store = results.artifacts._project.open_store(home.cache / "datamanifest")
    before = {digest for digest, _ in store.list_objects()}
    results.call(value="new", fresh=True)
    assert ("new", "as json") == (results.call(), results.call(as_json))
    assert before < {digest for digest, _ in store.list_objects()}


def test_forget_removes_the_result_and_its_record(results: Results) -> None:
    results.call()
    assert results.artifacts.forget(RECIPE, TABLE)
    assert results.artifacts.find(RECIPE, TABLE) is None
    assert {} == read_state(results.artifacts._project.root).datacache
    assert not results.artifacts.forget(RECIPE, TABLE)
    assert "again" == results.call(value="again")


# The state


def test_a_result_is_recorded_and_the_record_heals_at_a_hit(results: Results, open_anew: Open) -> None:
    results.call()
    folder = str(results.artifacts.path(RECIPE, TABLE).parent)
    root = results.artifacts._project.root
    recorded = read_state(root).datacache["model.run"]
    assert ("model:run", "pickle", {HASH: folder}) == recorded[:3]
    state = root / ".datamanifest-state.toml"
    state.unlink()
    results.call()
    assert recorded == read_state(root).datacache["model.run"]
    state.unlink()
    open_anew().call()
    assert recorded == read_state(root).datacache["model.run"]


def test_a_hit_writes_nothing(results: Results, home: Home, project: Path) -> None:
    results.call()

    def look() -> dict[str, tuple[int, int]]:
        found = {}
        for top in (home.path, project):
            for folder, _, names in os.walk(top):
                for path in (folder, *(os.path.join(folder, name) for name in names)):
                    status = os.stat(path)
                    found[path] = (status.st_mtime_ns, status.st_ctime_ns)
        return found

    before = look()
    results.call()
    assert before == look()


def test_a_result_that_is_recorded_elsewhere_is_found_there(results: Results, open_anew: Open, tmp_path: Path) -> None:
    recipe = RECIPE._replace(format="json")
    results.call(recipe, value="moved")
    results.artifacts.close()
    other = open_anew(DATAMANIFEST_DATACACHE_DIR=str(tmp_path / "new"))
    assert "moved" == other.call(recipe, value="not this")
    assert "new" == other.call(recipe, value="new", fresh=True)
    assert tmp_path / "new" in other.artifacts.path(recipe, TABLE).parents


def test_forget_removes_a_result_that_the_state_places_elsewhere(
    results: Results, open_anew: Open, tmp_path: Path
) -> None:
    recipe = RECIPE._replace(format="json")
    results.call(recipe)
    kept = results.artifacts.path(recipe, TABLE).parent
    results.artifacts.close()
    other = open_anew(DATAMANIFEST_DATACACHE_DIR=str(tmp_path / "new"))
    assert kept == other.artifacts.path(recipe, TABLE).parent
    assert (True, False) == (other.artifacts.forget(recipe, TABLE), kept.exists())
    assert (False, None) == (other.artifacts.forget(recipe, TABLE), other.artifacts.find(recipe, TABLE))


def test_forget_leaves_what_lies_in_a_pool(results: Results, open_anew: Open) -> None:
    recipe = RECIPE._replace(format="json")
    results.call(recipe)
    kept = results.artifacts.path(recipe, TABLE)
    results.artifacts.close()
    folder = str(kept.parents[2])
    other = open_anew(DATAMANIFEST_DATACACHE_DIR=f"{folder}-new", DATAMANIFEST_DATACACHE_POOLS=folder)
    assert [kept, False, kept] == [
        other.artifacts.find(recipe, TABLE),
        other.artifacts.forget(recipe, TABLE),
        other.artifacts.find(recipe, TABLE),
    ]


def test_many_results_write_the_state_a_bounded_number_of_times(results: Results) -> None:
    writes = 0
    merge = results.artifacts._project.merge_recipes

    def count(*arguments: object) -> object:
        nonlocal writes
        writes += 1
        return merge(*arguments)  # type: ignore[arg-type]

    results.artifacts._project.merge_recipes = count  # type: ignore[method-assign,assignment]
    register = results.artifacts._register
    assert register is not None
    register._spent_s = 1000.0  # as after many
    for number in range(300):
        register.add("model.run", f"{number:064x}", f"/somewhere/{number:064x}", ref="model:run", format="pickle")
    results.artifacts.close()
    assert 300 == len(read_state(results.artifacts._project.root).datacache["model.run"].instances)
    assert 1 == writes


def _make_many(results: Results) -> None:
    results.artifacts.path(RECIPE, TABLE)  # from here on it is this process's own session
    assert results.artifacts._register is not None
    results.artifacts._register._spent_s = 1000.0  # as after many
    for number in range(3):
        results.call(table={"a": number}, value=number)


def test_what_was_gathered_is_written_when_a_process_of_multiprocessing_ends(results: Results) -> None:
    process = multiprocessing.get_context("fork").Process(target=_make_many, args=(results,))
    process.start()
    process.join()
    assert 3 == len(read_state(results.artifacts._project.root).datacache["model.run"].instances)


def test_without_a_manifest_results_are_known_by_place_alone(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "code" / "inner"
    folder.mkdir(parents=True)
    (tmp_path / "code" / "pyproject.toml").write_text('[project]\nname = "mine"\n')
    first, second = (Results(make_environment(home, folder)) for _ in range(2))
    assert ("x", "x") == (first.call(value="x"), second.call(value="y"))
    assert "mine" in second.artifacts.path(RECIPE, TABLE).parts
    assert ["pyproject.toml"] == [path.name for path in (tmp_path / "code").rglob("*") if path.is_file()]


def test_the_digest_of_the_code_is_kept_beside_the_result(results: Results) -> None:
    results.call(RECIPE._replace(code_digest="python-1:00"))
    loaded = results.artifacts.begin(RECIPE, TABLE)
    assert isinstance(loaded, Loaded)
    assert "python-1:00" == loaded.code_digest
    loaded.path.with_name("metadata.toml").unlink()
    assert loaded.code_digest is None
    os.mkfifo(loaded.path.with_name("metadata.toml"))
    assert loaded.code_digest is None


def test_where_each_format_comes_from_is_kept(results: Results, open_anew: Open, project: Path) -> None:
    recipes = {each: RECIPE._replace(format=each, cache_dir="shared") for each in ("pickle", "json", "txt")}
    metadata = project / "shared" / "model.run" / HASH / "metadata.toml"

    def compute(data_format: str, digest: str) -> None:
        results.call(recipes[data_format]._replace(code_digest=digest), value="a value", fresh=True)

    def list_digests() -> dict[str, str | None]:
        found = {}
        for name, recipe in recipes.items():
            begun = open_anew().artifacts.begin(recipe, TABLE)
            assert isinstance(begun, Loaded)
            found[name] = begun.code_digest
        return found

    compute("pickle", "python-1:one")
    metadata.chmod(0o644)
    metadata.write_text(metadata.read_text() + '[of_others]\nx = 1\n')
    compute("json", "python-1:two")
    compute("txt", "python-1:two")
    assert {"pickle": "python-1:one", "json": "python-1:two", "txt": "python-1:two"} == list_digests()
    compute("json", "python-1:three")
    assert {"pickle": "python-1:one", "json": "python-1:three", "txt": "python-1:two"} == list_digests()
    found = decode_metadata(metadata.read_bytes())
    assert ({"data.pickle", "data.txt"}, {}) == (set(found.earlier), found.extra)
    assert {"of_others": {"x": 1}} == found.earlier["data.pickle"].extra
    assert all(each.created.endswith("Z") and each.host for each in found.earlier.values())
    assert [] == results.warnings


def test_a_format_that_a_kill_left_before_its_ref_keeps_what_is_said_of_it(
    results: Results, open_anew: Open, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    results.call(RECIPE._replace(code_digest="python-1:one"))
    as_json = RECIPE._replace(format="json", code_digest="python-1:two")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("dm.porcelain.artifacts.pending.take_over", _be_killed)
        results.call(as_json)
    for _ in range(2):  # taken over, then vouched for
        other = open_anew()
        for recipe, digest in ((as_json, "python-1:two"), (RECIPE, "python-1:one")):
            begun = other.artifacts.begin(recipe, TABLE)
            assert isinstance(begun, Loaded)
            assert ("a value", digest, []) == (begun.value, begun.code_digest, other.warnings)
    assert not (home.cache / "datamanifest" / ".dm" / "quarantine").exists()


def _be_killed(*_args: object, **_options: object) -> None:
    raise KeyboardInterrupt


def test_further_facts_of_a_computation_are_kept(results: Results) -> None:
    with _begin(results) as pending:
        pending.commit(1, metadata={"job": {"id": 7}})
    metadata: Metadata = decode_metadata(pending.path.with_name("metadata.toml").read_bytes())
    assert {"job": {"id": 7}} == metadata.extra
    assert metadata.duration_s is not None


def test_a_table_that_is_not_plain_is_refused(results: Results) -> None:
    with pytest.raises(DmError, match="cannot make a key of 'a'"):
        results.artifacts.begin(RECIPE, {"a": None})


def test_the_session_may_be_closed_and_used_again(results: Results) -> None:
    results.call()
    results.artifacts.close()
    assert "a value" == results.call(value="not this")
    assert isinstance(results.artifacts, Artifacts)
