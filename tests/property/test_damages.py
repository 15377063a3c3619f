"""A thousand random damages: each is found and named, nothing else is reported, and what can be mended is mended.

What is expected is worked out without `dm`: the bytes on disk are held against those that were written. A failure
prints the seed of its batch; ``DM_DAMAGE_SEED`` runs that one alone.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from blake3 import blake3

from dm.environment import Environment
from dm.plumbing.store.disk import DiskStore
from dm.plumbing.store.measure import build_trees, measure_copy
from dm.plumbing.store.publication import Publication
from dm.porcelain.mending import Mender
from dm.porcelain.project import Project
from dm.porcelain.verbs.verify import VerifyOptions, verify, verify_copies
from dm.porcelain.verifying.stores import verify_store
from dm.values import Outcome
from tests.fixtures.homes import Home, make_home

BATCHES = 10
DAMAGES_IN_A_BATCH = 50
HOW = ("bit", "byte", "truncated", "extended", "swapped", "renamed", "mode", "lost", "added", "emptied")
BLOCK = 512

# A folder is a dict, a file (bytes, executable), a link its target as str.
Model = dict[str, Any]


class World(NamedTuple):
    """A project with two stores. ``copies`` of the first by the names of their refs, each a model or a file's bytes;
    ``trees`` the ids of their folders by path; ``objects`` the bytes of every object of the first store by path.
    """

    home: Home
    project: Path
    root: Path
    spare: Path
    copies: dict[str, Model | bytes]
    trees: dict[str, dict[str, bytes]]
    objects: dict[str, bytes]


# The world -------------------------------------------------------------------------------------------------------


def make_content(rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice([1, 7, 300, 2 * BLOCK, 3 * BLOCK + 5, 9000]))


def make_model(rng: random.Random, shared: list[bytes], depth: int = 0) -> Model:
    model: Model = {}
    for number in range(rng.randint(2, 6)):
        kind = rng.random()
        if kind < 0.2 and depth < 2:
            model[f"folder{number}"] = make_model(rng, shared, depth + 1)
        elif kind < 0.3:
            model[f"link{number}"] = rng.choice(["file0", "../nowhere", f"target{rng.randrange(1000)}"])
        else:
            data = rng.choice(shared) if rng.random() < 0.3 else make_content(rng)
            model[f"file{number}"] = (data, kind > 0.85)
    return model


def write(path: Path, model: Model | bytes) -> None:
    if isinstance(model, bytes):
        path.write_bytes(model)
        return
    path.mkdir()
    for name, each in model.items():
        if isinstance(each, dict):
            write(path / name, each)
        elif isinstance(each, str):
            (path / name).symlink_to(each)
        else:
            (path / name).write_bytes(each[0])
            (path / name).chmod(0o755 if each[1] else 0o644)


def make_world(base: Path, link: str) -> World:
    """Twelve files and twelve folders; all but the last four of each are in a second store too."""
    rng = random.Random(link)
    home = make_home(base / "home")
    project, root, spare = base / "project", home.data / "datamanifest", home.cache / "datamanifest"
    project.mkdir()
    (project / ".datamanifest").mkdir()
    (home.config / "datamanifest").mkdir()
    (home.config / "datamanifest" / "config.toml").write_text(f'link = ["{link}"]\n')
    shared = [make_content(rng) for _ in range(8)]
    copies: dict[str, Model | bytes] = {}
    for number in range(12):
        copies[f"datasets/one.example/{number}.bin"] = rng.choice(shared) if number % 3 == 0 else make_content(rng)
        copies[f"datasets/one.example/{number}.d"] = make_model(rng, shared)
    with open_project(home, project, manifest=False) as opened:
        for store, limit in ((opened.open_store(root), 12), (opened.open_store(spare), 8)):
            for name, model in copies.items():
                if int(Path(name).stem) < limit:
                    staged = base / "staged"
                    write(staged, model)
                    store.publish([Publication(staged, store.root / name)])
        lines = ["[_META]\nschema = 1\n"]
        for name in list(copies)[: len(copies) // 2 * 2]:
            ref = opened.open_store(root).read_ref(name)
            assert ref is not None and ref.digest is not None
            if Path(name).stem in ("3", "10"):
                continue  # known by its ref alone
            field = "digest" if ref.digest.is_tree else "checksum"
            key = name.removeprefix("datasets/")
            lines.append(f'["{Path(name).name}"]\nkey = "{key}"\n{field} = "{ref.digest}"\n')
        (project / "datamanifest.toml").write_text("\n".join(lines))
    trees = {}
    for name, model in copies.items():
        if isinstance(model, dict):
            measured = measure_copy(root / name)
            built = build_trees(measured.entries, measured.ids)
            trees[name] = {os.fsdecode(folder): tree.id for folder, tree in built.items()}
    return World(home, project, root, spare, copies, trees, read_objects(root))


class open_project:  # noqa: N801 - used as a function
    """The project with the test's home, closed at the end."""

    def __init__(self, home: Home, project: Path, *, manifest: bool = True) -> None:
        if not manifest:
            (project / "datamanifest.toml").write_text("[_META]\nschema = 1\n")
        environment = Environment(home.variables(), home.path, project, "testhost", os.getpid())
        self.project = Project.open(environment)

    def __enter__(self) -> Project:
        return self.project

    def __exit__(self, *_error: object) -> None:
        self.project.close()


