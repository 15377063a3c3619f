"""Datasets that are repositories: whole commands against git's own servers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import unicodedata
from pathlib import Path

import pytest

from tests.fixtures.archives import read_tree
from tests.fixtures.commands import (
    NO_RETRIES,
    Ask,
    StartDm,
    assert_one_error,
    default_copy,
    kill,
    list_litter,
    snapshot,
    write_manifest,
)
from tests.fixtures.git_servers import Content, GitDaemon, GitHttp, Link, Program, RawEntry, Repository, Submodule
from tests.fixtures.homes import Home, RunDm, make_home
from tests.fixtures.sshd import Sshd

FILES: dict[str, Content] = {"a.csv": b"1,2\r\n", "deep/run": Program(b"#!/bin/sh\n"), "deep/link": Link("../a.csv")}


def read_entry(project: Path, name: str) -> dict[str, object]:
    entry: dict[str, object] = tomllib.loads((project / "datamanifest.toml").read_text())[name]
    return entry


def test_add_fetches_the_files_of_the_commit_and_pins_the_folder_only(
    ask: Ask, run_dm: RunDm, project: Path, home: Home, repository: Repository, git_http: GitHttp
) -> None:
    commit = repository.commit(FILES)
    write_manifest(project)
    answer = ask("add", git_http.uri("r.git"), "--name", "r")
    place = default_copy(home, "127.0.0.1/r.git")
    assert (0, str(place), "clean") == (answer.status, answer.only["path"], answer.only["state"])
    assert {
        "a.csv": ("100644", b"1,2\r\n"),
        "deep": ("040000", None),
        "deep/run": ("100755", b"#!/bin/sh\n"),
        "deep/link": ("120000", "../a.csv"),
        ".complete": ("100644", b""),
    } == read_tree(place)
    assert f"{answer.only['digest']}\n" == run_dm("hash-object", place).stdout
    assert {"uri": git_http.uri("r.git"), "digest": answer.only["digest"]} == read_entry(project, "r")
    record = tomllib.loads((project / ".datamanifest-state.toml").read_text())["datasets"]["127.0.0.1/r.git"]
    assert {"storage_path": str(place)} == record
    assert commit in run_dm("show", "r").stdout
    assert [] == list_litter(home, project)


def test_fetching_again_asks_for_nothing(
    ask: Ask, project: Path, home: Home, repository: Repository, git_http: GitHttp
) -> None:
    repository.commit(FILES)
    write_manifest(project, f'[r]\nuri = "{git_http.uri("r.git")}"\n')
    assert 0 == ask("fetch").status
    before = snapshot(project, home.data)
    git_http.requests.clear()
    assert "unchanged" == ask("fetch").only["status"]
    assert ["clean"] == [each["state"] for each in ask("status").outcomes]
    assert ([], before) == (git_http.requests, snapshot(project, home.data))
    assert (0, []) == (ask("verify").status, git_http.requests)


def test_branches_tags_and_commits_are_datasets_beside_each_other(
    ask: Ask, project: Path, home: Home, repository: Repository, git_daemon: GitDaemon
) -> None:
    first = repository.commit({"n": b"1"})
    repository.tag("v2", repository.commit({"n": b"2"}), annotated=True)
    repository.commit({"n": b"3"})
    repository.commit({"n": b"4"}, branch="feature/x")
    uri = git_daemon.uri("r.git")
    write_manifest(
        project,
        f'[head]\nuri = "{uri}"\n',
        f'[tag]\nuri = "{uri}#v2"\n',
        f'[branch]\nuri = "{uri}"\nbranch = "feature/x"\nkey = "branch"\n',
        f'[commit]\nuri = "{uri}"\nbranch = "{first}"\nkey = "commit"\n',
    )
    outcomes = {each["name"]: Path(each["path"]) for each in ask("fetch").outcomes}
    assert {"head": b"3", "tag": b"2", "branch": b"4", "commit": b"1"} == {
        name: (path / "n").read_bytes() for name, path in outcomes.items()
    }
    assert default_copy(home, "127.0.0.1/r.git#v2") == outcomes["tag"]


def test_a_branch_that_moved_is_not_what_was_pinned(
    ask: Ask, run_dm: RunDm, project: Path, tmp_path: Path, repository: Repository, git_daemon: GitDaemon
) -> None:
    repository.commit(FILES)
    write_manifest(project, f'[r]\nuri = "{git_daemon.uri("r.git")}"\n')
    assert 0 == ask("fetch").status
    repository.commit({"a.csv": b"moved"})
    other = make_home(tmp_path / "other")
    clone = tmp_path / "clone"
    clone.mkdir()
    shutil.copy(project / "datamanifest.toml", clone)
    done = run_dm("fetch", cwd=clone, env=other.variables())
    assert 4 == done.returncode
    assert "'r' is not what the manifest declares: the source gave blake3-tree:" in done.stderr
    assert [] == list_litter(other, clone)


def test_a_checksum_that_a_peer_filled_in_is_told_to_cover_what_no_clone_has(
    run_dm: RunDm, project: Path, home: Home, repository: Repository, git_daemon: GitDaemon
) -> None:
    repository.commit(FILES)
    checksum = f"sha256:{'a' * 64}"
    path = write_manifest(project, f'[r]\nuri = "{git_daemon.uri("r.git")}"\nchecksum = "{checksum}"\n')
    before = path.read_bytes()
    done = run_dm("fetch")
    assert_one_error(done, 4)
    assert "'r' is not what the manifest declares: the source gave sha256:" in done.stderr
    assert "the peers' checksum of a repository covers its '.git', which no second clone gives again" in done.stderr
    assert before == path.read_bytes()
    assert not default_copy(home, "127.0.0.1/r.git").exists()
    assert [] == list_litter(home, project)


def test_the_checksum_that_the_python_peer_fills_in_is_such_a_one(
    run_dm: RunDm, project: Path, home: Home, tmp_path: Path, repository: Repository, peer_executable: Path,
    git_daemon: GitDaemon,
) -> None:
    repository.commit(FILES)
    path = write_manifest(project, f'[r]\nuri = "{git_daemon.uri("r.git")}"\n')
    theirs = make_home(tmp_path / "theirs")
    words = [str(peer_executable), "download", "r"]
    done = subprocess.run(words, cwd=project, env=theirs.variables(), capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr
    assert "checksum" in read_entry(project, "r")
    before = path.read_bytes()
    (project / ".datamanifest-state.toml").unlink(missing_ok=True)
    shutil.rmtree(project / ".datamanifest", ignore_errors=True)  # another's clone of the project
    refused = run_dm("fetch")
    assert_one_error(refused, 4)
    assert "covers its '.git'" in refused.stderr
    assert before == path.read_bytes()


@pytest.mark.parametrize(
    ("files", "status", "words"),
    [
        ({"big.nc": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"}, 5, "git-lfs"),
        ({"evil": Link("/etc/passwd")}, 6, "its link 'evil' leads out of the folder, to '/etc/passwd'"),
        ({".complete": b"not empty"}, 6, ".complete"),
    ],
)
def test_what_may_not_be_handed_out_leaves_nothing(
    run_dm: RunDm,
    project: Path,
    home: Home,
    repository: Repository,
    git_daemon: GitDaemon,
    files: dict[str, Content],
    status: int,
    words: str,
) -> None:
    repository.commit(files)
    path = write_manifest(project, f'[r]\nuri = "{git_daemon.uri("r.git")}"\n')
    before = path.read_bytes()
    done = run_dm("fetch")
    assert_one_error(done, status)
    assert words in done.stderr
    assert before == path.read_bytes()
    assert not default_copy(home, "127.0.0.1/r.git").exists()
    assert [] == list_litter(home, project)


def test_names_that_differ_in_unicode_forms_only_are_refused_by_the_store(
    run_dm: RunDm, project: Path, home: Home, repository: Repository, git_daemon: GitDaemon
) -> None:
    blob = repository.write_blob(b"x")
    names = sorted(unicodedata.normalize(form, "ä").encode() for form in ("NFC", "NFD"))
    repository.commit_tree(repository.write_tree([RawEntry("100644", name, blob) for name in names]))
    write_manifest(project, f'[r]\nuri = "{git_daemon.uri("r.git")}"\n')
    assert_one_error(run_dm("fetch"), 6)
    assert [] == list_litter(home, project)


def test_submodules_are_named_and_their_folders_are_empty(
    run_dm: RunDm, project: Path, home: Home, repository: Repository, git_daemon: GitDaemon
) -> None:
    repository.commit({"n": b"1", "sub": Submodule("1" * 40)})
    write_manifest(project, f'[r]\nuri = "{git_daemon.uri("r.git")}"\n')
    done = run_dm("fetch")
    assert 0 == done.returncode
    assert "submodules are not fetched, their folders are empty: 'sub'" in done.stderr
    assert [] == os.listdir(default_copy(home, "127.0.0.1/r.git") / "sub")
    assert 0 == run_dm("verify").returncode


def test_a_branch_that_is_not_there_is_told_with_those_that_are_near(
    run_dm: RunDm, project: Path, repository: Repository, git_daemon: GitDaemon
) -> None:
    repository.commit(FILES, branch="develop")
    write_manifest(project, f'[r]\nuri = "{git_daemon.uri("r.git")}"\nbranch = "devel"\n')
    done = run_dm("fetch")
    assert_one_error(done, 5)
    assert "it has no branch, tag or commit 'devel'" in done.stderr
    assert "near: 'develop'" in done.stderr


def test_ssh_takes_the_users_command(
    ask: Ask, project: Path, sshd: Sshd, tmp_path: Path
) -> None:
    repository = Repository.create(sshd.home / "owner" / "r.git")
    repository.commit(FILES)
    write_manifest(project, '[r]\nuri = "git@example.org:owner/r.git"\n')
    answer = ask("fetch", env={"DATAMANIFEST_SSH_COMMAND": sshd.ssh_command})
    assert answer.only["path"].endswith("/example.org/owner/r.git")
    assert ["git-upload-pack 'owner/r.git'"] == sshd.commands


def test_a_fetch_that_was_killed_is_begun_anew_and_leaves_nothing_behind(
    run_dm: RunDm, start_dm: StartDm, project: Path, home: Home, repository: Repository, git_daemon: GitDaemon
) -> None:
    data = os.urandom(4 << 20)
    repository.commit({"n": data})
    write_manifest(project, f'[r]\nuri = "{git_daemon.uri("r.git")}"\n')
    git_daemon.relay.stall_at = len(data) // 2
    process = start_dm("fetch")
    assert git_daemon.relay.stalled.wait(120)
    kill(process)
    git_daemon.relay.stall_at = None
    git_daemon.relay.go.set()
    done = run_dm("fetch")
    assert (0, data) == (done.returncode, (default_copy(home, "127.0.0.1/r.git") / "n").read_bytes())
    assert [] == list_litter(home, project)


def test_a_missing_repository_is_one_line_and_the_others_arrive(
    ask: Ask, project: Path, repository: Repository, git_daemon: GitDaemon
) -> None:
    repository.commit(FILES)
    uris = {"good": git_daemon.uri("r.git"), "gone": git_daemon.uri("none.git")}
    write_manifest(project, *(f'[{name}]\nuri = "{uri}"\n' for name, uri in uris.items()))
    answer = ask("fetch", env=NO_RETRIES)
    assert 5 == answer.status
    assert {"good": None, "gone": "git-not-found"} == {each["name"]: each.get("code") for each in answer.outcomes}


def test_the_library_is_imported_on_the_first_repository_only(
    project: Path, home: Home, repository: Repository, git_daemon: GitDaemon
) -> None:
    repository.commit(FILES)
    script = """
