"""Results that are not as they were published are set aside and computed again; checking can be asked for less."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dm.errors import Refused, SourceFailed
from dm.plumbing.records.sidecars import encode_config
from dm.porcelain.artifacts.recipe import Recipe
from dm.porcelain.artifacts.session import Pending
from tests.fixtures.artifacts import HASH, RECIPE, TABLE, Results, flip, overwrite
from tests.fixtures.homes import Home, RunDm
from tests.fixtures.machine import needs_root
from tests.fixtures.users import OTHER_USER

Open = Callable[..., Results]


def _folder_of(results: Results, recipe: Recipe = RECIPE) -> Path:
    return results.artifacts.path(recipe, TABLE).parent


def make_read_only(mount: Path) -> Path:
    subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
    return mount


def _list_quarantine(home: Home) -> list[Path]:
    folder = home.cache / "datamanifest" / ".dm" / "quarantine"
    return sorted(path for each in folder.iterdir() for path in each.iterdir()) if folder.is_dir() else []


def _put_foreign_marker(folder: Path) -> None:
    (folder / ".complete").write_text("no marker")


def _replace_by_anothers(folder: Path) -> None:
    """Another's bytes, whole and loadable, with the times of the old ones."""
    path = folder / "data.pickle"
    status = path.stat()
    path.unlink()
    path.write_bytes(b"\x80\x04\x8c\x07a VALUE\x94.")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _give_anothers_config(folder: Path) -> None:
    overwrite(folder / "config.toml", encode_config("other", "", TABLE, HASH))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped bit in the data": (
        lambda folder: flip(folder / "data.pickle"),
        "the bytes of its 'data.pickle' are not those that were published",
    ),
    "a truncated file": (
        lambda folder: overwrite(folder / "data.pickle", b""),
        "the bytes of its 'data.pickle' are not those that were published",
    ),
    "another's bytes": (_replace_by_anothers, "the bytes of its 'data.pickle' are not those that were published"),
    "a lost file": (lambda folder: (folder / "data.pickle").unlink(), "its 'data.pickle' is lost"),
    "a folder for a file": (
        lambda folder: ((folder / "data.pickle").unlink(), (folder / "data.pickle").mkdir()),
        "its 'data.pickle' is not what was published",
    ),
    "a link for a file": (
        lambda folder: ((folder / "data.pickle").unlink(), (folder / "data.pickle").symlink_to("config.toml")),
        "its 'data.pickle' is neither a file nor a folder",
    ),
    "a flipped bit in a parameter": (
        lambda folder: flip(folder / "config.toml", at=8),
        "its parameters have the hash",
    ),
    "a config that is no TOML": (
        lambda folder: overwrite(folder / "config.toml", b"= ["),
        "its 'config.toml' cannot be used",
    ),
    "a config of another": (_give_anothers_config, "its 'config.toml' is of another artifact"),
    "a config with a remark": (
        lambda folder: overwrite(folder / "config.toml", (folder / "config.toml").read_bytes() + b"# remark\n"),
        "its 'config.toml' is not the one that was published",
    ),
    "a config of a newer schema": (
        lambda folder: overwrite(
            folder / "config.toml", (folder / "config.toml").read_bytes().replace(b"schema = 1", b"schema = 9")
        ),
        "it has schema 9, this dm reads 1",
    ),
    "a lost config": (lambda folder: (folder / "config.toml").unlink(), "its 'config.toml' is lost"),
    "a link for a config": (
        lambda folder: (
            shutil.move(folder / "config.toml", folder / "elsewhere"),
            (folder / "config.toml").symlink_to("elsewhere"),
        ),
        "symbolic link",
    ),
    "a fifo for a config": (
        lambda folder: ((folder / "config.toml").unlink(), os.mkfifo(folder / "config.toml")),
        "its 'config.toml' cannot be used",
    ),
    "a foreign marker": (_put_foreign_marker, "its '.complete' is not an empty file"),
    "no marker and other bytes": (
        lambda folder: ((folder / ".complete").unlink(), flip(folder / "data.pickle")),
        "it is not marked as complete",
    ),
    "a file for the folder": (
        lambda folder: (shutil.rmtree(folder), folder.write_text("mine")),
        "it is not marked as complete",
    ),
}


