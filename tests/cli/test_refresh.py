"""`dm refresh`: what is recorded follows the disk. Nothing is fetched, and no byte of data changes."""

from __future__ import annotations

import hashlib
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.archives import read_tree
from tests.fixtures.commands import Ask, default_copy, snapshot, store_root, write_manifest
from tests.fixtures.homes import Home, RunDm
from tests.fixtures.servers import HttpServer

BODY = b"these are the right bytes\n"
NEWER = b"these are the newer ones\n"


class Place:
    """A project with one dataset that was fetched."""

    def __init__(self, ask: Ask, project: Path, home: Home, server: HttpServer) -> None:
        self.ask, self.project, self.home, self.server = ask, project, home, server
        self.uri = server.put("/a.bin", BODY)
        self.manifest = write_manifest(project, f'[a]\nuri = "{self.uri}"\n')
        self.copy = default_copy(home, "127.0.0.1/a.bin")
        self.marker = self.copy.with_name("a.bin.complete")
        self.state = project / ".datamanifest-state.toml"
        assert 0 == ask("fetch").status
        server.forget_requests()

    def refresh(self, *words: str) -> dict[str, Any]:
        """The one outcome. The source is never asked, the manifest never changed, no data touched."""
        data, manifest = read_tree(self.copy.parent), self.manifest.read_bytes()
        answer = self.ask("refresh", *words)
        assert 0 == answer.status
        after = read_tree(self.copy.parent)
        assert {name: each for name, each in data.items() if not name.endswith(".complete")} == {
            name: each for name, each in after.items() if not name.endswith(".complete")
        }
        assert manifest == self.manifest.read_bytes() and [] == self.server.requests
        return answer.only

    def records(self) -> dict[str, Any]:
        found: dict[str, Any] = tomllib.loads(self.state.read_text()).get("datasets", {})
        return found

    def replace(self, data: bytes) -> None:
        """As another tool does it: other bytes under another inode, pinned in the manifest, the marker kept."""
        self.copy.unlink()
        self.copy.write_bytes(data)
        text = re.sub("(?m)^checksum = .*$", f'checksum = "sha256:{hashlib.sha256(data).hexdigest()}"',
                      self.manifest.read_text())  # fmt: skip
        self.manifest.write_text(text)


@pytest.fixture
def place(ask: Ask, project: Path, home: Home, http_server: HttpServer) -> Place:
    return Place(ask, project, home, http_server)


def test_what_is_known_is_unchanged(place: Place) -> None:
    before = snapshot(place.project, place.home.data)
    assert ("unchanged", "clean") == (place.refresh()["status"], place.refresh()["state"])
    assert before == snapshot(place.project, place.home.data)


def test_a_copy_without_a_record_is_recorded(place: Place) -> None:
    recorded = place.state.read_bytes()
    place.state.unlink()
    assert "untracked" == place.ask("status").only["state"]
    assert ("ok", "recorded") == (lambda told: (told["status"], told["message"]))(place.refresh("a"))
    assert recorded == place.state.read_bytes()
    assert "clean" == place.ask("status").only["state"]


def test_a_copy_that_was_moved_to_another_place_of_its_own_is_found_there(place: Place) -> None:
    pool = place.project / "datasets" / "127.0.0.1"
    pool.mkdir(parents=True)
    for path in (place.copy, place.marker):
        shutil.move(path, pool / path.name)
    told = place.refresh()
    assert ("ok", "relocated", str(pool / "a.bin")) == (told["status"], told["state"], told["path"])
    assert "datasets/127.0.0.1/a.bin" == place.records()["127.0.0.1/a.bin"]["storage_path"]
    assert "relocated" == place.ask("status").only["state"]


def test_the_record_of_what_is_gone_goes(place: Place) -> None:
    place.copy.unlink()
    place.marker.unlink()
    told = place.refresh()
    assert ("ok", "missing") == (told["status"], told["state"])
    assert f"it is not at '{place.copy}' any more: its record is gone" == told["message"]
    assert {} == place.records()
    assert "it is not there" == place.refresh()["message"]


