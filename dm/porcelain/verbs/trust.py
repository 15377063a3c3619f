"""``trust``: what a manifest would run, and the user's answer to it. Runs nothing itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dm.errors import Refused

if TYPE_CHECKING:
    from dm.plumbing.records.trust import Comparison
    from dm.plumbing.records.trust_parts import Part
    from dm.porcelain.project import Project


class Review(NamedTuple):
    """What a manifest would run now, and how that differs from what this user allowed.

    ``parts`` is everything that would be allowed; ``comparison`` None when nothing ever was; ``given`` whether this run
    trusts the manifest in any case, ``is_answered`` whether the user ever said that it may.
    """

    manifest: Path
    parts: list[Part]
    comparison: Comparison | None
    given: bool
    is_answered: bool

    @property
    def state(self) -> str:
        """``nothing`` (it runs nothing), ``trusted``, ``changed`` (not all of it was allowed) or ``new``."""
        if self.comparison is None:
            return "new" if self.parts else "nothing"
        if not self.comparison.covers:
            return "changed"
        return "trusted" if self.parts else "nothing"


def review(project: Project) -> Review:
    """Look at everything that the manifest would run; the files that its code comes from are read.

    Raises `Refused` when there is too much to look at, and for a manifest in memory, which has no record.
    """
    path = project.manifest.path
    if path is None:
        raise Refused("a manifest in memory cannot be allowed", hint="pass trust=True where it is made")
    trust = project.trust
    parts = trust.list_parts()
    return Review(path, parts, trust.compare(parts), trust.given, trust.is_answered())


def allow(project: Project, seen: Review) -> None:
    """Record that this user allows what was seen, exactly: what changed since is not allowed.

    Raises `Refused` where the record would lie in the project, `MachineFailed` when it cannot be written.
    """
    project.trust.store.allow(seen.manifest, seen.parts)


def revoke(project: Project) -> bool:
    """Forget what this user allowed of the manifest; whether there was anything."""
    path = project.manifest.path
    return path is not None and project.trust.store.revoke(path)
