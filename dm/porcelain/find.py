"""Finding what is there already, and weighing whether it may be used.

The order is SCHEMA.md's "Finding what is there": the state record, an unlocked copy of the project's own, the location,
the read pools, the other built-in roots. What is found is used only when it is complete and its bytes are vouched for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from dm.errors import MachineFailed, Refused
from dm.plumbing.records.key import landing_key
from dm.porcelain.copies import Copy
from dm.porcelain.integrity import Standing, find_contract, judge
from dm.progress import SILENT, Progress

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.plumbing.records.places import Folder
    from dm.porcelain.project import Project

#: Where a candidate was found.
How = Literal["state", "scope", "location", "pool", "root"]
#: use: as it is. adopt: proven, its marker or ref is missing. wrong: complete, but its bytes fail the contract.
#: foreign: an intact copy of another source or contract. unknown: unmarked, and nothing vouches for it.
Verdict = Literal["use", "adopt", "wrong", "foreign", "unknown"]


class Candidate(NamedTuple):
    """An entry on disk that may be a dataset's copy."""

    copy: Copy
    how: How
    recorded: bool


class Weighed(NamedTuple):
    """A candidate's verdict and the look that led to it (None with ``skip_checksum``)."""

    candidate: Candidate
    verdict: Verdict
    standing: Standing | None


def find_candidates(project: Project, dataset: Dataset) -> Iterator[Candidate]:
    """Yield what lies at the places of a dataset, in the order of SCHEMA.md, each place once."""
    location = project.locate(dataset)
    there = os.fspath(location.path)
    seen = {there}
    recorded = None
    text = _find_recorded_path(project, dataset)
    if text is not None:
        recorded = location.path if text == there else Path(text)  # as text: a path for each of thousands is dear
    if recorded is not None and recorded != location.path:
        seen.add(os.fspath(recorded))
        candidate = _find_recorded(project, dataset, recorded)
        if candidate is not None:
            yield candidate
    private = _find_unlocked(project, dataset)
    if private is not None and os.fspath(private.copy.path) not in seen:
        seen.add(os.fspath(private.copy.path))
        yield private
    copy = project.copy_at(location)
    if copy.exists():
        yield Candidate(copy, "location", recorded=recorded == location.path)
    landing = dataset.landing.text
    for how, folder in _list_elsewhere(project, dataset):
        path = f"{folder.path}/{landing}"
        if path not in seen:
            seen.add(path)
            copy = project.copy_at(folder.place(dataset))
            if _is_in_reach(copy):
                yield Candidate(copy, how, recorded=False)


def _is_in_reach(copy: Copy) -> bool:
    """Whether anything lies at a place elsewhere; not in a folder that this user may not look into."""
    try:
        return copy.exists()
    except MachineFailed as error:
        if error.code != "permission":
            raise
        return False


def _find_unlocked(project: Project, dataset: Dataset) -> Candidate | None:
    """The copy in the project's own scope, where it is unlocked: it is found without a record too."""
    if not project.has_unlocked():
        return None
    own = project.locate_in_own_scope(dataset)
    if own is None:
        return None
    copy = project.copy_at(own)
    return Candidate(copy, "scope", recorded=False) if copy.is_unlocked() and copy.exists() else None


def _find_recorded_path(project: Project, dataset: Dataset) -> str | None:
    """Where the state says that a dataset was found, absolute. The folder of an archive has the key of the archive:
    what is recorded of the one says nothing of the other.
    """
    record = project.state.datasets.get(dataset.key.text)
    if record is None:
        return None
    text = os.path.join(project.root, record.storage_path)
    if text.endswith(dataset.landing.text):
        return text
    other = landing_key(dataset.key.text, extract=not dataset.extract)
    return None if text.endswith(f"/{other}") else text