def test_a_record_that_no_entry_has_goes_only_when_nothing_is_there(place: Place, ask: Ask) -> None:
    write_manifest(place.project)
    assert [] == ask("refresh").outcomes
    assert ["127.0.0.1/a.bin"] == list(place.records())
    place.copy.unlink()
    told = ask("refresh").only
    assert ("127.0.0.1/a.bin", "ok", "missing") == (told["name"], told["status"], told["state"])
    assert {} == place.records()


def test_a_good_copy_that_another_tool_replaced_becomes_known(place: Place, ask: Ask, run_dm: RunDm) -> None:
    place.replace(NEWER)
    ref = store_root(place.home) / ".dm" / "refs" / "datasets" / "127.0.0.1" / "a.bin"
    before = ref.read_text()
    told = place.refresh()
    assert "ok" == told["status"] and "(it was replaced)" in told["message"]
    assert before != ref.read_text() and ref.read_text().startswith(told["digest"])
    assert ("unchanged", "clean") == (place.refresh()["status"], ask("verify", "a").only["state"])


def test_verify_takes_in_a_good_copy_that_was_replaced_too(place: Place, ask: Ask) -> None:
    place.replace(NEWER)
    assert ("updated", 0) == (ask("verify").only["state"], ask("verify").status)
    assert "unchanged" == place.refresh()["status"]


def test_a_marker_is_put_once_the_bytes_are_proven(place: Place, ask: Ask) -> None:
    place.marker.unlink()
    assert "partial" == ask("status").only["state"]
    told = place.refresh()
    assert ("ok", "marked as complete") == (told["status"], told["message"])
    assert b"" == place.marker.read_bytes()


@pytest.mark.parametrize("kind", ["marked", "unmarked", "unknown"])
def test_what_nothing_vouches_for_is_left_and_told(place: Place, ask: Ask, kind: str) -> None:
    place.copy.unlink()
    place.copy.write_bytes(b"other")
    if kind != "marked":
        place.marker.unlink()
    if kind == "unknown":
        place.state.unlink()
        shutil.rmtree(store_root(place.home) / ".dm" / "refs")
        manifest = place.project / "datamanifest.toml"
        manifest.write_text(re.sub("checksum = .*", "", manifest.read_text()))
    before = snapshot(place.project, place.home.data)
    told = place.refresh()
    assert ("skipped", str(place.copy)) == (told["status"], told["path"])
    reason = told["message"].removeprefix("left as it is: ").removesuffix("; dm status tells the way out")
    if kind != "unknown":
        found = hashlib.sha256(b"other").hexdigest()
        assert reason.startswith(f"its bytes are sha256:{found}, the manifest says sha256:")
    else:
        assert reason == "nothing vouches for its bytes"
    assert before == snapshot(place.project, place.home.data)


def test_a_dry_run_says_it_and_writes_nothing(place: Place) -> None:
    place.state.unlink()
    place.marker.unlink()
    before = snapshot(place.project, place.home.data)
    assert "would be marked as complete, recorded" == place.refresh("--dry-run")["message"]
    assert before == snapshot(place.project, place.home.data)


def test_a_dry_run_keeps_the_record_of_what_is_gone(place: Place) -> None:
    place.copy.unlink()
    assert place.refresh("--dry-run")["message"].endswith("any more: its record would go")
    assert ["127.0.0.1/a.bin"] == list(place.records())


def test_an_unpinned_dataset_stays_unpinned(place: Place, ask: Ask) -> None:
    place.manifest.write_text(re.sub("(?m)^checksum.*\n", "", place.manifest.read_text()))
    place.refresh()
    assert "unpinned" == ask("status").only["state"]


def test_what_is_not_checked_is_recorded_by_its_marker(ask: Ask, run_dm: RunDm, place: Place) -> None:
    text = re.sub("(?m)^checksum.*$", "skip_checksum = true", place.manifest.read_text())
    place.manifest.write_text(text)
    place.state.unlink()
    assert "recorded" == place.refresh()["message"]
    assert "skipped" == ask("status").only["state"]


def test_what_is_no_business_of_its_own_is_skipped(project: Path, ask: Ask) -> None:
    write_manifest(project, "[mine]\nskip_download = true\n")
    assert ("skipped", "skipped") == (ask("refresh").only["status"], ask("refresh").only["state"])


def test_a_name_that_is_none_is_exit_3(place: Place, run_dm: RunDm) -> None:
    assert 3 == run_dm("refresh", "nothing").returncode
