"""Link modes on real file systems, by whole commands: what a copy shares with its object, and what is done without."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from dm.plumbing.fs.extents import share_blocks
from tests.cli.test_machine import as_other, give_away
from tests.fixtures.archives import make_archive, read_tree
from tests.fixtures.commands import Answer, Ask, default_copy, snapshot, store_root, write_manifest
from tests.fixtures.homes import Home, RunDm
from tests.fixtures.machine import MakeImage, MakeTmpfs, needs, needs_root
from tests.fixtures.servers import HttpServer
from tests.fixtures.users import OTHER_USER

DATA = os.urandom(200_000)
SHA256 = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
#: What each file system can do of what may be asked for.
CAN = {
    "btrfs": {"reflink", "hardlink", "copy"},
    "xfs": {"reflink", "hardlink", "copy"},
    "ext4": {"hardlink", "copy"},
    "tmpfs": {"hardlink", "copy"},
}

Mount = Callable[[str], Path]


@pytest.fixture
def mount(image_file_system: MakeImage, small_tmpfs: MakeTmpfs) -> Mount:
    """Mount a file system of a kind; returns where."""
    return lambda kind: small_tmpfs(32 << 20) if kind == "tmpfs" else image_file_system(kind)


class Stored(NamedTuple):
    """A project whose store is at ``root``: two datasets of one content, one in a folder with an executable."""

    root: Path
    ask: Callable[..., Answer]
    copies: tuple[Path, Path]
    folder: Path


def store_at(root: Path, home: Home, project: Path, server: HttpServer, ask: Ask, *modes: str) -> Stored:
    config = home.config / "datamanifest" / "config.toml"
    config.parent.mkdir(exist_ok=True)
    config.write_text(f"link = [{', '.join(repr(mode) for mode in modes)}]\ndatasets_pools = []\n")
    one = server.put("/one.bin", DATA)
    members = [("sub/data.bin", DATA), ("small.txt", b"small")]
    archive = server.put("/set.tar.gz", make_archive("tar.gz", members))
    write_manifest(
        project,
        f'[one]\nuri = "{one}"\nchecksum = "{SHA256}"\n',
        f'[two]\nuri = "{one}"\nchecksum = "{SHA256}"\nkey = "elsewhere/two.bin"\nrequires = ["one"]\n',
        f'[set]\nuri = "{archive}"\nextract = true\nkey = "set.tar.gz"\nrequires = ["two"]\n',
    )
    variables = {"DATAMANIFEST_DATA_DIR": str(root)}

    def run(*arguments: str | Path, **options: object) -> Answer:
        return ask(*arguments, env=variables, **options)

    answer = run("fetch")
    assert 0 == answer.status, answer
    datasets = root / "datasets"
    return Stored(root, run, (datasets / "127.0.0.1" / "one.bin", datasets / "elsewhere" / "two.bin"), datasets / "set")


def find_mode(one: Path, other: Path) -> str:
    """How two files of equal content share their bytes."""
    assert one.read_bytes() == other.read_bytes()
    if one.samefile(other):
        return "hardlink"
    return "reflink" if share_blocks(one, other) else "copy"


def object_of(root: Path, data: bytes) -> Path | None:
    found = [path for path in (root / ".dm" / "objects").glob("??/*") if path.stat().st_size == len(data)]
    return found[0] if found else None


def assert_shared(mode: str, kind: str, shared: Path, *copies: Path) -> None:
    """Copies share the bytes of an object by a mode; a copy may be a reflink where the kernel makes it so by itself."""
    allowed = {mode, "reflink"} if mode == "copy" and "reflink" in CAN[kind] else {mode}
    assert {find_mode(shared, path) for path in copies} <= allowed


def break_apart(path: Path, data: bytes) -> None:
    """Other bytes at a path, in a file of its own."""
    path.unlink()
    path.write_bytes(data)


# Every mode on every file system ---------------------------------------------------------------------------------


@pytest.mark.needs_root
@pytest.mark.parametrize("kind", sorted(CAN))
@pytest.mark.parametrize("mode", ["reflink", "hardlink", "copy"])
def test_publish_second_copy_repair_and_dedup_use_the_mode(
    home: Home, project: Path, http_server: HttpServer, ask: Ask, mount: Mount, kind: str, mode: str
) -> None:
    root = mount(kind) / "store"
    stored = store_at(root, home, project, http_server, ask, mode)
    one, two, inside = *stored.copies, stored.folder / "sub" / "data.bin"
    if mode not in CAN[kind]:
        # Nothing to share bytes by: copies stand alone, without objects, and are as good as any.
        assert None is object_of(root, DATA)
        assert {"copy"} == {find_mode(one, other) for other in (two, inside)}
        assert 0 == stored.ask("verify", "--all").status
        return
    shared = object_of(root, DATA)
    assert shared is not None
    assert_shared(mode, kind, shared, one, two, inside)
    assert 1 == http_server.count("/one.bin")
    # Repair.
    good = read_tree(stored.folder)
    break_apart(two, b"wrong")
    break_apart(inside, b"wrong too")
    assert 4 == stored.ask("verify").status
    assert 0 == stored.ask("verify", "--repair").status
    assert good == read_tree(stored.folder)
    assert_shared(mode, kind, shared, one, two, inside)
    # Dedup: another tool's copy.
    other = root / "datasets" / "theirs.bin"
    other.write_bytes(DATA)
    other.with_name("theirs.bin.complete").touch()
    answer = stored.ask("dedup", "--root", root)
    assert 0 == answer.status, answer
    assert mode == find_mode(shared, other)
    if mode == "copy":
        assert [] == answer.outcomes == stored.ask("dedup", "--dry-run").outcomes
    else:
        assert [str(other)] == [each["path"] for each in answer.outcomes]
        assert [len(DATA)] == [each["bytes"] for each in answer.outcomes]
        assert [] == stored.ask("dedup", "--root", root).outcomes
    assert 0 == stored.ask("verify", "--all").status


@pytest.mark.needs_root
@pytest.mark.parametrize("kind", ["btrfs", "xfs", "ext4"])
def test_executables_are_reflinked_or_copied_never_hard_linked(
    home: Home, project: Path, run_dm: RunDm, mount: Mount, tmp_path: Path, kind: str
) -> None:
    root = mount(kind) / "store"
    staged = tmp_path / "staged"
    staged.mkdir()
    (staged / "run").write_bytes(DATA)
    (staged / "run").chmod(0o755)
    write_manifest(project)
    assert 0 == run_dm("publish", staged, root / "datasets" / "tools", "--root", root).returncode
    shared = object_of(root, DATA)
    assert shared is not None
    assert ("copy" if kind == "ext4" else "reflink") == find_mode(shared, root / "datasets" / "tools" / "run")


@pytest.mark.needs_root
@pytest.mark.parametrize("kind", ["vfat"])
def test_a_file_system_without_links_gets_copies_that_stand_alone(
    home: Home, project: Path, http_server: HttpServer, ask: Ask, mount: Mount, kind: str
) -> None:
    root = mount(kind) / "store"
    stored = store_at(root, home, project, http_server, ask, "reflink", "hardlink")
    assert None is object_of(root, DATA)
    break_apart(stored.copies[1], b"wrong")
    assert 0 == stored.ask("verify", "--repair").status
    assert DATA == stored.copies[1].read_bytes()
    assert 0 == stored.ask("verify", "--all").status


# Across file systems ---------------------------------------------------------------------------------------------


@pytest.mark.needs_root
@pytest.mark.parametrize(("first", "second"), [("ext4", "tmpfs"), ("btrfs", "xfs")])
def test_another_file_system_gets_its_own_bytes_and_object_without_a_request(
    home: Home, project: Path, http_server: HttpServer, ask: Ask, mount: Mount, first: str, second: str
) -> None:
    stored = store_at(mount(first) / "store", home, project, http_server, ask, "reflink", "hardlink")
    other = mount(second) / "other"
    with (project / "datamanifest.toml").open("a") as manifest:
        manifest.write(f'\n[far]\nuri = "{http_server.url}/one.bin"\nchecksum = "{SHA256}"\nkey = "far"\n')
        manifest.write('store = "$cache"\n')
    variables = {"DATAMANIFEST_DATA_DIR": str(stored.root), "DATAMANIFEST_CACHE_DIR": str(other)}
    answer = ask("fetch", "far", env=variables)
    assert (0, 1) == (answer.status, http_server.count("/one.bin")), answer
    far, shared = other / "datasets" / "far", object_of(other, DATA)
    assert shared is not None and find_mode(shared, far) in ("reflink", "hardlink")
    assert "copy" == find_mode(stored.copies[0], far)
    # And it mends the first, whose object and copies are all bad.
    for path in (*stored.copies, stored.folder / "sub" / "data.bin"):
        path.chmod(0o644)
        with path.open("r+b") as file:
            file.write(b"WRONG")
    spoilt = object_of(stored.root, DATA)
    assert spoilt is not None
    spoilt.chmod(0o644)
    with spoilt.open("r+b") as file:
        file.write(b"WRONG")
    http_server.routes.clear()
    assert 0 == ask("verify", "--repair", env=variables).status
    assert 0 == ask("verify", "--all", env=variables).status
    assert DATA == stored.copies[0].read_bytes() == stored.copies[1].read_bytes()


@pytest.mark.needs_root
def test_a_copys_folder_may_be_a_mount_of_its_own(
    home: Home, project: Path, http_server: HttpServer, ask: Ask, mount: Mount
) -> None:
    root = mount("ext4") / "store"
    place = root / "datasets" / "elsewhere"
    place.mkdir(parents=True)
    subprocess.run([needs("mount"), "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], check=True, timeout=60)
    try:
        stored = store_at(root, home, project, http_server, ask, "reflink", "hardlink")
        assert "copy" == find_mode(*stored.copies)
        break_apart(stored.copies[1], b"wrong")
        assert 0 == stored.ask("verify", "--repair").status
        assert DATA == stored.copies[1].read_bytes()
        assert [] == [each for each in stored.ask("dedup").outcomes if each["status"] != "skipped"]
        assert 0 == stored.ask("verify", "--all").status
    finally:
        subprocess.run(["umount", "--lazy", place], check=True, timeout=60)


# The link limit --------------------------------------------------------------------------------------------------


@pytest.mark.needs_root
def test_a_file_with_all_the_links_that_it_can_have_is_copied(
    home: Home, project: Path, http_server: HttpServer, ask: Ask, image_file_system: MakeImage
) -> None:
    """ext4 allows 65,000 links of a file (EXT4_LINK_MAX): made by a loop of `os.link`, a second or two."""
    root = image_file_system("ext4") / "store"
    stored = store_at(root, home, project, http_server, ask, "hardlink")
    shared = object_of(root, DATA)
    assert shared is not None
    names = root.parent / "names"
    names.mkdir()
    number = 0
    while os.lstat(shared).st_nlink < 65_000:
        os.link(shared, names / str(number))
        number += 1
    with (project / "datamanifest.toml").open("a") as manifest:
        manifest.write(f'\n[full]\nuri = "{http_server.url}/one.bin"\nchecksum = "{SHA256}"\nkey = "full"\n')
    answer = stored.ask("fetch", "full")
    full = root / "datasets" / "full"
    assert (0, 1) == (answer.status, http_server.count("/one.bin")), answer
    assert "copy" == find_mode(shared, full)
    theirs = root / "datasets" / "theirs.bin"
    theirs.write_bytes(DATA)
    theirs.with_name("theirs.bin.complete").touch()
    answer = stored.ask("dedup")
    assert (0, {"skipped"}) == (answer.status, {each["status"] for each in answer.outcomes})
    break_apart(full, b"wrong")
    assert 0 == stored.ask("verify", "--repair", "full").status
    assert "copy" == find_mode(shared, full)


# Pools that may not be written -----------------------------------------------------------------------------------


@pytest.fixture
def make_read_only() -> Iterator[Callable[[Path], None]]:
    """Mount a file system's folder again read-only; undone after the test."""
    mounted: list[Path] = []

    def make(folder: Path) -> None:
        needs_root()
        subprocess.run([needs("mount"), "-o", "remount,ro", folder], check=True, timeout=60)
        mounted.append(folder)

    yield make
    for folder in mounted:
        subprocess.run([needs("mount"), "-o", "remount,rw", folder], check=True, timeout=60)