def _find_recorded(project: Project, dataset: Dataset, path: Path) -> Candidate | None:
    """What lies where the state says, as what that place is: a pool stays a pool, also below a store root."""
    if not os.path.lexists(path):
        return None
    text, landing = os.fspath(path), dataset.landing.text
    for how, folder in _list_elsewhere(project, dataset):
        if f"{folder.path}/{landing}" == text:
            return Candidate(project.copy_at(folder.place(dataset)), how, recorded=True)
    try:
        return Candidate(project.copy_of_path(path), "state", recorded=True)
    except Refused:
        return None  # the state names a place where no copy ever is, like a store's own folder


def _list_elsewhere(project: Project, dataset: Dataset) -> Iterator[tuple[How, Folder]]:
    """The folders beside a dataset's own in which it may lie; none for a place that the user manages.

    Most of them are not there at all, which one look each says for all datasets: 5,000 looks for 1,000 datasets are
    five.
    """
    if project.locate(dataset).user_managed:
        return
    for folder in project.places.pool_folders():
        if project.has_folder(folder.path):
            yield "pool", folder
    for folder in project.places.other_folders(dataset):
        if project.has_folder(folder.path):
            yield "root", folder


def weigh(project: Project, dataset: Dataset, candidate: Candidate, *, progress: Progress = SILENT) -> Weighed:
    """Say what a candidate is worth. Bytes are read only where the stat cache does not vouch for them.

    Nothing vouches for one elsewhere that this user may not read: it is passed over, with a warning.
    """
    copy = candidate.copy
    marked = copy.is_marked()
    if dataset.skip_checksum:
        ref = copy.read_ref()
        known = None if ref is None else ref.source_id
        same = candidate.recorded if known is None else known == dataset.source_id
        return Weighed(candidate, ("use" if same else "foreign") if marked else "unknown", None)
    try:
        standing = judge(project, dataset, copy, quick=True, progress=progress)
    except MachineFailed as error:
        if candidate.how in ("pool", "root") and error.code == "permission":
            progress.warn(f"passing over '{copy.path}': {error.message}")
            return Weighed(candidate, "unknown", None)
        if os.path.exists(copy.path) or not os.path.islink(copy.path):
            raise
        return Weighed(candidate, "unknown", None)  # a link that leads nowhere
    return Weighed(candidate, _decide(dataset, candidate, standing, marked=marked), standing)


def is_edited(weighed: Weighed) -> bool:
    """Whether it is an unlocked copy whose bytes are others now: it stands for its dataset until its user says what
    becomes of the edit, and nothing is ever used past it in silence.
    """
    return weighed.verdict == "wrong" and weighed.candidate.copy.is_unlocked()


def is_unproven(weighed: Weighed) -> bool:
    """Whether it is as it was seen last, and its contract, an archive's checksum, says nothing of what was unpacked."""
    standing = weighed.standing
    return weighed.verdict == "wrong" and standing is not None and standing.meets_contract is None


def is_read_only(candidate: Candidate) -> bool:
    """Whether a candidate lies in a pool, another tool's folder or a store that this user may only read: used where it
    is, nothing is written there.
    """
    store = candidate.copy.store
    return candidate.how in ("pool", "state") if store is None else not store.may_write()


def _decide(dataset: Dataset, candidate: Candidate, standing: Standing, *, marked: bool) -> Verdict:
    if standing.meets_contract:
        if candidate.copy.user_managed or is_read_only(candidate):
            return "use"
        return "use" if marked and standing.as_last_seen else "adopt"
    if not marked:
        # Unmarked: its bytes must match its ref or the contract. With a contract that failed, the ref is no help.
        vouched = find_contract(dataset) is None and standing.as_last_seen and standing.same_source
        return "adopt" if vouched else "unknown"
    if find_contract(dataset) is None:
        if candidate.copy.user_managed:
            return "use"
        same = candidate.recorded if standing.same_source is None else standing.same_source
        if not same:
            return "foreign"
        return "wrong" if standing.as_last_seen is False else "use"
    intact = standing.as_last_seen is True
    if standing.meets_contract is None:
        # An archive's checksum cannot be checked at rest: without proof it is fetched again.
        return "wrong" if intact else "unknown"
    if intact and not candidate.recorded and not candidate.copy.user_managed:
        return "foreign"
    return "wrong"


