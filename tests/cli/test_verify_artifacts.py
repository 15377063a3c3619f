"""`dm verify` of produced datasets: by their refs, recorded or named, mended from other copies or told as lost."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.fixtures.artifacts import HASH, RECIPE, TABLE, Results, flip
from tests.fixtures.commands import Ask, snapshot
from tests.fixtures.homes import Home, RunDm

ADDRESS = f"model.run/{HASH}"
NAME = f"model.run/{HASH[:6]}"


@pytest.fixture
def folder(results: Results) -> Path:
    """The folder of an artifact that was produced and recorded."""
    results.call()
    data = results.artifacts.find(RECIPE, TABLE)
    assert data is not None
    return data.parent


def only(ask: Ask, *words: str, status: int, **variables: str) -> dict[str, object]:
    answer = ask("verify", *words, env=variables)
    assert status == answer.status, answer
    [told] = [item for item in answer.outcomes if item["name"] == ADDRESS]
    return told


def lose_objects(folder: Path) -> None:
    """The store has this copy alone, and no sound object."""
    store = next(above for above in folder.parents if (above / ".dm").is_dir())
    shutil.rmtree(store / ".dm" / "objects")
    (store / ".dm" / "objects").mkdir()


@pytest.mark.parametrize("words", [(), (NAME,)])
def test_an_artifact_is_read_and_compared_with_its_ref(folder: Path, ask: Ask, words: tuple[str, ...]) -> None:
    told = only(ask, *words, status=0)
    assert ("ok", "clean", str(folder)) == (told["status"], told["state"], told["path"])
    flip(folder / "data.pickle")
    told = only(ask, *words, status=4)
    assert [{"path": "data.pickle", "how": "changed"}] == told["differences"]
    assert "computed again when its function is called" in str(told["hint"])


def test_a_named_artifact_that_is_not_there_is_exit_3_and_skipped_among_all(folder: Path, ask: Ask) -> None:
    shutil.rmtree(folder)
    assert ("skipped", "missing") == tuple(only(ask, status=0)[key] for key in ("status", "state"))
    assert "missing" == only(ask, NAME, status=3)["code"]


def test_a_name_that_fits_nothing_is_exit_3(folder: Path, run_dm: RunDm) -> None:
    done = run_dm("verify", "model.run/000")
    assert 3 == done.returncode
    assert "there is no dataset and no artifact 'model.run/000'" in done.stdout + done.stderr


def test_without_a_ref_it_is_told_as_untracked_and_no_failure(folder: Path, ask: Ask) -> None:
    store = next(above for above in folder.parents if (above / ".dm").is_dir())
    (store / ".dm" / "refs" / folder.relative_to(store)).unlink()
    told = only(ask, status=0)
    assert ("skipped", "untracked", "no-ref") == (told["status"], told["state"], told["code"])


def test_what_a_peer_puts_beside_the_data_is_no_damage_and_stays(folder: Path, ask: Ask) -> None:
    (folder / "data.json").write_text("1")
    assert ("ok", "updated") == tuple(only(ask, status=0)[key] for key in ("status", "state"))
    flip(folder / "data.pickle")
    only(ask, "--repair", status=4)  # data and object share their bytes: both are bad
    assert "1" == (folder / "data.json").read_text()


def test_it_is_mended_from_its_object(folder: Path, ask: Ask) -> None:
    good = (folder / "data.pickle").read_bytes()
    (folder / "data.pickle").unlink()
    (folder / "data.pickle").write_bytes(b"bad")
    (folder / "data.json").write_text("1")
    planned = only(ask, "--repair", "--dry-run", status=4)
    assert ("would-mend", b"bad") == (planned["code"], (folder / "data.pickle").read_bytes())
    assert "mended" == only(ask, "--repair", status=0)["code"]
    assert (good, "1") == ((folder / "data.pickle").read_bytes(), (folder / "data.json").read_text())
    assert "updated" == only(ask, status=0)["state"]


@pytest.mark.parametrize("where", ["pool", "peer"])
def test_it_is_mended_from_a_read_only_copy(
    folder: Path, home: Home, project: Path, tmp_path: Path, ask: Ask, where: str
) -> None:
    pool = tmp_path / "pool"
    if where == "peer":
        pool = home.cache / "datamanifest" / "projects" / project.name / "cached"
    shutil.copytree(folder, pool / ADDRESS)
    good = (folder / "data.pickle").read_bytes()
    flip(folder / "data.pickle")
    lose_objects(folder)
    before = snapshot(pool)
    told = only(ask, NAME, "--repair", status=0, DATAMANIFEST_DATACACHE_POOLS=os.fspath(pool))
    assert "mended" == told["code"]
    assert (good, before) == ((folder / "data.pickle").read_bytes(), snapshot(pool))


def test_what_has_no_sound_copy_is_told_left_and_computed_again_at_the_next_call(
    folder: Path, ask: Ask, results: Results
) -> None:
    flip(folder / "data.pickle")
    bad = (folder / "data.pickle").read_bytes()
    told = only(ask, "--repair", status=4)
    assert "no sound copy is in reach: it is computed again when its function is called" == told["hint"]
    assert bad == (folder / "data.pickle").read_bytes()
    assert ("a value", 2) == (results.call(), results.computed)
    assert "clean" == only(ask, status=0)["state"]


def test_a_record_that_leads_into_a_store_of_others_is_read_and_never_mended(
    folder: Path, tmp_path: Path, project: Path, home: Home, run_dm: RunDm, ask: Ask
) -> None:
    """A state may come with a clone: what it names elsewhere has to prove that it is the artifact."""
    other = tmp_path / "other"
    staged = tmp_path / "staged"
    staged.mkdir()
    (staged / "precious").write_text("precious")
    victim = other / "x" / HASH
    assert 0 == run_dm("publish", staged, victim, "--root", other).returncode
    (victim / "precious").unlink()
    (victim / "precious").write_text("edited")
    shutil.rmtree(folder)
    (project / ".datamanifest-state.toml").write_text(
        f'[_META]\nschema = 5\n[datacache."model.run"]\nref = "model:run"\nformat = "pickle"\n'
        f'[datacache."model.run".instances]\n"{HASH}" = "{victim}"\n'
    )
    before = snapshot(other)
    told = only(ask, "--repair", status=4)
    assert str(told["hint"]).startswith("it is left: its 'config.toml' is lost")
    assert before == snapshot(other)


def test_all_does_not_take_a_peers_sibling_for_damage(folder: Path, project: Path, ask: Ask) -> None:
    (folder / "data.json").write_text("1")
    answer = ask("verify", "--all")
    assert (0, []) == (answer.status, [item for item in answer.outcomes if item["status"] == "failed"])


def test_without_a_manifest_a_named_artifact_is_verified(folder: Path, project: Path, ask: Ask) -> None:
    (project / "datamanifest.toml").unlink()
    assert "clean" == only(ask, NAME, status=0)["state"]
    flip(folder / "data.pickle")
    only(ask, NAME, status=4)
