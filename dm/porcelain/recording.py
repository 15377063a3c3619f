"""Writing down what a run did: checksums into the manifest, places into the state, both a bounded number of times.

Rewriting two files for each of n datasets would cost n² in all; a `Recorder` gathers and writes once at the end (and
now and then in a long run). Nothing is written when nothing is new.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dm.plumbing.records.state import Record, make_storage_path

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.plumbing.records.manifest import Manifest
    from dm.porcelain.copies import Copy
    from dm.porcelain.project import Project


class Recorder:
    """Gathers what is to be recorded; `write` does it.

    ``all_fills`` keeps, by dataset name, every manifest field that was measured in the run. Without ``record`` the
    state learns of no place. With ``must_write`` it is an error where this user may not write to the project.
    """

    def __init__(
        self, project: Project, *, edit_manifest: bool, record: bool = True, must_write: bool = False
    ) -> None:
        self._project = project
        self._must_write = must_write
        self._record = record
        self._edit_manifest = edit_manifest
        self._records: dict[str, Record] = {}
        self._gone: set[str] = set()
        self._fills: dict[str, dict[str, str]] = {}
        self.all_fills: dict[str, dict[str, str]] = {}

    def is_news(self, dataset: Dataset, copy: Copy) -> bool:
        """Whether the state says nothing yet of the dataset's being at this copy."""
        known = self._project.state.datasets.get(dataset.key.text)
        return known is None or known.storage_path != make_storage_path(self._project.root, copy.path)

    def note_place(self, dataset: Dataset, copy: Copy, *, sha256: str | None) -> None:
        """The dataset's bytes are at this copy. Nothing is noted when the state says so already."""
        if not self._record:
            return
        key = dataset.key.text
        path = make_storage_path(self._project.root, copy.path)
        known = self._project.state.datasets.get(key)
        if known is not None and known.storage_path == path and (sha256 is None or known.sha256 == sha256):
            return
        self._records[key] = Record(path, sha256 or (known.sha256 if known and known.storage_path == path else None))

    def note_gone(self, key: str) -> None:
        """What is recorded of a key is to be forgotten."""
        if self._record:
            self._gone.add(key)

    def note_fields(self, dataset: Dataset, fields: Mapping[str, str]) -> None:
        """The manifest's entry is to be completed with these."""
        if fields:
            self.all_fills.setdefault(dataset.name, {}).update(fields)
            self._fills.setdefault(dataset.name, {}).update(fields)

    @property
    def unpinned(self) -> frozenset[str]:
        """The names of the datasets whose contract was measured and is not in the manifest yet."""
        return frozenset(self._fills)

    def write(self) -> None:
        """Write what is new. Raises what `edit_manifest` and `merge_state` raise; then it stays noted.

        Where this user may not write to the project, the state stays as it is: `Project.merge_state_if_allowed`.
        """
        project = self._project
        if self._records or self._gone:
            merge = project.merge_state if self._must_write else project.merge_state_if_allowed
            merge(self._records, self._gone - self._records.keys())
            self._records, self._gone = {}, set()
        if self._fills:
            if self._edit_manifest:
                project.edit_manifest(self._complete)
            self._fills = {}

    def _complete(self, manifest: Manifest) -> Mapping[str, Mapping[str, object] | None]:
        """The changes that complete the entries; what somebody pinned meanwhile, or took out, stays as it is."""
        changes = {}
        for name, fields in self._fills.items():
            entry = manifest.datasets.get(name)
            if entry is not None:
                missing = {field: value for field, value in fields.items() if getattr(entry, field) is None}
                if missing:
                    changes[name] = missing
        return changes
