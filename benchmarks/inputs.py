"""The bytes that the rows work on, made once for a run: the same each time, no two blocks equal."""

from __future__ import annotations

import os
import random
from pathlib import Path

_BLOCK_BYTES = 1 << 20


def make_file(path: Path, size_bytes: int, *, seed: int = 1) -> Path:
    """A file of noise of this size. Nothing is made when it is there."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = random.Random(seed).randbytes(_BLOCK_BYTES)
    with open(path, "wb", buffering=0) as file:
        for block in range(-(-size_bytes // _BLOCK_BYTES)):
            data = block.to_bytes(8, "big") + noise[8:]
            file.write(data[: size_bytes - block * _BLOCK_BYTES])
    return path


def make_folder(path: Path, count: int, size_bytes: int, *, seed: int = 2) -> Path:
    """A folder of ``count`` files of this size, 200 in each sub-folder. Nothing is made when it is there."""
    if path.exists():
        return path
    generator = random.Random(seed)
    for index in range(count):
        folder = path / f"part{index // 200:04}"
        if index % 200 == 0:
            folder.mkdir(parents=True)
        descriptor = os.open(folder / f"file{index:06}.bin", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(descriptor, generator.randbytes(size_bytes))
        os.close(descriptor)
    return path
