"""Addresses, sidecars and places of produced datasets are those of the Python peer, which is asked itself."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dm.environment import Environment
from dm.errors import UsageError
from dm.plumbing.records.artifact_places import list_artifact_roots, list_other_places, locate_artifact
from dm.plumbing.records.manifest import Manifest
from dm.plumbing.records.opening import open_places
from dm.plumbing.records.params import hash_params
from dm.plumbing.records.sidecars import METADATA_NAME, Config, decode_config, decode_metadata, encode_config
from tests.fixtures.homes import COMMAND_TIMEOUT_S, Home, make_home

#: Answers a line for each table: the peer's hash and ``config.toml`` of it, or that it takes no such table.
ANSWERING = """
import base64, json, sys, tempfile
from datamanifest.cache import param_hash, write_config
folder = tempfile.mkdtemp()
for line in sys.stdin:
    cachetype, version, table = json.loads(line)
    try:
        found = param_hash(table)
        with open(write_config(folder, cachetype, found, table, version=version), "rb") as file:
            answer = [found, base64.b64encode(file.read()).decode()]
    except ValueError as error:
        answer = None
    print(json.dumps(answer), flush=True)
"""


class Peer:
    """The peer at work in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, cachetype: str, version: str, table: Mapping[str, Any]) -> tuple[str, bytes] | None:
        """The peer's hash of a table and its bytes of the sidecar; None when it takes no such table."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([cachetype, version, table]) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return None if answer is None else (answer[0], base64.b64decode(answer[1]))


@pytest.fixture(scope="module")
def peer(peer_executable: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    command = [str(peer_executable.parent / "python"), "-c", ANSWERING]
    environment = {**os.environ, "TMPDIR": str(tmp_path_factory.mktemp("peer")), "PYTHONUTF8": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environment
    ) as process:
        yield Peer(process)


TABLES: list[dict[str, Any]] = [
    {},
    {"grid": "5x5", "skip_models": ["CESM.*", "FGOALS.*"]},
    {"a": 1},
    {"a": 1.0},
    {"a": True},
    {"a": "1"},
    {"Z": {"b": 1}, "_x": 2, "a": {}, "A": 1, "é": "日本", "_META_": {"y": {}}},
    {"x": -0.0, "y": 1e300, "z": 1e16, "w": 1e-5, "v": 5e-324, "u": 123456789.123456789, "t": 0.1},
    {"i": 2**63, "j": -(2**64), "k": 10**40},
    {"": 0, "a b": {"c.d": {"": "x"}}, 'q"': 1, "back\\": 2, "n\n": 3, "dash-_1": 4},
    {"s": "\x00\x01\t\n\x0c\r\x1f\x7f\x85\u2028\ufeff\U0001f600", "t": '"""', "u": "'''\\", "v": ""},
    {"l": [], "m": [[]], "n": [[], [1, [2.5, "x", [True]]]], "o": [{}], "p": [{"a": 1}, {"b": {"c": [1]}}]},
    {"rows": [{"name": "x" * 90, "sub": {"k": ["v"]}}, {"name": "y", "list": [{"z": 1}]}], "mixed": [1, {"a": {}}]},
    {"d": {"e": {"f": {}, "g": {"h": [1]}}, "a": 1}, "schema": 3, "hash": "x", "cachetype": "y", "version": 0},
]


def assert_same(peer: Peer, cachetype: str, version: str, table: dict[str, Any]) -> None:
    answer = peer.ask(cachetype, version, table)
    assert answer is not None
    assert answer == (hash_params(table), encode_config(cachetype, version, table, answer[0]))
    read = decode_config(answer[1])
    assert (repr(Config(table, cachetype, version, answer[0])), table) == (repr(_in_order(read, table)), read.params)


def _in_order(read: Config, table: dict[str, Any]) -> Config:
    """What was read with its names in the order of what was written, so that types can be compared as well."""

    def sort(value: Any, like: Any) -> Any:
        if isinstance(value, dict):
            return {name: sort(value[name], like[name]) for name in like}
        return [sort(*pair) for pair in zip(value, like, strict=True)] if isinstance(value, list) else value

    return read._replace(params=sort(read.params, table))


@pytest.mark.parametrize("table", TABLES, ids=lambda table: ",".join(table)[:20])
def test_address_and_sidecar_are_the_peers(peer: Peer, table: dict[str, Any]) -> None:
    for cachetype, version in (("pkg.mod.func", ""), ("größe [x]", "v1.0")):
        assert_same(peer, cachetype, version, table)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