@pytest.mark.parametrize("in_same_session", [True, False])
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_set_aside_told_and_computed_again(
    results: Results, open_anew: Open, home: Home, damage: str, in_same_session: bool
) -> None:
    harm, words = DAMAGES[damage]
    results.call()
    results.call()
    folder = _folder_of(results)
    harm(folder)
    now = results if in_same_session else open_anew()
    assert now.artifacts.find(RECIPE, TABLE) is None
    assert "computed again" == now.call(value="computed again")
    # A file of it that shares its bytes with an object is damaged there too, which the store tells by itself.
    [warning] = [each for each in now.warnings if "is computed again" in each]
    assert warning.startswith(f"'{folder}' is computed again: ")
    assert words in warning
    assert str(_list_quarantine(home)[0]) in warning
    other = open_anew()
    assert ("computed again", []) == (other.call(value="not this"), other.warnings)


def test_a_whole_copy_that_a_kill_left_unmarked_is_used(results: Results, open_anew: Open, home: Home) -> None:
    results.call()
    (_folder_of(results) / ".complete").unlink()
    other = open_anew()
    assert "a value" == other.call(value="not this")
    assert ([], []) == (other.warnings, _list_quarantine(home))


def test_the_damage_of_one_format_leaves_the_others(results: Results, home: Home) -> None:
    as_json = RECIPE._replace(format="json")
    results.call(value=1)
    results.call(as_json, value=1)
    flip(_folder_of(results) / "data.pickle")
    assert (2, 1) == (results.call(value=2), results.call(as_json, value=3))
    assert ["data.pickle", "note.tmp"] == [path.name for path in _list_quarantine(home)]


@pytest.mark.parametrize("has_objects", [True, False])
def test_a_further_format_does_not_bless_what_went_bad_beside_it(
    open_anew: Open, results: Results, project: Path, has_objects: bool
) -> None:
    if not has_objects:
        (project / ".datamanifest").mkdir(exist_ok=True)
        (project.parent / "home" / "config" / "datamanifest").mkdir(parents=True)
        (project.parent / "home" / "config" / "datamanifest" / "config.toml").write_text('link = ["reflink"]\n')
    results = open_anew()
    results.call(value=1)
    flip(_folder_of(results) / "data.pickle")
    as_json = RECIPE._replace(format="json", check="never")
    assert 2 == open_anew().call(as_json, value=2, fresh=True)
    other = open_anew()
    assert (3, 2) == (other.call(value=3), other.call(as_json))
    assert 1 == other.computed


