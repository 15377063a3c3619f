"""One locked read-merge-rename, whatever happens meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dm.errors import MachineFailed
from dm.plumbing.records.private import ensure_private_folder
from dm.plumbing.records.rewrite import RecordFile, Rewrite, RewriteOptions, rewrite_record


def options(folder: Path) -> RewriteOptions:
    return RewriteOptions(folder / "lock", "the record")


def test_a_record_that_never_rests_is_given_up_with_a_message_and_without_litter(tmp_path: Path) -> None:
    path = tmp_path / "record.toml"

    def build(found: list[RecordFile]) -> Rewrite:
        path.write_bytes((found[0].content or b"") + b"#")  # another program, every time
        return Rewrite(found[0], b"ours")

    with pytest.raises(MachineFailed) as caught:
        rewrite_record([path], build, options(tmp_path))
    assert caught.value.message == f"cannot write '{path}': another program keeps changing it"
    assert caught.value.hint == "wait until it is done, then run the command again"
    assert set(path.read_bytes()) == set(b"#")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["lock", "record.toml"]


def test_a_fault_while_building_leaves_everything_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "record.toml"
    path.write_bytes(b"old")

    def build(found: list[RecordFile]) -> Rewrite:
        raise KeyError("no")

    with pytest.raises(KeyError):
        rewrite_record([path], build, options(tmp_path))
    assert path.read_bytes() == b"old"


def test_what_is_to_be_removed_goes_after_the_new_record_lies_there(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    second.write_bytes(b"2")
    gone = tmp_path / "gone"
    rewrite_record([first, second], lambda found: Rewrite(found[0], b"12", [second, gone]), options(tmp_path))
    assert (first.read_bytes(), second.exists()) == (b"12", False)


KILLED = """
import os, signal, sys
from pathlib import Path
from dm.plumbing.records import rewrite
def kill(staged, target):
    os.kill(os.getpid(), signal.SIGKILL)
rewrite.replace = kill
path = Path(sys.argv[1])
options = rewrite.RewriteOptions(path.with_name("lock"), "the record")
rewrite.rewrite_record([path], lambda found: rewrite.Rewrite(found[0], b"theirs"), options)
"""


def test_what_a_killed_writer_staged_goes_with_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "record.toml"
    path.write_bytes(b"old")
    killed = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert -signal.SIGKILL == killed.returncode
    assert (b"old", 3) == (path.read_bytes(), len(list(tmp_path.iterdir())))
    rewrite_record([path], lambda found: Rewrite(found[0], b"ours"), options(tmp_path))
    assert b"ours" == path.read_bytes()
    assert ["lock", "record.toml"] == sorted(entry.name for entry in tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(MachineFailed) as caught:
        ensure_private_folder(tmp_path)
    tmp_path.chmod(0o755)
    assert caught.value.message == f"cannot make the folder '{tmp_path}/.datamanifest': permission denied"


def test_the_private_folder_ignores_itself_and_keeps_a_users_own_ignore_file(tmp_path: Path) -> None:
    folder = ensure_private_folder(tmp_path)
    assert (folder, (folder / ".gitignore").read_text()) == (tmp_path / ".datamanifest", "*\n")
    (folder / ".gitignore").write_text("state.toml\n")
    assert ensure_private_folder(tmp_path) == folder
    assert (folder / ".gitignore").read_text() == "state.toml\n"
    assert [entry.name for entry in folder.iterdir()] == [".gitignore"]
