"""Results that the Python peer made are found, taken over and left in order; and the peer finds those of `dm`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dm.plumbing.records.state import read_state
from dm.porcelain.artifacts.recipe import Recipe
from tests.fixtures.artifacts import HASH, TABLE, Results, flip
from tests.fixtures.homes import Home

RunPeer = Callable[..., Any]

MODULE = """
from datamanifest.cache import cached

@cached(format="json")
def run(grid=None, skip_models=None):
    print("computed")
    return {"by": "peer"}

@cached
def pickled(grid=None, skip_models=None):
    print("computed")
    return {"by", "peer"}
"""
JSON = Recipe("peer_module.run", ref="peer_module:run", format="json")
PICKLE = Recipe("peer_module.pickled", ref="peer_module:pickled")


@pytest.fixture
def run_peer(peer_executable: Path, home: Home, project: Path) -> RunPeer:
    """Call a function of the peer's module with the table's parameters; return its value and whether it computed."""
    (project / "peer_module.py").write_text(MODULE)

    def run(function: str, **options: str) -> tuple[Any, bool]:
        words = "".join(f", {name}={value!r}" for name, value in options.items())
        code = f"import peer_module\nprint(repr(peer_module.{function}(**{TABLE!r}{words})))"
        done = subprocess.run(
            [str(peer_executable.parent / "python"), "-c", code],
            cwd=project,
            env=home.variables() | {"PYTHONPATH": str(project)},
            capture_output=True,
            text=True,
            check=True,
        )
        *said, value = done.stdout.splitlines()
        return eval(value), "computed" in said

    return run


def test_what_the_peer_made_where_it_puts_things_is_a_hit(results: Results, run_peer: RunPeer, home: Home) -> None:
    assert ({"by": "peer"}, True) == run_peer("run")
    run_peer("pickled")
    assert ({"by": "peer"}, {"by", "peer"}) == (results.call(JSON), results.call(PICKLE))
    assert (0, []) == (results.computed, results.warnings)
    folder = home.cache / "datamanifest" / "projects" / "project" / "cached" / "peer_module.run" / HASH
    assert folder / "data.json" == results.artifacts.path(JSON, TABLE)
    assert not (home.cache / "datamanifest" / ".dm" / "refs").exists()


def test_what_the_peer_made_in_a_shared_folder_is_taken_over_and_then_vouched_for(
    results: Results, run_peer: RunPeer, project: Path, open_anew: Callable[..., Results]
) -> None:
    run_peer("run", cache_dir=str(project / "shared"))
    recipe = JSON._replace(cache_dir="shared")
    assert ({"by": "peer"}, 0) == (results.call(recipe), results.computed)
    data = project / "shared" / "peer_module.run" / HASH / "data.json"
    ref = project / "shared" / ".dm" / "refs" / "peer_module.run" / HASH
    assert ref.read_text().startswith("blake3-tree:")
    assert data.stat().st_mode & 0o200  # neither linked nor made read-only
    assert ({"by": "peer"}, 0) == (open_anew().call(recipe), 0)
    assert ({"by": "peer"}, False) == run_peer("run", cache_dir=str(project / "shared"))
    flip(data, at=3)
    other = open_anew()
    assert "again" == other.call(recipe, value="again")
    assert "are not those that were published" in other.warnings[0]


def test_the_peer_loads_what_dm_made_and_both_see_one_record(
    results: Results, run_peer: RunPeer, project: Path
) -> None:
    recipe = JSON._replace(cache_dir="shared")
    results.call(recipe, value={"by": "dm"})
    results.artifacts.close()
    assert ({"by": "dm"}, False) == run_peer("run", cache_dir=str(project / "shared"))
    folder = f"shared/peer_module.run/{HASH}"
    assert {HASH: folder} == dict(read_state(project).datacache["peer_module.run"].instances)


def test_a_format_that_a_peer_puts_beside_is_used_and_the_first_one_stays_proven(
    results: Results, project: Path, open_anew: Callable[..., Results]
) -> None:
    recipe = JSON._replace(cache_dir="shared")
    results.call(recipe, value=1)
    folder = project / "shared" / "peer_module.run" / HASH
    (folder / "data.txt").write_text("a sibling")
    text = recipe._replace(format="txt")
    for _ in range(2):
        other = open_anew()
        assert (1, "a sibling", 0, []) == (other.call(recipe), other.call(text), other.computed, other.warnings)
    flip(folder / "data.txt")
    assert "again" == open_anew().call(text, value="again")
    assert 1 == open_anew().call(recipe, value=2)


def test_a_format_beside_an_adopted_result_leaves_that_proven(
    results: Results, run_peer: RunPeer, project: Path, open_anew: Callable[..., Results]
) -> None:
    run_peer("run", cache_dir=str(project / "shared"))
    recipe = JSON._replace(cache_dir="shared")
    results.call(recipe)
    folder = project / "shared" / "peer_module.run" / HASH
    (folder / "data.dimstack").write_text("of another language")
    other = open_anew()
    assert ({"by": "peer"}, 0, []) == (other.call(recipe), other.computed, other.warnings)


def test_a_format_of_ours_beside_a_peers_leaves_that_as_it_is(
    results: Results, run_peer: RunPeer, project: Path, open_anew: Callable[..., Results]
) -> None:
    run_peer("run", cache_dir=str(project / "shared"))
    recipe = JSON._replace(cache_dir="shared")
    text = recipe._replace(format="txt")
    assert "ours" == results.call(text, value="ours")
    other = open_anew()
    assert ("ours", {"by": "peer"}) == (other.call(text), other.call(recipe))
    assert (0, []) == (other.computed, other.warnings)
    assert ({"by": "peer"}, False) == run_peer("run", cache_dir=str(project / "shared"))
    metadata = (project / "shared" / "peer_module.run" / HASH / "metadata.toml").read_text()
    assert "datamanifestpy" in metadata
    assert {"by": "peer"} == json.loads((project / "shared" / "peer_module.run" / HASH / "data.json").read_text())