def test_a_pickle_that_cannot_be_read_is_computed_again(
    results: Results, open_anew: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vanishing.py").write_text("class Thing: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import vanishing  # type: ignore[import-not-found]

    results.call(value=vanishing.Thing())
    del vanishing.Thing
    other = open_anew()
    assert "another" == other.call(value="another")
    assert "cannot load" in other.warnings[0]
    assert "AttributeError" in other.warnings[0]


def test_a_loader_that_fails_has_the_result_computed_again(results: Results) -> None:
    def load(path: Path) -> object:
        raise ValueError("not mine")

    recipe = RECIPE._replace(format="odd", saver=lambda value, path: path.write_text("x"), loader=load)
    results.call(recipe)
    assert "again" == results.call(recipe, value="again")
    assert "as odd (the given loader): ValueError: not mine" in results.warnings[0]


def test_running_out_of_memory_says_nothing_about_a_result(results: Results, home: Home) -> None:
    def load(path: Path) -> object:
        raise MemoryError

    recipe = RECIPE._replace(format="odd", saver=lambda value, path: path.write_text("x"), loader=load)
    results.call(recipe)
    with pytest.raises(SourceFailed, match="MemoryError"):
        results.call(recipe)
    assert [] == _list_quarantine(home)


def test_a_damaged_object_does_not_make_a_wrong_value(results: Results, open_anew: Open, home: Home) -> None:
    results.call()
    for path in (home.cache / "datamanifest" / ".dm" / "objects").rglob("*"):
        if path.is_file():
            flip(path, at=0)
    other = open_anew()
    assert "again" == other.call(value="again")
    assert 1 == other.computed


def test_a_ref_that_cannot_be_read_is_written_anew(results: Results, open_anew: Open, home: Home) -> None:
    results.call()
    ref = home.cache / "datamanifest" / ".dm" / "refs" / _folder_of(results).relative_to(home.cache / "datamanifest")
    ref.write_text("nonsense\n")
    other = open_anew()
    assert "a value" == other.call(value="not this")
    assert ref.read_text().startswith("blake3-tree:")


# Checked less


def _damage_unseen(results: Results) -> None:
    """Flip a bit and put size and times back; only ctime tells."""
    path = _folder_of(results) / "data.pickle"
    status = path.stat()
    flip(path, at=-4)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_never_checked_returns_what_lies_there_but_never_anothers(results: Results) -> None:
    recipe = RECIPE._replace(check="never")
    results.call(recipe, value="value")
    _damage_unseen(results)
    assert "value" != results.call(recipe)
    assert 1 == results.computed
    _give_anothers_config(_folder_of(results))
    assert "again" == results.call(recipe, value="again")


def test_once_is_again_when_the_stat_data_change(results: Results) -> None:
    recipe = RECIPE._replace(check="once")
    results.call(recipe, value="value")
    for _ in range(3):
        assert "value" == results.call(recipe)
    _damage_unseen(results)
    assert "again" == results.call(recipe, value="again")


def test_once_reads_a_settled_file_once(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    from dm.porcelain.artifacts import looking

    recipe = RECIPE._replace(check="once")
    results.call(recipe, value="value")
    clock = [1000.0]
    monkeypatch.setattr(looking, "read_monotonic_s", lambda: clock[0])
    hashed: list[int] = []
    hash_bytes = looking.blake3_of
    monkeypatch.setattr(looking, "blake3_of", lambda data: (hashed.append(1), hash_bytes(data))[1])
    results.call(recipe)
    results.call(recipe)
    young = len(hashed)
    clock[0] += 3
    results.call(recipe)
    assert len(hashed) > young  # found right once more, and settled
    settled = len(hashed)
    results.call(recipe)
    assert settled == len(hashed)


def test_a_large_file_is_checked_on_disk(results: Results, open_anew: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    from dm.porcelain.artifacts import looking

    monkeypatch.setattr(looking, "IN_MEMORY_BYTES_MAX", 4)
    monkeypatch.setattr(looking, "_ASK_STAT_CACHE_BYTES", 4)
    for check in ("always", "once"):
        recipe = RECIPE._replace(check=check)  # type: ignore[arg-type]
        results.call(recipe, value="value", fresh=True)
        other = open_anew()
        assert ("value", 0) == (other.call(recipe), other.computed)
        flip(_folder_of(results) / "data.pickle")
        assert "again" == open_anew().call(recipe, value="again")


# Where nothing can be written


def test_a_full_disk_costs_the_keeping_and_not_the_value(
    results: Results, small_tmpfs: Callable[[int], Path]
) -> None:
    recipe = RECIPE._replace(cache_dir=small_tmpfs(256 << 10))
    large = os.urandom(400 << 10)
    assert large == results.call(recipe, value=large)
    assert 1 == len(results.warnings)
    assert "a result of 'model.run' is not kept: cannot write" in results.warnings[0]
    assert "disk full" in results.warnings[0]
    assert results.artifacts.find(recipe, TABLE) is None
    assert "small" == results.call(recipe, value="small")
    assert "small" == results.call(recipe, value="not this")


def test_a_full_disk_costs_the_keeping_of_what_a_function_wrote_itself(
    results: Results, small_tmpfs: Callable[[int], Path]
) -> None:
    folder = small_tmpfs(256 << 10)
    recipe = RECIPE._replace(cache_dir=folder, format="txt", writes_itself=True)

    def write(path: Path) -> None:
        path.write_text("written")
        with open(folder / "filler", "wb", buffering=0) as filler:
            while True:
                try:
                    filler.write(bytes(4096))
                except OSError:
                    return

    assert "written" == results.call(recipe, write=write)
    assert "is not kept" in results.warnings[0]


def test_a_store_that_cannot_be_written_to_costs_the_keeping(
    results: Results, small_tmpfs: Callable[[int], Path]
) -> None:
    recipe = RECIPE._replace(cache_dir=make_read_only(small_tmpfs(1 << 20)))
    assert (1, 2) == (results.call(recipe, value=1), results.call(recipe, value=2))
    [warning] = results.warnings
    assert "results of 'model.run' are not kept: " in warning
    own = recipe._replace(format="txt", writes_itself=True)
    assert "mine" == results.call(own, write=lambda path: path.write_text("mine"))


def test_a_result_in_a_read_only_store_is_a_hit(
    results: Results, open_anew: Open, small_tmpfs: Callable[[int], Path]
) -> None:
    folder = small_tmpfs(1 << 20)
    recipe = RECIPE._replace(cache_dir=folder)
    results.call(recipe, value="kept")
    make_read_only(folder)
    other = open_anew()
    assert "kept" == other.call(recipe)
    assert [] == other.warnings
    assert "fresh" == other.call(recipe, value="fresh", fresh=True)
    assert "read-only file system" in other.warnings[0]
    assert "new" == other.call(recipe, {"a": 1}, value="new")


def test_a_state_that_cannot_be_written_is_told_once(results: Results, project: Path) -> None:
    (project / ".datamanifest-state.toml").mkdir()
    assert [1, 2] == [results.call(table={"a": number}, value=number) for number in (1, 2)]
    assert 1 == results.call(table={"a": 1})
    [warning] = results.warnings
    assert "results are found by their place" in warning


# Whose they are


def test_another_users_pickle_is_passed_over_until_the_run_trusts(results: Results, open_anew: Open) -> None:
    needs_root()
    results.call(value="theirs")
    path = _folder_of(results) / "data.pickle"
    os.chown(path, OTHER_USER, OTHER_USER)
    other = open_anew()
    assert other.artifacts.find(RECIPE, TABLE) is None
    assert ("mine", "mine too") == (other.call(value="mine"), other.call(value="mine too"))
    [warning] = other.warnings
    assert f"'{path}' is passed over: cannot load" in warning
    assert "this user's own" in warning
    assert OTHER_USER == path.stat().st_uid  # theirs stays
    assert "theirs" == open_anew(DATAMANIFEST_TRUST="1").call(value="not this")
    assert "fresh" == other.call(value="fresh", fresh=True)
    assert "fresh" == other.call(value="not this")


def test_that_a_user_began_the_manifest_is_no_word_about_what_others_computed(
    open_anew: Open, project: Path, run_dm: RunDm
) -> None:
    needs_root()
    assert 0 == run_dm("init").returncode
    results = open_anew()
    results.call(value="theirs")
    os.chown(_folder_of(results) / "data.pickle", OTHER_USER, OTHER_USER)
    for command in (["status"], ["add", "http://x.org/x.pkl", "--no-fetch"]):  # the second adds to what is allowed
        assert 0 == run_dm(*command).returncode
        other = open_anew()
        assert "mine" == other.call(value="mine")
        assert "dm trust --yes allows it" in other.warnings[0]
    assert 0 == run_dm("trust", "--yes").returncode
    assert "theirs" == open_anew().call(value="not this")


def test_another_users_data_in_a_plain_format_needs_no_trust(results: Results, open_anew: Open) -> None:
    needs_root()
    recipe = RECIPE._replace(format="json")
    results.call(recipe, value="theirs")
    os.chown(_folder_of(results) / "data.json", OTHER_USER, OTHER_USER)
    assert "theirs" == open_anew().call(recipe, value="not this")


class _Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise SystemExit('it ran')",))


def test_a_pickle_that_came_with_a_clone_is_not_loaded(results: Results, open_anew: Open, project: Path) -> None:
    (project / "datamanifest.toml").write_text('[_META]\nschema = 1\n[_STORAGE]\ndatacache_dir = "cached"\n')
    maker = open_anew(DATAMANIFEST_TRUST="1")
    maker.call(value=_Bomb())
    assert project / "cached" in _folder_of(maker).parents
    victim = open_anew()
    assert "mine" == victim.call(value="mine")
    assert "is passed over" in victim.warnings[0]


def test_a_project_may_load_what_its_own_code_made(
    open_anew: Open, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "datamanifest.toml").write_text('[_META]\nschema = 1\n[_STORAGE]\ndatacache_dir = "cached"\n')
    (project / "own_code.py").write_text("")
    monkeypatch.syspath_prepend(project)
    __import__("own_code")
    recipe = RECIPE._replace(ref="own_code:run")
    results = open_anew()
    results.call(recipe, value="ours")
    assert "ours" == open_anew().call(recipe, value="not this")


def test_a_place_outside_that_a_clone_names_is_not_written_to(open_anew: Open, project: Path, tmp_path: Path) -> None:
    (project / "datamanifest.toml").write_text(
        f'[_META]\nschema = 1\n[_STORAGE]\ndatacache_dir = "{tmp_path}/outside"\n'
    )
    with pytest.raises(Refused, match=r"cannot keep results of 'model.run': .*outside") as caught:
        open_anew().call()
    assert "dm trust shows what the project asks for" in str(caught.value.hint)
    assert not (tmp_path / "outside").exists()


def test_one_result_that_a_clone_leads_outside_is_not_written_there(
    open_anew: Open, project: Path, tmp_path: Path
) -> None:
    (project / "datamanifest.toml").write_text('[_META]\nschema = 1\n[_STORAGE]\ndatacache_dir = "results"\n')
    (tmp_path / "outside").mkdir()
    (project / "results" / "model.run").mkdir(parents=True)
    (project / "results" / "model.run" / HASH).symlink_to(tmp_path / "outside")
    results = open_anew()
    results.call(table={"another": 1})
    with pytest.raises(Refused, match=r"leads to '.*outside'"):
        results.call()
    with pytest.raises(Refused, match=r"leads to '.*outside'"):
        results.artifacts.forget(RECIPE, TABLE)
    assert [] == list((tmp_path / "outside").iterdir())
    assert (project / "results" / "model.run" / HASH).is_symlink()


# Pools


def test_a_pool_has_hits_and_stays_as_it_is(open_anew: Open, results: Results, tmp_path: Path) -> None:
    recipe = RECIPE._replace(format="json")
    results.call(recipe._replace(cache_dir=tmp_path / "pool"), value="pooled")
    for path in (tmp_path / "pool").rglob("*"):
        os.utime(path, ns=(1, 1))
    shutil.rmtree(results.artifacts._project.root / ".datamanifest")
    (results.artifacts._project.root / ".datamanifest-state.toml").unlink()
    other = open_anew(DATAMANIFEST_DATACACHE_POOLS=str(tmp_path / "pool"))
    assert ("pooled", 0) == (other.call(recipe), other.computed)
    assert {1} == {path.stat().st_mtime_ns for path in (tmp_path / "pool").rglob("*") if path.is_file()}


def test_a_pickle_in_a_pool_needs_trust_and_damage_in_one_is_passed_over(
    open_anew: Open, results: Results, tmp_path: Path
) -> None:
    pool = {"DATAMANIFEST_DATACACHE_POOLS": str(tmp_path / "pool")}
    recipe = RECIPE._replace(cache_dir=tmp_path / "pool")
    results.call(recipe, value="pooled")
    results.artifacts.close()
    (results.artifacts._project.root / ".datamanifest-state.toml").unlink()
    assert "pooled" == open_anew(**pool, DATAMANIFEST_TRUST="1").call(value="not this", table=TABLE)
    (results.artifacts._project.root / ".datamanifest-state.toml").unlink()
    careful = open_anew(**pool)
    assert "mine" == careful.call(value="mine")
    assert "is passed over" in careful.warnings[0]
    assert "mine" == careful.call(value="not this")
    flip(tmp_path / "pool" / "model.run" / HASH / "data.pickle")
    again = open_anew(**pool, DATAMANIFEST_TRUST="1")
    assert "mine" == again.call(value="not this")
    again.artifacts.forget(RECIPE, TABLE)
    assert "new" == again.call(value="new")
    assert "is passed over: the bytes of its 'data.pickle'" in again.warnings[0]


def test_where_the_manifest_runs_nothing_one_word_of_the_user_has_pickles_read(
    open_anew: Open, results: Results, project: Path, tmp_path: Path
) -> None:
    """As after a change of `datacache_dir`: the state says where results of before are."""
    recipe = RECIPE._replace(cache_dir=tmp_path / "before")
    for number in range(3):
        results.call(recipe, {"a": number}, value=f"result {number}")
    results.artifacts.close()
    careful = open_anew()
    for number in range(3):
        begun = careful.artifacts.begin(RECIPE, {"a": number})
        assert isinstance(begun, Pending)
        begun.abandon()
    [warning] = [each for each in careful.warnings if "is passed over" in each]
    assert warning.endswith("(dm trust --yes allows it); so are others that are like it")
    trust = careful.artifacts._project.trust
    trust.store.allow(project / "datamanifest.toml", trust.list_parts())
    assert "result 2" == open_anew().call(table={"a": 2})


def test_a_store_that_is_removed_under_a_session_is_made_again(results: Results, home: Home) -> None:
    results.call()
    shutil.rmtree(home.cache / "datamanifest")
    assert "again" == results.call(value="again")
    assert "again" == results.call(value="not this")
    assert [] == results.warnings


def test_pending_says_whether_the_result_will_be_kept(results: Results, small_tmpfs: Callable[[int], Path]) -> None:
    for folder, is_kept in (("out", True), (make_read_only(small_tmpfs(1 << 20)), False)):
        begun = results.artifacts.begin(RECIPE._replace(cache_dir=folder), TABLE)
        assert isinstance(begun, Pending)
        assert is_kept == begun.is_kept
        begun.abandon()