def choose_copy(project: Project, dataset: Dataset, *, weigh_bytes: bool = True) -> Weighed | None:
    """The copy that stands for a dataset: the first that may be used, else the first that is not another project's;
    None when nothing is there. Without ``weigh_bytes`` no bytes are read: the first candidate that is known as this
    dataset's, else the first one.
    """
    if not weigh_bytes:
        candidate = find_known_copy(project, dataset)
        if candidate is None:
            there = (each for each in find_candidates(project, dataset) if each.recorded or each.how == "location")
            candidate = next((each for each in there if not _is_of_another(dataset, each)), None)
        return None if candidate is None else Weighed(candidate, "use", None)
    first: Weighed | None = None
    for candidate in find_candidates(project, dataset):
        weighed = weigh(project, dataset, candidate)
        if weighed.verdict in ("use", "adopt") or is_edited(weighed):
            return weighed
        if first is None and weighed.verdict != "foreign" and candidate.how in ("state", "scope", "location"):
            first = weighed
    return first


def find_known_copy(project: Project, dataset: Dataset) -> Candidate | None:
    """The first complete copy that is known as this dataset's without reading it: by its ref, which bears its contract
    or its source, or recorded in this project's state while no record speaks of other bytes. None when there is none.
    """
    for candidate in find_candidates(project, dataset):
        copy = candidate.copy
        if copy.user_managed:
            return candidate
        if (copy.is_marked() or is_read_only(candidate)) and _is_known(project, dataset, candidate):
            return candidate
    return None


def find_lost_copy(project: Project, dataset: Dataset) -> Candidate | None:
    """The place, the recorded one or its location, where a copy that is known as this dataset's was seen last; whether
    anything lies there now is not asked. None when there is none, and for an unlocked one, which is its user's.
    """
    location = project.locate(dataset)
    text = _find_recorded_path(project, dataset)
    candidates = [Candidate(project.copy_at(location), "location", recorded=False)]
    if text is not None:
        path = Path(text)
        if path == location.path:
            candidates = [candidates[0]._replace(recorded=True)]
        else:
            with suppress(Refused):  # the state names a place where no copy ever is, like a store's own folder
                candidates.insert(0, Candidate(project.copy_of_path(path), "state", recorded=True))
    for candidate in candidates:
        ref = candidate.copy.read_ref()
        if ref is not None and ref.digest is not None and _is_known(project, dataset, candidate):
            return None if candidate.copy.is_unlocked() else candidate
    return None


def _is_known(project: Project, dataset: Dataset, candidate: Candidate) -> bool:
    contract, ref = find_contract(dataset), candidate.copy.read_ref()
    if contract is None:
        source_id = None if ref is None else ref.source_id
        return candidate.recorded if source_id is None else source_id == dataset.source_id
    seen = None if ref is None else ref.digest
    if seen is not None:
        blob_id = project.find_blob_id(contract)
        if seen in (contract, blob_id):
            return True
        if blob_id is not None or contract.algorithm == seen.algorithm:
            return False
    if not candidate.recorded:
        return False
    # What was recorded when it was fetched, for an older contract perhaps. (A folder's may be that of its archive.)
    record = project.state.datasets.get(dataset.key.text)
    if record is None or record.sha256 is None or contract.algorithm != "sha256" or dataset.extract:
        return True
    return record.sha256 == contract.hex or os.path.isdir(candidate.copy.path)


def _is_of_another(dataset: Dataset, candidate: Candidate) -> bool:
    """Whether a copy's ref says that it came from another source, and neither a contract nor this project's state
    claims its bytes.
    """
    if candidate.copy.user_managed or (candidate.recorded and find_contract(dataset) is not None):
        return False
    ref = candidate.copy.read_ref()
    return ref is not None and ref.source_id not in (None, dataset.source_id)
