"""``dm fetch-uri``."""

from __future__ import annotations

import os

import click

from dm.errors import ContentMismatch, Refused, UsageError
from dm.plumbing.cli.frame import Session, command
from dm.plumbing.cli.stores import open_places_here, parse_digest
from dm.values import DIGEST_HEX_LENGTHS, Outcome


@command("fetch-uri")
@click.argument("uri")
@click.argument("destination", metavar="DEST")
@click.option("--algo", metavar="A", default="sha256", show_default=True, help="The algorithm of the digest printed.")
@click.option("--digest", "expected", metavar="D", help="What it must be; anything else is not put in place (exit 4).")
def COMMAND(session: Session, uri: str, destination: str, algo: str, expected: str | None) -> None:  # noqa: N802
    """Download one URI to DEST and print the digest of what arrived. Run again after a kill, it asks for the rest only.

    DEST must not exist. What has arrived so far lies beside it in .DEST.part and goes away when DEST is there.
    """
    from dm.plumbing.cli.output import write_records
    from dm.plumbing.fs.publish import ensure_folder, flush_file_systems, place, remove_tree
    from dm.plumbing.transport.protocol import FetchRequest
    from dm.plumbing.transport.registry import find_fetcher
    from dm.porcelain.project import make_fetchers

    declared = None if expected is None else parse_digest(expected, bare="sha256")
    algorithm = algo if declared is None else declared.algorithm
    if algorithm not in DIGEST_HEX_LENGTHS or algorithm == "blake3-tree":
        raise UsageError(f"unknown algorithm '{algorithm}'", hint="sha256, md5, sha1, sha512, blake2b or blake3")
    target = session.resolve(destination)
    if os.path.lexists(target):
        raise Refused(f"'{destination}' exists", hint="remove it, or choose another DEST", code="place-taken")
    folder = target.with_name(f".{target.name}.part")
    ensure_folder(folder)
    algorithms = tuple(dict.fromkeys((algorithm, "blake3")))
    with make_fetchers(open_places_here(session)) as fetchers, session.progress.start(target.name) as task:
        request = FetchRequest(uri, folder, "data", algorithms)
        fetched = find_fetcher(uri, fetchers).fetch(request, task=task, progress=session.progress)
    digest = fetched.digests.get(algorithm)
    if digest is None:
        from dm.plumbing.store.measure import measure_copy

        digest = measure_copy(fetched.path).digest
    if declared is not None and digest != declared:
        remove_tree(folder)
        message = f"'{uri}' gave {digest}, not {declared}; nothing was put in place"
        raise ContentMismatch(message, code="checksum-mismatch")
    flush_file_systems([fetched.path])
    if not place(fetched.path, target):
        raise Refused(f"'{destination}' came to exist meanwhile", code="place-taken")
    remove_tree(folder)
    outcome = Outcome(uri, "ok", path=target, digest=digest, size_bytes=fetched.size_bytes)
    session.finish([outcome], draw=lambda _found: write_records([str(digest)]))
