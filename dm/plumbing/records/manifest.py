"""The manifest: what should be. A frozen model of its TOML; edits are `dm.plumbing.records.edit`'s.

Top-level keys that begin with ``_`` are structural and kept as they are; every other top-level table is a dataset.
Reading checks every field that `dm` knows; each fault is one `Malformed` with file, line, dataset and field. What `dm`
does not know is kept and not judged. Keys are derived on first use, so that one unsafe key stops its own dataset only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from dm.environment import Environment
from dm.errors import DmError, Malformed, NotFound, UsageError
from dm.plumbing.records.dataset import Dataset
from dm.plumbing.records.dataset_fields import Fault
from dm.plumbing.records.toml import read_toml
from dm.values import printable, quote_word

if TYPE_CHECKING:
    from dm.plumbing.records.toml_lines import TomlText

#: Names of a manifest, in the order of discovery; new ones take the first.
MANIFEST_NAMES = ("datamanifest.toml", "DataManifest.toml", "datasets.toml", "Datasets.toml")
#: The highest ``_META.schema`` that is understood.
MANIFEST_SCHEMA = 1
#: Variables that name the manifest, first one first.
MANIFEST_VARIABLES = ("DATAMANIFEST_TOML", "DATASETS_TOML")

#: Structural tables whose content means something to `dm`.
_STRUCTURAL = ("_META", "_STORAGE", "_LANG", "_LOADERS", "_SAVERS")
#: Names told for each dataset that collides: enough to find the fault, and bounded where thousands do.
_NAMES_TOLD = 8
_NO_TABLE: Mapping[str, Any] = MappingProxyType({})


class Manifest:
    """One manifest as it was read. Nothing of it changes; `dm.plumbing.records.edit` gives a new one.

    ``path`` is its file (None for one in memory), ``text`` what it was read from, ``document`` every table of it,
    ``datasets`` the datasets by name in the text's order, ``storage`` the ``[_STORAGE]`` table, ``project_root`` the
    folder that relative paths are below.
    """

    __slots__ = ("_identifiers", "_lines", "datasets", "document", "path", "project_root", "storage", "text")

    def __init__(
        self,
        document: Mapping[str, Any],
        *,
        text: str = "",
        path: Path | None = None,
        project_root: Path | None = None,
    ) -> None:
        """Check a document and make the model of it. Raises `Malformed`."""
        self.path = path
        self.text = text
        self.document: Mapping[str, Any] = MappingProxyType(dict(document))
        self.project_root = project_root or (path.parent if path is not None else Path())
        self._lines: TomlText | None = None
        self._identifiers: dict[str, list[str]] | None = None
        self._check_structure()
        self.storage: Mapping[str, Any] = MappingProxyType(document.get("_STORAGE", {}))
        datasets = {}
        for name, table in document.items():
            if name[:1] != "_":
                try:
                    datasets[name] = Dataset(name, table, self._find_dataset_line)
                except Fault as fault:
                    self._raise(fault, name)
        self.datasets: Mapping[str, Dataset] = MappingProxyType(datasets)

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a manifest's file. Raises `NotFound`, `MachineFailed` or `Malformed`."""
        from dm.plumbing.fs.machine import display_path, machine_errors

        try:
            with machine_errors("read", path):
                data = path.read_bytes()
        except DmError as error:
            if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                raise NotFound(
                    f"no manifest '{display_path(path)}'", hint="dm init makes one", code="manifest-missing"
                ) from error
            if isinstance(error.__cause__, IsADirectoryError):
                raise NotFound(
                    f"'{display_path(path)}' is a folder, not a manifest",
                    hint=f"name the file in it, or use -C '{display_path(path)}'",
                    code="manifest-missing",
                ) from error
            raise
        return cls.parse(data, path)

    @classmethod
    def parse(cls, text: str | bytes, path: Path | None = None, *, project_root: Path | None = None) -> Manifest:
        """A manifest from its text; ``path`` is where it lies or will lie. Raises `Malformed`."""
        document = read_toml(text, file=path)
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        return cls(document, text=text, path=path, project_root=project_root)

    @classmethod
    def of_tables(cls, tables: Mapping[str, Any], *, project_root: Path | None = None) -> Manifest:
        """A manifest in memory, from the tables that a file would hold. Raises `Malformed`."""
        return cls(tables, project_root=project_root)

    def with_datasets(self, tables: Mapping[str, Mapping[str, Any]]) -> Manifest:
        """This manifest with datasets added or replaced, in memory; the file stays as it is.

        Raises `Malformed` for a table that a manifest may not hold, `UsageError` for such a name.
        """
        datasets = {name: _make_dataset(name, table) for name, table in tables.items()}
        other = Manifest.__new__(Manifest)
        other.path, other.text, other.project_root = self.path, self.text, self.project_root
        other.storage, other._lines, other._identifiers = self.storage, self._lines, None
        others = {name: dataset.table for name, dataset in datasets.items()}
        other.document = MappingProxyType({**self.document, **others})
        other.datasets = MappingProxyType({**self.datasets, **datasets})
        return other

    @property
    def schema(self) -> int | None:
        """``_META.schema``; None for a file from before there was one, which is read all the same."""
        schema: int | None = self.document.get("_META", _NO_TABLE).get("schema")
        return schema

    # faults

    def _check_structure(self) -> None:
        for name in _STRUCTURAL:
            table = self.document.get(name)
            if table is not None and not isinstance(table, Mapping):
                self._raise(Fault(f"must be a table, as [{name}]", None, "wrong-type"), name)
        schema = self.document.get("_META", _NO_TABLE).get("schema")
        if schema is None:
            return
        if type(schema) is not int or schema < 0:
            fault = Fault("'schema' must be a whole number", f"write schema = {MANIFEST_SCHEMA}", field="schema")
            self._raise(fault, "_META")
        if schema > MANIFEST_SCHEMA:
            message = f"the manifest has schema {schema}, this dm understands {MANIFEST_SCHEMA}"
            raise Malformed(
                message,
                hint="use a newer dm for it",
                file=self.path,
                line=self.find_line(("_META",), "schema"),
                code="schema-unknown",
            )

    def _raise(self, fault: Fault, name: str) -> NoReturn:
        what = f"[{name}]" if name[:1] == "_" else f"dataset '{printable(name)}'" if fault.is_table else ""
        message = f"{what}: {fault.message}" if what else f"'{printable(name)}' {fault.message}"
        line = self.find_line((name,), fault.field) if fault.is_table else self.find_line((), name)
        raise Malformed(message, hint=fault.hint, file=self.path, line=line, code=fault.code) from None

    # lines

    def find_line(self, table: Sequence[str], field: str | None = None) -> int | None:
        """The line, from 1, of a field of the table at that path; of the table where it has no such field; or None.

        The text is scanned at the first call (8 µs a dataset).
        """
        if self._lines is None:
            from dm.plumbing.records.toml_lines import NotScannable, TomlText

            try:
                self._lines = TomlText(self.text)
            except NotScannable:
                return None
        return self._lines.find_line(tuple(table), field)

    def _find_dataset_line(self, name: str, field: str) -> int | None:
        return self.find_line((name,), field)

    # finding

    def find(self, identifier: str) -> Dataset:
        """The one dataset with this name, alias or DOI.

        A DOI may be written with ``doi:`` or as a ``https://doi.org/`` address, in any case. Raises `NotFound`, with
        the nearest names when there is none and the candidates when there are several.
        """
        if self._identifiers is None:
            self._identifiers = _index(self.datasets.values())
        names = list(dict.fromkeys(self._identifiers.get(identifier, []) + self._identifiers.get(_doi(identifier), [])))
        if len(names) == 1:
            return self.datasets[names[0]]
        if names:
            told = ", ".join(f"'{printable(name)}'" for name in names)
            raise NotFound(
                f"'{printable(identifier)}' is ambiguous: {told}",
                hint="use the name of the one that is meant" if identifier not in names else "rename or drop the alias",
                code="ambiguous",
            )
        from difflib import get_close_matches

        near = get_close_matches(identifier, self._identifiers, n=3, cutoff=0.6)
        near = near or [known for known in self._identifiers if identifier and identifier.lower() in known.lower()][:3]
        hint = f"did you mean {' or '.join(_quote(name) for name in near)}?" if near else None
        if not self.datasets:
            hint = "the manifest declares no datasets; dm add URI declares one"
        raise NotFound(
            f"no dataset '{printable(identifier)}'", hint=hint or "dm list shows what is declared", code="no-dataset"
        )

    def find_collisions(self, place_of: Callable[[Dataset], str | None] | None = None) -> dict[str, list[str]]:
        """The datasets that would land on each other although their sources differ, each with the others' names.

        Two collide when their landing paths are equal or one lies within the other. ``place_of`` gives a dataset's
        absolute landing path (None: it has none); without it, places are compared as the manifest writes them. At most
        8 others are named for each. Datasets that nothing is fetched for, and those without a usable key, are left out.
        The time is that of sorting the paths.
        """
        placed = []
        for dataset in self.datasets.values():
            if not dataset.skip_download and not dataset.lazy_access:
                parts = _find_place(dataset, place_of)
                if parts is not None:
                    placed.append((parts, dataset))
        placed.sort(key=lambda item: item[0])
        found: dict[str, list[str]] = {}
        above: list[tuple[tuple[str, ...], dict[object, list[str]]]] = []  # of one chain of nested places: by source
        for parts, dataset in placed:
            while above and above[-1][0] != parts[: len(above[-1][0])]:
                above.pop()
            if not above or above[-1][0] != parts:
                above.append((parts, {}))
            for _, by_source in above:
                for source, names in by_source.items():
                    if source != dataset.source:
                        for name in names[:_NAMES_TOLD]:
                            _note(found, dataset.name, name)
                            _note(found, name, dataset.name)
                    if len(found.get(dataset.name, ())) >= _NAMES_TOLD:
                        break
            above[-1][1].setdefault(dataset.source, []).append(dataset.name)
        return found


