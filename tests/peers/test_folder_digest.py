"""The digest of a folder in a plain algorithm is the one that the Python peer computes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dm.plumbing.hashing import hash_folder_contents


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_the_peer_computes_the_same_folder_digest(tmp_path: Path, peer_executable: Path, algorithm: str) -> None:
    top = tmp_path / "folder"
    for name in ("z", "a.txt", "B", "b/1", "b/x/2", "b-x/9", "a/3", "é/4", "a/ /5", "a/.hidden/6", "日本/7"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(os.urandom(3000))
    (top / ".complete").touch()
    (top / "b" / "0").symlink_to("../z")
    (top / "linked").symlink_to("a")
    script = "import sys; from datamanifest.config import hash_folder; print(hash_folder(*sys.argv[1:]))"
    done = subprocess.run(
        [str(peer_executable.parent / "python"), "-c", script, str(top), algorithm],
        capture_output=True,
        text=True,
        check=True,
    )
    ours = hash_folder_contents(top, algorithm)
    assert ours is not None
    assert ours.hex == done.stdout.strip().rpartition(":")[2]
