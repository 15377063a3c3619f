"""Packs as git makes them, whole, damaged and cut; and what is held in memory meanwhile."""

from __future__ import annotations

import hashlib
import random
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from dm.plumbing.transport.git.faults import GitFault
from dm.plumbing.transport.git.objects import find_commit, find_tree
from dm.plumbing.transport.git.pack import PackFile
from dm.plumbing.transport.git.tree import list_entries
from tests.fixtures.git_servers import Repository, git_variables

TABLE = b"".join(b"%d,%d\n" % (number, number * number) for number in range(3000))


def go_on() -> None:
    """Nobody wants to stop."""


def open_pack(path: Path, *, algorithm: str = "sha1", should_stop: Callable[[], None] = go_on) -> PackFile:
    return PackFile.open(path, algorithm=algorithm, should_stop=should_stop)


def make_repository(path: Path, *, algorithm: str = "sha1", commits: int = 30) -> Repository:
    """A repository with a history of small changes."""
    repository = Repository.create(path, object_format=algorithm)
    for number in range(commits):
        files = {"a.csv": TABLE[: number * 90] + b"new\n" + TABLE[number * 90 :], f"deep/f{number}": b"%d" % number}
        repository.commit(files | {"empty": b"", "seed": random.Random(1).randbytes(70_000)})
    repository.tag("v1", "main", annotated=True)
    return repository


def make_pack(repository: Repository, *options: str) -> Path:
    """A pack of all its objects."""
    words = ["pack-objects", "--all", "--no-reuse-delta", *options, "made"]
    return repository.path / f"made-{repository.git(*words, input=b'')}.pack"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """One that tests only read, but for packs that they make."""
    return make_repository(tmp_path_factory.mktemp("git") / "r.git")


@pytest.fixture(scope="module")
def small_pack(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """The bytes of a pack with a difference in it, and the name of its last commit."""
    repository = make_repository(tmp_path_factory.mktemp("git") / "small.git", commits=2)
    return make_pack(repository, "--delta-base-offset").read_bytes(), bytes.fromhex(repository.git("rev-parse", "main"))


@pytest.fixture(scope="module", params=["sha1", "sha256"])
def any_repository(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return make_repository(tmp_path_factory.mktemp("git") / "r.git", algorithm=request.param)


@pytest.mark.parametrize(
    "options", [[], ["--delta-base-offset"], ["--depth=0"], ["--delta-base-offset", "--depth=200"]]
)
def test_every_object_is_read_as_git_reads_it(any_repository: Repository, options: list[str]) -> None:
    algorithm = any_repository.git("rev-parse", "--show-object-format")
    pack = open_pack(make_pack(any_repository, *options), algorithm=algorithm)
    listed = any_repository.git("cat-file", "--batch-all-objects", "--batch-check").splitlines()
    assert 90 < len(listed)
    for line in listed:
        name, kind, size = line.split()
        raw = bytes.fromhex(name)
        content = pack.read(raw, kind)  # type: ignore[arg-type]
        assert (kind, int(size), int(size)) == (pack.read_kind(raw), pack.read_size_bytes(raw), len(content))
        head = b"%s %d\0" % (kind.encode(), len(content))
        assert name == hashlib.new(algorithm, head + content).hexdigest()
        if kind == "blob":
            pieces: list[bytes] = []
            pack.send_blob(raw, pieces.append)
            assert content == b"".join(pieces)
    pack.close()


def test_a_commit_leads_to_its_entries(repository: Repository) -> None:
    pack = open_pack(make_pack(repository))
    tag, commit = (bytes.fromhex(repository.git("rev-parse", name)) for name in ("v1", "main"))
    assert commit == find_commit(pack, tag) == find_commit(pack, commit)
    found = {entry.path for entry in list_entries(pack, find_tree(pack, commit), go_on)}
    assert {b"a.csv", b"deep", b"deep/f29", b"empty", b"seed"} == found
    pack.close()


def test_no_damage_goes_unseen(repository: Repository, tmp_path: Path) -> None:
    whole = make_pack(repository, "--delta-base-offset").read_bytes()
    damaged = tmp_path / "damaged.pack"
    chance = random.Random(7)
    for position in [0, 4, 7, 8, 11, 12, 13, len(whole) - 1, *chance.sample(range(len(whole)), 60)]:
        data = bytearray(whole)
        data[position] ^= 1 << chance.randrange(8)
        damaged.write_bytes(data)
        with pytest.raises(GitFault) as caught:
            open_pack(damaged)
        assert "git-corrupt" == caught.value.code


@pytest.mark.parametrize("seed", range(60))
def test_no_damage_that_has_a_right_sum_is_a_bug(small_pack: tuple[bytes, bytes], tmp_path: Path, seed: int) -> None:
    whole, commit = small_pack
    data = bytearray(whole[:-20])
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 4)):
        data[chance.randrange(8, len(data))] = chance.randrange(256)
    hostile = tmp_path / "hostile.pack"
    hostile.write_bytes(bytes(data) + hashlib.sha1(data).digest())
    try:
        pack = open_pack(hostile)
    except GitFault as fault:
        assert fault.code in ("git-corrupt", "git-too-large")
        return
    try:
        list_entries(pack, find_tree(pack, commit), go_on)
    except GitFault as fault:
        assert "git-corrupt" == fault.code
    finally:
        pack.close()


