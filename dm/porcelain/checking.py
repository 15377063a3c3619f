"""Hold what was brought into a dataset's private place against its contract; unpack it first where it is an archive.

The same for bytes that a transport brought and for those that code of the manifest made. What fails its contract is
never published.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from dm.errors import ContentMismatch, Refused, SourceFailed
from dm.plumbing.fs.machine import display_path
from dm.plumbing.fs.publish import remove_tree
from dm.plumbing.store.measure import measure_checksum, measure_copy, scan_copy
from dm.porcelain.staging import Staged, Staging
from dm.values import Digest

if TYPE_CHECKING:
    from pathlib import Path

    from dm.plumbing.formats.archive import ArchiveLimits
    from dm.plumbing.fs.walk import Entry
    from dm.plumbing.records.dataset import Dataset
    from dm.plumbing.transport.protocol import Fetched
    from dm.porcelain.project import Project
    from dm.progress import Task

#: Bytes read at once where a file is measured.
_READ_BYTES = 1 << 20


def list_algorithms(dataset: Dataset, expected: Digest | None = None) -> tuple[str, ...]:
    """What is to be measured of a file: the contract's algorithm (sha256 where there is none yet), what its publisher
    gave, and always blake3.
    """
    wanted = [] if expected is None else [expected.algorithm]
    if not dataset.skip_checksum:
        wanted.insert(0, "sha256" if dataset.checksum is None else dataset.checksum.algorithm)
    return (*dict.fromkeys(each for each in wanted if each != "blake3"), "blake3")


def check_arrived(project: Project, dataset: Dataset, fetched: Fetched, staging: Staging) -> Staged:
    """Check one file, folder or archive that arrived. Raises `ContentMismatch`, and what unpacking raises."""
    if dataset.extract:
        return _unpack(project, dataset, fetched, staging)
    if not fetched.digests:  # a folder
        staged = check_folder(dataset, fetched.path, staging, is_repository=fetched.revision is not None)
        return staged._replace(revision=fetched.revision)
    return _check_file(dataset, fetched, staging)


def measure_file(path: Path, algorithms: Iterable[str], task: Task | None = None) -> Fetched:
    """What lies at ``path``, read once and measured as a download would have been. Raises `MachineFailed`."""
    from dm.plumbing.fs.machine import machine_errors
    from dm.plumbing.hashing import MultiHasher
    from dm.plumbing.transport.protocol import Fetched

    with machine_errors("read", path), open(path, "rb", buffering=0) as file, MultiHasher(algorithms) as hasher:
        buffer = memoryview(bytearray(_READ_BYTES))
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
            if task is not None:
                task.advance(count)
        return Fetched(path, hasher.digests(), hasher.size_bytes)


def _check_file(dataset: Dataset, fetched: Fetched, staging: Staging) -> Staged:
    blob = fetched.digests["blake3"]
    others = tuple(digest for digest in fetched.digests.values() if digest.algorithm != "blake3")
    fill: dict[str, str] = {}
    if not dataset.skip_checksum:
        if dataset.digest is not None:
            raise _mismatch(dataset, blob, dataset.digest, field="digest")
        if dataset.checksum is None:
            fill["checksum"] = str(fetched.digests["sha256"])
        elif fetched.digests[dataset.checksum.algorithm] != dataset.checksum:
            found = fetched.digests[dataset.checksum.algorithm]
            raise _mismatch(dataset, found, dataset.checksum, field="checksum")
    sha256 = fetched.digests.get("sha256")
    return Staged(fetched.path, staging, blob, others, fill=fill, sha256=sha256.hex if sha256 else None)


def _unpack(project: Project, dataset: Dataset, fetched: Fetched, staging: Staging) -> Staged:
    from dm.plumbing.formats.archive import find_archive_format, unpack

    if fetched.path.is_dir():
        remove_tree(staging.own_folder)
        raise SourceFailed(
            f"cannot extract '{dataset.name}': its source is a folder",
            hint=f"take 'extract' out of [{dataset.name}]",
            code="not-an-archive",
        )
    archive_format = dataset.archive_format or find_archive_format(dataset.key.text.partition("#")[0])
    if archive_format is None:
        raise SourceFailed(
            f"cannot extract '{dataset.name}': '{dataset.key}' names no archive format",
            hint="set 'format' to zip, tar, tar.gz, tar.bz2, tar.xz or tar.zst",
            code="not-an-archive",
        )
    checksum, tree = dataset.checksum, staging.own_folder / "tree"
    is_archive_contract = checksum is not None and fetched.digests.get(checksum.algorithm) == checksum
    remove_tree(tree)
    with project.progress.start(f"unpack {dataset.name}", total=fetched.size_bytes) as unpacking:
        try:
            unpack(fetched.path, archive_format, tree, limits=_read_limits(project), task=unpacking)
        except SourceFailed:
            remove_tree(staging.own_folder)  # it arrived whole and is no archive: the next run has to ask for it again
            raise
    staged = check_folder(dataset, tree, staging, proven=is_archive_contract)
    fetched.path.unlink()
    return staged


def check_folder(
    dataset: Dataset, tree: Path, staging: Staging, *, proven: bool = False, is_repository: bool = False
) -> Staged:
    """Hold a staged folder against its contract. ``proven``: the archive it came from was what was declared.

    ``is_repository`` says that it is the working copy of a repository, which the peers pin in a way that no second
    clone gives again (SCHEMA.md, "Checksums").
    """
    if dataset.skip_checksum:
        _refuse_leaving_links(dataset, tree, scan_copy(tree))
        return Staged(tree, staging)
    measured = measure_copy(tree)
    _refuse_leaving_links(dataset, tree, measured.entries)
    digest = measured.digest
    fill: dict[str, str] = {}
    checksum = dataset.checksum
    if dataset.digest is not None and dataset.digest != digest:
        raise _mismatch(dataset, digest, dataset.digest, field="digest")
    contents: Digest | None = None
    if checksum is None:
        contents = None if is_repository else measure_checksum(tree, "sha256").checksum
        if contents is not None:
            fill["checksum"] = str(contents)
    elif not proven and dataset.digest is None:
        contents = measure_checksum(tree, checksum.algorithm).checksum
        if contents != checksum:
            mismatch = _mismatch(dataset, contents or digest, checksum, field="checksum")
            raise _explain_repository(dataset, mismatch) if is_repository else mismatch
    if dataset.digest is None:
        fill["digest"] = str(digest)
    sha256 = contents.hex if contents is not None and contents.algorithm == "sha256" else None
    return Staged(tree, staging, tree=measured, fill=fill, sha256=sha256)


def _refuse_leaving_links(dataset: Dataset, tree: Path, entries: Sequence[Entry]) -> None:
    """Raise `Refused` for a link that leads out of a folder, also through another one, wherever the folder came from:
    who reads it would be handed bytes that no digest speaks of.
    """
    top = os.fsencode(tree)
    links = {each.name: os.readlink(top + b"/" + each.name) for each in entries if each.kind == "link"}
    if not links:
        return
    from dm.plumbing.formats.archive.links import leads_outside

    for link, target in links.items():
        if target.startswith(b"/") or leads_outside(link, links, lambda name: name):
            raise Refused(
                f"cannot take in '{dataset.name}': "
                f"the link '{display_path(link)}' leads out of it, to '{display_path(target)}'",
                hint="put a copy of what it leads to in its place",
                code="link-leaves",
            )


def check_expected(dataset: Dataset, file_name: str, fetched: Fetched, expected: Digest | None) -> None:
    """Hold one file against the digest that its publisher gives for it. Raises `ContentMismatch` that names it."""
    found = None if expected is None else fetched.digests.get(expected.algorithm)
    if expected is not None and found is not None and found != expected:
        raise ContentMismatch(
            f"'{file_name}' of '{dataset.name}' is not what its publisher says: the source gave {found}, "
            f"the record says {expected}",
            hint="try again later; if it stays so, tell the publisher",
            code="checksum-mismatch",
        )


def _mismatch(dataset: Dataset, found: Digest, declared: Digest, *, field: str) -> ContentMismatch:
    return ContentMismatch(
        f"'{dataset.name}' is not what the manifest declares: the source gave {found}, '{field}' is {declared}",
        hint=f"nothing was changed; if the source's new content is right, correct '{field}' of [{dataset.name}]",
        code="checksum-mismatch",
    )


def _explain_repository(dataset: Dataset, mismatch: ContentMismatch) -> ContentMismatch:
    return ContentMismatch(
        mismatch.message,
        hint="the peers' checksum of a repository covers its '.git', which no second clone gives again: "
        f"delete 'checksum' of [{dataset.name}]: fetch then fills in 'digest', as dm pin does of a copy that is there",
        code=mismatch.code,
    )


def _read_limits(project: Project) -> ArchiveLimits:
    from dm.plumbing.formats.archive import ArchiveLimits

    places = project.places
    ratio, total_bytes, members = (places.number(f"archive_max_{name}") for name in ("ratio", "bytes", "files"))
    limits = ArchiveLimits()
    return limits._replace(
        ratio=limits.ratio if ratio is None else ratio,
        total_bytes=limits.total_bytes if total_bytes is None else int(total_bytes),
        members=limits.members if members is None else int(members),
    )