@pytest.mark.needs_root
@pytest.mark.parametrize("kind", ["btrfs", "ext4"])
def test_a_read_only_pool_serves_and_mends_and_is_left_as_it_is(
    home: Home, project: Path, http_server: HttpServer, ask: Ask, mount: Mount,
    make_read_only: Callable[[Path], None], tmp_path: Path, kind: str,
) -> None:  # fmt: skip
    disk = mount(kind)
    store_at(disk / "store", home, project, http_server, ask, "reflink", "hardlink")
    make_read_only(disk)
    other = tmp_path / "other"
    other.mkdir()
    own = tmp_path / "own"
    manifest = f'[mine]\nuri = "{http_server.url}/one.bin"\nchecksum = "{SHA256}"\nkey = "mine"\n'
    write_manifest(other, manifest)
    variables = {"DATAMANIFEST_DATA_DIR": str(own), "DATAMANIFEST_CACHE_DIR": str(disk / "store")}
    http_server.routes.clear()
    answer = ask("fetch", cwd=other, env=variables)
    assert 0 == answer.status, answer
    copy = own / "datasets" / "mine"
    assert DATA == copy.read_bytes()
    spoilt = object_of(own, DATA)
    assert spoilt is not None
    for path in (copy, spoilt):
        break_apart(path, DATA[:-1])
    assert 0 == ask("verify", "--repair", cwd=other, env=variables).status
    assert DATA == copy.read_bytes()
    assert 0 == ask("verify", "--all", cwd=other, env=variables).status
    for command in (["prune", "--grace", "0"], ["dedup"]):
        done = ask(*command, "--root", disk / "store", cwd=other, env=variables)
        assert done.status in (0, 8), done


