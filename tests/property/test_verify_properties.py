"""Whatever is done to a folder: quick says what the bytes say, and exactly what differs is named."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dm.plumbing.store.measure import build_trees, measure_copy
from dm.plumbing.store.memory import MemoryStore
from dm.plumbing.store.stamps import NO_ID, FolderIndex
from dm.plumbing.store.statcache import StatCache
from dm.plumbing.store.verify import compare_copy

# A folder is a dict, a file (bytes, executable), a link its target as str.
NAMES = st.sampled_from(["a", "b", "a.b", "a-", "A", "é", os.fsdecode(b"\xff")])
FILES = st.tuples(st.sampled_from([b"", b"one", b"two", b"three"]), st.booleans())
LINKS = st.sampled_from(["a", "nowhere"])
FOLDERS = st.recursive(
    st.dictionaries(NAMES, st.one_of(FILES, LINKS), max_size=4),
    lambda inner: st.dictionaries(NAMES, st.one_of(FILES, LINKS, inner), max_size=4),
    max_leaves=12,
)


def write(folder: Path, model: dict[str, Any]) -> None:
    folder.mkdir()
    for name, each in model.items():
        path = folder / name
        if isinstance(each, dict):
            write(path, each)
        elif isinstance(each, str):
            path.symlink_to(each)
        else:
            path.write_bytes(each[0])
            path.chmod(0o755 if each[1] else 0o644)


def leaves(path: str, each: Any) -> list[str]:
    if not isinstance(each, dict) or not each:
        return [path]
    return [leaf for name, inner in each.items() for leaf in leaves(f"{path}/{name}", inner)]


def what_differs(expected: dict[str, Any], found: dict[str, Any], prefix: str = "") -> set[tuple[str, str]]:
    """The definition: kinds first, then bytes, then modes; lost and added folders by what they hold."""
    answer: set[tuple[str, str]] = set()
    for name in expected.keys() | found.keys():
        path, one, other = prefix + name, expected.get(name), found.get(name)
        if other is None:
            answer |= {(leaf, "lost") for leaf in leaves(path, one)}
        elif one is None:
            answer |= {(leaf, "added") for leaf in leaves(path, other)}
        elif type(one) is not type(other):
            answer.add((path, "type"))
        elif isinstance(one, dict):
            answer |= what_differs(one, other, f"{path}/")
        elif isinstance(one, str):
            answer |= {(path, "changed")} if one != other else set()
        elif one[0] != other[0]:
            answer.add((path, "changed"))
        elif one[1] != other[1]:
            answer.add((path, "mode"))
    return answer


@given(expected=FOLDERS, found=FOLDERS)
def test_exactly_what_differs_is_named(expected: dict[str, Any], found: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "copy"
        write(copy, expected)
        measured = measure_copy(copy)
        store = MemoryStore()
        for tree in build_trees(measured.entries, measured.ids).values():
            store.put_tree(tree.entries)
        shutil.rmtree(copy)
        write(copy, found)
        differences = compare_copy(copy, measured.digest, store).differences
    assert {(each.path, each.how) for each in differences} == what_differs(expected, found)
    assert len(differences) == len(set(differences))
    assert [os.fsencode(each.path) for each in differences] == sorted(os.fsencode(each.path) for each in differences)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "replace", "remove", "chmod", "link", "unlink", "symlink", "mkdir", "quick", "full"]),
        st.sampled_from(["a", "b", "sub/a", "sub/b", "sub"]),
        st.sampled_from([b"one", b"two", b"six", b"four"]),
    ),
    max_size=25,
)


def apply(step: tuple[str, str, bytes], root: Path, outside: Path) -> None:
    """One change, as another program might make it; one that cannot be made is not made."""
    action, name, data = step
    path = root / name
    try:
        if action == "write":
            path.write_bytes(data)
        elif action == "replace":
            (outside / "new").write_bytes(data)
            (outside / "new").rename(path)
        elif action == "remove":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        elif action == "chmod":
            path.chmod(path.stat().st_mode ^ (0o010 if path.is_dir() else 0o100))  # who owns a folder needs its 0o100
        elif action == "link":
            os.link(path, outside / str(len(os.listdir(outside))))
        elif action == "unlink":
            (outside / os.listdir(outside)[0]).unlink()
        elif action == "symlink":
            path.symlink_to(os.fsdecode(data))
        elif action == "mkdir":
            path.mkdir()
    except (OSError, IndexError):
        return


@given(steps=STEPS)
def test_quick_says_what_the_bytes_say_whatever_was_done(steps: list[tuple[str, str, bytes]]) -> None:
    """The steps follow each other within the clock's tick, and links switch ctime off: the racy rule has to hold."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        root, outside = base / "copy", base / "outside"
        (base / ".dm").mkdir()
        (root / "sub").mkdir(parents=True)
        outside.mkdir()
        cache = StatCache(base / "stat-v1.db")
        for step in steps:
            apply(step, root, outside)
            if step[0] in ("quick", "full"):
                found = measure_copy(root, stat_cache=cache, quick=step[0] == "quick", ref_root=base)
                assert found.digest == measure_copy(root).digest
                assert found.read_bytes + found.trusted_bytes == found.size_bytes
        quick = measure_copy(root, stat_cache=cache, quick=True, ref_root=base)
        assert quick.digest == measure_copy(root).digest
        cache.close()
        assert cache.faults == 0


@given(model=FOLDERS, data=st.data())
def test_an_index_answers_alike_before_and_after_its_row(model: dict[str, Any], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        write(Path(name) / "copy", model)
        entries = measure_copy(Path(name) / "copy").entries
    ids = [NO_ID if entry.kind == "folder" else data.draw(st.sampled_from([b"x" * 32, None])) for entry in entries]
    index = FolderIndex.pack(entries, ids, clock_ns=2**62, id=data.draw(st.sampled_from([b"", b"t" * 32])))
    again = FolderIndex.decode(*index.encode())
    subset = data.draw(st.lists(st.sampled_from(entries), unique=True)) if entries else []
    for some in (entries, subset):
        assert again.match(some) == index.match(some)
        known = {entry.name: id for entry, id in zip(entries, ids, strict=True)}
        assert index.match(some).ids == [known[entry.name] for entry in some]
