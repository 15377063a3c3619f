"""What a user allows when a manifest is trusted: every part of it that runs code or leads outside the project.

Read only, nothing is run (SCHEMA.md, "Trust"). What cannot be understood is listed as it stands: a part too many asks
once more than needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dm.errors import DmError
from dm.plumbing.records.bindings import (
    OWN_LANGUAGE,
    find_fetcher,
    find_shell,
    list_foreign_fetchers,
    list_format_loaders,
    list_format_savers,
    read_binding,
)
from dm.plumbing.records.fields import is_symbol
from dm.plumbing.records.ladder import FROM_PROJECT
from dm.plumbing.records.location import Location
from dm.plumbing.records.pinned import RUN_MODULE, Pin, Pinned, PinnedFiles
from dm.plumbing.records.pinned_words import pin_arguments, pin_command
from dm.plumbing.records.untrusted import find_foreign_folder
from dm.values import Binding

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.plumbing.records.manifest import Manifest
    from dm.plumbing.records.places import Places

#: Kinds of parts in the order in which they are shown, each with its heading.
KINDS: Mapping[str, str] = {
    "shell": "commands",
    "fetcher": "fetchers",
    "foreign": "fetchers in other languages",
    "loader": "loaders",
    "format-loader": "loaders by format",
    "format-saver": "savers by format",
    "pickle": "pickle data (loading it runs what it holds)",
    "code": "more that names code",
    "place": "places outside the project",
    "files": "files that this code comes from",
    "file": "their contents",
}
#: Formats whose loading runs code that the data holds.
PICKLE_FORMATS = frozenset(("pickle", "pkl"))
#: Fields of a dataset that a command or an argument may name as ``$variable``.
_VARIABLES = ("branch", "doi", "format", "key", "version")


class Part(NamedTuple):
    """One thing that a user allows: its kind (of `KINDS`), its name within the kind, and what it is as text."""

    kind: str
    name: str
    text: str


class Parts:
    """The parts of one manifest as it was read. Those of the manifest itself are found once, the files that they name
    at each `read`.
    """

    def __init__(self, manifest: Manifest, places: Places) -> None:
        self._manifest = manifest
        self._places = places
        # What a manifest says is looked at part by part; a command that reads it does not make it code.
        itself = () if manifest.path is None else (manifest.path.name,)
        self._files = PinnedFiles(manifest.project_root, left_out=itself)
        self._declared: list[Part] | None = None
        self._pins: set[Pin] = set()

    def read(self) -> list[Part]:
        """Every part as it is now, in the order in which they are shown; empty for a manifest without any.

        Raises `Refused` (``pin-too-large``) when the code's files cannot all be looked at.
        """
        return self._find_declared() + self._list_files()

    def are_any(self) -> bool:
        """Whether there is any part. No file is read."""
        return bool(self._find_declared())

    def _find_declared(self) -> list[Part]:
        if self._declared is None:
            self._declared = sorted(self._list_code(), key=_order) + self._list_places()
        return self._declared

    def _list_files(self) -> list[Part]:
        groups: list[Part] = []
        files: dict[str, str] = {}
        for group in self._files.read(self._pins):
            groups.append(Part("files", group.name, _summarize(group)))
            files.update(group.files)
        return groups + [Part("file", name, text) for name, text in sorted(files.items())]

    # code

    def _list_code(self) -> Iterator[Part]:
        for dataset in self._manifest.datasets.values():
            yield from self._list_code_of(dataset)
        yield from self._list_by_format()

    def _list_code_of(self, dataset: Dataset) -> Iterator[Part]:
        table, name = dataset.table, dataset.name
        if dataset.shell or "_LANG" in table:
            command = find_shell(dataset)
            if command is not None:
                self._pins.update(pin_command(command, _list_values(dataset)))
                yield Part("shell", name, command + self._tell_variables(command, dataset))
        if "_LANG" in table or "fetcher" in table or "python" in table:
            try:
                yield from self._tell_binding("fetcher", dataset, find_fetcher(dataset))
                for language, binding in list_foreign_fetchers(dataset):
                    yield from self._tell_binding("foreign", dataset, binding, language=language)
            except DmError:
                yield Part("code", name, repr({field: table.get(field) for field in ("fetcher", "python", "_LANG")}))
        yield from self._list_own_loaders(dataset)
        if find_data_format(dataset) in PICKLE_FORMATS:
            yield Part("pickle", name, _tell_data(dataset))

    def _list_own_loaders(self, dataset: Dataset) -> Iterator[Part]:
        explicit = _table(_table(dataset.table, "_LANG"), OWN_LANGUAGE).get("loader")
        for value in (explicit, dataset.table.get("loader")):
            if value:
                try:
                    yield from self._tell_binding("loader", dataset, read_binding(value, ""))
                except DmError:
                    yield Part("code", f"{dataset.name} (loader)", repr(value))
                return

    def _tell_binding(
        self, kind: str, dataset: Dataset, binding: Binding | None, *, language: str = OWN_LANGUAGE
    ) -> Iterator[Part]:
        if binding is None:
            return
        self._pins.add(Pin(language, binding.ref.partition(":")[0].strip()))
        self._pins.update(pin_arguments([binding.args, binding.kwargs], _list_values(dataset)))
        name = dataset.name if language == OWN_LANGUAGE else f"{dataset.name} ({language})"
        call = _tell_call(binding)
        yield Part(kind, name, call + self._tell_variables(call if binding.args or binding.kwargs else "", dataset))

    def _tell_variables(self, text: str, dataset: Dataset) -> str:
        """What the manifest puts in place of the variables that a command or its arguments name."""
        values: dict[str, Any] = {name: dataset.table[name] for name in _VARIABLES if dataset.table.get(name)}
        if dataset.uris:
            values["uri"] = list(dataset.uris) if dataset.is_list else dataset.uris[0]
            values.setdefault("version", dataset.version)
            values.setdefault("key", dataset.show_key())
            values.setdefault("format", dataset.format)
        used = [f"${name} = {values[name]!r}" for name in sorted(values) if values[name] and _names(text, name)]
        if _names(text, "path") or _names(text, "requires_paths"):
            used += [f"requires {self._tell_required(identifier)}" for identifier in dataset.requires]
        return f"   [{', '.join(used)}]" if used else ""

    def _tell_required(self, identifier: str) -> str:
        """The data that a command is given, which it may well run."""
        try:
            required = self._manifest.find(identifier)
        except DmError:
            return repr(identifier)
        return f"{required.name!r}: {_tell_data(required)}"

    def _list_by_format(self) -> Iterator[Part]:
        document = self._manifest.document
        for kind, name, listed in (
            ("format-loader", "_LOADERS", list_format_loaders),
            ("format-saver", "_SAVERS", list_format_savers),
        ):
            try:
                for data_format, binding in listed(self._manifest):
                    self._pins.add(Pin(OWN_LANGUAGE, binding.ref.partition(":")[0].strip()))
                    self._pins.update(pin_arguments([binding.args, binding.kwargs], {"project_root": "."}))
                    yield Part(kind, data_format, _tell_call(binding))
            except DmError:
                tables = {name: document.get(name), "_LANG": document.get("_LANG")}
                yield Part("code", f"[{name}]", repr(tables))
        # A tool of another language reads its own table when it is called for a dataset.
        for language in sorted({pin.language for pin in self._pins} - {"", OWN_LANGUAGE, RUN_MODULE}):
            if _table(document, "_LANG").get(language):
                yield Part("code", f"[_LANG.{language}]", repr(_table(document, "_LANG")[language]))

    # places

    def _list_places(self) -> list[Part]:
        """Each folder outside that the manifest or the checkout's config puts data into, with where it really is."""
        places = self._places
        found: dict[str, None] = {}
        for dataset in self._manifest.datasets.values():
            if dataset.skip_download or dataset.lazy_access:
                continue
            try:
                location = places.locate(dataset)
            except DmError:
                continue  # nothing is written to a place that cannot be told
            if location.rungs and places.untrusted_place(location) is not None:
                found[str(location.store_root or location.path)] = None
        for name in ("datasets_dir", "datacache_dir", "data", "cache", "repo", *places.ladder.list_names()):
            root = self._find_root(name)
            if root is not None and places.untrusted_place(root) is not None:
                found[str(root.path)] = None
        return [Part("place", path, os.path.realpath(path)) for path in sorted(found)]

    def _find_root(self, name: str) -> Location | None:
        """A folder that the manifest or the checkout gives a name, whether or not a dataset uses it yet."""
        if not is_symbol(name) or name == "project":
            return None
        try:
            rung = self._places.ladder.lookup(name)
            if rung is None or rung.level not in FROM_PROJECT:
                return None
            root = self._places.root(name)
        except DmError:
            return None
        return Location(root, root, False, "", (rung,))


