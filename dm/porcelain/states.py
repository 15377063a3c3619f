"""The state of a dataset: the contract, what was last seen and the disk held against each other, in one word.

Where two of the three differ the word says which, and the way out is a command that is there (SCHEMA.md, "States").
Looking changes nothing; bytes are read only where stat data differ from what the stat cache knows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dm.porcelain.find import choose_copy, is_read_only, is_unproven
from dm.porcelain.integrity import find_contract
from dm.porcelain.select import find_skip_reason
from dm.values import Digest, Outcome, quote_word

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.porcelain.find import Weighed
    from dm.porcelain.integrity import Standing
    from dm.porcelain.project import Project

#: What mends each state of SCHEMA.md; ``{name}`` is the dataset, quoted for a shell. Those of ``missing`` and
#: ``modified`` depend on whether there is a source and whether the copy is unlocked.
REMEDIES = {
    "partial": "dm refresh {name} takes it over when its bytes are right, dm fetch --force {name} puts it aside",
    "source-changed": "dm fetch --force {name}; or dm pin {name} keeps what is there",
    "relocated": "nothing, it is used where it is; dm fetch --force {name} brings it to its location",
    "untracked": "dm refresh {name}",
    "unpinned": "dm pin {name}",
}


def tell_state(project: Project, dataset: Dataset) -> Outcome:
    """One dataset's state with its way out, and the digests that were held against each other.

    Raises what looking raises: `Refused` and `Malformed` for an entry at fault, `MachineFailed`.
    """
    skipped = find_skip_reason(dataset)
    if skipped is not None:
        return Outcome(dataset.name, "skipped", state="skipped", message=skipped)
    location = project.locate(dataset)
    chosen = choose_copy(project, dataset)
    if chosen is None:
        digests = {"contract": find_contract(dataset), "seen": None, "disk": None}
        hint = _find_remedy(dataset, "missing")
        return Outcome(dataset.name, "ok", path=location.path, state="missing", hint=hint, digests=digests)
    copy, standing = chosen.candidate.copy, chosen.standing
    state = _find_state(project, dataset, chosen, relocated=copy.path != location.path)
    measured = None if standing is None else standing.measured
    unlocked = copy.is_unlocked()
    return Outcome(
        dataset.name,
        "skipped" if state == "skipped" else "ok",
        path=copy.path,
        state=state,
        digest=None if measured is None else measured.digest,
        size_bytes=None if measured is None else measured.size_bytes,
        code="unlocked" if unlocked else None,
        hint=_find_hint(project, dataset, chosen, state, unlocked=unlocked),
        message=_find_message(dataset, state, unlocked=unlocked),
        digests=_list_digests(dataset, standing),
    )


def _find_state(project: Project, dataset: Dataset, chosen: Weighed, *, relocated: bool) -> str:
    copy, standing = chosen.candidate.copy, chosen.standing
    if not copy.is_marked() and not is_read_only(chosen.candidate):
        return "partial"
    if standing is None:
        return "skipped"
    if standing.meets_contract is False:
        return "source-changed" if standing.as_last_seen else "modified"
    if standing.meets_contract is None and standing.as_last_seen is False:
        return "modified"
    if relocated:
        return "relocated"
    if dataset.key.text not in project.state.datasets:
        return "untracked"
    if find_contract(dataset) is None or standing.meets_contract is None:
        return "unpinned"
    return "clean"


def _find_hint(project: Project, dataset: Dataset, chosen: Weighed, state: str, *, unlocked: bool) -> str | None:
    copy = chosen.candidate.copy
    if state == "modified":
        from dm.porcelain.integrity import name_ways_out, name_ways_out_of_edit

        return name_ways_out_of_edit(dataset) if unlocked else name_ways_out(dataset)
    if state == "relocated":
        own = project.locate_in_own_scope(dataset)
        if own is not None and own.path == copy.path:
            if unlocked:
                return f"nothing, or dm lock {quote_word(dataset.name)}, which makes it read-only again"
            if os.path.lexists(project.locate(dataset).path):
                told = "nothing, it is used where it is: other bytes lie at its location"
                return f'{told}; scope = "{own.scope}" in its entry makes this the location'
    if state in ("untracked", "unpinned") and is_unproven(chosen):
        name = quote_word(dataset.name)
        return f"dm fetch {name} holds it against its archive anew, dm pin {name} accepts what is there"
    return _find_remedy(dataset, state)


def _find_message(dataset: Dataset, state: str, *, unlocked: bool) -> str | None:
    if state == "skipped":
        return "neither computed nor checked (skip_checksum)" + ("; unlocked" if unlocked else "")
    if not unlocked:
        return None
    if state == "modified":
        return "unlocked and edited"
    if state == "relocated":
        return "unlocked: you may edit it"  # the hint has the way back
    return f"unlocked: you may edit it; dm lock {quote_word(dataset.name)} makes it read-only again"


def _find_remedy(dataset: Dataset, state: str) -> str | None:
    name = quote_word(dataset.name)
    if state == "missing":
        from dm.porcelain.integrity import name_way_back

        return name_way_back(dataset)
    if not dataset.uris and state == "source-changed":
        from dm.plumbing.records.bindings import has_source

        if not has_source(dataset):
            return f"dm pin {name} keeps what is there"
    return REMEDIES[state].format(name=name) if state in REMEDIES else None


def _list_digests(dataset: Dataset, standing: Standing | None) -> Mapping[str, Digest | None]:
    """The contract, what was last seen, and the disk: its id, and its checksum where that was measured too."""
    if standing is None:
        return {}
    digests = {
        "contract": find_contract(dataset),
        "seen": None if standing.ref is None else standing.ref.digest,
        "disk": standing.measured.digest,
    }
    checksum = standing.measured.checksum
    return digests if checksum is None else {**digests, "disk_checksum": checksum}
