"""What a copy is worth: the disk held against the contract and against what was last seen.

The manifest's ``digest`` or ``checksum`` is the contract, the ref is what was last seen, the bytes are what is there
(SCHEMA.md, "Contract, last seen, disk"). ``status``, ``fetch`` and ``verify`` ask the same questions here; they differ
only in whether unchanged stat data may stand for bytes (``quick``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dm.errors import NotFound
from dm.plumbing.store.measure import Measured, SeenFiles, measure_checksum, measure_copy, recall_file
from dm.progress import SILENT, Progress
from dm.values import Digest, quote_word

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.plumbing.store.refs import Ref
    from dm.porcelain.copies import Copy
    from dm.porcelain.project import Project


class Standing(NamedTuple):
    """What a look at one copy found.

    ``meets_contract`` is None when there is no contract, or when it cannot be checked at rest (an archive's checksum
    without ``digest``); ``as_last_seen`` is None when nothing was seen before; ``same_source`` is None when no source
    is recorded, and when there is a contract, which decides instead.
    """

    measured: Measured
    ref: Ref | None
    meets_contract: bool | None
    as_last_seen: bool | None
    same_source: bool | None


def find_contract(dataset: Dataset) -> Digest | None:
    """The digest that decides: ``digest`` where there is one, else ``checksum``; None with ``skip_checksum``."""
    if dataset.skip_checksum:
        return None
    return dataset.digest or dataset.checksum


def judge(
    project: Project,
    dataset: Dataset,
    copy: Copy,
    *,
    quick: bool,
    contract: bool = False,
    seen: SeenFiles | None = None,
    progress: Progress = SILENT,
) -> Standing:
    """Look at a copy that exists; changes nothing but the stat cache.

    Reads every byte once, unless ``quick`` and the stat cache vouches. A checksum whose blob id a store knows and the
    copy's own ref names too (both were written when the bytes arrived) is not computed again: equal ids are equal
    bytes. Either of them alone is a hint, and so are both where the bytes are others. With ``contract`` the manifest's
    ``checksum`` is computed in any case, also beside a ``digest``. ``seen`` as in `measure_copy`.
    """
    ref = copy.read_ref()
    checksum = None if dataset.skip_checksum or dataset.digest is not None else dataset.checksum
    if quick and checksum is not None:
        recalled = recall_file(copy.path, checksum.algorithm, project.stat_cache)
        if recalled is not None:
            return _stand(dataset, ref, None, recalled)
    known = None if checksum is None else project.find_blob_id(checksum)
    if contract or ref is None or ref.digest != known:
        known = None

    def measure(algorithm: str) -> Measured:
        root = None if copy.store is None else copy.store.root
        cache = project.stat_cache
        return measure_copy(
            copy.path, algorithm=algorithm, quick=quick, stat_cache=cache, ref_root=root, seen=seen, progress=progress
        )

    measured = measure("blake3" if checksum is None or known is not None else checksum.algorithm)
    if checksum is not None and known not in (None, measured.digest):
        known = None
        measured = measure(checksum.algorithm)
    standing = _stand(dataset, ref, known, measured)
    if contract and standing.meets_contract and dataset.digest is not None and dataset.checksum is not None:
        return standing._replace(meets_contract=_meets_checksum(project, dataset, copy))
    return standing


def is_as_measured(project: Project, copy: Copy, measured: Measured) -> bool:
    """Whether a copy is still what was measured, by its stat data where these vouch for it. For who holds its lock
    since: it may have been replaced, or removed, before.
    """
    if not copy.exists():
        return False
    root = None if copy.store is None else copy.store.root
    now = measure_copy(copy.path, quick=True, stat_cache=project.stat_cache, ref_root=root)
    return now.digest == measured.digest


def _meets_checksum(project: Project, dataset: Dataset, copy: Copy) -> bool:
    """Whether a copy whose ``digest`` is right also has the ``checksum`` beside it; that of an archive says nothing."""
    assert dataset.checksum is not None
    algorithm = dataset.checksum.algorithm
    found = measure_checksum(copy.path, algorithm, stat_cache=project.stat_cache).checksum
    return found == dataset.checksum or dataset.extract


def _stand(dataset: Dataset, ref: Ref | None, known: Digest | None, measured: Measured) -> Standing:
    seen = None if ref is None else ref.digest
    source_id = None if ref is None or find_contract(dataset) is not None else ref.source_id
    return Standing(
        measured,
        ref,
        _meets_contract(dataset, known, measured),
        None if seen is None else seen == measured.digest,
        None if source_id is None else source_id == dataset.source_id,
    )


def describe_damage(project: Project, dataset: Dataset, copy: Copy, standing: Standing) -> str:
    """What a copy's bytes are and what they should be, in one algorithm: ``its bytes are …, the manifest says …``."""
    contract = find_contract(dataset)
    found: Digest | None = standing.measured.digest
    if contract is None:
        seen = None if standing.ref is None else standing.ref.digest
        return f"its bytes are {found}, last seen were {seen}"
    # A file has no digest of a folder: where that is the contract, what it is says enough.
    if found is not None and contract.algorithm != found.algorithm and not contract.is_tree:
        algorithm, cache = contract.algorithm, project.stat_cache
        found = standing.measured.checksum
        if found is None:
            found = measure_checksum(copy.path, algorithm, stat_cache=cache, quick=True).checksum
    return f"its bytes are {found or standing.measured.digest}, the manifest says {contract}"