@pytest.mark.parametrize("size", [0, 1, 11, 31, 200, -21, -1])
def test_a_pack_that_is_cut_is_not_taken(small_pack: tuple[bytes, bytes], tmp_path: Path, size: int) -> None:
    whole = small_pack[0]
    cut = tmp_path / "cut.pack"
    cut.write_bytes(whole[:size])
    with pytest.raises(GitFault) as caught:
        open_pack(cut)
    assert "git-corrupt" == caught.value.code
    assert caught.value.reason in (
        "it sent nothing",
        "what it sent is no pack",
        "what it sent is damaged or not complete",
    )


def test_differences_to_objects_elsewhere_are_told(tmp_path: Path) -> None:
    repository = Repository.create(tmp_path / "r.git")
    first = repository.commit({"a": TABLE})
    second = repository.commit({"a": TABLE + b"x"})
    names = f"{second}\n^{first}\n".encode()
    thin = tmp_path / "thin.pack"
    words = ["sh", "-c", f"git pack-objects --revs --thin --stdout > '{thin}'"]
    subprocess.run(words, cwd=repository.path, env=git_variables(), input=names, capture_output=True, check=True)
    with pytest.raises(GitFault) as caught:
        open_pack(thin)
    assert "what it sent holds differences to objects that are not there" == caught.value.reason


def test_an_object_of_another_kind_or_none_is_told(repository: Repository) -> None:
    commit, blob = repository.git("rev-parse", "main"), repository.git("rev-parse", "main:empty")
    pack = open_pack(make_pack(repository))
    for name, work, reason in [
        (commit, lambda name: pack.read(name, "tree"), f"the object {commit} is no tree"),
        (commit, lambda name: pack.send_blob(name, len), f"the object {commit} is no blob"),
        ("0" * 40, pack.read_kind, f"the object {'0' * 40} is missing"),
        (blob, lambda name: find_commit(pack, name), f"the object {blob} is no commit"),
    ]:
        with pytest.raises(GitFault) as caught:
            work(bytes.fromhex(name))
        assert reason == caught.value.reason
    pack.close()


def test_a_long_file_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    size_bytes = 48 << 20
    repository = Repository.create(tmp_path / "r.git")
    # No long run of one byte: zlib has to keep its window.
    content = random.Random(3).randbytes(1 << 16) * (size_bytes >> 16)
    repository.commit({"long": content})
    name = bytes.fromhex(repository.git("rev-parse", "main:long"))
    path = make_pack(repository)
    del content
    count = 0

    def take(piece: bytes) -> None:
        nonlocal count
        count += len(piece)

    tracemalloc.start()
    try:
        pack = open_pack(path)
        pack.send_blob(name, take)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    pack.close()
    assert size_bytes == count
    assert peak_bytes < 8 << 20, peak_bytes


def test_indexing_stops_when_it_is_told_to(repository: Repository) -> None:
    calls = 0

    class Stop(Exception):
        pass

    def stop() -> None:
        nonlocal calls
        calls += 1
        if calls == 20:
            raise Stop

    path = make_pack(repository)
    with pytest.raises(Stop):
        open_pack(path, should_stop=stop)
    assert 20 == calls
