"""Git repositories as datasets of a manifest: what is checked out, pinned and recorded."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from tests.fixtures.commands import Ask, default_copy, list_litter, write_manifest
from tests.fixtures.git_servers import GitDaemon, Repository
from tests.fixtures.homes import Home, RunDm


def show_revision(run_dm: RunDm, name: str) -> object:
    document = json.loads(run_dm("show", name, "--json").stdout)
    return next(found["revision"] for found in (document, document.get("dataset", {})) if "revision" in found)


def test_the_commit_of_a_branch_is_recorded_and_shown(
    ask: Ask, run_dm: RunDm, project: Path, home: Home, repository: Repository, git_daemon: GitDaemon
) -> None:
    first = repository.commit({"a.csv": b"1,2\n"})
    second = repository.commit({"a.csv": b"3,4\n"}, branch="other")
    repository.tag("v1", first)
    uri = git_daemon.uri("r.git")
    path = write_manifest(
        project,
        f'[main]\nuri = "{uri}"\n',
        f'[other]\nuri = "{uri}"\nbranch = "other"\nkey = "other"\n',
        f'[tagged]\nuri = "{uri}#v1"\n',
        f'[pinned]\nuri = "{uri}"\nbranch = "{second}"\nkey = "pinned"\nstorage_path = "mine/pinned"\n',
    )
    assert 0 == ask("fetch").status
    names = ("main", "other", "tagged", "pinned")
    assert [first, second, first, second] == [show_revision(run_dm, name) for name in names]
    assert "revision" in run_dm("show", "main").stdout
    notes = tomllib.loads((project / ".datamanifest" / "dm.toml").read_text())
    assert {first, second} == set(notes["revisions"].values())
    assert second == notes["revisions"]["mine/pinned"]
    declared = tomllib.loads(path.read_text())
    for name in names:
        assert "digest" in declared[name] and "checksum" not in declared[name]
    assert b"3,4\n" == (default_copy(home, "other") / "a.csv").read_bytes()
    assert not (default_copy(home, "other") / ".git").exists()
    assert {"clean"} == {each["state"] for each in ask("verify").outcomes}
    assert {"unchanged"} == {each["status"] for each in ask("fetch").outcomes}
    assert [] == list_litter(home, project)


def test_a_checksum_of_the_peers_is_told_to_be_none(
    ask: Ask, project: Path, repository: Repository, git_daemon: GitDaemon
) -> None:
    repository.commit({"a.csv": b"1,2\n"})
    write_manifest(project, f'[r]\nuri = "{git_daemon.uri("r.git")}"\nchecksum = "sha256:{"0" * 64}"\n')
    answer = ask("fetch")
    assert (4, "checksum-mismatch") == (answer.status, answer.only["code"])
    told = "the peers' checksum of a repository covers its '.git', which no second clone gives again: "
    assert answer.only["hint"] == (
        f"{told}delete 'checksum' of [r]: fetch then fills in 'digest', as dm pin does of a copy that is there"
    )


def test_a_copy_that_a_killed_run_left_unpinned_gets_its_digest_only(
    ask: Ask, project: Path, repository: Repository, git_daemon: GitDaemon
) -> None:
    repository.commit({"a.csv": b"1,2\n"})
    text = write_manifest(project, f'[r]\nuri = "{git_daemon.uri("r.git")}"\n').read_text()
    assert 0 == ask("fetch").status
    (project / "datamanifest.toml").write_text(text)
    assert "unchanged" == ask("fetch").only["status"]
    assert {"uri", "digest"} == set(tomllib.loads((project / "datamanifest.toml").read_text())["r"])