def leads_to_tools(location: Location, project_root: Path) -> bool:
    """Whether a location is in a folder that other tools obey, like ``.git``: no place for data, whoever allows it."""
    return find_foreign_folder(os.path.realpath(location.path), Path(os.path.realpath(project_root))) is not None


def allows_place(parts: Iterable[Part], location: Location) -> bool:
    """Whether a location lies in one of the places among these parts, by its text and by where its links lead."""
    path, real = str(location.path), os.path.realpath(location.path)
    places = (part for part in parts if part.kind == "place")
    return any(_is_inside(path, place.name) and _is_inside(real, place.text) for place in places)


def find_data_format(dataset: Dataset) -> str:
    """A dataset's format as loaders are looked up: in lower case, without a leading dot; ``""`` for none."""
    return (dataset.format or "").strip().lower().lstrip(".")


def _tell_call(binding: Binding) -> str:
    words = [repr(value) for value in binding.args]
    words += [f"{name}={value!r}" for name, value in binding.kwargs.items()]
    return f"{binding.ref}({', '.join(words)})" if words else binding.ref


def _names(text: str, variable: str) -> bool:
    return f"${variable}" in text or f"${{{variable}" in text


def _list_values(dataset: Dataset) -> dict[str, str]:
    """What the manifest puts in place of variables, as it is when the code runs; of paths only the project's own."""
    values = {
        "branch": dataset.branch,
        "doi": dataset.doi,
        "format": dataset.format,
        "key": dataset.show_key(),
        "version": dataset.version,
        "uri": dataset.uris[0] if dataset.uris and not dataset.is_list else None,
    }
    return {"project_root": ".", **{name: value or "" for name, value in values.items()}}


def _tell_data(dataset: Dataset) -> str:
    source = " ".join(dataset.uris) or dataset.storage_path or dataset.local_path or dataset.show_key()
    contract = [str(digest) for digest in (dataset.digest, dataset.checksum) if digest is not None]
    return f"{source} ({', '.join(contract) or 'no checksum'})"


def _summarize(group: Pinned) -> str:
    """How many files there are, with a digest of their names and contents: it changes when any of them does."""
    files = group.files
    if not files:
        return group.told
    from dm.plumbing import hashing

    data = b"".join(os.fsencode(name) + b"\0" + os.fsencode(text) + b"\0" for name, text in files)
    return f"{len(files)} file{'s' if len(files) != 1 else ''}, blake3:{hashing.blake3_of(data).hex()}"


def _order(part: Part) -> int:
    return list(KINDS).index(part.kind)


def _table(table: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = table.get(name)
    return found if isinstance(found, Mapping) else {}


def _is_inside(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")