def _quote(name: str) -> str:
    """A name in quotes, safe for a terminal."""
    return f"'{printable(name)}'"


def _note(found: dict[str, list[str]], name: str, other: str) -> None:
    others = found.setdefault(name, [])
    if len(others) < _NAMES_TOLD and other not in others:
        others.append(other)


def _find_place(dataset: Dataset, place_of: Callable[[Dataset], str | None] | None) -> tuple[str, ...] | None:
    try:
        if place_of is not None:
            place = place_of(dataset)
            return None if place is None else tuple(place.split("/"))
        expression = dataset.storage_path or dataset.local_path
        if expression is None:
            return ("", dataset.store or "", dataset.scope or "", *dataset.landing.parts)
        if "$key" in expression or "${key}" in expression:
            landing = dataset.landing.text
            expression = expression.replace("${key}", landing).replace("$key", landing)
        return ("path", *os.path.normpath(expression).split("/"))
    except DmError:
        return None  # its own fetch says why


def _index(datasets: Iterable[Dataset]) -> dict[str, list[str]]:
    index: dict[str, list[str]] = {}
    for dataset in datasets:
        identifiers = [dataset.name, *dataset.aliases]
        if dataset.doi:
            identifiers += [dataset.doi, _doi(dataset.doi)]
        for identifier in identifiers:
            names = index.setdefault(identifier, [])
            if dataset.name not in names:
                names.append(dataset.name)
    return index


