"""``refresh``: what is recorded of the data is brought in line with the disk. No fetch, and no data changes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dm.errors import DmError
from dm.porcelain.present import Presence
from dm.porcelain.recording import Recorder
from dm.porcelain.select import select
from dm.values import Outcome, fail

if TYPE_CHECKING:
    from dm.porcelain.project import Project


def refresh(
    project: Project,
    identifiers: Sequence[str] = (),
    *,
    dry_run: bool = False,
) -> list[Outcome]:
    """Write down where each dataset's copy is and what its bytes are, where that was not known or is not so any more.

    Records of copies that were moved or found are written, those of copies that are gone are forgotten; a good copy
    that another tool replaced becomes known, and one whose marker is missing is marked once its bytes are proven. Among
    all also records of keys that no entry has any more go, when nothing lies there. What nothing vouches for is left
    and told. Bytes are read only where the stat cache does not vouch for them. With ``dry_run`` nothing is written.
    """
    selection = select(project, identifiers)
    outcomes = list(selection.failures)
    recorder = Recorder(project, edit_manifest=False, must_write=True)
    presence = Presence(project, recorder, dry_run=dry_run)
    project.recall(selection.datasets)
    for dataset in selection.datasets:
        try:
            outcomes.append(presence.refresh(dataset))
        except DmError as error:
            outcomes.append(fail(dataset.name, error))
    if not selection.named:
        outcomes += _forget_undeclared(project, recorder, dry_run=dry_run)
    if not dry_run:
        recorder.write()
    return outcomes


def _forget_undeclared(project: Project, recorder: Recorder, *, dry_run: bool) -> list[Outcome]:
    declared = set()
    for dataset in project.manifest.datasets.values():
        try:
            declared.add(dataset.key.text)
        except DmError:
            continue  # told above
    outcomes = []
    for key, record in sorted(project.state.datasets.items()):
        path = project.root / record.storage_path
        if key in declared or os.path.lexists(path):
            continue
        if not dry_run:
            recorder.note_gone(key)
        done = "its record would go" if dry_run else "its record is gone"
        message = f"no entry has this key, and nothing is at '{path}': {done}"
        outcomes.append(Outcome(key, "ok", state="missing", message=message))
    return outcomes
