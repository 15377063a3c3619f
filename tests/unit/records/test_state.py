"""The state: every shape and place that was ever written, merged without loss."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dm.errors import Malformed, Refused
from dm.plumbing.records.state import (
    Recipe,
    Record,
    encode_state,
    make_storage_path,
    merge_state,
    read_state,
    resolve_storage_path,
)
from dm.plumbing.records.toml import dump_canonical, read_toml

SAMPLES = Path(__file__).resolve().parents[2] / "formats" / "state"
RUN = "83425a30d111562d46c1fce9de7618ea7f1f54e1be72e086cba0ac63c6f2ce9b"
EMPTY = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def lay(project: Path, name: str, sample: str) -> None:
    target = project / name
    target.parent.mkdir(exist_ok=True)
    target.write_bytes((SAMPLES / sample).read_bytes())


def test_a_project_without_a_state_has_an_empty_one(tmp_path: Path) -> None:
    state = read_state(tmp_path)
    assert (state.datasets, state.datacache) == ({}, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "sample", "recipes"),
    [
        (
            "cached.toml",
            "cached-schema1.toml",
            {
                "pkg.mod.run": Recipe("pkg.mod:run", "pickle", {RUN: ""}),
                "pkg.mod.plot@v2": Recipe("pkg.mod:plot", "nc", {EMPTY: ""}),
            },
        ),
        (
            "cached.toml",
            "cached-schema2.toml",
            {"pkg.mod.run@v3": Recipe("pkg.mod:run", "pickle", {RUN: "", EMPTY: ""})},
        ),
        (
            ".datamanifest-state.toml",
            "state-schema3.toml",
            {
                "pkg.mod.run@v3": Recipe("pkg.mod:run", "pickle", {RUN: f"cached/pkg.mod.run/v3/{RUN}"}),
                "pkg.mod.bare": Recipe("pkg.mod:bare", "", {EMPTY: ""}),
            },
        ),
        (
            ".datamanifest-state.toml",
            "state-schema4.toml",
            {"pkg.mod.run@v3": Recipe("pkg.mod:run", "pickle", {RUN: "cached/pkg.mod.run/v3/83425a30"})},
        ),
    ],
)
def test_an_earlier_shape_is_read_and_carried_forward(
    tmp_path: Path, name: str, sample: str, recipes: dict[str, Recipe]
) -> None:
    lay(tmp_path, name, sample)
    assert read_state(tmp_path).datacache == recipes
    merge_state(tmp_path, {"example.com/a": Record("datasets/a")})
    written = read_toml((tmp_path / ".datamanifest-state.toml").read_bytes())
    assert written["_META"] == {"schema": 5}
    after = read_state(tmp_path)
    assert (after.datacache, set(after.datasets)) == (recipes, {"example.com/a"})


@pytest.mark.parametrize("name", [".datamanifest-state.toml", ".datamanifest/state.toml"])
def test_the_shape_of_today_is_read_at_both_places_without_its_malformed_leftovers(tmp_path: Path, name: str) -> None:
    lay(tmp_path, name, "state-schema5.toml")
    state = read_state(tmp_path)
    assert state.datasets == {
        "example.com/foo.nc": Record("datasets/example.com/foo.nc", SHA),
        "example.com/bar.nc": Record("/data/example.com/bar.nc"),
        "odd": Record("datasets/odd"),
    }
    assert state.datacache["pkg.mod.func@v3"].instances == {RUN: "/cache/pkg.mod.func/v3/83425a30"}
    assert state.find_path("example.com/foo.nc") == tmp_path / "datasets/example.com/foo.nc"
    assert state.find_path("example.com/bar.nc") == Path("/data/example.com/bar.nc")
    assert state.find_path("nothing") is None


def test_a_new_state_lies_beside_the_manifest_and_in_the_private_folder_where_the_peers_have_one(
    tmp_path: Path,
) -> None:
    merge_state(tmp_path, {"a": Record("x")})
    assert (tmp_path / ".datamanifest-state.toml").exists()
    assert not (tmp_path / ".datamanifest" / "state.toml").exists()
    assert (tmp_path / ".datamanifest" / ".gitignore").read_text() == "*\n"
    other = tmp_path / "other"
    (other / ".datamanifest").mkdir(parents=True)
    (other / ".datamanifest" / "state.toml").write_text("[_META]\nschema = 5\n")
    merge_state(other, {"a": Record("x")})
    assert not (other / ".datamanifest-state.toml").exists()
    assert read_state(other).datasets == {"a": Record("x")}


def test_two_states_become_one_and_the_newer_file_wins_for_a_key(tmp_path: Path) -> None:
    inner, beside = tmp_path / ".datamanifest" / "state.toml", tmp_path / ".datamanifest-state.toml"
    inner.parent.mkdir()
    inner.write_text('[datasets.a]\nstorage_path = "inner"\n[datasets.b]\nstorage_path = "b"\n[_META]\nschema = 5\n')
    beside.write_text('[_META]\nschema = 5\n[datasets.a]\nstorage_path = "beside"\n[datasets.c]\nstorage_path = "c"\n')
    os.utime(inner, ns=(1, 1))
    assert {key: record.storage_path for key, record in read_state(tmp_path).datasets.items()} == {
        "a": "beside",
        "b": "b",
        "c": "c",
    }
    os.utime(beside, ns=(0, 0))
    merge_state(tmp_path, {})
    assert not beside.exists()
    assert read_toml(inner.read_bytes())["datasets"] == {
        "a": {"storage_path": "inner"},
        "b": {"storage_path": "b"},
        "c": {"storage_path": "c"},
    }


def test_what_peers_wrote_and_we_do_not_know_is_kept(tmp_path: Path) -> None:
    path = tmp_path / ".datamanifest-state.toml"
    path.write_text(
        '[_META]\nschema = 5\ntool = "peer"\n[later]\nwhen = 2026-01-31\n'
        '[datasets.a]\nstorage_path = "x"\nnote = "mine"\n'
        '[datacache.f]\nref = "m:f"\nformat = "nc"\ncolour = "red"\ninstances = { h = "p" }\n'
    )
    merge_state(tmp_path, {"a": Record("y", SHA)}, recipes={"f": Recipe("m:f", "nc", {"i": "q"})})
    import datetime

    assert read_toml(path.read_bytes()) == {
        "_META": {"schema": 5, "tool": "peer"},
        "later": {"when": datetime.date(2026, 1, 31)},
        "datasets": {"a": {"storage_path": "y", "sha256": SHA, "note": "mine"}},
        "datacache": {"f": {"ref": "m:f", "format": "nc", "colour": "red", "instances": {"h": "p", "i": "q"}}},
    }


def test_records_and_instances_are_removed_by_name(tmp_path: Path) -> None:
    recipe = Recipe("m:f", "nc", {"h": "p", "i": "q"})
    merge_state(tmp_path, {"a": Record("x"), "b": Record("y")}, recipes={"f": recipe})
    state = merge_state(tmp_path, {}, ["a", "missing"], instance_deletes=[("f", "h"), ("g", "h")])
    assert (set(state.datasets), state.datacache["f"].instances) == ({"b"}, {"i": "q"})
    state = merge_state(tmp_path, {}, instance_deletes=[("f", "i")])
    assert state.datacache == {}
    assert read_state(tmp_path) == state


def test_nothing_is_written_when_nothing_changes(tmp_path: Path) -> None:
    merge_state(tmp_path, {"a": Record("x")})
    path = tmp_path / ".datamanifest-state.toml"
    before = path.stat()
    merge_state(tmp_path, {"a": Record("x")})
    assert path.stat().st_ino == before.st_ino


def test_the_bytes_are_the_canonical_form(tmp_path: Path) -> None:
    records = {"é/ü.nc": Record('a "quoted" \\ path\twith\x07'), "plain": Record("x", SHA)}
    state = merge_state(tmp_path, records, recipes={"f@v": Recipe("m:f", "nc", {RUN: "p"})})
    data = (tmp_path / ".datamanifest-state.toml").read_bytes()
    assert data == encode_state(state) == dump_canonical(read_toml(data))
    assert read_state(tmp_path).datasets == records


def test_the_mode_of_the_file_is_kept_and_a_link_is_followed(tmp_path: Path) -> None:
    real = tmp_path / "real.toml"
    real.write_text("[_META]\nschema = 5\n")
    real.chmod(0o640)
    (tmp_path / ".datamanifest-state.toml").symlink_to(real)
    merge_state(tmp_path, {"a": Record("x")})
    assert (tmp_path / ".datamanifest-state.toml").is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert read_state(tmp_path).datasets == {"a": Record("x")}


@pytest.mark.parametrize(
    ("name", "is_there"),
    [(".datamanifest-state.toml", True), (".datamanifest-state.toml", False), (".datamanifest/state.toml", True)],
)
def test_a_link_that_leads_out_of_the_project_is_not_written_through(
    tmp_path: Path, name: str, is_there: bool
) -> None:
    # A clone may bring one along, to a file that a shell of the user's would run.
    root, profile = tmp_path / "project", tmp_path / "profile"
    (root / ".datamanifest").mkdir(parents=True)
    (root / name).symlink_to(profile)
    if is_there:
        profile.write_text("# mine\n")
    with pytest.raises(Refused) as caught:
        merge_state(root, {"$(touch evil)": Record("x")})
    assert f"'{root / name}' is a link that leads out of the project, to '{profile}'" == caught.value.message
    assert (6, "place-untrusted") == (caught.value.exit_status, caught.value.code)
    assert "remove it: dm makes a file in its place" == caught.value.hint
    assert (["profile", "project"] if is_there else ["project"]) == sorted(os.listdir(tmp_path))
    assert not is_there or profile.read_text() == "# mine\n"


@pytest.mark.parametrize("schema", ["6", "99", '"5"', "0", "true"])
def test_a_state_of_an_unknown_schema_is_refused_and_not_overwritten(tmp_path: Path, schema: str) -> None:
    path = tmp_path / ".datamanifest-state.toml"
    path.write_text(f"[_META]\nschema = {schema}\n")
    shown = {"true": "True", '"5"': "'5'"}.get(schema, schema)
    message = f"{path}: cannot read a state of schema {shown}: 5 is the highest that is understood"
    for attempt in (lambda: read_state(tmp_path), lambda: merge_state(tmp_path, {"a": Record("x")})):
        with pytest.raises(Malformed) as caught:
            attempt()
        assert caught.value.message == message
        assert caught.value.hint == "use a newer dm, or move the file aside: it can be made again"
    assert path.read_text() == f"[_META]\nschema = {schema}\n"


def test_a_state_that_is_not_toml_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / ".datamanifest-state.toml"
    path.write_text("[_META]\nschema = 5\n[datasets.a\n")
    with pytest.raises(Malformed) as caught:
        read_state(tmp_path)
    assert (caught.value.file, caught.value.line) == (path, 3)


def test_paths_are_recorded_relative_below_the_project_only(tmp_path: Path) -> None:
    assert make_storage_path(tmp_path, tmp_path / "data" / "x.nc") == "data/x.nc"
    assert make_storage_path(tmp_path, tmp_path.parent / "x.nc") == str(tmp_path.parent / "x.nc")
    assert make_storage_path(tmp_path, Path(f"{tmp_path}-other/x")) == f"{tmp_path}-other/x"
    assert make_storage_path(Path("/"), Path("/x")) == "x"
    assert resolve_storage_path(tmp_path, "data/../x") == tmp_path / "x"


def test_a_path_that_is_not_utf8_is_refused_by_name(tmp_path: Path) -> None:
    name = os.fsdecode(b"d\xff")
    message = "cannot record 'd\\udcff': it is not UTF-8"
    with pytest.raises(Refused) as caught:
        make_storage_path(tmp_path, tmp_path / name)
    assert caught.value.message == message
    with pytest.raises(Refused) as caught:
        merge_state(tmp_path, {"a": Record(name)})
    assert caught.value.message == "cannot record 'storage_path = \"d\\udcff\"': it is not UTF-8"
    assert not (tmp_path / ".datamanifest-state.toml").exists()


WRITER = """
import sys
from pathlib import Path
from dm.plumbing.records.state import Recipe, Record, merge_state
root, number = Path(sys.argv[1]), sys.argv[2]
for turn in range(4):
    merge_state(root, {f"k/{number}-{turn}": Record(f"p/{number}")}, recipes={"f": Recipe("m:f", "nc", {number: "p"})},
                durable=False)
