"""The rule that decides whether recorded stat data are believed, and the packed index of a folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from dm.plumbing.fs.walk import Entry, scan_tree
from dm.plumbing.store.stamps import NLINK_UNKNOWN, NO_ID, FolderIndex, Stamp
from dm.values import Digest

STAMP = Stamp(device=1, inode=2, size=3, mtime_ns=4, ctime_ns=5, nlink=1)
LATER = 2**62


def make_folder(root: Path) -> list[Entry]:
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "b.bin").write_bytes(b"bb")
    (root / "a.txt").write_bytes(b"a")
    (root / "link").symlink_to("a.txt")
    return scan_tree(root)


def ids_of(entries: list[Entry]) -> list[bytes | None]:
    return [NO_ID if entry.kind == "folder" else bytes([number + 1]) * 32 for number, entry in enumerate(entries)]


@pytest.mark.parametrize("field", ["device", "inode", "size", "mtime_ns", "ctime_ns"])
def test_a_stamp_does_not_vouch_when_a_field_differs(field: str) -> None:
    assert not STAMP.vouches_for(STAMP._replace(**{field: 99}))


def test_a_stamp_vouches_for_itself() -> None:
    assert STAMP.vouches_for(STAMP)


def test_ctime_is_not_asked_when_the_link_count_differs() -> None:
    assert STAMP.vouches_for(STAMP._replace(ctime_ns=99, nlink=2))


def test_ctime_is_not_asked_when_the_link_count_was_unknown() -> None:
    assert STAMP._replace(nlink=NLINK_UNKNOWN).vouches_for(STAMP._replace(ctime_ns=99))


def test_mtime_is_asked_when_the_link_count_differs() -> None:
    assert not STAMP.vouches_for(STAMP._replace(mtime_ns=99, nlink=2))


def test_a_stamp_of_the_clocks_own_tick_is_racy() -> None:
    assert [STAMP._replace(mtime_ns=mtime_ns).is_racy(100) for mtime_ns in (99, 100, 101)] == [False, True, True]


def test_an_index_vouches_for_an_unchanged_folder(tmp_path: Path) -> None:
    entries = make_folder(tmp_path / "copy")
    index = FolderIndex.pack(entries, ids_of(entries), clock_ns=LATER, id=b"t" * 32)
    assert index.match(scan_tree(tmp_path / "copy")) == (ids_of(entries), True, {})
    assert (index.files, index.size_bytes) == (3, 1 + 2 + len("a.txt"))


def test_an_index_survives_its_row(tmp_path: Path) -> None:
    entries = make_folder(tmp_path / "copy")
    checksums = (Digest("md5", "0" * 32), Digest("sha1", "1" * 40))
    index = FolderIndex.pack(entries, ids_of(entries), clock_ns=LATER, id=b"t" * 32, checksums=checksums)
    again = FolderIndex.decode(*index.encode())
    assert again.match(entries) == index.match(entries)
    assert (again.id, again.files, again.size_bytes) == (index.id, index.files, index.size_bytes)
    assert again.find_checksum("sha1") == checksums[1]
    assert again.find_checksum("sha512") is None


def test_the_index_of_an_empty_folder_survives_its_row() -> None:
    again = FolderIndex.decode(*FolderIndex.pack([], [], clock_ns=0, id=b"t" * 32).encode())
    assert again.match([]) == ([], True, {})


def test_a_racy_entry_is_never_vouched_for(tmp_path: Path) -> None:
    entries = make_folder(tmp_path / "copy")
    os.utime(tmp_path / "copy" / "a.txt", ns=(10, 10))
    os.utime(tmp_path / "copy" / "sub" / "b.bin", ns=(9, 9))
    entries = scan_tree(tmp_path / "copy")
    index = FolderIndex.pack(entries, ids_of(entries), clock_ns=10, id=b"t" * 32)
    match = index.match(entries)
    known = {entry.name: id for entry, id in zip(entries, match.ids, strict=True)}
    assert known[b"a.txt"] is None
    assert known[b"sub/b.bin"] is not None
    assert not match.unchanged


def test_an_added_file_must_be_read_and_the_others_need_not(tmp_path: Path) -> None:
    entries = make_folder(tmp_path / "copy")
    index = FolderIndex.pack(entries, ids_of(entries), clock_ns=LATER, id=b"t" * 32)
    (tmp_path / "copy" / "aa").write_bytes(b"new")
    match = index.match(scan_tree(tmp_path / "copy"))
    before = dict(zip([entry.name for entry in entries], ids_of(entries), strict=True))
    found = dict(zip([entry.name for entry in scan_tree(tmp_path / "copy")], match.ids, strict=True))
    assert found == {**before, b"aa": None}
    assert not match.unchanged


def test_a_removed_file_is_a_change_though_nothing_must_be_read(tmp_path: Path) -> None:
    entries = make_folder(tmp_path / "copy")
    index = FolderIndex.pack(entries, ids_of(entries), clock_ns=LATER, id=b"t" * 32)
    (tmp_path / "copy" / "link").unlink()
    match = index.match(scan_tree(tmp_path / "copy"))
    assert None not in match.ids
    assert not match.unchanged


def test_a_mode_change_is_a_change(tmp_path: Path) -> None:
    entries = make_folder(tmp_path / "copy")
    index = FolderIndex.pack(entries, ids_of(entries), clock_ns=LATER, id=b"t" * 32)
    seen = [entry._replace(mode=entry.mode | 0o100) if entry.name == b"a.txt" else entry for entry in entries]
    assert index.match(seen) == (ids_of(entries), False, {})


def test_a_link_in_the_place_of_a_file_is_never_vouched_for(tmp_path: Path) -> None:
    entries = make_folder(tmp_path / "copy")
    index = FolderIndex.pack(entries, ids_of(entries), clock_ns=LATER, id=b"t" * 32)
    seen = [
        entry._replace(kind="link", mode=stat.S_IFLNK | 0o777) if entry.name == b"a.txt" else entry for entry in entries
    ]
    assert index.match(seen).ids[0] is None


def test_a_hard_link_made_since_is_vouched_for_and_named(tmp_path: Path) -> None:
    entries = make_folder(tmp_path / "copy")
    index = FolderIndex.pack(entries, ids_of(entries), clock_ns=LATER, id=b"t" * 32)
    os.link(tmp_path / "copy" / "a.txt", tmp_path / "elsewhere")
    os.utime(tmp_path / "copy", ns=(1, 1))
    seen = scan_tree(tmp_path / "copy")
    seen[0] = seen[0]._replace(ctime_ns=seen[0].ctime_ns + 1)
    match = index.match(seen)
    assert match == (ids_of(entries), True, {0: (entries[0].ctime_ns, 1)})


def test_a_published_folder_is_vouched_for_and_what_was_linked_is_named(tmp_path: Path) -> None:
    entries = make_folder(tmp_path / "copy")
    unknown = [entry._replace(nlink=NLINK_UNKNOWN) for entry in entries]
    index = FolderIndex.pack(unknown, ids_of(entries), clock_ns=LATER, id=b"t" * 32)
    seen = [entry._replace(ctime_ns=entry.ctime_ns + 1) for entry in entries]
    moved = {at: (entry.ctime_ns, NLINK_UNKNOWN) for at, entry in enumerate(entries) if entry.kind != "folder"}
    assert (ids_of(entries), True, moved) == index.match(seen)
    seen[0] = seen[0]._replace(mtime_ns=seen[0].mtime_ns + 1)
    ids, unchanged, _ = index.match(seen)
    assert ([None, *ids_of(entries)[1:]], False) == (ids, unchanged)


def test_a_partly_read_folder_vouches_for_what_was_read_only(tmp_path: Path) -> None:
    entries = make_folder(tmp_path / "copy")
    ids = ids_of(entries)
    ids[0] = None
    match = FolderIndex.pack(entries, ids, clock_ns=LATER).match(entries)
    assert match.ids == ids
    assert not match.unchanged


def test_a_row_of_another_kind_of_machine_is_not_read() -> None:
    id, _, *rest = FolderIndex.pack([], [], clock_ns=0).encode()
    with pytest.raises(ValueError, match="another shape"):
        FolderIndex.decode(id, b"middle 8", *rest)  # type: ignore[arg-type]


def test_a_row_whose_columns_differ_in_number_is_not_read(tmp_path: Path) -> None:
    entries = make_folder(tmp_path / "copy")
    row = list(FolderIndex.pack(entries, ids_of(entries), clock_ns=LATER).encode())
    row[3] = b"one-name"
    with pytest.raises(ValueError, match="differ in number"):
        FolderIndex.decode(*row)  # type: ignore[arg-type]
