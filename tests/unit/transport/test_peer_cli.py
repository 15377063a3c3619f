"""Asking a peer on PATH: a stand-in that follows the contract, and some that do not."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import pytest

from dm.errors import Refused, SourceFailed
from dm.plumbing.transport.command import Stopped
from dm.plumbing.transport.peer_cli import DELEGATED, fetch_by_peer, find_peer
from dm.values import Key, Permission

#: A peer: it knows ``fetch NAME --datasets-toml FILE [--datasets-folder DIR]``, writes down its call, and runs BODY.
_PEER = """#!{python}
import argparse, json, os, pathlib, sys, time
parser = argparse.ArgumentParser()
commands = parser.add_subparsers(dest="command", required=True)
fetch = commands.add_parser("fetch")
fetch.add_argument("name")
fetch.add_argument("--datasets-toml", required=True)
fetch.add_argument("--datasets-folder")
words = parser.parse_args()
folder = pathlib.Path(words.datasets_folder)
record = {{**vars(words), "cwd": os.getcwd(), "delegated": os.environ.get("{delegated}")}}
json.dump(record, open({record!r}, "w"))
{body}
"""


class MakePeer(Protocol):
    def __call__(self, body: str, *, name: str = "datamanifest-julia") -> list[str]: ...


@pytest.fixture
def make_peer(tmp_path: Path) -> MakePeer:
    def make(body: str, *, name: str = "datamanifest-julia") -> list[str]:
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        record = str(tmp_path / "record.json")
        program.write_text(_PEER.format(python=sys.executable, delegated=DELEGATED, record=record, body=body))
        program.chmod(0o755)
        return [str(program)]

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "stage 'here'"
    place.mkdir()
    return place


def ask(peer: list[str], folder: Path, name: str = "sst", key: str = "x.org/a b.nc", **settings: object) -> Path:
    options: dict[str, object] = {
        "variables": {"PATH": os.environ["PATH"]},
        "should_stop": lambda: False,
        "permission": Permission(None),
        **settings,
    }
    manifest = folder.parent / "project" / "datamanifest.toml"
    manifest.parent.mkdir(exist_ok=True)
    return fetch_by_peer(peer, name, key=Key.parse(key), manifest=manifest, folder=folder, **options)  # type: ignore[arg-type]


WRITES_A_FILE = """
path = folder / "x.org" / "a b.nc"
path.parent.mkdir(parents=True)
path.write_text("data")
(folder / "x.org" / "a b.nc.complete").touch()
print("chatter")
"""


def test_a_peer_gets_the_contracts_words_and_its_file_is_found(
    make_peer: MakePeer, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines: list[str] = []
    path = ask(make_peer(WRITES_A_FILE), folder, "a 'name'", take_line=lines.append)
    assert (folder / "x.org" / "a b.nc", "data") == (path, path.read_text())
    project = tmp_path / "project"
    expected = {"command": "fetch", "name": "a 'name'", "datasets_toml": str(project / "datamanifest.toml")}
    expected |= {"datasets_folder": str(folder), "cwd": str(project), "delegated": "1"}
    assert expected == json.loads((tmp_path / "record.json").read_text())
    assert (["chatter"], ("", "")) == (lines, tuple(capfd.readouterr()))


def test_a_peers_folder_is_given_without_its_marker(make_peer: MakePeer, folder: Path) -> None:
    body = """
copy = folder / "x.org" / "a.zip.d"
(copy / "sub").mkdir(parents=True)
for name in ("b.txt", ".complete", "sub/.complete"):
    (copy / name).touch()
