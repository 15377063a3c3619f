"""Bring one dataset's bytes into staging, verified: from an object that a store holds, else from its source.

Nothing here is visible to anyone yet: what is obtained lies in a private partial folder, its copy's lock is held, and
`materialize` publishes it together with others. A partial folder survives a kill and is gone on from; it goes away when
its content was published or failed its contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from dm.errors import ContentMismatch, MachineFailed, Malformed, Refused, SourceFailed
from dm.plumbing import hashing
from dm.plumbing.fs.publish import ensure_folder, remove_tree
from dm.plumbing.store.measure import Measured, measure_checksum, measure_copy
from dm.porcelain.integrity import find_contract
from dm.progress import Progress, Task
from dm.values import Digest, Key, quote_word

if TYPE_CHECKING:
    from dm.plumbing.formats.archive import ArchiveLimits
    from dm.plumbing.records.dataset import Dataset
    from dm.plumbing.store.disk import DiskStore
    from dm.plumbing.store.publishing import Published
    from dm.plumbing.transport.protocol import Fetched
    from dm.porcelain.copies import Copy
    from dm.porcelain.project import Project


class Staging:
    """The private place of one dataset's bytes on their way to theirs: the same for every run, so that a killed one is
    gone on from.

    ``folder`` is shared by all; what is one file (or a folder that a source is) arrives there as ``name``, since making
    and removing a folder for each would cost as much as fetching a small file. What takes several files has a folder
    of its own, `make_folder`.
    """

    __slots__ = ("folder", "name", "root")

    def __init__(self, folder: Path, name: str, root: Path | None) -> None:
        self.folder = folder
        self.name = name
        self.root = root  # of the store, whose group a folder is shared with

    @property
    def own_folder(self) -> Path:
        """Where the folder of this dataset's own lies, or would lie."""
        return self.folder / f"{self.name}.d"

    def make_folder(self) -> Path:
        """Make the folder of this dataset's own, unless it is there; return it."""
        folder = self.own_folder
        ensure_folder(folder, root=self.root)
        return folder

    def clear(self) -> None:
        """Remove what is left: nothing of it can, or need, be gone on from."""
        from dm.plumbing.transport.journal import fresh_path, journal_path

        entry = self.folder / self.name
        journal = journal_path(entry)
        for path in (fresh_path(journal), journal, entry, self.own_folder):
            remove_tree(path)


class Staged(NamedTuple):
    """A dataset's bytes, complete and checked, ready to be published.

    ``entry`` is the file or folder and ``staging`` the private place that holds it, to be cleared in the end.
    ``blob`` is a file's id, measured while it arrived, ``aliases`` the other digests of the same pass, ``tree`` what
    was measured of a folder; ``fill`` is what the manifest's entry is to be completed with, ``sha256`` what the state
    record says.
    """

    entry: Path
    staging: Staging
    blob: Digest | None = None
    aliases: tuple[Digest, ...] = ()
    tree: Measured | None = None
    fill: Mapping[str, str] = MappingProxyType({})
    sha256: str | None = None
    from_object: bool = False


def find_staging(project: Project, dataset: Dataset, copy: Copy) -> Staging:
    """The private place of one dataset's bytes, on the file system of the copy where a store is there."""
    identity = f"{dataset.source_id}\n{copy.path}"
    name = hashing.blake3_of(identity.encode("utf-8", "surrogateescape")).hex()
    if copy.store is not None:
        return Staging(copy.store.partials(), name, copy.store.root)
    folder = project.ensure_private_folder() / "partial"
    ensure_folder(folder)
    return Staging(folder, name, None)


def link_from_objects(project: Project, dataset: Dataset, copy: Copy) -> Published | None:
    """Make the copy from an object that its own store holds under the declared digest; None when it holds none.

    One physical copy then serves this place too. The object is verified first, by reading it unless the stat cache
    vouches for it; one that fails is told and passed over. The caller holds the copy's lock.
    """
    contract = _find_object_contract(dataset)
    if contract is None or copy.store is None or copy.exists():
        return None
    known = copy.store.find_by_digest(contract)
    if known is None or not _has_checksum(project, copy.store, known, contract):
        return None
    try:
        return copy.store.publish_object(known, copy.path, dataset.source_id)
    except ContentMismatch as error:
        project.progress.warn(f"{error.message}; looking further")
        return None


