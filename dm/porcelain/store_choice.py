"""Which stores a command works on that is about stores: the one that was named, else every one that is used here."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from dm.errors import NotFound, Refused
from dm.plumbing.records.used_stores import find_used_stores
from dm.values import Outcome, fail

if TYPE_CHECKING:
    from dm.plumbing.store.disk import DiskStore
    from dm.porcelain.project import Project


def choose_stores(
    project: Project, root: Path | None, action: str, *, without_objects: bool = False
) -> tuple[list[DiskStore], list[Outcome]]:
    """The stores that may be changed: the one at ``root``, else those that are used here; and a failed outcome for each
    that is left alone, since a manifest, or a checkout's config, chose it outside and the user did not allow that.

    ``action`` is what they are for, as in ``cannot <action> '/data'``. Raises as `check_root`.
    """
    if root is not None:
        check_root(root, without_objects=without_objects)
        return [project.open_store(root)], []
    used = find_used_stores(project.places, project.manifest.datasets.values(), project.trust)
    refused = []
    for folder, reason in used.foreign.items():
        hint = f"dm trust shows it and asks; or say that it is wanted: --root {shlex.quote(str(folder))}"
        error = Refused(f"cannot {action} '{folder}': {reason}", hint=hint, code="place-untrusted")
        refused.append(fail(str(folder), error))
    return [project.open_store(folder) for folder in used.own], refused


def check_root(root: Path, *, without_objects: bool = False) -> None:
    """Make sure that a root that was named is a store's (``without_objects``: a folder that may become one), so that
    nothing is found to be well where nothing is. Raises `NotFound`.
    """
    if not (root.is_dir() if without_objects else (root / ".dm").is_dir()):
        hint = "--root names the folder that holds .dm"
        raise NotFound(f"there is no store at '{root}'", hint=hint, code="no-store")
