"""Ingest: the user's bytes become objects, the user's files stay as they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dm.errors import MachineFailed, NotFound, Refused
from dm.plumbing.hashing import blake3_of
from dm.plumbing.store.disk import DiskStore, StoreOptions
from dm.plumbing.store.ingest import Ingested
from dm.plumbing.store.measure import measure_copy
from dm.values import Digest
from tests.fixtures.machine import MakeImage


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path / "root", options=StoreOptions(link=("hardlink",)))


def make_folder(path: Path) -> Path:
    (path / "sub").mkdir(parents=True)
    (path / "empty").mkdir()
    (path / "a").write_bytes(b"one")
    (path / "sub/b").write_bytes(b"one")
    (path / "sub/large").write_bytes(bytes(3 << 20))
    (path / "run").write_bytes(b"#!/bin/sh\n")
    (path / "run").chmod(0o755)
    (path / "link").symlink_to("sub/b")
    return path


def look(path: Path) -> dict[str, tuple[int, ...]]:
    seen = {}
    for each in [path, *path.rglob("*")]:
        status = each.lstat()
        seen[str(each)] = (status.st_ino, status.st_mode, status.st_nlink, status.st_size, status.st_mtime_ns)
    return seen


def test_a_files_id_is_that_of_its_bytes_and_writing_stores_it(store: DiskStore, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_bytes(b"hello\n")
    digest = Digest.of_blob(blake3_of(b"hello\n"))
    assert store.ingest(own, write=False) == Ingested(digest, 6, 1, 0)
    assert not store.meta.exists()
    assert store.ingest(own) == Ingested(digest, 6, 1, 1)
    assert store.object_path(digest).read_bytes() == b"hello\n"


def test_a_folder_is_stored_with_the_id_that_measuring_gives(store: DiskStore, tmp_path: Path) -> None:
    own = make_folder(tmp_path / "own")
    measured = measure_copy(own)
    ingested = store.ingest(own)
    assert ingested.digest == measured.digest == store.ingest(own, write=False).digest
    assert (ingested.size_bytes, ingested.files) == (measured.size_bytes, measured.files)
    store.checkout(ingested.digest, tmp_path / "new")
    assert (tmp_path / "new/sub/large").read_bytes() == bytes(3 << 20)
    # Blobs: one, large, script, the link's text; trees: top, sub, empty.
    assert ingested.objects_written == 7


def test_the_users_files_are_left_as_they_are(store: DiskStore, tmp_path: Path) -> None:
    own = make_folder(tmp_path / "own")
    before = look(own)
    store.ingest(own)
    assert look(own) == before


def test_what_is_stored_already_is_not_written_again(store: DiskStore, tmp_path: Path) -> None:
    own = make_folder(tmp_path / "own")
    store.ingest(own)
    before = look(store.meta / "objects")
    assert store.ingest(own).objects_written == 0
    assert store.ingest(own / "sub/large").objects_written == 0
    assert look(store.meta / "objects") == before


@pytest.mark.parametrize("name", ["a", "sub/large"])
def test_a_damaged_object_is_replaced_by_a_sound_one(store: DiskStore, tmp_path: Path, name: str) -> None:
    own = make_folder(tmp_path / "own")
    store.ingest(own)
    data = (own / name).read_bytes()
    path = store.object_path(Digest.of_blob(blake3_of(data)))
    path.chmod(0o644)
    path.write_bytes(b"x" * len(data))
    store.ingest(own / name)
    assert path.read_bytes() == data
    assert [each.name for each in (store.meta / "quarantine").rglob(path.name)] == [path.name]


def test_a_link_to_a_file_or_folder_is_followed_at_the_top(store: DiskStore, tmp_path: Path) -> None:
    own = make_folder(tmp_path / "own")
    (tmp_path / "link").symlink_to(own)
    assert store.ingest(tmp_path / "link").digest == store.ingest(own).digest
    assert store.ingest(own / "link").digest == Digest.of_blob(blake3_of(b"one"))


def test_an_empty_marker_is_no_part_of_a_folder_and_one_with_content_is_refused(
    store: DiskStore, tmp_path: Path
) -> None:
    own = make_folder(tmp_path / "own")
    digest = store.ingest(own).digest
    (own / ".complete").touch()
    assert store.ingest(own).digest == digest
    (own / ".complete").write_bytes(b"data")
    with pytest.raises(Refused) as caught:
        store.ingest(own)
    assert caught.value.message == f"cannot store '{own}': it holds a '.complete' that is not an empty file"


def test_names_that_clash_and_fifos_are_refused_before_anything_is_stored(store: DiskStore, tmp_path: Path) -> None:
    own = make_folder(tmp_path / "own")
    (own / "sub/é").write_bytes(b"1")
    (own / "sub/e\u0301").write_bytes(b"2")
    with pytest.raises(Refused) as caught:
        store.ingest(own)
    assert caught.value.message.startswith("cannot store 'sub/e")
    (own / "sub/é").unlink()
    os.mkfifo(own / "pipe")
    with pytest.raises(Refused) as caught:
        store.ingest(own)
    assert "it is a fifo" in caught.value.message
    with pytest.raises(Refused) as caught:
        store.ingest(own / "pipe")
    assert caught.value.message == f"cannot store '{own / 'pipe'}': no file and no folder"
    assert list(store.list_objects()) == []


def test_what_is_not_there_is_said(store: DiskStore, tmp_path: Path) -> None:
    with pytest.raises((MachineFailed, NotFound)) as caught:
        store.ingest(tmp_path / "nothing")
    assert caught.value.message == f"cannot read '{tmp_path / 'nothing'}': no such file or folder"


def test_what_dm_staged_is_published_not_ingested(store: DiskStore, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="published, not ingested"):
        store.ingest(tmp_path, owned=True)


@pytest.mark.parametrize("kind", ["btrfs", "xfs"])
def test_where_there_are_reflinks_the_users_bytes_are_shared(image_file_system: MakeImage, kind: str) -> None:
    folder = image_file_system(kind)
    store = DiskStore(folder / "root")
    own = make_folder(folder / "own")
    before = look(own)
    ingested = store.ingest(own)
    assert ingested.digest == measure_copy(own).digest
    assert ingested.objects_written == 7
    assert look(own) == before
    assert store.checkout(ingested.digest, folder / "new") == "reflink"
    assert measure_copy(folder / "new").digest == ingested.digest
