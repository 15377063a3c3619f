"""``status``: what is clean, what is off, and the command that mends it. Changes nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dm.errors import DmError
from dm.porcelain.select import find_skip_reason, select
from dm.values import Outcome, fail, quote_word

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.porcelain.find import Weighed
    from dm.porcelain.integrity import Standing
    from dm.porcelain.project import Project

#: What mends each state of SCHEMA.md but ``modified``; ``{name}`` is the dataset, quoted for a shell.
REMEDIES = {
    "missing": "dm fetch {name}",
    "partial": "dm fetch {name} takes it over when its bytes are right, dm fetch --force {name} puts it aside",
    "source-changed": "dm fetch --force {name}",
    "relocated": "nothing, it is used where it is; dm fetch --force {name} brings it to its location",
    "untracked": "dm fetch {name}",
    "unpinned": "dm fetch {name}",
}


def status(project: Project, identifiers: Sequence[str] = ()) -> list[Outcome]:
    """Say each dataset's state by the manifest, the refs, the state file and stat data.

    Bytes are read only where stat data differ from what the stat cache knows. A state other than ``clean`` or
    ``skipped`` is no failure: its outcome has exit status 0 and a hint.
    """
    selection = select(project, identifiers)
    outcomes = list(selection.failures)
    project.recall(selection.datasets)
    for dataset in selection.datasets:
        try:
            outcomes.append(_tell(project, dataset))
        except DmError as error:
            outcomes.append(fail(dataset.name, error))
    return outcomes


def _tell(project: Project, dataset: Dataset) -> Outcome:
    from dm.porcelain.find import choose_copy

    skipped = find_skip_reason(dataset)
    if skipped is not None:
        return Outcome(dataset.name, "skipped", state="skipped", message=skipped)
    location = project.locate(dataset)
    chosen = choose_copy(project, dataset)
    if chosen is None:
        return _outcome(dataset, "missing", location.path, None)
    path = chosen.candidate.copy.path
    state = _find_state(project, dataset, chosen, relocated=path != location.path)
    outcome = _outcome(dataset, state, path, chosen.standing)
    if state == "relocated":
        own = project.locate_in_own_scope(dataset)
        if own is not None and own.path == path and os.path.lexists(location.path):
            return outcome._replace(hint="nothing, its location holds another project's copy")
    return outcome


def _find_state(project: Project, dataset: Dataset, chosen: Weighed, *, relocated: bool) -> str:
    from dm.porcelain.find import is_read_only
    from dm.porcelain.integrity import find_contract

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


def _outcome(dataset: Dataset, state: str, path: object, standing: Standing | None) -> Outcome:
    from pathlib import Path

    return Outcome(
        dataset.name,
        "skipped" if state == "skipped" else "ok",
        path=Path(str(path)),
        state=state,
        digest=None if standing is None else standing.measured.digest,
        size_bytes=None if standing is None else standing.measured.size_bytes,
        hint=_find_remedy(dataset, state),
        message="neither computed nor checked (skip_checksum)" if state == "skipped" else None,
    )


def _find_remedy(dataset: Dataset, state: str) -> str | None:
    if state == "modified":
        from dm.porcelain.integrity import name_way_out

        return name_way_out(dataset)
    name = quote_word(dataset.name)
    if state == "missing" and not dataset.uris:
        from dm.plumbing.records.bindings import has_source

        if not has_source(dataset):
            return f"put the data where dm resolve-path {name} points"
    return REMEDIES[state].format(name=name) if state in REMEDIES else None
