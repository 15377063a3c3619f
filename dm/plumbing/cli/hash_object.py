"""``dm hash-object``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dm.errors import NotFound, UsageError
from dm.plumbing.cli.frame import Session, command, nul_option
from dm.plumbing.cli.stores import open_store, root_option
from dm.values import DIGEST_HEX_LENGTHS, Digest, Outcome

if TYPE_CHECKING:
    from dm.plumbing.store.disk import DiskStore


@command("hash-object")
@click.argument("paths", nargs=-1, metavar="PATH...")
@click.option("-w", "write", is_flag=True, help="Also store them; the files given are never touched.")
@click.option("--algo", metavar="A", help="A plain algorithm (sha256, md5, …) instead of the object id.")
@click.option("--stdin", "from_stdin", is_flag=True, help="Hash what comes on stdin.")
@click.option("--stdin-paths", is_flag=True, help="Read the paths from stdin, one a line (-z: NUL).")
@root_option
@nul_option
def COMMAND(  # noqa: N802
    session: Session,
    paths: tuple[str, ...],
    write: bool,
    algo: str | None,
    from_stdin: bool,
    stdin_paths: bool,
    root: str | None,
    nul: bool,
) -> None:
    """Print a digest a line: the object id of a file (BLAKE3, as b3sum) or folder (Merkle tree).

    With --algo a plain digest; of a folder that of its files' contents one after another, as the peers pin it.
    """
    import os
    import sys

    if sum((bool(paths), from_stdin, stdin_paths)) != 1:
        raise UsageError("give either paths, --stdin or --stdin-paths", hint="dm hash-object --help")
    if algo is not None and (algo not in DIGEST_HEX_LENGTHS or algo == "blake3-tree"):
        known = ", ".join(name for name in DIGEST_HEX_LENGTHS if name != "blake3-tree")
        raise UsageError(f"unknown algorithm '{algo}'", hint=f"known are {known}")
    if algo not in (None, "blake3") and write:
        raise UsageError("-w stores under the object id: it does not go with --algo")
    store = open_store(session, root, write=True) if write else None
    if from_stdin:
        digest = store.put_blob(sys.stdin.buffer) if store is not None else _hash_stdin(algo or "blake3")
        outcomes = [Outcome("-", "ok", digest=digest)]
    else:
        if stdin_paths:
            data = sys.stdin.buffer.read().split(b"\0" if nul else b"\n")
            paths = tuple(os.fsdecode(line) for line in data if line)
        outcomes = [_hash_path(session, store, path, algo) for path in paths]
    if store is not None and store.stat_cache is not None:
        store.stat_cache.close()
    _write(session, outcomes, nul=nul)


def _hash_stdin(algorithm: str) -> Digest:
    import os
    import sys

    from dm.plumbing.hashing import MultiHasher

    hasher = MultiHasher([algorithm])
    buffer = bytearray(1 << 20)
    with os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            hasher.update(memoryview(buffer)[:count])
    return hasher.digests()[algorithm]


def _hash_path(session: Session, store: DiskStore | None, name: str, algorithm: str | None) -> Outcome:
    from dm.plumbing.store.measure import measure_checksum, measure_copy

    path = session.resolve(name)
    _require_there(path, name)
    if store is not None:
        stored = store.ingest(path, write=True, progress=session.progress)
        return Outcome(name, "ok", path=path, digest=stored.digest, size_bytes=stored.size_bytes)
    if algorithm is not None:
        summed = measure_checksum(path, algorithm, progress=session.progress)
        if summed.checksum is None:
            raise NotFound(f"'{name}' has no {algorithm} checksum: a link in it leads nowhere", code="dangling-link")
        return Outcome(name, "ok", path=path, digest=summed.checksum, size_bytes=summed.size_bytes)
    measured = measure_copy(path, progress=session.progress)
    return Outcome(name, "ok", path=path, digest=measured.digest, size_bytes=measured.size_bytes)


def _require_there(path: Path, name: str) -> None:
    if not path.exists():
        raise NotFound(f"'{name}' does not exist", code="no-path")


def _write(session: Session, outcomes: list[Outcome], *, nul: bool) -> None:
    from dm.plumbing.cli.output import write_records

    session.finish(
        outcomes, draw=lambda found: write_records((str(outcome.digest) for outcome in found), nul=nul)
    )
