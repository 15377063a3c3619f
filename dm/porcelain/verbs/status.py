"""``status``: what is clean, what is off, and the command that mends it. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dm.errors import DmError
from dm.porcelain.select import select
from dm.porcelain.states import tell_state
from dm.values import Outcome, fail

if TYPE_CHECKING:
    from dm.porcelain.project import Project


def status(project: Project, identifiers: Sequence[str] = ()) -> list[Outcome]:
    """Say each dataset's state by the manifest, the refs, the state file and stat data.

    Bytes are read only where stat data differ from what the stat cache knows. A state other than ``clean`` or
    ``skipped`` is no failure: its outcome has exit status 0 and a hint. ``digests`` has the contract, what was last
    seen and the disk. An unlocked copy has the code ``unlocked``.
    """
    selection = select(project, identifiers)
    outcomes = list(selection.failures)
    project.recall(selection.datasets)
    for dataset in selection.datasets:
        try:
            outcomes.append(tell_state(project, dataset))
        except DmError as error:
            outcomes.append(fail(dataset.name, error))
    return outcomes
