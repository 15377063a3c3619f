"""What is staged beside its place: nobody sees it, it goes at the end, and a killed one's goes with the next."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dm.errors import Refused
from dm.plumbing.fs.beside import Beside
from dm.plumbing.fs.publish import place
from dm.plumbing.fs.temporary import is_temporary, is_temporary_of, temporary_name

HOLD = """
import sys
from pathlib import Path
from dm.plumbing.fs.beside import Beside
with Beside(Path(sys.argv[1])) as staged:
    staged.mkdir()
    (staged / "half").write_bytes(b"half")
    print("there", flush=True)
    sys.stdin.read()
"""


def hold(target: Path) -> subprocess.Popen[bytes]:
    """A process that stages beside ``target`` until its standard input ends."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, target], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert b"there\n" == process.stdout.readline()
    return process


def test_what_was_staged_is_renamed_and_its_folder_goes(tmp_path: Path) -> None:
    target = tmp_path / "new" / "copy"
    with Beside(target) as staged:
        assert not staged.exists()
        staged.write_bytes(b"data")
        assert place(staged, target)
    assert b"data" == target.read_bytes()
    assert ["copy"] == os.listdir(target.parent)


def test_what_was_not_renamed_goes_with_a_fault(tmp_path: Path) -> None:
    with pytest.raises(KeyError), Beside(tmp_path / "copy") as staged:
        staged.mkdir()
        (staged / "part").write_bytes(b"part")
        raise KeyError
    assert [] == os.listdir(tmp_path)


def test_what_a_killed_one_left_goes_with_the_next_and_what_is_in_use_stays(tmp_path: Path) -> None:
    target = tmp_path / "copy"
    dead = hold(target)
    dead.kill()
    dead.communicate()
    (left,) = os.listdir(tmp_path)
    living = hold(target)
    (used,) = os.listdir(tmp_path)
    assert left != used
    with Beside(target):
        assert used in os.listdir(tmp_path)
        assert 2 == len(os.listdir(tmp_path))
    assert [used] == os.listdir(tmp_path)
    living.communicate()
    assert (0, []) == (living.returncode, os.listdir(tmp_path))


def test_what_is_anothers_stays(tmp_path: Path) -> None:
    others = [temporary_name("copy-1"), temporary_name("copy-1-2"), temporary_name(), ".dm-copy-1.tmp", "copy"]
    for name in others:
        (tmp_path / name).mkdir()
    (tmp_path / temporary_name("copy")).write_bytes(b"a file is nobody's folder")
    before = sorted(os.listdir(tmp_path))
    with Beside(tmp_path / "copy"):
        pass
    assert before == sorted(os.listdir(tmp_path))


def test_without_flock_nothing_is_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / temporary_name("copy")
    left.mkdir()

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with Beside(tmp_path / "copy") as staged:
        staged.write_bytes(b"data")
    assert [left.name] == os.listdir(tmp_path)


def test_a_file_where_a_folder_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Refused) as caught, Beside(tmp_path / "file" / "copy"):
        pass
    assert f"cannot put anything at '{tmp_path}/file': something else is in the way" == caught.value.message


@pytest.mark.parametrize("name", ["a", "datamanifest.toml", "-", "é" * 120, "\U0001f30d" * 60, "a.tmp", "*[x]"])
def test_a_temporary_name_is_known_to_be_its_targets_and_fits_everywhere(name: str) -> None:
    made = temporary_name(name)
    assert is_temporary(made) and is_temporary_of(name, made)
    assert not is_temporary_of("other", made)
    assert len(os.fsencode(made)) < 240