def name_way_back(dataset: Dataset) -> str:
    """What makes a dataset be here that is not, as a hint."""
    from dm.plumbing.records.bindings import has_source

    name = quote_word(dataset.name)
    if has_source(dataset) and not dataset.skip_download:
        return f"dm fetch {name}"
    return f"put the data where dm resolve-path {name} points"


def make_missing(dataset: Dataset) -> NotFound:
    """The error for a dataset that is not there."""
    return NotFound(f"'{dataset.name}' is not there", hint=name_way_back(dataset), code="missing")


def name_way_out(dataset: Dataset) -> str:
    """What mends a copy whose bytes are wrong, as a hint."""
    from dm.plumbing.records.bindings import has_source

    name = quote_word(dataset.name)
    if has_source(dataset):
        return f"dm fetch --force {name} puts it aside and fetches again"
    return f"restore it, or dm pin {name} accepts what is there"


def name_ways_out(dataset: Dataset) -> str:
    """Each command that ends the difference between a copy's bytes and what they should be, as a hint."""
    from dm.plumbing.records.bindings import has_source

    name = quote_word(dataset.name)
    accepted = f"dm pin {name} accepts what is there"
    if not has_source(dataset):
        return f"restore it, or {accepted}; dm verify --repair {name} mends it from another copy, if there is one"
    return f"dm verify --repair {name} mends it, {accepted}, dm fetch --force {name} puts it aside and fetches again"


def name_ways_out_of_edit(dataset: Dataset) -> str:
    """What may become of an edit of an unlocked copy, as a hint."""
    from dm.plumbing.records.bindings import has_source

    name = quote_word(dataset.name)
    accepted = f"dm pin {name} accepts the edit"
    return f"{accepted}, dm fetch --force {name} puts it aside and fetches again" if has_source(dataset) else accepted


def _meets_contract(dataset: Dataset, known: Digest | None, measured: Measured) -> bool | None:
    contract = find_contract(dataset)
    if contract is None:
        return None
    if dataset.extract and not measured.digest.is_tree:
        return False  # the archive itself, whose checksum it may be: the dataset is the folder in it
    if dataset.digest is not None:
        return dataset.digest == measured.digest
    if known is not None:
        return known == measured.digest
    if contract.algorithm == "blake3" and not measured.digest.is_tree:
        return contract == measured.digest
    if measured.checksum == contract:
        return True
    # A folder's checksum may be that of the archive it came from, of which nothing is left: no proof either way.
    return None if measured.digest.is_tree and dataset.extract else False
