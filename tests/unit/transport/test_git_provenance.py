"""What a working tree's repository says: against real repositories, and git's own answer."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dm.plumbing.transport.git import provenance
from dm.plumbing.transport.git.provenance import WorkingTree, WorkingTrees
from tests.fixtures.git_servers import git_variables
from tests.fixtures.machine import needs

Git = Callable[..., str]


def run_git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-c", "protocol.file.allow=always", *words],
        cwd=folder,
        env=git_variables(),
        capture_output=True,
        check=False,
    )
    assert 0 == done.returncode, done.stderr.decode()
    return done.stdout.decode().strip()


@pytest.fixture
def tree(tmp_path: Path, template: Path) -> Path:
    """A working tree with one commit: a file, one below a folder, a link."""
    folder = shutil.copytree(template, tmp_path / "project", symlinks=True)
    run_git(folder, "update-index", "-q", "--refresh")
    return folder


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs("git")
    folder = tmp_path_factory.mktemp("template")
    (folder / "src").mkdir(parents=True)
    (folder / "a.py").write_text("a = 1\n")
    (folder / "src" / "b.py").write_text("b = 1\n")
    (folder / "link").symlink_to("a.py")
    (folder / ".gitignore").write_text("data\n")
    run_git(folder, "init", "-q", "-b", "main")
    commit_all(folder)
    return folder


def commit_all(folder: Path) -> str:
    # Git's racy rule: what changed with the index in one moment is read; then every test would go that way.
    for path in [folder / "a.py", folder / "src" / "b.py"]:
        os.utime(path, (1_600_000_000, 1_600_000_000))
    run_git(folder, "add", "-A")
    run_git(folder, "commit", "-q", "--allow-empty", "-m", "a change")
    return run_git(folder, "rev-parse", "HEAD")


def read(folder: Path) -> WorkingTree:
    found = WorkingTrees().read(folder)
    assert found is not None
    return found


@pytest.mark.parametrize("below", [".", "src"])
def test_a_clean_tree_has_its_commit_and_branch_from_every_folder(tree: Path, below: str) -> None:
    commit = run_git(tree, "rev-parse", "HEAD")
    assert WorkingTree(commit, "main", False) == read(tree / below)


def test_a_folder_in_no_repository_has_none(tmp_path: Path) -> None:
    assert WorkingTrees().read(tmp_path) is None


def test_a_repository_without_a_commit_has_none(tmp_path: Path) -> None:
    needs("git")
    run_git(tmp_path, "init", "-q")
    assert WorkingTrees().read(tmp_path) is None


def test_a_bare_repository_is_no_working_tree(tmp_path: Path, tree: Path) -> None:
    run_git(tmp_path, "clone", "-q", "--bare", str(tree), "bare")
    assert WorkingTrees().read(tmp_path / "bare") is None


def test_a_detached_head_has_no_branch(tree: Path) -> None:
    run_git(tree, "checkout", "-q", "--detach")
    assert (None, False) == read(tree)[1:3]


def test_a_branch_may_have_any_name(tree: Path) -> None:
    run_git(tree, "checkout", "-q", "-b", "feature/größe")
    assert "feature/größe" == read(tree).branch


def test_refs_that_are_packed_are_found(tree: Path) -> None:
    run_git(tree, "pack-refs", "--all")
    run_git(tree, "gc", "-q")
    assert WorkingTree(run_git(tree, "rev-parse", "HEAD"), "main", False) == read(tree)


def write(path: str, text: str) -> Callable[[Path], object]:
    return lambda tree: (tree / path).write_text(text)


def stage(change: Callable[[Path], object]) -> Callable[[Path], object]:
    def run(tree: Path) -> None:
        change(tree)
        run_git(tree, "add", "-A")

    return run


def replace_link(tree: Path) -> None:
    (tree / "link").unlink()
    (tree / "link").symlink_to("src/b.py")


def put_folder_in_place_of_file(tree: Path) -> None:
    (tree / "a.py").unlink()
    (tree / "a.py").mkdir()


def put_file_in_place_of_folder(tree: Path) -> None:
    (tree / "src" / "b.py").unlink()
    (tree / "src").rmdir()
    (tree / "src").write_text("x")


CHANGES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda _tree: None,
    "a longer file": write("a.py", "a = 12\n"),
    "a file of the same size": write("src/b.py", "b = 2\n"),
    "a file that was touched": lambda tree: os.utime(tree / "a.py"),
    "a file with equal bytes": write("a.py", "a = 1\n"),
    "a file that is gone": lambda tree: (tree / "a.py").unlink(),
    "a link elsewhere": replace_link,
    "a folder in place of a file": put_folder_in_place_of_file,
    "a file in place of a folder": put_file_in_place_of_folder,
    "a file that git does not track": write("new.py", "x"),
    "a file that git ignores": write("data", "x"),
    "a staged change": stage(write("a.py", "a = 12\n")),
    "a staged new file": stage(write("new.py", "x")),
    "a staged removal": stage(lambda tree: (tree / "a.py").unlink()),
    "staged, and undone on disk": lambda tree: (stage(write("a.py", "a = 12\n"))(tree), write("a.py", "a = 1\n")(tree)),
    "assumed to be unchanged": lambda tree: (
        run_git(tree, "update-index", "--assume-unchanged", "a.py"),
        write("a.py", "a = 12\n")(tree),
    ),
    "outside a sparse checkout": lambda tree: run_git(tree, "sparse-checkout", "set", "--no-cone", "/a.py"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_dirty_is_what_git_describe_says(tree: Path, change: Callable[[Path], object]) -> None:
    change(tree)
    dirty = read(tree).dirty
    told = run_git(tree, "describe", "--always", "--dirty")
    assert told.endswith("-dirty") == dirty


def test_a_change_within_the_moment_of_the_index_is_seen(tree: Path) -> None:
    """Git's racy rule: size and times are as the index says, the bytes are not."""
    moment = os.stat(tree / ".git" / "index").st_mtime_ns
    (tree / "a.py").write_text("a = 2\n")
    os.utime(tree / "a.py", ns=(moment, moment))
    status = os.stat(tree / "a.py")
    raw = (tree / ".git" / "index").read_bytes()
    # The entry's stat data are made those of the changed file; its object stays the old bytes'.
    entry = raw.index(b"a.py\0") - 62
    times = [part for ns in (status.st_ctime_ns, status.st_mtime_ns) for part in divmod(ns, 1_000_000_000)]
    raw = raw[:entry] + b"".join(part.to_bytes(4, "big") for part in times) + raw[entry + 16 :]
    body = raw[:-20]
    (tree / ".git" / "index").write_bytes(body + hashlib.sha1(body).digest())
    os.utime(tree / ".git" / "index", ns=(moment, moment))
    assert read(tree).dirty is True


