"""git: one commit's files from real repositories, over real servers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from dm.errors import DmError, MachineFailed, Refused, SourceFailed
from dm.plumbing.transport.git.fetcher import GitFetcher
from dm.plumbing.transport.protocol import Fetched, FetchRequest
from tests.fixtures.archives import read_tree
from tests.fixtures.fetching import QUICK, make_environment, names_in
from tests.fixtures.git_servers import (
    Content,
    GitDaemon,
    GitHttp,
    Link,
    Program,
    RawEntry,
    Repository,
    Submodule,
)
from tests.fixtures.machine import MakeTmpfs
from tests.fixtures.sinks import RecordingProgress, RecordingTask
from tests.fixtures.sshd import Sshd

#: Enough to be told from a commit without it by what went over the wire, and not to be compressed.
LONG = os.urandom(1 << 20)
FILES: dict[str, Content] = {
    "a file.csv": b"1,2\r\n",
    "deep/er/run": Program(b"#!/bin/sh\n"),
    "deep/link": Link("../a file.csv"),
    "deep/other": b"",
    ".gitattributes": b"* text eol=crlf\n*.id ident\n* filter=evil\n",
    "x.id": b"$Id$\nline\n",
}
HERE = {
    ".gitattributes": ("100644", FILES[".gitattributes"]),
    "a file.csv": ("100644", b"1,2\r\n"),
    "deep": ("040000", None),
    "deep/er": ("040000", None),
    "deep/er/run": ("100755", b"#!/bin/sh\n"),
    "deep/link": ("120000", "../a file.csv"),
    "deep/other": ("100644", b""),
    "x.id": ("100644", b"$Id$\nline\n"),
}
SIZE_BYTES = sum(len(content) for content in FILES.values() if isinstance(content, bytes))
NO_COMMIT = "0" * 39 + "1"
#: It ends a hang.
_PATIENCE_S = 120.0


class Way(NamedTuple):
    """A transport that is ready, and the URI of a repository of ``tmp_path / "repositories"`` over one way."""

    fetcher: GitFetcher
    uri: Callable[[str], str]


def make_fetcher(home: Path, *, ssh_command: str | None = None, **variables: str) -> GitFetcher:
    return GitFetcher(make_environment(home, **variables), QUICK, ssh_command=ssh_command)


@pytest.fixture(params=["git", "http", "http-v0", "ssh", "file"])
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Way]:
    folder = tmp_path / "repositories"
    if request.param == "git":
        yield Way(make_fetcher(tmp_path), request.getfixturevalue("git_daemon").uri)
    elif request.param == "file":
        yield Way(make_fetcher(tmp_path), lambda name: (folder / name).as_uri())
    elif request.param == "ssh":
        sshd: Sshd = request.getfixturevalue("sshd")
        path = {"PATH": os.environ["PATH"]}
        yield Way(make_fetcher(tmp_path, ssh_command=sshd.ssh_command, **path), lambda name: sshd.uri(folder / name))
    else:
        server: GitHttp = request.getfixturevalue("git_http")
        server.version_2 = request.param == "http"
        yield Way(make_fetcher(tmp_path), server.uri)


def fetch(
    fetcher: GitFetcher,
    uri: str,
    folder: Path,
    *,
    branch: str | None = None,
    progress: RecordingProgress | None = None,
    task: RecordingTask | None = None,
) -> Fetched:
    request = FetchRequest(uri, folder, "tree", ("blake3",), branch=branch)
    return fetcher.fetch(request, task=task or RecordingTask(), progress=progress or RecordingProgress())


def fail(fetcher: GitFetcher, uri: str, folder: Path, kind: type[DmError], **options: str) -> DmError:
    """The error of a fetch that must fail, and leave nothing."""
    with pytest.raises(kind) as caught:
        fetch(fetcher, uri, folder, **options)  # type: ignore[arg-type]
    assert kind is type(caught.value)
    assert 1 == len(caught.value.message.splitlines())
    assert [] == names_in(folder)
    return caught.value


def from_disk(repository: Repository) -> str:
    return repository.path.as_uri()


# What arrives


def test_the_files_of_the_default_branch_arrive_as_they_are_recorded(
    way: Way, repository: Repository, tmp_path: Path
) -> None:
    repository.commit({"old": b"x"})
    commit = repository.commit(FILES)
    repository.commit({"another": b"x"}, branch="other")
    task, progress = RecordingTask(), RecordingProgress()
    fetched = fetch(way.fetcher, way.uri("r.git"), tmp_path / "part", task=task, progress=progress)
    assert (tmp_path / "part" / "tree", {}, SIZE_BYTES) == (fetched.path, fetched.digests, fetched.size_bytes)
    assert commit == fetched.revision
    assert HERE == read_tree(fetched.path)
    assert ["tree"] == names_in(tmp_path / "part")
    assert ([], []) == (progress.notes, progress.warnings)
    assert task.total == task.done > 0


def test_a_branch_a_tag_and_a_commit_may_be_named(way: Way, repository: Repository, tmp_path: Path) -> None:
    first = repository.commit({"n": b"1"})
    second = repository.commit({"n": b"2"})
    repository.commit({"n": b"3"})
    fourth = repository.commit({"n": b"4"}, branch="feature/x")
    repository.tag("light", first)
    repository.tag("v2", second, annotated=True)
    repository.tag("v2-again", "v2", annotated=True)
    repository.commit({"n": b"5"}, branch="v2-lookalike")
    uri = way.uri("r.git")
    for branch, expected, number in [
        ("feature/x", fourth, b"4"),
        ("light", first, b"1"),
        ("v2", second, b"2"),
        ("v2-again", second, b"2"),
        ("refs/tags/v2", second, b"2"),
        (second, second, b"2"),
        (fourth.upper(), fourth, b"4"),
    ]:
        fetched = fetch(way.fetcher, uri, tmp_path / "part", branch=branch)
        assert (expected, number) == (fetched.revision, (fetched.path / "n").read_bytes()), branch
    for uri_branch in (f"{uri}#light", f"{uri}?ref=light", f"{uri}?version=light&ref=v2"):
        assert first == fetch(way.fetcher, uri_branch, tmp_path / "part").revision
        assert second == fetch(way.fetcher, uri_branch, tmp_path / "part", branch="v2").revision


def test_a_branch_comes_before_a_tag_of_the_same_name(repository: Repository, tmp_path: Path) -> None:
    branch = repository.commit({"n": b"branch"}, branch="same")
    repository.tag("same", repository.commit({"n": b"tag"}))
    assert branch == fetch(make_fetcher(tmp_path), from_disk(repository), tmp_path / "part", branch="same").revision


def test_a_repository_with_sha256_names_is_read_too(way: Way, tmp_path: Path) -> None:
    repository = Repository.create(tmp_path / "repositories" / "s.git", object_format="sha256")
    commit = repository.commit(FILES)
    fetched = fetch(way.fetcher, way.uri("s.git"), tmp_path / "part")
    assert (64, commit, HERE) == (len(commit), fetched.revision, read_tree(fetched.path))


def test_files_that_git_stores_as_differences_arrive_whole(way: Way, repository: Repository, tmp_path: Path) -> None:
    base = b"".join(b"%d,%d\n" % (number, number * number) for number in range(20_000))
    files: dict[str, Content] = {f"f{n}.csv": base[: n * 900] + b"changed\n" + base[n * 900 :] for n in range(40)}
    repository.commit(files)
    repository.git("repack", "-adfq", "--depth=20")
    fetched = fetch(way.fetcher, way.uri("r.git"), tmp_path / "part")
    assert files == {name: content for name, (_, content) in read_tree(fetched.path).items()}


def test_a_clone_with_working_tree_and_a_linked_one_are_repositories_too(
    repository: Repository, tmp_path: Path
) -> None:
    commit = repository.commit(FILES)
    repository.git("clone", "-q", str(repository.path), str(tmp_path / "clone"))
    Repository(tmp_path / "clone").git("worktree", "add", "-q", str(tmp_path / "linked.git"), "-b", "linked")
    for uri in [(tmp_path / "clone" / ".git").as_uri(), (tmp_path / "linked.git").as_uri()]:
        fetched = fetch(make_fetcher(tmp_path), uri, tmp_path / "part")
        assert (commit, HERE) == (fetched.revision, read_tree(fetched.path))


def test_what_an_earlier_run_left_is_begun_anew(repository: Repository, tmp_path: Path, git_daemon: GitDaemon) -> None:
    repository.commit(FILES)
    part = tmp_path / "part"
    (part / "tree").mkdir(parents=True)
    (part / "tree" / "old").touch()
    (part / "tree.pack").write_bytes(b"PACK, but cut")
    (part / "trees").write_bytes(b"another dataset's")
    fetch(make_fetcher(tmp_path), git_daemon.uri("r.git"), part)
    assert HERE == read_tree(part / "tree")
    assert ["tree", "trees"] == names_in(part)


# What goes over the wire


def test_only_the_one_commit_goes_over_the_wire(
    repository: Repository, tmp_path: Path, git_daemon: GitDaemon, git_http: GitHttp, sshd: Sshd
) -> None:
    first = repository.commit({"n": b"1"})
    repository.commit({"n": LONG})
    repository.tag("v1", repository.commit({"n": b"3"}), annotated=True)
    repository.commit({"n": LONG[::-1]}, branch="other")
    fetcher = make_fetcher(tmp_path, ssh_command=sshd.ssh_command, PATH=os.environ["PATH"])
    task = RecordingTask()
    for branch in (None, "v1", first):
        fetch(fetcher, git_daemon.uri("r.git"), tmp_path / "part", branch=branch, task=task)
        fetch(fetcher, git_http.uri("r.git"), tmp_path / "part", branch=branch, task=task)
    fetch(fetcher, sshd.uri(repository.path), tmp_path / "part", branch="v1", task=task)
    sent = (git_daemon.relay.sent_bytes, git_http.relay.sent_bytes, sshd.relay.sent_bytes)
    assert all(0 < count < 50_000 for count in sent), sent
    assert 0 < task.done < 10_000


def test_a_commit_that_the_server_does_not_give_away_alone_comes_with_the_history(
    repository: Repository, tmp_path: Path, sshd: Sshd
) -> None:
    # This sshd takes no GIT_PROTOCOL along, and the first protocol gives away what has a name only.
    first = repository.commit({"n": b"1"})
    repository.commit({"n": LONG})
    fetcher = make_fetcher(tmp_path, ssh_command=sshd.ssh_command, PATH=os.environ["PATH"])
    uri, place = sshd.uri(repository.path), f"127.0.0.1:{sshd.port}"
    progress, task = RecordingProgress(), RecordingTask()
    fetched = fetch(fetcher, uri, tmp_path / "part", branch=first, progress=progress, task=task)
    assert (first, {"n": ("100644", b"1")}) == (fetched.revision, read_tree(fetched.path))
    assert [f"{place} gives no single commit away; fetching the whole history"] == progress.notes
    assert len(LONG) < task.done == task.total
    missing = fail(fetcher, uri, tmp_path / "part", SourceFailed, branch=NO_COMMIT)
    assert f"cannot fetch '{uri}': it has no commit '{NO_COMMIT}'" == missing.message
    repository.git("config", "uploadpack.allowReachableSHA1InWant", "true")
    before = task.done
    progress = RecordingProgress()
    assert first == fetch(fetcher, uri, tmp_path / "part", branch=first, progress=progress, task=task).revision
    assert ([], True) == (progress.notes, task.done - before < 10_000)


# Which commit


def test_a_name_that_is_not_there_is_told_with_those_that_are_near(
    way: Way, repository: Repository, tmp_path: Path
) -> None:
    repository.tag("v1.2.0", repository.commit({"n": b"1"}))
    uri, part = way.uri("r.git"), tmp_path / "part"
    error = fail(way.fetcher, uri, part, SourceFailed, branch="v1.2")
    assert f"cannot fetch '{uri}': it has no branch, tag or commit 'v1.2'" == error.message
    assert ("near: 'v1.2.0'", "git-no-ref", 5) == (error.hint, error.code, error.exit_status)
    assert "it has: 'main', 'v1.2.0'" == fail(way.fetcher, uri, part, SourceFailed, branch="zzz").hint
    absent = fail(way.fetcher, uri, part, SourceFailed, branch=NO_COMMIT)
    assert f"cannot fetch '{uri}': it has no commit '{NO_COMMIT}'" == absent.message
    assert "check 'branch'; a commit that was pushed over or never pushed is not there any more" == absent.hint


def test_an_abbreviated_commit_is_refused_and_told_whole_where_it_is_known(
    repository: Repository, tmp_path: Path
) -> None:
    old, new = repository.commit({"n": b"1"}), repository.commit({"n": b"2"})
    fetcher, uri = make_fetcher(tmp_path), from_disk(repository)
    error = fail(fetcher, uri, tmp_path / "part", SourceFailed, branch=new[:10])
    reason = f"it has no branch or tag '{new[:10]}', and an abbreviated commit is not looked for"
    assert (f"cannot fetch '{uri}': {reason}", f"it may be '{new}'") == (error.message, error.hint)
    hint = fail(fetcher, uri, tmp_path / "part", SourceFailed, branch=old[:10]).hint
    assert "all 40 digits are needed" == hint


def test_an_empty_repository_is_an_error_that_says_so(way: Way, repository: Repository, tmp_path: Path) -> None:
    error = fail(way.fetcher, way.uri("r.git"), tmp_path / "part", SourceFailed)
    assert f"cannot fetch '{way.uri('r.git')}': the repository is empty: it has no commit" == error.message
    assert ("push a commit to it first", "git-empty") == (error.hint, error.code)


def test_a_repository_without_its_default_branch_names_the_others(
    way: Way, repository: Repository, tmp_path: Path
) -> None:
    repository.commit({"n": b"1"}, branch="trunk")
    error = fail(way.fetcher, way.uri("r.git"), tmp_path / "part", SourceFailed)
    assert f"cannot fetch '{way.uri('r.git')}': the repository names no default branch" == error.message
    assert ("set 'branch' to one of its own: 'trunk'", "git-no-ref") == (error.hint, error.code)


def test_a_repository_that_is_not_there_is_an_error_that_says_so(
    way: Way, repository: Repository, tmp_path: Path
) -> None:
    error = fail(way.fetcher, way.uri("none.git"), tmp_path / "part", SourceFailed)
    assert error.message.startswith(f"cannot fetch '{way.uri('none.git')}': there is no ")
    assert "repository" in error.message
    assert ("git-not-found", 5, True) == (error.code, error.exit_status, bool(error.hint))


def test_a_tag_of_a_file_is_no_commit(repository: Repository, tmp_path: Path) -> None:
    repository.commit({"n": b"1"})
    blob = repository.write_blob(b"1")
    repository.tag("file", blob, annotated=True)
    error = fail(make_fetcher(tmp_path), from_disk(repository), tmp_path / "part", SourceFailed, branch="file")
    assert f"cannot fetch '{from_disk(repository)}': the object {blob} is no commit" == error.message
    assert ("name a branch, a tag of a commit, or a commit", "git-no-ref") == (error.hint, error.code)


# What a repository asks for and does not get


def test_submodules_are_empty_folders_and_named(way: Way, repository: Repository, tmp_path: Path) -> None:
    repository.commit({"n": b"1", "sub/mod": Submodule("1" * 40), "sub/other": Submodule("2" * 40)})
    progress = RecordingProgress()
    fetched = fetch(way.fetcher, way.uri("r.git"), tmp_path / "part", progress=progress)
    nothing = ("040000", None)
    assert {"n": ("100644", b"1"), "sub": nothing, "sub/mod": nothing, "sub/other": nothing} == read_tree(fetched.path)
    words = "submodules are not fetched, their folders are empty: 'sub/mod', 'sub/other'"
    assert [f"'{way.uri('r.git')}': {words}"] == progress.warnings


def test_pointers_of_git_lfs_are_never_handed_out(way: Way, repository: Repository, tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 12345\n" % (b"a" * 64)
    repository.commit({f"big{n}.nc": pointer for n in range(5)} | {"README": b"see " + pointer, "empty": b""})
    error = fail(way.fetcher, way.uri("r.git"), tmp_path / "part", SourceFailed)
    some = "'big0.nc', 'big1.nc', 'big2.nc' and 2 more"
    reason = f"{some} would be a pointer of Git LFS, not the data: git-lfs keeps that elsewhere"
    assert f"cannot fetch '{way.uri('r.git')}': {reason}" == error.message
    assert ("git-lfs", 5) == (error.code, error.exit_status)
    hint = "clone it with git and git-lfs, then 'dm add' the files, or name where they can be fetched themselves"
    assert hint == error.hint


def test_nothing_of_the_repository_is_run(repository: Repository, tmp_path: Path, git_daemon: GitDaemon) -> None:
    evil = tmp_path / "evil"
    script = repository.path / "hooks" / "run"
    script.parent.mkdir(exist_ok=True)
    script.write_text(f"#!/bin/sh\ntouch {evil}\ncat\n")
    script.chmod(0o755)
    for name in ("post-checkout", "post-merge", "pre-auto-gc", "reference-transaction", "post-index-change"):
        (script.parent / name).hardlink_to(script)
    names = ["core.fsmonitor", "core.sshCommand", "core.gitProxy", "core.pager", "credential.helper"]
    for name in [*names, "filter.evil.smudge", "filter.evil.process", "core.hooksPath", "uploadpack.packObjectsHook"]:
        repository.git("config", name, str(script.parent if name == "core.hooksPath" else script))
    repository.commit(FILES)
    evil.unlink(missing_ok=True)  # the repository's own keeper runs his hooks
    for uri in (from_disk(repository), git_daemon.uri("r.git")):
        assert HERE == read_tree(fetch(make_fetcher(tmp_path), uri, tmp_path / "part").path)
    assert not evil.exists()


# Hostile trees


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (b"..", "is '..'"),
        (b".", "is '.'"),
        (b"a/b", "has a slash or a NUL in it"),
        (b"../x", "has a slash or a NUL in it"),
        *[
            (name, "is '.git' to some file systems")
            for name in (
                b".git",
                b".GIT",
                b".gIt.",
                b".git ",
                b".git. .",
                b".git::$INDEX_ALLOCATION",
                b"git~1",
                b"GIT~1",
                b"x\\.git",
                b"..\\.Git \\config",
                ".g\u200cit".encode(),
                "\ufeff.git".encode(),
                ".\u206aGIT".encode(),
            )
        ],
    ],
)
@pytest.mark.parametrize("server", ["git_daemon", "file"])
def test_a_name_that_may_not_be_made_is_refused(
    repository: Repository, tmp_path: Path, request: pytest.FixtureRequest, name: bytes, fault: str, server: str
) -> None:
    blob = repository.write_blob(b"evil")
    below = repository.write_tree([RawEntry("100644", name, blob)])
    repository.commit_tree(repository.write_tree([RawEntry("40000", b"deep", below)]))
    uri = from_disk(repository) if server == "file" else request.getfixturevalue(server).uri("r.git")
    error = fail(make_fetcher(tmp_path), uri, tmp_path / "part", Refused)
    shown = "deep/" + name.decode().replace("\u200c", "\\u200c").replace("\ufeff", "\\ufeff")
    shown = shown.replace("\u206a", "\\u206a")
    assert f"cannot fetch '{uri}': its entry '{shown}' {fault}" == error.message
    assert ("unsafe-entry", 6) == (error.code, error.exit_status)
    assert "nothing of it is used; ask the keeper of the repository" == error.hint


def test_names_that_only_look_like_a_repository_are_fine(repository: Repository, tmp_path: Path) -> None:
    names = [".gitignore", ".git2", "git", "x.git", "git~2", ".github/a", "digit~1", "a\\b", "...", "g\u00eft"]
    repository.commit(dict.fromkeys(names, b"x"))
    tree = read_tree(fetch(make_fetcher(tmp_path), from_disk(repository), tmp_path / "part").path)
    assert {*names, ".github"} == set(tree)


def make_link_tree(repository: Repository, links: dict[str, str]) -> str:
    return repository.commit({"deep/er/n": b"1", **{name: Link(text) for name, text in links.items()}})


@pytest.mark.parametrize(
    ("links", "name", "text"),
    [
        ({"evil": "/etc/passwd"}, "evil", "/etc/passwd"),
        ({"evil": ".."}, "evil", ".."),
        ({"deep/evil": "../../x"}, "deep/evil", "../../x"),
        ({"evil": "deep/../../x"}, "evil", "deep/../../x"),
        ({"deep/er/up": "../..", "evil": "deep/er/up/../x"}, "evil", "deep/er/up/../x"),
        ({"a": "deep/er", "deep/er/up": "../..", "evil": "a/up/../../x"}, "evil", "a/up/../../x"),
    ],
)
def test_a_link_that_leads_out_of_the_folder_is_refused(
    repository: Repository, tmp_path: Path, links: dict[str, str], name: str, text: str
) -> None:
    make_link_tree(repository, links)
    error = fail(make_fetcher(tmp_path), from_disk(repository), tmp_path / "part", Refused)
    reason = f"its link '{name}' leads out of the folder, to '{text}'"
    assert (f"cannot fetch '{from_disk(repository)}': {reason}", "link-leaves") == (error.message, error.code)
    assert "a repository may not choose what is read here; ask its keeper to put a copy in its place" == error.hint


def test_links_that_stay_inside_are_made_also_when_they_lead_nowhere_or_round(
    repository: Repository, tmp_path: Path
) -> None:
    links = {"here": ".", "nowhere": "none/at/all", "a": "b", "b": "a", "deep/er/up": "../..", "c": "deep/er/up/deep"}
    make_link_tree(repository, links)
    tree = read_tree(fetch(make_fetcher(tmp_path), from_disk(repository), tmp_path / "part").path)
    assert links == {name: content for name, (mode, content) in tree.items() if mode == "120000"}


def test_a_link_is_no_way_to_write_elsewhere(repository: Repository, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link, blob = repository.write_blob(str(outside).encode()), repository.write_blob(b"evil")
    folder = repository.write_tree([RawEntry("100644", b"n", blob)])
    twice = [RawEntry("120000", b"a", link), RawEntry("40000", b"a", folder)]
    repository.commit_tree(repository.write_tree(twice))
    error = fail(make_fetcher(tmp_path), from_disk(repository), tmp_path / "part", Refused)
    assert f"cannot fetch '{from_disk(repository)}': its entry 'a' comes twice" == error.message
    assert [] == names_in(outside)


@pytest.mark.parametrize(
    ("mode", "content", "fault"),
    [
        ("120000", b"", "is a link to nothing"),
        ("120000", b"a\0b", "is a link to nothing"),
        ("120000", b"x/" * 4000, "is a link to a path that is too long"),
        ("10644", b"x", "is neither a file, a folder, a link nor a submodule"),
        ("60000", b"x", "is neither a file, a folder, a link nor a submodule"),
        ("2100644", b"x", "is neither a file, a folder, a link nor a submodule"),
    ],
)
def test_an_entry_that_git_would_not_make_is_refused(
    repository: Repository, tmp_path: Path, mode: str, content: bytes, fault: str
) -> None:
    repository.commit_tree(repository.write_tree([RawEntry(mode, b"x", repository.write_blob(content))]))
    error = fail(make_fetcher(tmp_path), from_disk(repository), tmp_path / "part", Refused)
    assert f"cannot fetch '{from_disk(repository)}': its entry 'x' {fault}" == error.message


def test_the_mode_of_early_git_is_a_plain_file_and_an_empty_folder_is_one(
    repository: Repository, tmp_path: Path
) -> None:
    blob, empty = repository.write_blob(b"x"), repository.write_tree([])
    entries = [RawEntry("40000", b"empty", empty), RawEntry("100664", b"old", blob)]
    repository.commit_tree(repository.write_tree(entries))
    tree = read_tree(fetch(make_fetcher(tmp_path), from_disk(repository), tmp_path / "part").path)
    assert {"empty": ("040000", None), "old": ("100644", b"x")} == tree


def test_trees_that_name_each_other_over_and_over_write_nothing(
    repository: Repository, tmp_path: Path, git_daemon: GitDaemon
) -> None:
    name, mode = repository.write_blob(b"x"), "100644"
    for _ in range(9):
        name = repository.write_tree([RawEntry(mode, b"%02d" % number, name) for number in range(32)])
        mode = "40000"
    repository.commit_tree(name)
    error = fail(make_fetcher(tmp_path), git_daemon.uri("r.git"), tmp_path / "part", Refused)
    reason = "it holds more than 2000000 files and folders"
    assert f"cannot fetch '{git_daemon.uri('r.git')}': {reason}" == error.message
    assert ("git-too-large", "such a repository is made to fill disks; ask its keeper") == (error.code, error.hint)


def test_a_path_that_no_system_can_open_is_refused(repository: Repository, tmp_path: Path) -> None:
    name, mode = repository.write_blob(b"x"), "100644"
    for _ in range(20):
        name = repository.write_tree([RawEntry(mode, b"d" * 200, name)])
        mode = "40000"
    repository.commit_tree(name)
    error = fail(make_fetcher(tmp_path), from_disk(repository), tmp_path / "part", Refused)
    shown = "d" * 80 + "..."
    reason = f"its entry '{shown}' lies deeper than 3000 bytes of path"
    assert f"cannot fetch '{from_disk(repository)}': {reason}" == error.message


def test_names_that_are_no_utf_8_arrive_byte_by_byte(repository: Repository, tmp_path: Path) -> None:
    blob = repository.write_blob(b"x")
    repository.commit_tree(repository.write_tree([RawEntry("100644", b"\xff\n", blob)]))
    fetched = fetch(make_fetcher(tmp_path), from_disk(repository), tmp_path / "part")
    assert [b"\xff\n"] == os.listdir(os.fsencode(fetched.path))


def test_a_tree_that_is_cut_short_is_a_damaged_repository(repository: Repository, tmp_path: Path) -> None:
    words = ["hash-object", "-t", "tree", "-w", "--stdin", "--literally"]
    tree = repository.git(*words, input=b"100644 x\0short")
    repository.commit_tree(tree)
    error = fail(make_fetcher(tmp_path), from_disk(repository), tmp_path / "part", SourceFailed)
    assert f"cannot fetch '{from_disk(repository)}': the object {tree} cannot be read" == error.message
    hint = "run it again; if it stays so, the repository is damaged: ask its keeper to run 'git fsck'"
    assert ("git-corrupt", hint) == (error.code, error.hint)


def test_damaged_and_missing_objects_of_a_local_repository_are_told(repository: Repository, tmp_path: Path) -> None:
    repository.commit({"n": b"1"})
    one, other = repository.write_blob(b"1"), repository.write_blob(b"other")
    loose = [repository.path / "objects" / name[:2] / name[2:] for name in (one, other)]
    loose[0].chmod(0o644)
    loose[0].write_bytes(loose[1].read_bytes())
    uri = from_disk(repository)
    assert f"cannot fetch '{uri}': the object {one} is damaged" == str(
        fail(make_fetcher(tmp_path), uri, tmp_path / "part", SourceFailed)
    )
    loose[0].write_bytes(b"no zlib")
    assert f"cannot fetch '{uri}': the object {one} cannot be read" == str(
        fail(make_fetcher(tmp_path), uri, tmp_path / "part", SourceFailed)
    )
    loose[0].unlink()
    assert f"cannot fetch '{uri}': the object {one} is missing" == str(
        fail(make_fetcher(tmp_path), uri, tmp_path / "part", SourceFailed)
    )


# Ends that were not planned


@pytest.fixture(params=["git_daemon", "git_http", "sshd"])
def stalling(request: pytest.FixtureRequest, repository: Repository, tmp_path: Path) -> Way:
    """A server that stops in the middle of a pack."""
    repository.commit({"n": LONG})
    server = request.getfixturevalue(request.param)
    if isinstance(server, Sshd):
        uri, command = server.uri(repository.path), server.ssh_command
    else:
        uri, command = server.uri("r.git"), None
    server.relay.stall_at = len(LONG) // 2
    fetcher = make_fetcher(tmp_path, ssh_command=command, PATH=os.environ["PATH"])

    def wait_and_name(_: str) -> str:
        assert server.relay.stalled.wait(_PATIENCE_S)
        deadline_s = time.monotonic() + _PATIENCE_S
        while not names_in(tmp_path / "part"):  # what was sent is on its way
            assert time.monotonic() < deadline_s, "it never came"
            time.sleep(0.01)
        return uri

    return Way(fetcher, wait_and_name)._replace(uri=lambda name: uri if name == "uri" else wait_and_name(name))


def test_close_from_another_thread_ends_a_fetch_and_leaves_nothing(stalling: Way, tmp_path: Path) -> None:
    caught: list[DmError] = []

    def work() -> None:
        try:
            fetch(stalling.fetcher, stalling.uri("uri"), tmp_path / "part")
        except DmError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    uri = stalling.uri("when it has stalled")
    assert "tree.pack" in names_in(tmp_path / "part")
    stalling.fetcher.close()
    thread.join(_PATIENCE_S)
    assert not thread.is_alive()
    assert [(SourceFailed, "interrupted", f"cannot fetch '{uri}': interrupted")] == [
        (type(error), error.code, error.message) for error in caught
    ]
    assert [] == names_in(tmp_path / "part")
    late = fail(stalling.fetcher, uri, tmp_path / "part", SourceFailed)
    assert "interrupted" == late.code


def test_a_server_that_falls_silent_is_given_up(repository: Repository, tmp_path: Path, git_daemon: GitDaemon) -> None:
    repository.commit({"n": LONG})
    git_daemon.relay.stall_at = len(LONG) // 2
    options = QUICK._replace(read_timeout_s=0.2, retries=1)
    fetcher = GitFetcher(make_environment(tmp_path), options)
    task = RecordingTask()
    uri = git_daemon.uri("r.git")
    with pytest.raises(SourceFailed) as caught:
        fetch(fetcher, uri, tmp_path / "part", task=task)
    place = uri.removeprefix("git://").partition("/")[0]
    assert f"cannot fetch '{uri}': {place} was silent for 0.2 s (2 tries)" == caught.value.message
    assert ("timeout", "try again later", []) == (caught.value.code, caught.value.hint, names_in(tmp_path / "part"))
    assert 0 == task.done


@pytest.mark.parametrize("server", ["git_daemon", "git_http", "sshd"])
def test_a_connection_that_breaks_is_tried_again_from_the_start(
    repository: Repository, tmp_path: Path, request: pytest.FixtureRequest, server: str
) -> None:
    repository.commit({"n": LONG})
    running = request.getfixturevalue(server)
    running.relay.cut_at = len(LONG) // 2
    uri = running.uri(repository.path if isinstance(running, Sshd) else "r.git")
    command = running.ssh_command if isinstance(running, Sshd) else None
    task = RecordingTask()
    fetcher = make_fetcher(tmp_path, ssh_command=command, PATH=os.environ["PATH"])
    fetched = fetch(fetcher, uri, tmp_path / "part", task=task)
    assert LONG == (fetched.path / "n").read_bytes()
    assert task.total == task.done < len(LONG) * 1.1
    assert ["tree"] == names_in(tmp_path / "part")


def test_a_disk_that_is_full_is_an_error_of_this_machine(
    repository: Repository, tmp_path: Path, small_tmpfs: MakeTmpfs, git_daemon: GitDaemon
) -> None:
    disk = small_tmpfs(len(LONG) // 2)
    repository.commit({"n": LONG})
    pack = fail(make_fetcher(tmp_path), git_daemon.uri("r.git"), disk / "part", MachineFailed)
    assert f"cannot write '{disk / 'part' / 'tree.pack'}': disk full" == pack.message
    file = fail(make_fetcher(tmp_path), from_disk(repository), disk / "part", MachineFailed)
    assert f"cannot write '{disk / 'part' / 'tree' / 'n'}': disk full" == file.message


# git://


def test_a_daemon_that_is_not_there_and_a_host_that_is_not_known_are_told(tmp_path: Path) -> None:
    fetcher = make_fetcher(tmp_path)
    error = fail(fetcher, "git://127.0.0.1:1/r", tmp_path / "part", SourceFailed)
    reason = "cannot connect to 127.0.0.1:1: connection refused (3 tries)"
    assert f"cannot fetch 'git://127.0.0.1:1/r': {reason}" == error.message
    assert "is 127.0.0.1:1 up, and can it be reached from this machine?" == error.hint
    assert "cannot-connect" == error.code


def test_a_server_that_speaks_something_else_is_told(tmp_path: Path, sshd: Sshd) -> None:
    host = f"127.0.0.1:{sshd.port}"
    error = fail(make_fetcher(tmp_path), f"git://{host}/r", tmp_path / "part", SourceFailed)
    assert f"cannot fetch 'git://{host}/r': what {host} sends is not git's protocol" == error.message
    assert ("git-protocol", "check that the 'uri' is that of a repository") == (error.code, error.hint)


# http


def test_a_login_comes_from_netrc_and_never_from_the_uri(
    repository: Repository, tmp_path: Path, git_http: GitHttp
) -> None:
    commit = repository.commit(FILES)
    git_http.login = ("ada", "s3cret")
    uri = git_http.uri("r.git")
    error = fail(make_fetcher(tmp_path), uri, tmp_path / "part", SourceFailed)
    place = git_http.url.removeprefix("http://")
    assert f"cannot fetch '{uri}': {place} answered 401 Unauthorized" == error.message
    hint = "a login for '127.0.0.1' goes into ~/.netrc; some hosts answer so for a missing repository, too"
    assert ("http-401", hint) == (error.code, error.hint)
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ada password s3cret\n")
    assert commit == fetch(make_fetcher(tmp_path), uri, tmp_path / "part").revision
    in_uri = uri.replace("//", "//ada:s3cret@")
    refused = fail(make_fetcher(tmp_path), in_uri, tmp_path / "other", SourceFailed)
    assert f"cannot fetch '{uri}': it has a user or password in it" == refused.message


def test_a_redirect_is_followed_and_takes_no_login_along(
    repository: Repository, tmp_path: Path, git_http: GitHttp
) -> None:
    commit = repository.commit(FILES)
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ada password s3cret\n")
    with GitHttp(git_http.folder) as first:
        first.redirect_to = git_http.url.replace("127.0.0.1", "localhost")
        assert commit == fetch(make_fetcher(tmp_path), first.uri("r.git"), tmp_path / "part").revision
        assert ["GET"] == [method for method, _, _ in first.requests]
        assert all("authorization" in headers for _, _, headers in first.requests)
    assert [False] * 3 == ["authorization" in headers for _, _, headers in git_http.requests]


def test_a_server_in_trouble_is_asked_again(repository: Repository, tmp_path: Path, git_http: GitHttp) -> None:
    commit = repository.commit(FILES)
    git_http.fail = [503, 500]
    assert commit == fetch(make_fetcher(tmp_path), git_http.uri("r.git"), tmp_path / "part").revision
    git_http.fail = [502] * 4
    error = fail(make_fetcher(tmp_path), git_http.uri("r.git"), tmp_path / "part", SourceFailed)
    place = git_http.url.removeprefix("http://")
    assert f"cannot fetch '{git_http.uri('r.git')}': {place} answered 502 Bad Gateway (4 tries)" == error.message
    assert ("http-502", "the server is in trouble, or busy: try again later") == (error.code, error.hint)
    git_http.fail = [418]
    teapot = fail(make_fetcher(tmp_path), git_http.uri("r.git"), tmp_path / "part", SourceFailed)
    hint = "open the 'uri' in a browser to see what the server has to say"
    assert ("http-418", hint) == (teapot.code, teapot.hint)


def test_plain_files_and_web_pages_are_no_repository(
    repository: Repository, tmp_path: Path, git_http: GitHttp
) -> None:
    repository.commit(FILES)
    repository.git("update-server-info")
    git_http.smart = False
    error = fail(make_fetcher(tmp_path), git_http.uri("r.git"), tmp_path / "part", SourceFailed)
    place = git_http.url.removeprefix("http://")
    reason = f"{place} serves no repository there that dm can fetch"
    assert f"cannot fetch '{git_http.uri('r.git')}': {reason}" == error.message
    hint = "check the 'uri'; a plain file server has to run 'git http-backend' to serve repositories"
    assert ("git-not-found", hint) == (error.code, error.hint)


def test_a_proxy_is_used_where_the_environment_names_one(
    repository: Repository, tmp_path: Path, git_http: GitHttp
) -> None:
    commit = repository.commit(FILES)
    fetcher = make_fetcher(tmp_path, http_proxy=git_http.url)
    for uri in ("http://elsewhere.invalid/r.git", "git+http://elsewhere.invalid/r.git"):
        assert commit == fetch(fetcher, uri, tmp_path / "part").revision


# ssh


def test_a_path_keeps_blanks_and_quotes_and_runs_nothing(sshd: Sshd, tmp_path: Path) -> None:
    path = tmp_path / "a b" / "it's; touch evil $(touch evil) `x`.git"
    commit = Repository.create(path).commit(FILES)
    fetcher = make_fetcher(tmp_path, ssh_command=sshd.ssh_command, PATH=os.environ["PATH"])
    for scheme in ("ssh", "git+ssh", "ssh+git"):
        assert commit == fetch(fetcher, sshd.uri(path, scheme=scheme), tmp_path / "part").revision
    quoted = str(path).replace("'", "'\\''")
    assert [f"git-upload-pack '{quoted}'"] * 3 == sshd.commands
    assert [] == names_in(sshd.home)


def test_the_short_form_names_a_path_below_the_home(sshd: Sshd, tmp_path: Path) -> None:
    import getpass

    commit = Repository.create(sshd.home / "mine.git").commit(FILES)
    fetcher = make_fetcher(tmp_path, ssh_command=sshd.ssh_command, PATH=os.environ["PATH"])
    user = getpass.getuser()
    assert commit == fetch(fetcher, f"{user}@anywhere:mine.git", tmp_path / "part").revision
    assert commit == fetch(fetcher, "ssh://anywhere/~/mine.git", tmp_path / "part").revision
    assert ["git-upload-pack 'mine.git'", "git-upload-pack '~/mine.git'"] == sshd.commands


def test_a_key_that_the_server_does_not_know_is_told(
    sshd: Sshd, repository: Repository, tmp_path: Path
) -> None:
    repository.commit(FILES)
    command = sshd.ssh_command_with_key(sshd.make_key("stranger"))
    fetcher = make_fetcher(tmp_path, ssh_command=command, PATH=os.environ["PATH"])
    uri = sshd.uri(repository.path)
    error = fail(fetcher, uri, tmp_path / "part", SourceFailed)
    place = f"127.0.0.1:{sshd.port}"
    assert error.message.startswith(f"cannot fetch '{uri}': {place} does not let this user in: ")
    assert "Permission denied (publickey)" in error.message
    assert "ssh-auth" == error.code
    hint = f"try 'ssh {place}' by hand; a key goes into ssh-agent (ssh-add), the user into ~/.ssh/config"
    assert hint == error.hint


def test_a_host_whose_key_is_not_known_is_told(sshd: Sshd, repository: Repository, tmp_path: Path) -> None:
    repository.commit(FILES)
    sshd.known_hosts.write_text("")
    fetcher = make_fetcher(tmp_path, ssh_command=sshd.ssh_command, PATH=os.environ["PATH"])
    uri, place = sshd.uri(repository.path), f"127.0.0.1:{sshd.port}"
    error = fail(fetcher, uri, tmp_path / "part", SourceFailed)
    assert f"cannot fetch '{uri}': the key of {place} is not known: Host key verification failed" == error.message
    hint = f"run 'ssh {place}' once by hand and compare its key with the one that its keeper gives"
    assert ("ssh-host-key", hint) == (error.code, error.hint)


@pytest.mark.parametrize(
    ("said", "tries", "reason", "code"),
    [
        ("send disconnect: Broken pipe", 4, "{place} dropped the connection (4 tries)", "connection-dropped"),
        ("Connection to h closed by remote host.", 4, "{place} dropped the connection (4 tries)", "connection-dropped"),
        (
            "ssh: connect to host h port 22: Connection refused",
            3,
            "cannot connect to {place}: ssh: connect to host h port 22: Connection refused (3 tries)",
            "cannot-connect",
        ),
        (
            "ssh: Could not resolve hostname h: Name or service not known",
            1,
            "no host {place} is known: ssh: Could not resolve hostname h: Name or service not known",
            "unknown-host",
        ),
        ("Welcome\nfatal: out of memory", 1, "{place} says: out of memory", "git-failed"),
        ("", 4, "{place} hung up (4 tries)", "connection-dropped"),
    ],
)
def test_what_ssh_says_decides_whether_it_is_tried_again(
    tmp_path: Path, said: str, tries: int, reason: str, code: str
) -> None:
    program, log = tmp_path / "ssh", tmp_path / "log"
    program.write_text(f"#!/bin/sh\necho x >> '{log}'\nprintf '%s\\n' '{said}' >&2\nexit 255\n")
    program.chmod(0o755)
    fetcher = make_fetcher(tmp_path, ssh_command=str(program), PATH=os.environ["PATH"])
    error = fail(fetcher, "ssh://host:22/r.git", tmp_path / "part", SourceFailed)
    told = reason.format(place="host:22")
    assert (f"cannot fetch 'ssh://host:22/r.git': {told}", code) == (error.message, error.code)
    assert tries == len(log.read_text().splitlines())
    assert error.hint


def test_an_ssh_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    fetcher = make_fetcher(tmp_path, ssh_command="no-such-ssh -4", PATH=os.environ["PATH"])
    error = fail(fetcher, "git@host:r.git", tmp_path / "part", SourceFailed)
    assert "cannot run 'no-such-ssh': No such file or directory" == error.message
    assert ("program-missing", "install OpenSSH, or set ssh_command to what is used in its place") == (
        error.code,
        error.hint,
    )


def test_a_server_without_git_is_told_in_its_own_words(sshd: Sshd, repository: Repository, tmp_path: Path) -> None:
    sshd.set_path("/nonexistent")
    fetcher = make_fetcher(tmp_path, ssh_command=sshd.ssh_command, PATH=os.environ["PATH"])
    uri = sshd.uri(repository.path)
    error = fail(fetcher, uri, tmp_path / "part", SourceFailed)
    assert "git-upload-pack: not found" in error.message
    assert "git-program-missing" == error.code
    assert f"install git on 127.0.0.1:{sshd.port}, or put it on the PATH of its logins" == error.hint