(copy / "sub" / "link").symlink_to("../b.txt")
(copy.parent / "a.zip.d.lock").touch()
"""
    path = ask(make_peer(body), folder, key="x.org/a.zip.d")
    assert {"b.txt", "sub", "sub/link", "sub/.complete"} == {str(each.relative_to(path)) for each in path.rglob("*")}


def test_what_only_looks_like_a_marker_is_data(make_peer: MakePeer, folder: Path) -> None:
    path = ask(make_peer("(folder / 'd').mkdir(); (folder / 'd' / '.complete').write_text('x')"), folder, key="d")
    assert [".complete"] == [each.name for each in path.iterdir()]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("os.symlink('/etc/hostname', folder / 'd')", "a link that leads out of it at 'd'"),
        ("os.symlink('here', folder / 'd'); (folder / 'here').touch()", "a link that leads out of it at 'd'"),
        ("os.mkdir(folder / 'd'); os.symlink('/etc', folder / 'd' / 'e')", "a link that leads out of it at 'e'"),
        ("os.mkdir(folder / 'd'); os.symlink('../..', folder / 'd' / 'e')", "a link that leads out of it at 'e'"),
        ("os.mkdir(folder / 'd'); os.mkfifo(folder / 'd' / 'e')", "a special file at 'e'"),
        ("os.mkfifo(folder / 'd')", "a special file at 'd'"),
    ],
)
def test_links_that_lead_out_and_special_files_are_refused(
    make_peer: MakePeer, folder: Path, body: str, kind: str
) -> None:
    with pytest.raises(Refused) as caught:
        ask(make_peer(body), folder, key="d")
    assert (f"'datamanifest-julia' left {kind}", "peer-link") == (caught.value.message, caught.value.code)


def test_a_linked_folder_on_the_way_is_refused(make_peer: MakePeer, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.nc").write_text("not yours")
    with pytest.raises(Refused, match=r"left a link that leads out of it at 'x\.org'"):
        ask(make_peer(f"os.symlink({str(tmp_path / 'elsewhere')!r}, folder / 'x.org')"), folder, key="x.org/a.nc")


def test_a_peer_that_fails_is_exit_5_with_its_last_words(make_peer: MakePeer, folder: Path) -> None:
    with pytest.raises(SourceFailed) as caught:
        ask(make_peer("print('starting', flush=True); sys.exit('no such station')"), folder)
    assert "'datamanifest-julia' could not fetch 'sst': no such station" == caught.value.message
    assert ("peer-failed", 5) == (caught.value.code, caught.value.exit_status)
    assert "--datasets-toml" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("", "nothing"),
        ("folder.rmdir()", "nothing"),
        ("(folder / 'b').touch(); (folder / 'x.org').mkdir()", "b, x.org"),
    ],
)
def test_a_peer_that_leaves_nothing_at_the_key_is_exit_5(
    make_peer: MakePeer, folder: Path, body: str, left: str
) -> None:
    with pytest.raises(SourceFailed) as caught:
        ask(make_peer(body), folder)
    expected = "'datamanifest-julia' ended well, but 'sst' is not at 'x.org/a b.nc' of the folder that it was given"
    assert (expected, f"in that folder it left: {left}") == (caught.value.message, caught.value.hint)


def test_a_name_that_would_be_an_option_is_refused(make_peer: MakePeer, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="cannot ask a peer for '--help': it would be read as an option"):
        ask(make_peer(WRITES_A_FILE), folder, "--help")
    assert not (tmp_path / "record.json").exists()


def test_a_peer_ends_when_the_run_stops(make_peer: MakePeer, folder: Path) -> None:
    with pytest.raises(Stopped):
        ask(make_peer("time.sleep(600)"), folder, should_stop=(folder.parent / "record.json").exists)


# Finding one


def test_a_languages_own_peer_is_found_before_the_common_one(make_peer: MakePeer, tmp_path: Path) -> None:
    variables = {"PATH": str(tmp_path / "bin")}
    assert find_peer("julia", variables) is None
    common = make_peer("", name="datamanifest")
    assert common == find_peer("julia", variables)
    own = make_peer("")
    assert own == find_peer("Julia", variables)
    assert common == find_peer("r", variables)


@pytest.mark.parametrize("language", ["../../x", "a b", ""])
def test_a_language_that_is_no_word_has_no_peer_of_its_own(make_peer: MakePeer, tmp_path: Path, language: str) -> None:
    (tmp_path / "x").touch(mode=0o755)
    assert find_peer(language, {"PATH": str(tmp_path / "bin")}) is None


def test_who_was_called_by_a_tool_calls_none(make_peer: MakePeer, tmp_path: Path) -> None:
    make_peer("")
    variables: Mapping[str, str] = {"PATH": str(tmp_path / "bin"), DELEGATED: "1"}
    assert find_peer("julia", variables) is None