def test_a_linked_working_tree_has_its_own_branch_and_changes(tmp_path: Path, tree: Path) -> None:
    other = tmp_path / "other"
    run_git(tree, "worktree", "add", "-q", "-b", "side", str(other))
    commit = commit_all(other)
    (tree / "a.py").write_text("changed")
    assert WorkingTree(commit, "side", False) == read(other)
    assert ("main", True) == read(tree)[1:3]


@pytest.fixture
def outer(tmp_path: Path, tree: Path) -> Path:
    """A working tree with ``tree`` as its submodule ``part``."""
    folder = tmp_path / "outer"
    folder.mkdir()
    run_git(folder, "init", "-q", "-b", "trunk")
    run_git(folder, "submodule", "add", "-q", str(tree), "part")
    run_git(folder, "commit", "-q", "-m", "a part")
    return folder


def test_a_submodule_is_a_repository_of_its_own(outer: Path, tree: Path) -> None:
    assert WorkingTree(run_git(tree, "rev-parse", "HEAD"), "main", False) == read(outer / "part")
    assert ("trunk", False) == read(outer)[1:3]


def test_another_commit_of_a_submodule_is_a_change(outer: Path) -> None:
    commit_all(outer / "part")
    assert read(outer).dirty is True


def test_a_submodule_that_was_never_checked_out_is_no_change(outer: Path, tmp_path: Path) -> None:
    run_git(tmp_path, "clone", "-q", str(outer), "clone")
    assert ("trunk", False) == read(tmp_path / "clone")[1:3]


