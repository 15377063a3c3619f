"""Digests: published vectors, and one answer whatever the way the bytes come."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from blake3 import blake3

from dm.errors import ContentMismatch, MachineFailed, Malformed, Refused
from dm.plumbing import hashing
from dm.plumbing.hashing import (
    MultiHasher,
    blake3_of,
    hash_blob,
    hash_blobs,
    hash_file,
    hash_folder_contents,
    hash_stream,
    tree_id_of,
)
from dm.values import DIGEST_HEX_LENGTHS, Digest
from tests.fixtures.sinks import RecordingTask

FILE_ALGORITHMS = [name for name in DIGEST_HEX_LENGTHS if name != "blake3-tree"]

#: Of the three bytes "abc": FIPS 180-2, RFC 1321, RFC 7693, and the BLAKE3 reference implementation.
VECTORS = {
    "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    "md5": "900150983cd24fb0d6963f7d28e17f72",
    "sha1": "a9993e364706816aba3e25717850c26c9cd0d89d",
    "sha512": "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
    "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
    "blake2b": "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1"
    "7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923",
    "blake3": "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
}


@pytest.mark.parametrize("algorithm", FILE_ALGORITHMS)
def test_a_file_has_the_published_digest(tmp_path: Path, algorithm: str) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    expected = Digest(algorithm, VECTORS[algorithm])
    assert hash_file(tmp_path / "x", algorithm) == expected
    assert hash_stream(io.BytesIO(b"abc"), algorithm) == expected
    with MultiHasher([algorithm]) as hasher:
        hasher.update(b"abc")
        assert hasher.digests() == {algorithm: expected}


def test_the_id_of_a_blob_is_its_blake3_and_that_of_a_tree_is_keyed_apart() -> None:
    assert blake3_of(b"abc").hex() == VECTORS["blake3"]
    assert blake3_of(b"").hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert tree_id_of(b"abc") == blake3(b"abc", derive_key_context="dm tree v1").digest()
    assert tree_id_of(b"abc") != blake3_of(b"abc")


@pytest.mark.parametrize("algorithm", FILE_ALGORITHMS)
@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (16 << 20) + 3])
def test_every_size_gives_the_digest_of_all_its_bytes(tmp_path: Path, algorithm: str, size: int) -> None:
    data = os.urandom(1 << 16) * (size // (1 << 16) + 1)
    data = data[:size]
    (tmp_path / "x").write_bytes(data)
    task = RecordingTask()
    expected = blake3(data).hexdigest() if algorithm == "blake3" else hashlib.new(algorithm, data).hexdigest()
    assert hash_file(tmp_path / "x", algorithm, task).hex == expected
    assert task.done == size


def test_a_stream_that_gives_little_at_a_time_is_read_to_its_end() -> None:
    class Trickle(io.RawIOBase):
        left = 5000

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
            count = min(7, self.left)
            buffer[:count] = b"x" * count
            self.left -= count
            return count

    task = RecordingTask()
    assert hash_stream(Trickle(), "sha256", task).hex == hashlib.sha256(b"x" * 5000).hexdigest()  # type: ignore[arg-type]
    assert task.done == 5000


@pytest.mark.parametrize("algorithm", ["blake3-tree", "crc32"])
def test_an_algorithm_that_is_not_for_files_is_refused(tmp_path: Path, algorithm: str) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(Malformed) as caught:
        hash_file(tmp_path / "x", algorithm)
    assert str(caught.value) == f"cannot hash a file with '{algorithm}'"
    assert caught.value.hint == "algorithms for files are sha256, md5, sha1, sha512, blake2b, blake3"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MachineFailed) as caught:
        hash_blob(tmp_path / "absent")
    assert str(caught.value) == f"cannot read '{tmp_path}/absent': no such file or folder"


# Many files ---------------------------------------------------------------------------------------------------------


def _make_files(folder: Path, sizes: list[int]) -> list[bytes]:
    names = []
    for number, size in enumerate(sizes):
        name = f"{number % 7}/{number}"
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(os.urandom(min(size, 1 << 16)) * (size // (1 << 16)) + os.urandom(size % (1 << 16)))
        names.append(os.fsencode(name))
    return names


def _sizes(folder: Path, names: list[bytes]) -> list[int]:
    return [os.lstat(os.fsencode(folder) + b"/" + name).st_size for name in names]


@pytest.mark.parametrize(
    "sizes",
    [
        [],
        [5],
        [number % 5000 for number in range(2000)],
        [(1 << 20) - 1, 1 << 20, (1 << 20) + 1, 0, 3 << 20] * 4,
        [16 << 20, 1, (16 << 20) + 5, 2],
    ],
    ids=["none", "one", "many", "middling", "large"],
)
def test_many_files_have_the_ids_that_each_has_alone_in_order(tmp_path: Path, sizes: list[int]) -> None:
    names = _make_files(tmp_path, sizes)
    sizes = _sizes(tmp_path, names)
    task = RecordingTask()
    expected = [blake3((tmp_path / os.fsdecode(name)).read_bytes()).digest() for name in names]
    assert hash_blobs(tmp_path, names, sizes, task) == expected
    assert task.done == sum(sizes)
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        assert hash_blobs(folder, names, sizes) == expected
    finally:
        os.close(folder)


def test_more_threads_join_while_a_cold_disk_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter(range(1_000_000))
    seen: set[int] = set()
    main, several, before = threading.get_ident(), threading.Event(), _list_threads()

    def read_blocks() -> int:
        seen.add(threading.get_ident())
        count = next(counts)
        if len(seen) > 2:
            several.set()
        elif threading.get_ident() == main and _list_threads() - before:
            several.wait(60)  # else this thread might be done with all of it before another one comes to run
        return count

    monkeypatch.setattr(hashing, "_find_block_counter", lambda: read_blocks)
    names = _make_files(tmp_path, [10] * 4000)
    ids = hash_blobs(tmp_path, names, [10] * 4000)
    assert ids == [blake3((tmp_path / os.fsdecode(name)).read_bytes()).digest() for name in names]
    assert _list_threads() <= before
    assert 2 < len(seen) <= 8


def test_a_thread_that_joins_as_the_work_ends_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main, start, slow = threading.current_thread(), threading.Thread.start, threading.Event()

    def start_slowly(thread: threading.Thread) -> None:
        if threading.current_thread() is not main:
            slow.set()
            time.sleep(0.3)  # the others have done all there is by now, and the caller waits for its threads
        start(thread)

    def read_blocks() -> int:
        if threading.current_thread() is main:
            return int(not slow.wait(60))
        return next(counts)

    counts = iter(range(1_000_000))
    monkeypatch.setattr(hashing, "_find_block_counter", lambda: read_blocks)
    monkeypatch.setattr(threading.Thread, "start", start_slowly)
    names = _make_files(tmp_path, [10] * 4000)
    before = _list_threads()
    ids = hash_blobs(tmp_path, names, [10] * 4000)
    assert ids == [blake3((tmp_path / os.fsdecode(name)).read_bytes()).digest() for name in names]
    assert _list_threads() <= before
    assert slow.is_set()


@pytest.mark.parametrize("now", [0, 3, 5, 2 << 20])
@pytest.mark.parametrize("before", [4, 17 << 20])
def test_a_file_that_changed_its_size_meanwhile_is_told(tmp_path: Path, before: int, now: int) -> None:
    (tmp_path / "x").write_bytes(b"1" * now)
    with pytest.raises(ContentMismatch) as caught:
        hash_blobs(tmp_path, [b"x"], [before])
    assert str(caught.value) == f"'{tmp_path}/x' changed while it was read: {before} bytes before, {now} now"
    assert caught.value.hint == "run the command again when nothing writes to it"


@pytest.mark.parametrize("position", [0, 1500])
def test_the_one_file_of_many_that_cannot_be_read_is_named(tmp_path: Path, position: int) -> None:
    names = _make_files(tmp_path, [10] * 2000)
    sizes = _sizes(tmp_path, names)
    os.unlink(os.fsencode(tmp_path) + b"/" + names[position])
    before = _list_threads()
    with pytest.raises(MachineFailed) as caught:
        hash_blobs(tmp_path, names, sizes)
    path = f"{tmp_path}/{os.fsdecode(names[position])}"
    assert str(caught.value) == f"cannot read '{path}': no such file or folder"
    assert _list_threads() <= before


def test_a_link_in_a_files_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"1234")
    (tmp_path / "x").symlink_to("secret")
    with pytest.raises(MachineFailed) as caught:
        hash_blobs(tmp_path, [b"x"], [4])
    assert caught.value.code == "link"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MachineFailed) as caught:
        hash_blobs(tmp_path / "absent", [b"x"], [4])
    assert str(caught.value) == f"cannot read the folder '{tmp_path}/absent': no such file or folder"


def test_memory_stays_bounded_with_large_and_many_files(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(400 << 20)
    for number in range(40):
        with (tmp_path / f"{number}").open("wb") as file:
            file.truncate(15 << 20)
    script = (
        "import resource, sys, os\n"
        "from pathlib import Path\n"
        "from dm.plumbing.hashing import hash_blobs, hash_file, MultiHasher\n"
        "folder = Path(sys.argv[1]); names = sorted(os.fsencode(name) for name in os.listdir(folder))\n"
        "import blake3, hashlib\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "hash_blobs(folder, names, [os.stat(os.fsencode(folder) + b'/' + name).st_size for name in names])\n"
        "hash_file(folder / 'big', 'sha1')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 100 << 20


# Several digests at once --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("give", ["update", "feed", "mixed"])
def test_several_digests_of_one_stream_are_those_of_each_alone(give: str) -> None:
    pieces = [os.urandom(size) for size in (0, 1, 1 << 16, 10, 1 << 20, (1 << 16) - 1, 3 << 20, 5)]
    whole = b"".join(pieces)
    before = _list_threads()
    with MultiHasher(FILE_ALGORITHMS) as hasher:
        for number, piece in enumerate(pieces):
            method = give if give != "mixed" else ("update", "feed")[number % 2]
            getattr(hasher, method)(piece)
        digests = hasher.digests()
        assert hasher.size_bytes == len(whole)
    for name in FILE_ALGORITHMS:
        assert digests[name] == hash_stream(io.BytesIO(whole), name)
    _await_threads(before)


def test_two_buffers_in_turns_may_be_filled_again_while_the_other_is_hashed() -> None:
    buffers = [bytearray(1 << 18), bytearray(1 << 18)]
    expected = hashlib.sha256()
    with MultiHasher(["sha256", "blake3", "md5"]) as hasher:
        for number in range(40):
            buffer = buffers[number % 2]
            buffer[:] = bytes([number]) * len(buffer)
            expected.update(buffer)
            hasher.feed(buffer)
        assert hasher.digests()["sha256"].hex == expected.hexdigest()


def test_more_may_be_given_after_the_digests_were_read() -> None:
    hasher = MultiHasher(["blake3", "sha256"])
    hasher.update(b"a" * 100_000)
    hasher.digests()
    hasher.update(b"b")
    hasher.close()
    assert hasher.digests()["blake3"].raw == blake3_of(b"a" * 100_000 + b"b")


def test_an_algorithm_that_is_asked_for_twice_is_computed_once() -> None:
    assert list(MultiHasher(["sha256", "blake3", "sha256"]).digests()) == ["sha256", "blake3"]


def test_a_hasher_that_is_dropped_leaves_no_thread() -> None:
    before = _list_threads()
    hasher = MultiHasher(["sha256", "blake3"])
    hasher.update(b"x" * 1_000_000)
    started = _list_threads() - before
    assert started
    del hasher
    for thread in started:
        thread.join(timeout=30)
    assert [] == [thread for thread in started if thread.is_alive()]


def _list_threads() -> set[threading.Thread]:
    """The threads that hash; those of other tests come and go."""
    return {thread for thread in threading.enumerate() if thread.name == "dm-hash"}


def _await_threads(before: set[threading.Thread]) -> None:
    for thread in _list_threads() - before:
        thread.join(timeout=30)
    assert _list_threads() <= before


# The peers' digest of a folder --------------------------------------------------------------------------------------


def _folder(tmp_path: Path) -> Path:
    top = tmp_path / "folder"
    for name, data in {
        "z": b"1",
        "a.txt": b"2",
        "B": b"3",
        "b/1": b"4",
        "b/x/2": b"5",
        "a/3": b"6",
        "é/4": b"7",
    }.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(data)
    (top / ".complete").touch()
    (top / "empty").mkdir()
    return top


@pytest.mark.parametrize("algorithm", FILE_ALGORITHMS)
def test_a_folders_own_files_come_first_then_its_sub_folders_depth_first(tmp_path: Path, algorithm: str) -> None:
    top = _folder(tmp_path)
    # B, a.txt, z; then a/3; b/1, b/x/2; é/4
    assert hash_folder_contents(top, algorithm) == hash_stream(io.BytesIO(b"3216457"), algorithm)


def test_links_to_files_are_read_through_and_linked_folders_skipped(tmp_path: Path) -> None:
    top = _folder(tmp_path)
    (top / "b" / "0").symlink_to("../z")
    (top / "linked").symlink_to("a")
    (top / "loop").symlink_to(".")
    assert hash_folder_contents(top, "sha256") == hash_stream(io.BytesIO(b"32161457"), "sha256")


def test_a_folder_with_a_dangling_link_has_no_such_digest(tmp_path: Path) -> None:
    top = _folder(tmp_path)
    (top / "b" / "x" / "lost").symlink_to("nowhere")
    assert hash_folder_contents(top, "sha256") is None


def test_a_rename_goes_unseen_by_the_folder_digest(tmp_path: Path) -> None:
    top = _folder(tmp_path)
    before = hash_folder_contents(top, "sha256")
    (top / "z").rename(top / "y")
    assert hash_folder_contents(top, "sha256") == before


def test_the_bytes_read_of_a_folder_are_told(tmp_path: Path) -> None:
    task = RecordingTask()
    hash_folder_contents(_folder(tmp_path), "sha256", task)
    assert task.done == 7


@pytest.mark.parametrize("through_link", [False, True])
def test_a_fifo_in_a_folder_is_refused_and_not_waited_for(tmp_path: Path, through_link: bool) -> None:
    top = _folder(tmp_path)
    os.mkfifo(tmp_path / "pipe" if through_link else top / "pipe")
    if through_link:
        (top / "pipe").symlink_to(tmp_path / "pipe")
    with pytest.raises(Refused) as caught:
        hash_folder_contents(top, "sha256")
    assert str(caught.value) == f"cannot hash '{top}/pipe': it is a device, a socket or a fifo"


def test_a_folder_to_hash_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MachineFailed) as caught:
        hash_folder_contents(tmp_path / "absent", "sha256")
    assert str(caught.value) == f"cannot read the folder '{tmp_path}/absent': no such file or folder"


def test_hashing_is_shared_out_in_chunks_of_files_and_bytes() -> None:
    chunks, large = hashing._share_out([1] * 130 + [3 << 20] * 4 + [16 << 20])
    assert [len(chunk) for chunk in chunks] == [64, 64, 4, 2]
    assert large == [134]
