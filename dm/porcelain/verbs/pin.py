"""``pin``: what is on disk becomes the contract. The one way in which a contract that is there is ever replaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dm.errors import ContentMismatch, DmError, Refused
from dm.plumbing.records.state import Record, make_storage_path
from dm.plumbing.store.measure import measure_checksum, measure_copy
from dm.porcelain.find import find_candidates, is_read_only
from dm.porcelain.integrity import find_contract, is_as_measured, make_missing
from dm.porcelain.publish import adopt
from dm.porcelain.select import find_skip_reason, select
from dm.values import Outcome, fail

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.plumbing.records.manifest import Manifest
    from dm.plumbing.store.measure import Measured
    from dm.porcelain.find import Candidate
    from dm.porcelain.project import Project
    from dm.values import Digest


def pin(project: Project, identifiers: Sequence[str], *, dry_run: bool = False) -> list[Outcome]:
    """Read every byte of each named dataset's copy and write its digests into the manifest as the new contract.

    The declared algorithm is kept, sha256 where there is none; a folder gets ``digest`` too. The copy is then known as
    sound: its ref, its marker and the state follow, where they may be written. A dataset without bytes is exit 3, one
    with ``skip_checksum`` is refused. With ``dry_run`` nothing is written. The manifest is written once for all, first:
    when that fails nothing that was measured is claimed.
    """
    selection = select(project, identifiers)
    outcomes = list(selection.failures)
    changes: dict[str, Mapping[str, object]] = {}
    pinned: list[tuple[Dataset, Candidate, Measured, Outcome]] = []
    for dataset in selection.datasets:
        try:
            skipped = find_skip_reason(dataset)
            if skipped is not None:
                outcomes.append(Outcome(dataset.name, "skipped", state="skipped", message=skipped))
                continue
            candidate = _find_copy(project, dataset)
            measured, fields = _measure(project, dataset, candidate)
            outcome = _tell(dataset, candidate, measured, fields, dry_run=dry_run)
            if outcome.status == "ok":
                changes[dataset.name] = fields
            pinned.append((dataset, candidate, measured, outcome))
        except DmError as error:
            outcomes.append(fail(dataset.name, error))
    if not dry_run:
        if changes:
            project.edit_manifest(lambda manifest: _complete(manifest, changes))
        told = [_record(project, *each) for each in pinned]
        _remember(project, [(dataset, candidate, measured) for dataset, candidate, measured, _ in pinned])
        return [*outcomes, *told]
    return [*outcomes, *(outcome for *_, outcome in pinned)]


def _find_copy(project: Project, dataset: Dataset) -> Candidate:
    """The copy that stands for a dataset now, whatever its bytes are: where the state or the manifest says."""
    if dataset.skip_checksum:
        raise Refused(
            f"cannot pin '{dataset.name}': it says 'skip_checksum'",
            hint="take 'skip_checksum' out of its entry",
            code="skip-checksum",
        )
    for candidate in find_candidates(project, dataset):
        if candidate.recorded or candidate.how in ("scope", "location"):
            return candidate
    raise make_missing(dataset)


def _measure(
    project: Project, dataset: Dataset, candidate: Candidate
) -> tuple[Measured, dict[str, object]]:
    """What the copy is, every byte read, and the fields that say so."""
    path, cache, progress = candidate.copy.path, project.stat_cache, project.progress
    root = None if candidate.copy.store is None else candidate.copy.store.root
    algorithm = "sha256" if dataset.checksum is None else dataset.checksum.algorithm
    if not path.is_dir():
        measured = measure_copy(path, algorithm=algorithm, stat_cache=cache, ref_root=root, progress=progress)
        return measured, {"checksum": str(measured.checksum or measured.digest), "digest": None, "sha256": None}
    measured = measure_copy(path, stat_cache=cache, ref_root=root, progress=progress)
    checksum: Digest | None = None
    if dataset.checksum is not None or not _is_repository(dataset):
        checksum = measure_checksum(path, algorithm, stat_cache=cache, ref_root=root, progress=progress).checksum
    text = None if checksum is None or _is_repository(dataset) else str(checksum)
    return measured, {"checksum": text, "digest": str(measured.digest), "sha256": None}


def _is_repository(dataset: Dataset) -> bool:
    from dm.plumbing.transport.address import find_scheme

    return any(find_scheme(uri) == "git" for uri in dataset.uris)


def _tell(
    dataset: Dataset, candidate: Candidate, measured: Measured, fields: Mapping[str, object], *, dry_run: bool
) -> Outcome:
    old = find_contract(dataset)
    new = fields["digest"] or fields["checksum"]
    outcome = Outcome(
        dataset.name,
        "ok",
        path=candidate.copy.path,
        state="clean",
        digest=measured.digest,
        size_bytes=measured.size_bytes,
    )
    if str(old) == new:
        return outcome._replace(status="unchanged")
    done = "would be pinned" if dry_run else "pinned"
    return outcome._replace(message=f"{done} as {new}" + ("" if old is None else f", was {old}"))


def _complete(
    manifest: Manifest, changes: Mapping[str, Mapping[str, object]]
) -> Mapping[str, Mapping[str, object] | None]:
    """The changes to entries that are still there."""
    return {
        name: {field: value for field, value in fields.items() if value is not None or field in table}
        for name, fields in changes.items()
        if (entry := manifest.datasets.get(name)) is not None and (table := entry.table) is not None
    }


def _record(
    project: Project, dataset: Dataset, candidate: Candidate, measured: Measured, outcome: Outcome
) -> Outcome:
    """The copy is known as sound from now on: ref and marker, where its place has such and may be written."""
    if is_read_only(candidate) or project.find_distrust(dataset, candidate.copy):
        return outcome
    try:
        with project.lock_copy(candidate.copy):
            if not is_as_measured(project, candidate.copy, measured):
                told = f"'{candidate.copy.path}' was replaced meanwhile"
                raise ContentMismatch(told, hint="run the command again", code="changed-meanwhile")
            adopt(candidate.copy, dataset, measured)
    except DmError as error:
        if error.code in ("permission", "read-only"):
            return outcome  # somebody else's store: the contract vouches for the copy
        told = f"'{dataset.name}' is {outcome.message or 'pinned already'}; what was seen of its copy is not noted"
        failed = fail(dataset.name, error)
        return failed._replace(path=outcome.path, digest=outcome.digest, message=f"{told}: {error.message}")
    return outcome


def _remember(project: Project, pinned: Sequence[tuple[Dataset, Candidate, Measured]]) -> None:
    records = {}
    for dataset, candidate, measured in pinned:
        checksum = measured.checksum
        sha256 = checksum.hex if checksum is not None and checksum.algorithm == "sha256" else None
        records[dataset.key.text] = Record(make_storage_path(project.root, candidate.copy.path), sha256)
    if records:
        project.merge_state(records)