def test_a_repository_with_sha256_names_is_read(tmp_path: Path) -> None:
    needs("git")
    run_git(tmp_path, "init", "-q", "-b", "main", "--object-format=sha256")
    (tmp_path / "a").write_text("a")
    run_git(tmp_path, "add", "a")
    run_git(tmp_path, "commit", "-q", "-m", "a")
    os.utime(tmp_path / "a")
    assert WorkingTree(run_git(tmp_path, "rev-parse", "HEAD"), "main", False) == read(tmp_path)


def break_index(tree: Path) -> None:
    (tree / ".git" / "index").write_bytes(b"DIRC not an index")


def break_head(tree: Path) -> None:
    (tree / ".git" / "refs" / "heads" / "main").write_text("not a commit\n")


def lose_objects(tree: Path) -> None:
    for path in (tree / ".git" / "objects").rglob("*"):
        if path.is_file():
            path.unlink()


def point_nowhere(tree: Path) -> None:
    (tree / ".git").rename(tree / "elsewhere")
    (tree / ".git").write_text("gitdir: /nonexistent/place\n")


@pytest.mark.parametrize("damage", [break_index, break_head, lose_objects, point_nowhere])
def test_what_is_broken_is_said_and_left_out(tree: Path, damage: Callable[[Path], None]) -> None:
    commit = run_git(tree, "rev-parse", "HEAD")
    damage(tree)
    found = WorkingTrees().read(tree)
    if found is not None:  # a .git that is no repository is passed by, as by git
        assert found.commit in (commit, None) and found.dirty is None and found.fault
    assert damage is point_nowhere or found is not None


def test_nothing_of_the_repository_runs_and_nothing_is_written(tree: Path, tmp_path: Path) -> None:
    """A filter, a monitor, a hook: a cloned folder's own configuration may name any program."""
    trap = tmp_path / "ran"
    (tree / ".gitattributes").write_text("* filter=evil\n")
    run_git(tree, "add", "-A")
    run_git(tree, "commit", "-q", "-m", "attributes")
    run_git(tree, "config", "filter.evil.clean", f"touch {trap}")
    run_git(tree, "config", "core.fsmonitor", f"touch {trap}")
    (tree / "a.py").write_text("a = 3\n")
    before = list(list_files(tree))
    assert read(tree).dirty is True
    assert (False, before) == (trap.exists(), list(list_files(tree)))


def list_files(folder: Path) -> Iterator[tuple[str, int, int]]:
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        yield str(path), status.st_mtime_ns, status.st_size


class Clock:
    """Seconds that pass when the test says so, or with every look at them."""

    def __init__(self, step_s: float = 0.0) -> None:
        self.now_s = 1000.0
        self.step_s = step_s
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        self.now_s += self.step_s
        return self.now_s


def test_an_answer_is_used_again_for_a_while_and_then_found_anew(tree: Path) -> None:
    clock = Clock(step_s=0.01)
    trees = WorkingTrees(clock)
    assert (found := trees.read(tree)) and found.dirty is False
    (tree / "a.py").write_text("a = 12\n")
    assert (found := trees.read(tree)) and found.dirty is False
    clock.now_s += 3600
    assert (found := trees.read(tree)) and found.dirty is True


def test_a_new_commit_is_seen_while_an_old_look_would_still_do(tree: Path) -> None:
    clock = Clock(step_s=1)  # a look takes seconds: it is good for a minute
    trees = WorkingTrees(clock)
    trees.read(tree)
    (tree / "a.py").write_text("a = 12\n")
    commit = commit_all(tree)
    clock.now_s += 1
    assert WorkingTree(commit, "main", False) == trees.read(tree)


def test_looking_ends_when_it_takes_too_long(tree: Path) -> None:
    for number in range(600):
        (tree / "src" / f"{number}.py").write_text("")
    commit_all(tree)
    found = WorkingTrees(Clock(step_s=provenance.LOOKING_S_MAX)).read(tree)
    assert ("main", None, None) == (found and found[1:])


def test_an_index_that_is_too_large_is_not_read(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "INDEX_BYTES_MAX", 100)
    assert ("main", None, None) == read(tree)[1:]
