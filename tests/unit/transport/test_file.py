"""file: a file or a folder of this machine, copied and never touched."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from dm.errors import MachineFailed, Refused, SourceFailed
from dm.plumbing.transport.file import FileFetcher, read_file_path
from tests.fixtures.fetching import digests_of, fetch, measured, names_in
from tests.fixtures.machine import MakeImage, MakeTmpfs
from tests.fixtures.sinks import RecordingTask

LONG = os.urandom(3 << 20)


def test_a_file_is_copied_with_both_digests_and_stays_as_it_was(tmp_path: Path) -> None:
    source = tmp_path / "source.nc"
    source.write_bytes(LONG)
    before = source.stat()
    task = RecordingTask()
    fetched = fetch(FileFetcher(), source.as_uri(), tmp_path / "part", task=task)
    assert LONG == fetched.path.read_bytes()
    assert digests_of(LONG) == measured(fetched)
    assert (len(LONG), len(LONG), len(LONG)) == (fetched.size_bytes, task.done, task.total)
    after = source.stat()
    assert (before.st_ino, 1, before.st_mode, before.st_mtime_ns) == (
        after.st_ino,
        after.st_nlink,
        after.st_mode,
        after.st_mtime_ns,
    )
    assert after.st_ino != fetched.path.stat().st_ino


def test_a_file_on_btrfs_is_cloned_and_measured_the_same(tmp_path: Path, image_file_system: MakeImage) -> None:
    disk = image_file_system("btrfs")
    (disk / "source").write_bytes(LONG)
    (disk / "source").chmod(0o500)
    fetched = fetch(FileFetcher(), (disk / "source").as_uri(), disk / "part")
    assert (LONG, digests_of(LONG)) == (fetched.path.read_bytes(), measured(fetched))
    assert (disk / "source").stat().st_ino != fetched.path.stat().st_ino
    # The copy can be written and still run.
    assert stat.S_IRWXU == fetched.path.stat().st_mode & stat.S_IRWXU
    (disk / "empty").touch()
    assert 0 == fetch(FileFetcher(), (disk / "empty").as_uri(), disk / "part").size_bytes


@pytest.mark.parametrize(("mode", "expected"), [(0o644, 0), (0o400, 0), (0o755, stat.S_IXUSR), (0o4755, stat.S_IXUSR)])
def test_a_program_stays_one_and_set_uid_is_dropped(tmp_path: Path, mode: int, expected: int) -> None:
    source = tmp_path / "run"
    source.write_text("#!/bin/sh\n")
    source.chmod(mode)
    copied = fetch(FileFetcher(), source.as_uri(), tmp_path / "part").path.stat().st_mode
    assert (expected, 0) == (copied & stat.S_IXUSR, copied & (stat.S_ISUID | stat.S_ISGID))


def test_what_an_earlier_run_left_is_replaced(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"new")
    (tmp_path / "part" / "data.bin").mkdir(parents=True)
    (tmp_path / "part" / "data.bin" / "old").touch()
    assert b"new" == fetch(FileFetcher(), source.as_uri(), tmp_path / "part").path.read_bytes()


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///a/b", "/a/b"),
        ("file://localhost/a/b", "/a/b"),
        ("FILE:/a/b", "/a/b"),
        ("file:///a%20b/%C3%BC", "/a b/ü"),
        ("file:///a%3Fb%23c", "/a?b#c"),
        ("file:///a/b?format=csv#v2", "/a/b"),
        ("file:///%FF", os.fsdecode(b"/\xff")),
    ],
)
def test_a_file_uri_names_a_path(uri: str, path: str) -> None:
    assert Path(path) == read_file_path(uri)


@pytest.mark.parametrize(
    ("uri", "fault"),
    [
        ("file://server/a", "a file URI names this machine, not 'server'"),
        ("file:a/b", "its path is not absolute"),
        ("file:", "its path is not absolute"),
        ("file://localhost", "its path is not absolute"),
        ("file:///a%00b", "its path holds a NUL"),
    ],
)
def test_a_file_uri_that_names_no_path_here_is_an_error(uri: str, fault: str) -> None:
    with pytest.raises(SourceFailed) as caught:
        read_file_path(uri)
    assert f"cannot fetch '{uri}': {fault}" == caught.value.message
    assert ("write file:///path/from/the/root", 5) == (caught.value.hint, caught.value.exit_status)


@pytest.mark.parametrize("name", ["missing", "a-file/below"])
def test_a_file_that_is_not_there_is_a_failed_source(tmp_path: Path, name: str) -> None:
    (tmp_path / "a-file").touch()
    uri = (tmp_path / name).as_uri()
    with pytest.raises(SourceFailed) as caught:
        fetch(FileFetcher(), uri, tmp_path / "part")
    assert f"cannot fetch '{uri}': there is no '{tmp_path / name}'" == caught.value.message
    assert ("check the 'uri'; is the disk mounted?", 5) == (caught.value.hint, caught.value.exit_status)
    assert [] == names_in(tmp_path / "part")


def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    uri = (tmp_path / "fifo").as_uri()
    with pytest.raises(Refused) as caught:
        fetch(FileFetcher(), uri, tmp_path / "part")
    assert f"cannot fetch '{uri}': it is neither a file nor a folder" == caught.value.message
    assert "datasets hold files, folders and links only" == caught.value.hint


def test_a_file_that_changes_while_it_is_copied_is_not_taken(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(LONG)

    class Changing(RecordingTask):
        def advance(self, amount: int) -> None:
            with source.open("ab") as file:
                file.write(b"more")

    with pytest.raises(SourceFailed) as caught:
        fetch(FileFetcher(), source.as_uri(), tmp_path / "part", task=Changing())
    assert f"cannot fetch '{source.as_uri()}': the file changed while it was copied" == caught.value.message
    assert "wait until whoever writes it is done, then try again" == caught.value.hint
    assert [] == names_in(tmp_path / "part")


def test_a_folder_is_copied_with_modes_and_inner_links(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep" / "empty").mkdir(parents=True)
    (source / "a file").write_bytes(LONG)
    (source / "run").write_bytes(b"#!/bin/sh\n")
    (source / "run").chmod(0o755)
    (source / "deep" / "locked").write_bytes(b"x")
    (source / "deep" / "locked").chmod(0o444)
    (source / "deep" / "link").symlink_to("../a file")
    (source / "dangling").symlink_to("nowhere")
    (source / "empty file").touch()
    task = RecordingTask()
    fetched = fetch(FileFetcher(), source.as_uri(), tmp_path / "part", file_name="tree", task=task)
    assert tmp_path / "part" / "tree" == fetched.path
    assert LONG == (fetched.path / "a file").read_bytes()
    assert 0o755 == stat.S_IMODE((fetched.path / "run").stat().st_mode)
    assert b"x" == (fetched.path / "deep" / "locked").read_bytes()
    assert "../a file" == os.readlink(fetched.path / "deep" / "link")
    assert "nowhere" == os.readlink(fetched.path / "dangling")
    assert ["a file", "dangling", "deep", "empty file", "run"] == names_in(fetched.path)
    assert ["empty", "link", "locked"] == names_in(fetched.path / "deep")
    size_bytes = len(LONG) + 10 + 1
    assert ({}, size_bytes, size_bytes, size_bytes) == (fetched.digests, fetched.size_bytes, task.done, task.total)


@pytest.mark.parametrize("text", ["/etc/passwd", "..", "../../x", "deep/../../x"])
def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path: Path, text: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "link").symlink_to(text)
    with pytest.raises(Refused) as caught:
        fetch(FileFetcher(), source.as_uri(), tmp_path / "part")
    expected = f"cannot copy the link '{source / 'link'}': it leads out of the folder, to '{text}'"
    assert (expected, 6) == (caught.value.message, caught.value.exit_status)
    assert "put a copy of what it leads to in its place" == caught.value.hint
    assert [] == names_in(tmp_path / "part")


def test_a_folder_with_a_fifo_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "data").write_bytes(LONG)
    os.mkfifo(source / "fifo")
    with pytest.raises(Refused):
        fetch(FileFetcher(), source.as_uri(), tmp_path / "part")
    assert [] == names_in(tmp_path / "part")


def test_a_folder_that_holds_the_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(Refused) as caught:
        fetch(FileFetcher(), tmp_path.as_uri(), tmp_path / "store" / "part")
    assert f"cannot copy '{tmp_path}': the store itself lies in it" == caught.value.message
    assert "name the folder that holds the data only" == caught.value.hint


def test_a_disk_that_is_full_is_an_error_of_this_machine(tmp_path: Path, small_tmpfs: MakeTmpfs) -> None:
    disk = small_tmpfs(1 << 20)
    (tmp_path / "source").write_bytes(LONG)
    with pytest.raises(MachineFailed) as caught:
        fetch(FileFetcher(), (tmp_path / "source").as_uri(), disk / "part")
    assert f"cannot write '{disk / 'part' / 'data.bin'}': disk full" == caught.value.message
    (tmp_path / "folder").mkdir()
    (tmp_path / "source").rename(tmp_path / "folder" / "big")
    with pytest.raises(MachineFailed) as caught:
        fetch(FileFetcher(), (tmp_path / "folder").as_uri(), disk / "part")
    assert f"cannot write '{disk / 'part' / 'data.bin' / 'big'}': disk full" == caught.value.message
    assert [] == names_in(disk / "part")