@pytest.mark.needs_root
def test_another_users_objects_under_protected_hard_links_are_copied_from(
    home: Home, project: Path, http_server: HttpServer, ask: Ask, tmp_path: Path
) -> None:
    if Path("/proc/sys/fs/protected_hardlinks").read_text().strip() != "1":
        pytest.skip("hard links are not protected on this machine")
    root, own = tmp_path / "store", tmp_path / "own"
    stored = store_at(root, home, project, http_server, ask, "hardlink")
    give_away(root, mode=0o555)
    for path in root.rglob("*"):
        if path.is_dir():
            path.chmod(0o555)
    write_manifest(project, f'[mine]\nuri = "{http_server.url}/one.bin"\nchecksum = "{SHA256}"\nkey = "mine"\n')
    variables = {"DATAMANIFEST_DATA_DIR": str(own), "DATAMANIFEST_CACHE_DIR": str(root)}
    http_server.routes.clear()
    before = snapshot(root)
    done = as_other(home, project, "fetch", **variables)
    assert 0 == done.returncode, done.stderr
    copy, shared = own / "datasets" / "mine", object_of(own, DATA)
    assert shared is not None
    assert ("copy", "hardlink") == (find_mode(stored.copies[0], copy), find_mode(shared, copy))
    for path in (copy, shared):
        break_apart(path, b"wrong" * 40_000)
    for command in (["verify", "--all", "--repair"], ["verify", "--all"], ["dedup"], ["prune", "--grace", "0"]):
        done = as_other(home, project, *command, **variables)
        assert "Traceback" not in done.stderr and done.returncode in (0, 8), (command, done.stdout, done.stderr)
    assert DATA == copy.read_bytes()
    assert before == snapshot(root)


@pytest.mark.needs_root
def test_dedup_promises_nothing_of_another_users_objects_under_protected_hard_links(
    home: Home, project: Path, http_server: HttpServer, ask: Ask
) -> None:
    needs_root()
    if Path("/proc/sys/fs/protected_hardlinks").read_text().strip() != "1":
        pytest.skip("hard links are not protected on this machine")
    stored = store_at(store_root(home), home, project, http_server, ask, "hardlink")
    for path in (each for each in store_root(home).rglob("*") if each.is_file()):
        os.chown(path, OTHER_USER, OTHER_USER)
    twin = default_copy(home, "elsewhere/b.bin")
    twin.write_bytes(stored.copies[0].read_bytes())
    twin.with_name(f"{twin.name}.complete").touch()
    done = as_other(home, project, "dedup", "--dry-run", "--json", DATAMANIFEST_LINK="hardlink")
    assert (0, []) == (done.returncode, json.loads(done.stdout)["outcomes"]), done.stderr
    done = as_other(home, project, "doctor", DATAMANIFEST_LINK="hardlink")
    assert "another user's" in done.stdout and "stand alone" in done.stdout, done.stdout