def obtain_from_objects(project: Project, dataset: Dataset, copy: Copy, staging: Staging) -> Staged | None:
    """Stage a dataset from an object that another reachable store holds under its declared digest; None: none does."""
    contract = _find_object_contract(dataset)
    if contract is None:
        return None
    for root in project.list_store_roots():
        store = project.open_store(root)
        if store is copy.store:
            continue
        known = store.find_by_digest(contract)
        if known is None or not _has_checksum(project, store, known, contract):
            continue
        entry = staging.make_folder() / "object"
        remove_tree(entry)
        try:
            # What becomes the user's own file must not share its bytes with the object: it may be written to.
            store.checkout(known, entry, modes=("reflink", "copy") if copy.store is None else None)
        except ContentMismatch as error:
            project.progress.warn(f"{error.message}; looking further")
            continue
        sha256 = contract.hex if contract.algorithm == "sha256" else None
        if known.is_tree:
            return Staged(entry, staging, tree=measure_copy(entry), sha256=sha256, from_object=True)
        aliases = () if contract == known else (contract,)
        return Staged(entry, staging, known, aliases, sha256=sha256, from_object=True)
    return None


def _has_checksum(project: Project, store: DiskStore, known: Digest, contract: Digest) -> bool:
    """Whether an object has the declared checksum. An alias only hints at it: the object is read, unless the stat
    cache knows its checksum.
    """
    if contract.algorithm == known.algorithm:
        return True
    cache, path = project.stat_cache, store.object_path(known)
    found = measure_checksum(path, contract.algorithm, stat_cache=cache, quick=True, ref_root=store.root)
    if found.checksum == contract or found.digest != known:
        return True  # a damaged object is found out, and told, where it is linked
    project.progress.warn(f"object {known.short} in '{store.root}' is not {contract.short}; looking further")
    return False


def _find_object_contract(dataset: Dataset) -> Digest | None:
    """The digest under which a store may hold the dataset; an archive's own checksum is no folder's."""
    return None if dataset.extract and dataset.digest is None else find_contract(dataset)


def obtain_from_source(
    project: Project, dataset: Dataset, staging: Staging, *, task: Task, progress: Progress
) -> Staged:
    """Fetch, verify and, for an archive, unpack one dataset into its private place.

    Raises `SourceFailed`, `Refused` or `MachineFailed` as the transport does, and `ContentMismatch` when the bytes are
    not what the manifest declares. The private place is cleared when nothing in it can be gone on from: what was
    refused, what is not what was declared, an archive that is none, a source that gave nothing.
    """
    _refuse_code(dataset)
    if not dataset.uris:
        raise SourceFailed(
            f"there is nothing to fetch '{dataset.name}' from: it has no 'uri'",
            hint=f"add a 'uri' to it, or put the data where dm resolve-path {quote_word(dataset.name)} points",
            code="no-source",
        )
    try:
        if dataset.is_list:
            return _obtain_list(project, dataset, staging, task=task, progress=progress)
        uri = dataset.uris[0]
        if dataset.extract:
            folder = staging.make_folder()
            fetched = _fetch(project, dataset, uri, folder, "data", task=task, progress=progress)
            return _unpack(project, dataset, fetched, staging)
        fetched = _fetch(project, dataset, uri, staging.folder, staging.name, task=task, progress=progress)
        if not fetched.digests:  # a folder: the store measures it
            return _check_folder(dataset, fetched.path, staging)
        return _check_file(dataset, fetched, staging)
    except (ContentMismatch, Refused, Malformed):
        staging.clear()
        raise
    except SourceFailed:
        if not any(path.is_file() for path in staging.own_folder.rglob("*")):
            remove_tree(staging.own_folder)
        raise


