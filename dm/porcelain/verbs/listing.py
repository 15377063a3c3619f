"""``list``: the declared datasets and the produced ones, a row for each. Changes nothing, and reads no data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dm.errors import UsageError
from dm.values import Outcome, printable

if TYPE_CHECKING:
    from dm.porcelain.project import Project

#: What can be listed.
KINDS = ("data", "cached", "all")


def list_all(project: Project, kind: str = "data") -> Iterator[Outcome]:
    """An outcome for each declared dataset (``data``), each produced one (``cached``) or first those, then these
    (``all``), with the row's ``fields``; they come while they are found. Raises `UsageError` for another kind.

    Of a dataset ``digest`` is what the manifest pins, and ``code`` is ``unlocked`` where it has an unlocked copy. Of a
    produced one ``state`` and ``path`` are of the place that is looked into first.
    """
    if kind not in KINDS:
        raise UsageError(f"there is no kind '{printable(str(kind))}'", hint=f"one of {', '.join(KINDS)}")
    return _list(project, kind)


def _list(project: Project, kind: str) -> Iterator[Outcome]:
    if kind != "cached":
        yield from _list_datasets(project)
    if kind != "data":
        yield from _list_artifacts(project)


def _list_datasets(project: Project) -> Iterator[Outcome]:
    from dm.porcelain.unlocked import list_unlocked_names

    unlocked = frozenset(list_unlocked_names(project))
    for each in project.manifest.datasets.values():
        pin = each.digest or each.checksum
        fields = {"kind": "data", "name": each.name, "format": each.format, "pinned": pin, "key": each.show_key()}
        code = "unlocked" if each.name in unlocked else None
        yield Outcome(each.name, "ok", digest=pin, code=code, fields=fields)


def _list_artifacts(project: Project) -> Iterator[Outcome]:
    from dm.porcelain.artifacts.describing import list_artifacts, tell_facts

    for facts in list_artifacts(project):
        spot, fields = facts.spot, tell_facts(facts)
        path = spot.folder if spot.is_there else None
        yield Outcome(
            spot.address, "ok", path=path, state=facts.state, size_bytes=facts.size_bytes, fields=fields
        )