def _doi(text: str) -> str:
    """The key under which a DOI is found, however it is written; ``""`` for what is none."""
    lower = text.strip().lower()
    for prefix in ("https://doi.org/", "http://doi.org/", "https://dx.doi.org/", "http://dx.doi.org/", "doi:"):
        lower = lower.removeprefix(prefix)
    return f"doi:{lower}" if lower.startswith("10.") and "/" in lower else ""


def _make_dataset(name: str, table: Mapping[str, Any]) -> Dataset:
    """A dataset that stands in no file yet."""
    if not name or name.startswith("_"):
        hint = "give it one that does not begin with '_'"
        raise UsageError(f"'{printable(name)}' cannot be the name of a dataset", hint=hint, code="name-reserved")
    try:
        return Dataset(name, dict(table), _find_no_line)
    except Fault as fault:
        raise Malformed(f"dataset '{printable(name)}': {fault.message}", hint=fault.hint, code=fault.code) from None


def _find_no_line(_name: str, _field: str) -> None:
    return None


def discover(start: Path, environment: Environment, explicit: Path | None = None) -> Path | None:
    """The manifest to use: ``explicit`` (relative to ``start``), else the environment's, else the nearest above.

    Walking up from ``start``, the first folder that holds one of `MANIFEST_NAMES` decides. None when there is none.
    Raises `NotFound` when a file that was named does not exist.
    """
    if explicit is not None:
        return _named(start / explicit, "--manifest")
    for variable in MANIFEST_VARIABLES:
        value = environment.get(variable)
        if value is not None:
            return _named(start / value, variable)
    for folder in (start, *start.parents):
        for name in MANIFEST_NAMES:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                return Path(path)
    return None


def _named(path: Path, by: str) -> Path:
    path = Path(os.path.normpath(path))
    if not os.path.exists(path):
        hint = f"it is named by {by}"
        if path.name == MANIFEST_NAMES[0]:  # the one that it makes
            hint += f"; dm init {quote_word(str(path.parent))} makes one"
        raise NotFound(f"no manifest '{printable(str(path))}'", hint=hint, code="manifest-missing")
    return path