def read_objects(root: Path) -> dict[str, bytes]:
    top = root / ".dm" / "objects"
    return {path.relative_to(top).as_posix(): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def read_model(path: Path) -> Model | bytes | None:
    """What lies at a path now, without the marker; None for nothing."""
    if not os.path.lexists(path):
        return None
    if not path.is_dir():
        return path.read_bytes()
    model = read_folder(path)
    model.pop(".complete", None)
    return model


def read_folder(path: Path) -> Model:
    model: Model = {}
    for each in sorted(path.iterdir()):
        if each.is_symlink():
            model[each.name] = os.readlink(each)
        elif each.is_dir():
            model[each.name] = read_folder(each)
        else:
            model[each.name] = (each.read_bytes(), bool(each.stat().st_mode & stat.S_IXUSR))
    return model


# Damage ----------------------------------------------------------------------------------------------------------


def rewrite(rng: random.Random, path: Path, change: Callable[[bytes], bytes]) -> None:
    """Other bytes at a path: through every hard link of it, with its times restored; or in a file of its own."""
    before = path.lstat()
    data = change(path.read_bytes())
    if rng.random() < 0.5:
        path.chmod(0o644)
        with path.open("r+b") as file:
            file.write(data)
            file.truncate()
        path.chmod(stat.S_IMODE(before.st_mode))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        path.unlink()
        path.write_bytes(data)
        path.chmod(stat.S_IMODE(before.st_mode))


def flip_bit(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def change_byte(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    at = rng.randrange(len(data))
    changed[at] = (changed[at] + rng.randrange(1, 256)) % 256
    return bytes(changed)


def swap_blocks(rng: random.Random, data: bytes) -> bytes:
    one, other = rng.sample(range(len(data) // BLOCK), 2)
    blocks = [data[at : at + BLOCK] for at in range(0, len(data), BLOCK)]
    blocks[one], blocks[other] = blocks[other], blocks[one]
    return b"".join(blocks)


def find_targets(world: World, how: str) -> list[Path]:
    """Where a kind of damage can be done now."""
    top = world.root / ".dm" / "objects"
    objects = [path for path in sorted(top.rglob("*")) if path.is_file()]
    files, links, folders = [], [], []
    for name in world.copies:
        path = world.root / name
        found = [path, *sorted(path.rglob("*"))] if path.is_dir() and not path.is_symlink() else [path]
        for each in found:
            if each.is_symlink():
                links.append(each)
            elif each.is_dir():
                folders.append(each)
            elif each.is_file() and each.name != ".complete":
                files.append(each)
    tops = {world.root / name for name in world.copies}
    inside = [path for path in files if path not in tops]
    needs = {"swapped": 2 * BLOCK, "extended": 0}.get(how, 1)
    return {
        "mode": inside,
        "renamed": [*inside, *links, *objects],
        "lost": [*files, *links, *objects, *[path for path in folders if path.parent != world.root / "datasets"]],
        "added": folders,
    }.get(how, [path for path in (*files, *objects) if path.stat().st_size >= needs])


def do_damage(rng: random.Random, world: World, how: str) -> str:
    """Do one damage; say which."""
    path = rng.choice(find_targets(world, how))
    told = f"{how} {path.relative_to(world.root)}"
    if how == "bit":
        rewrite(rng, path, lambda data: flip_bit(rng, data))
    elif how == "byte":
        rewrite(rng, path, lambda data: change_byte(rng, data))
    elif how == "truncated":
        rewrite(rng, path, lambda data: data[: rng.randrange(len(data))])
    elif how == "extended":
        rewrite(rng, path, lambda data: data + rng.randbytes(rng.randint(1, 900)))
    elif how == "swapped":
        rewrite(rng, path, lambda data: swap_blocks(rng, data))
    elif how == "emptied":
        rewrite(rng, path, lambda data: b"")
    elif how == "renamed":
        is_object = ".dm" in path.parts
        path.rename(path.with_name(rng.randbytes(31).hex() if is_object else f"new{rng.randrange(10**6)}"))
    elif how == "mode":
        path.chmod(stat.S_IMODE(path.stat().st_mode) ^ 0o111)
    elif how == "lost":
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    elif rng.random() < 0.3:
        (path / f"folder{rng.randrange(10**6)}" / "empty").mkdir(parents=True)
    else:
        (path / f"added{rng.randrange(10**6)}").write_bytes(rng.randbytes(20))
    return told


# What is to be found -----------------------------------------------------------------------------------------------


def leaves(path: str, each: Any) -> Iterator[str]:
    if not isinstance(each, dict) or not each:
        yield path
        return
    for name, inner in each.items():
        yield from leaves(f"{path}/{name}", inner)


class Oracle:
    """What `dm` has to say of the world as it is now."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.objects = read_objects(world.root)
        self.found = {name: read_model(world.root / name) for name in world.copies}
        self.unreadable = {
            bytes.fromhex(name.replace("/", ""))
            for name, data in world.objects.items()
            if self.objects.get(name) != data
        }

    def of_copy(self, name: str) -> set[tuple[str, str]]:
        """The paths of a copy that differ, and how."""
        expected, found = self.world.copies[name], self.found[name]
        if found is None:
            return {(".", "lost")}
        if isinstance(expected, bytes) or not isinstance(found, dict):
            return set() if expected == found else {(".", "changed" if type(expected) is type(found) else "type")}
        return self._differences(name, expected, found, "")

    def _differences(self, copy: str, expected: Model, found: Model, folder: str) -> set[tuple[str, str]]:
        if expected == found:
            return set()
        if self.world.trees[copy][folder] in self.unreadable:
            return {(folder or ".", "changed")}
        answer: set[tuple[str, str]] = set()
        for name in expected.keys() | found.keys():
            path = f"{folder}/{name}" if folder else name
            one, other = expected.get(name), found.get(name)
            if other is None:
                answer |= {(leaf, "lost") for leaf in self._lost(copy, path, one)}
            elif one is None:
                answer |= {(leaf, "added") for leaf in leaves(path, other)}
            elif type(one) is not type(other):
                answer.add((path, "type"))
            elif isinstance(one, dict):
                answer |= self._differences(copy, one, other, path)
            elif one != other:
                same_bytes = isinstance(one, tuple) and one[0] == other[0]
                answer.add((path, "mode" if same_bytes else "changed"))
        return answer

    def _lost(self, copy: str, path: str, each: Any) -> Iterator[str]:
        if not isinstance(each, dict) or self.world.trees[copy][path] in self.unreadable:
            yield path
            return
        for name, inner in each.items():
            yield from self._lost(copy, f"{path}/{name}", inner)

    def damaged_objects(self) -> set[str]:
        """The hex of each object file whose bytes are not those of its name."""
        return {name.replace("/", "") for name, data in self.objects.items() if self.world.objects.get(name) != data}

    def missing_objects(self) -> set[str]:
        """The hex of each object that a sound tree in the store names and that is not there."""
        named = set()
        for name, data in self.world.objects.items():
            if self.objects.get(name) == data and is_tree(name, data):
                named |= {entry[7:71].decode() for entry in list_entries(data)}
        return {raw for raw in named if f"{raw[:2]}/{raw[2:]}" not in self.objects}

    def is_in_reach(self, data: bytes) -> bool:
        """Whether a blob's bytes are whole at a place where they should be, in either store."""
        name = blake3(data).hexdigest()
        name = f"{name[:2]}/{name[2:]}"
        if self.objects.get(name) == data or (self.world.spare / ".dm" / "objects" / name).exists():
            return True
        return any(self._holds(expected, self.found[copy], data) for copy, expected in self.world.copies.items())

    def _holds(self, expected: Any, found: Any, data: bytes) -> bool:
        if isinstance(expected, dict):
            return isinstance(found, dict) and any(
                self._holds(each, found.get(name), data) for name, each in expected.items()
            )
        if isinstance(expected, str):
            return expected == found and os.fsencode(expected) == data
        one, other = (each[0] if isinstance(each, tuple) else each for each in (expected, found))
        return bool(one == other == data)

    def find_unknown_trees(self) -> set[bytes]:
        """The ids of the folders of which nothing in reach says what they should hold."""
        unknown = set()
        for copy, trees in self.world.trees.items():
            for folder, raw in trees.items():
                in_spare = (self.world.spare / ".dm" / "objects" / raw.hex()[:2] / raw.hex()[2:]).exists()
                is_whole = descend(self.world.copies[copy], folder) == descend(self.found[copy], folder)
                if raw in self.unreadable and not in_spare and not is_whole:
                    unknown.add(raw)
        return unknown


def descend(model: Any, path: str) -> Any:
    """What lies at a path of a model; None for nothing."""
    for part in path.split("/") if path else ():
        model = model.get(part) if isinstance(model, dict) else None
    return model


def is_tree(name: str, data: bytes) -> bool:
    return bool(blake3(data).hexdigest() != name.replace("/", ""))


def list_entries(data: bytes) -> list[bytes]:
    return [entry for entry in data.split(b"\0") if entry]


# The test ----------------------------------------------------------------------------------------------------------


def told_by(outcomes: list[Outcome]) -> dict[str, set[tuple[str, str]]]:
    """What each failed outcome names."""
    return {
        each.name: {(difference.path, difference.how) for difference in each.differences} or {(".", "lost")}
        for each in outcomes
        if each.failed
    }


def check_found(world: World, project: Project, store: DiskStore) -> None:
    """Each of the three ways to look names exactly what differs."""
    oracle = Oracle(world)
    expected = {name: found for name in world.copies if (found := oracle.of_copy(name))}
    assert expected == told_by(verify_copies(store))
    everything = verify_store(store)
    by_code: dict[str | None, set[str]] = {}
    for outcome in everything:
        by_code.setdefault(outcome.code, set()).add(outcome.name)
    damaged = {name.rpartition(":")[2] for name in by_code.pop("object-damaged", set())}
    missing = {name.rpartition(":")[2] for name in by_code.pop("object-missing", set())}
    assert (oracle.damaged_objects(), oracle.missing_objects()) == (damaged, missing)
    gone = {os.fspath(world.root / name) for name, found in expected.items() if found == {(".", "lost")}}
    assert gone == by_code.pop("copy-missing", set())
    there = {name: found for name, found in expected.items() if os.fspath(world.root / name) not in gone}
    assert there.keys() == by_code.pop("content-mismatch", set())
    assert there == told_by([each for each in everything if each.code == "content-mismatch"])
    strays = {f"{name}.complete" for name in gone if name.endswith(".bin")}
    assert strays == by_code.pop("marker-stray", set())
    assert by_code.keys() <= {None}, by_code
    of_datasets = {each.name: each for each in verify(project)}
    for name in world.copies:
        dataset = of_datasets.pop(Path(name).name, None)
        if dataset is not None:
            in_spare = (world.spare / name).exists()
            wanted = "failed" if name in there else "skipped" if name in expected and not in_spare else "ok"
            assert (name, wanted) == (name, dataset.status), dataset
            if name in there and isinstance(world.copies[name], dict):
                named = {(each.path, each.how) for each in dataset.differences}
                assert named == there[name] or any(how == "changed" for _, how in there[name]), dataset
    assert {} == of_datasets
    assert [] == [each for each in verify_store(project.open_store(world.spare)) if each.status != "ok"]


def mend(world: World, project: Project, store: DiskStore) -> list[Outcome]:
    """`dm verify --repair`, `dm verify --all --repair`, and every copy by name."""
    options = VerifyOptions(repair=True)
    verify(project, (), options)
    spare = project.open_store(world.spare)
    outcomes = verify_store(store, options, mender=Mender([store, spare]))
    return outcomes + verify_copies(store, None, options, mender=Mender([store, spare]))


def is_told(world: World, copy: str, path: str, unknown: set[bytes]) -> bool:
    """Whether what should lie at a path of a copy can be known: the trees of all folders above it can."""
    trees = world.trees.get(copy, {})
    parts = [] if path == "." else path.split("/")
    return not any(trees.get("/".join(parts[:count])) in unknown for count in range(len(parts) + 1))


def check_mended(world: World, reachable: dict[bytes, bool], unknown: set[bytes], store: DiskStore) -> None:
    """All that had sound bytes in reach is as it was; of the rest nothing is claimed."""
    oracle = Oracle(world)
    left = {name: oracle.of_copy(name) for name in world.copies}
    for name, differences in left.items():
        for path, how in differences:
            if not is_told(world, name, path, unknown):
                continue
            each: Any = descend(world.copies[name], "" if path == "." else path)
            assert each is not None and not isinstance(each, dict), f"not mended: {path} {how} in {name}"
            data = each if isinstance(each, bytes) else os.fsencode(each) if isinstance(each, str) else each[0]
            assert not reachable[data], f"not mended: {path} {how} in {name}"
    for name, data in world.objects.items():
        raw = bytes.fromhex(name.replace("/", ""))
        needed = is_tree(name, data) or name in oracle.objects
        if needed and raw not in unknown and reachable.get(data, True):
            assert oracle.objects.get(name, data) == data, f"not mended: {name}"
    bad = {name for name in left if left[name]}
    assert bad == {each.name for each in verify_copies(store) if each.failed}


def restore(world: World, pristine: Path) -> None:
    """Everything as it was, for the next batch."""
    shutil.rmtree(world.root)
    copy_linked(pristine, world.root)


def copy_linked(source: Path, target: Path) -> None:
    """A copy of a store in which what was hard-linked still is."""
    seen: dict[int, Path] = {}
    for folder, names, files in os.walk(source):
        to = target / Path(folder).relative_to(source)
        to.mkdir()
        for name in [*files, *[name for name in names if (Path(folder) / name).is_symlink()]]:
            path = Path(folder) / name
            status = path.lstat()
            if status.st_ino in seen:
                os.link(seen[status.st_ino], to / name, follow_symlinks=False)
            else:
                shutil.copy2(path, to / name, follow_symlinks=False)
                seen[status.st_ino] = to / name
    for folder, _, _ in os.walk(source):
        shutil.copystat(folder, target / Path(folder).relative_to(source))


@pytest.mark.parametrize("link", ["hardlink", "copy"])
def test_a_thousand_damages_are_found_named_and_mended(tmp_path: Path, link: str) -> None:
    world = make_world(tmp_path, link)
    pristine = tmp_path / "pristine"
    copy_linked(world.root, pristine)
    wanted = os.environ.get("DM_DAMAGE_SEED")
    kinds: dict[str, int] = {}
    for number in range(BATCHES) if wanted is None else [int(wanted)]:
        rng = random.Random(f"{link} {number}")
        done: list[str] = []
        try:
            with open_project(world.home, world.project) as project:
                store = project.open_store(world.root)
                for _ in range(DAMAGES_IN_A_BATCH):
                    how = HOW[rng.randrange(len(HOW))]
                    done.append(do_damage(rng, world, how))
                    kinds[how] = kinds.get(how, 0) + 1
                check_found(world, project, store)
                oracle = Oracle(world)
                reachable = {data: oracle.is_in_reach(data) for data in list_contents(world)}
                unknown = oracle.find_unknown_trees()
                mend(world, project, store)
                check_mended(world, reachable, unknown, store)
        except BaseException as error:
            error.add_note("\n  ".join([f"DM_DAMAGE_SEED={number} [{link}]", *done]))
            raise
        restore(world, pristine)
    assert wanted is not None or sorted(kinds) == sorted(HOW)


def list_contents(world: World) -> set[bytes]:
    """Every file's bytes and every link's target."""

    def walk(each: Any) -> Iterator[bytes]:
        if isinstance(each, dict):
            for inner in each.values():
                yield from walk(inner)
        else:
            yield each if isinstance(each, bytes) else os.fsencode(each) if isinstance(each, str) else each[0]

    return {data for model in world.copies.values() for data in walk(model)}