plain = st.recursive(
    texts | st.integers() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(texts, below, max_size=4),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(table=st.dictionaries(texts.filter(lambda name: name != "_META"), plain, max_size=5))
def test_address_and_sidecar_are_the_peers_for_any_table(peer: Peer, table: dict[str, Any]) -> None:
    assert_same(peer, "f", "", table)


@pytest.mark.parametrize("text", ['{"a": null}', '{"a": [{"b": NaN}]}', '{"a": -Infinity}', '{"a": "\\ud800"}'])
def test_what_the_peer_refuses_is_refused(peer: Peer, text: str) -> None:
    table = json.loads(text)
    assert peer.ask("f", "", table) is None
    with pytest.raises(UsageError):
        hash_params(table)


# Places

#: Runs each job in a fork of its own, so that the peer is imported once.
WORKING = """
import json, os, sys
from datamanifest.cache import cached

def work(version, cache_dir):
    @cached(cachetype="m.f", version=version, format="json")
    def run(*, grid, levels):
        return {"grid": grid, "levels": levels}
    run(grid="5x5", levels=[1, 2.0], **({"cache_dir": cache_dir} if cache_dir else {}))

failed = 0
for folder, variables, version, cache_dir in json.load(sys.stdin):
    if os.fork() == 0:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(variables)
        work(version, cache_dir)
        sys.exit()
    failed += os.wait()[1] != 0
sys.exit(failed)
"""
PARAMS = {"grid": "5x5", "levels": [1, 2.0]}

#: ``[_STORAGE]``, the user's config, variables, version and ``cache_dir`` of the call.
CONFIGURATIONS: dict[str, tuple[str, str, dict[str, str], str, str]] = {
    "built in": ("", "", {}, "", ""),
    "named": ('project = "mine"', "", {}, "v1", ""),
    "manifest": ('datacache_dir = "results"', "", {}, "v1", ""),
    "symbols": ('datacache_dir = "${big}/$project"\nbig = "$repo/b"', "", {}, "", ""),
    "platform": ('datacache_dir = "$user_cache_dir/x"', "", {}, "", ""),
    "host": ('datacache_dir = "base"\n[_STORAGE._HOST."*"]\ndatacache_dir = "here"', "", {}, "", ""),
    "user": ("", 'datacache_dir = "~/results"', {}, "", ""),
    "manifest before user": ('datacache_dir = "results"', 'datacache_dir = "~/other"', {}, "", ""),
    "variable": ('datacache_dir = "results"', "", {"DATAMANIFEST_DATACACHE_DIR": "$HOME/var"}, "", ""),
    "call": ('datacache_dir = "results"', "", {}, "v1", "out/here"),
}


class Job(NamedTuple):
    """One configuration: its project folder, home and whole environment."""

    project: Path
    home: Home
    variables: dict[str, str]


@pytest.fixture(scope="module")
def jobs(peer_executable: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    """Every configuration, with the artifact that the peer made in it."""
    found, orders = {}, []
    for name, (storage, user, added, version, cache_dir) in CONFIGURATIONS.items():
        home = make_home(tmp_path_factory.mktemp("home"))
        project = home.path / "project"
        project.mkdir()
        (project / "datamanifest.toml").write_text(f"[_META]\nschema = 1\n\n[_STORAGE]\n{storage}\n")
        if user:
            (home.config / "datamanifest").mkdir()
            (home.config / "datamanifest" / "config.toml").write_text(user)
        job = found[name] = Job(project, home, {**home.variables(), **added})
        orders.append([str(project), job.variables, version, cache_dir])
    command = [str(peer_executable.parent / "python"), "-c", WORKING]
    subprocess.run(command, input=json.dumps(orders), text=True, timeout=COMMAND_TIMEOUT_S, check=True)
    return found


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_an_artifact_lies_where_the_peer_puts_it(jobs: dict[str, Job], name: str) -> None:
    _, _, _, version, cache_dir = CONFIGURATIONS[name]
    project, home, variables = jobs[name]
    (made,) = [path.parent for path in home.path.rglob("config.toml") if home.config not in path.parents]

    environment = Environment(variables, home.path, project, os.uname().nodename, 1)
    places = open_places(Manifest.read(project / "datamanifest.toml"), environment)
    params_hash = hash_params(PARAMS)
    place = locate_artifact(places, "m.f", version, params_hash, cache_dir=cache_dir or None)
    if name in ("built in", "named"):
        # The peer has no scopes: its own default is a place of its own, where dm looks too.
        assert list_other_places(places, "m.f", version, params_hash) == [made]
        assert made.relative_to(home.cache / "datamanifest" / "projects").parts[1] == "cached"
    else:
        assert place.folder == made
    assert cache_dir or any(made.is_relative_to(root.folder) for root in list_artifact_roots(places))

    assert (made / "config.toml").read_bytes() == encode_config("m.f", version, PARAMS, params_hash)
    found = decode_metadata((made / METADATA_NAME).read_bytes())
    assert found.tool.startswith("datamanifestpy ")
    assert found.created.endswith("Z")
    assert "cached_toml" in found.extra["origin"]  # type: ignore[operator]