import sys
import dm
manifest = dm.Manifest.open("datamanifest.toml")
manifest.status()
manifest.fetch("file")
print("dulwich" in sys.modules)
manifest.fetch("repository")
print("dulwich" in sys.modules, "dulwich.porcelain" in sys.modules)
"""
    (project / "x.csv").write_bytes(b"1")
    file_uri, uri = (project / "x.csv").as_uri(), git_daemon.uri("r.git")
    write_manifest(project, f'[file]\nuri = "{file_uri}"\n', f'[repository]\nuri = "{uri}"\n')
    words = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(words, cwd=project, env=home.variables(), capture_output=True, text=True, check=False)
    assert ("False\nTrue False\n", "") == (done.stdout, done.stderr)


def test_a_repository_is_no_archive(
    run_dm: RunDm, project: Path, home: Home, repository: Repository, git_daemon: GitDaemon
) -> None:
    repository.commit(FILES)
    write_manifest(project, f'[r]\nuri = "{git_daemon.uri("r.git")}"\nextract = true\n')
    done = run_dm("fetch")
    assert "cannot extract 'r': its source is a folder" == assert_one_error(done, 5)
    assert "hint: take 'extract' out of [r]\n" in done.stderr
    assert [] == list_litter(home, project)


def test_fetch_uri_takes_a_repository_with_its_branch(
    run_dm: RunDm, project: Path, home: Home, repository: Repository, git_daemon: GitDaemon
) -> None:
    repository.tag("v1", repository.commit(FILES))
    repository.commit({"later": b""})
    done = run_dm("fetch-uri", git_daemon.uri("r.git") + "#v1", "here")
    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout == run_dm("hash-object", "here").stdout
    assert {"a.csv", "deep", "deep/run", "deep/link"} == set(read_tree(project / "here"))


def test_a_repository_may_be_one_of_several_uris(
    ask: Ask, project: Path, repository: Repository, git_daemon: GitDaemon
) -> None:
    repository.commit(FILES)
    (project / "x.csv").write_bytes(b"1")
    uris = [git_daemon.uri("r.git"), (project / "x.csv").as_uri()]
    write_manifest(project, f'[r]\nuris = ["{uris[0]}", "{uris[1]}"]\n')
    answer = ask("fetch")
    place = Path(answer.only["path"])
    assert b"1,2\r\n" == (place / "r.git" / "a.csv").read_bytes()