def _refuse_code(dataset: Dataset) -> None:
    """Raise `SourceFailed` for a dataset that code of the manifest is to bring: such code comes before the URI on the
    ladder, and passing over it would hand out other bytes than the manifest means.
    """
    table = dataset.table
    explicit: object = table
    for name in ("_LANG", "python", "fetcher"):
        explicit = explicit.get(name) if isinstance(explicit, Mapping) else None
    code = "fetcher" if explicit or table.get("fetcher") else "shell" if table.get("shell") else None
    if code is not None:
        place = f"dm resolve-path {quote_word(dataset.name)}"
        raise SourceFailed(
            f"'{dataset.name}' is brought by a '{code}', and this version of dm runs no code of a manifest",
            hint=f"fetch it with the tool that does, or put the data where {place} points",
            code="no-code",
        )


def _fetch(
    project: Project, dataset: Dataset, uri: str, folder: Path, name: str, *, task: Task, progress: Progress
) -> Fetched:
    from dm.plumbing.transport.protocol import FetchRequest
    from dm.plumbing.transport.registry import find_fetcher

    checksum = None if dataset.skip_checksum else dataset.checksum
    algorithms = ["blake3"]
    if not dataset.skip_checksum:
        wanted = "sha256" if checksum is None else checksum.algorithm
        if wanted != "blake3":
            algorithms.insert(0, wanted)
    request = FetchRequest(uri, folder, name, tuple(algorithms), None if dataset.extract else dataset.format)
    return find_fetcher(uri, project.fetchers).fetch(request, task=task, progress=progress)


def _mismatch(dataset: Dataset, found: Digest, declared: Digest, *, field: str) -> ContentMismatch:
    return ContentMismatch(
        f"'{dataset.name}' is not what the manifest declares: the source gave {found}, '{field}' is {declared}",
        hint=f"nothing was changed; if the source's new content is right, correct '{field}' of [{dataset.name}]",
        code="checksum-mismatch",
    )


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
        raise SourceFailed(f"cannot extract '{dataset.name}': its source is a folder", code="not-an-archive")
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
    staged = _check_folder(dataset, tree, staging, proven=is_archive_contract)
    fetched.path.unlink()
    return staged


def _check_folder(dataset: Dataset, tree: Path, staging: Staging, *, proven: bool = False) -> Staged:
    """Hold a staged folder against its contract. ``proven``: the archive it came from was what was declared."""
    if dataset.skip_checksum:
        return Staged(tree, staging)
    measured = measure_copy(tree)
    digest = measured.digest
    fill: dict[str, str] = {}
    checksum = dataset.checksum
    if dataset.digest is not None and dataset.digest != digest:
        raise _mismatch(dataset, digest, dataset.digest, field="digest")
    contents: Digest | None = None
    if checksum is None:
        contents = measure_checksum(tree, "sha256").checksum
        if contents is not None:
            fill["checksum"] = str(contents)
    elif not proven and dataset.digest is None:
        contents = measure_checksum(tree, checksum.algorithm).checksum
        if contents != checksum:
            raise _mismatch(dataset, contents or digest, checksum, field="checksum")
    if dataset.digest is None:
        fill["digest"] = str(digest)
    sha256 = contents.hex if contents is not None and contents.algorithm == "sha256" else None
    return Staged(tree, staging, tree=measured, fill=fill, sha256=sha256)


def _obtain_list(
    project: Project, dataset: Dataset, staging: Staging, *, task: Task, progress: Progress
) -> Staged:
    """Several files into one folder, each below it where its URI has it below the folders that all share."""
    folder = staging.make_folder()
    tree, fetched_folder = folder / "tree", folder / "files"
    arrived = []
    for number, (uri, name) in enumerate(zip(dataset.uris, dataset.file_names, strict=True)):
        private = fetched_folder / str(number)
        ensure_folder(private)
        task.describe(name)
        arrived.append((name, _fetch(project, dataset, uri, private, "data", task=task, progress=progress).path))
    # Linked, not moved: a kill from here on leaves every file whole for the next run.
    import os

    remove_tree(tree)
    for name, path in arrived:
        target = tree.joinpath(*Key.parse(name).parts)
        ensure_folder(target.parent)
        try:
            os.link(path, target)
        except OSError as error:
            raise MachineFailed(f"cannot write '{target}': {error.strerror}") from error
    staged = _check_folder(dataset, tree, staging)
    remove_tree(fetched_folder)
    return staged


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