"""


def test_sixteen_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    checkout = Path(__file__).resolve().parents[3]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(number)], env=environment)
        for number in range(16)
    ]
    assert [writer.wait(timeout=300) for writer in writers] == [0] * 16
    state = read_state(tmp_path)
    assert set(state.datasets) == {f"k/{number}-{turn}" for number in range(16) for turn in range(4)}
    assert set(state.datacache["f"].instances) == {str(number) for number in range(16)}
    assert sorted(path.name for path in (tmp_path / ".datamanifest").iterdir()) == [".gitignore", "state.lock"]


def test_a_peer_that_writes_between_our_read_and_our_rename_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peer takes no lock: it moves the state to its own place just before our rename."""
    from dm.plumbing.records import rewrite

    merge_state(tmp_path, {"old": Record("o")})
    beside, inner = tmp_path / ".datamanifest-state.toml", tmp_path / ".datamanifest" / "state.toml"
    stage_file = rewrite.stage_file
    turns: list[Path] = []

    def write_after_the_peer(path: Path, data: bytes, **options: object) -> None:
        if not turns:
            inner.write_text(beside.read_text() + '\n[datasets.peer]\nstorage_path = "p"\n')
            beside.unlink()
        turns.append(path)
        stage_file(path, data, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(rewrite, "stage_file", write_after_the_peer)
    merge_state(tmp_path, {"new": Record("n")})
    assert set(read_state(tmp_path).datasets) == {"old", "peer", "new"}
    assert (len(turns), inner.exists(), beside.exists()) == (2, True, False)
