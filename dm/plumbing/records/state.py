"""The state: where this checkout found each object, shared with the peers (SCHEMA.md, "State").

It lies in ``.datamanifest/state.toml`` where that file exists, else in ``.datamanifest-state.toml`` beside the
manifest. It is never a directive: writes follow the manifest, the record only finds, and everything in it can be made
again. Earlier shapes (``_META.schema`` 1 to 4, ``cached.toml``) are read and carried forward.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from dm.errors import Malformed, Refused
from dm.plumbing.records.plain import write_plain
from dm.plumbing.records.private import PRIVATE_FOLDER, ensure_private_folder
from dm.plumbing.records.record_file import RecordFile, read_record
from dm.plumbing.records.toml import read_toml
from dm.progress import SILENT, Progress
from dm.values import printable

if TYPE_CHECKING:
    from dm.plumbing.records.rewrite import Rewrite

#: The number of the shape that is written.
STATE_SCHEMA = 5
#: Where the state of a new project lies, beside the manifest.
STATE_FILE_NAME = ".datamanifest-state.toml"
#: The two places of a state, the peers' own first.
STATE_NAMES = (f"{PRIVATE_FOLDER}/state.toml", STATE_FILE_NAME)
#: The oldest name; read while neither place holds a state, and left where it is.
LEGACY_NAME = "cached.toml"

_NOTHING: Mapping[str, object] = MappingProxyType({})
_HEX_DIGITS = frozenset("0123456789abcdef")


class Record(NamedTuple):
    """Where a fetched dataset's bytes are.

    ``storage_path`` is relative to the project root when below it; ``sha256`` hex, measured by `dm` or declared to a
    peer: a hint, never proof; ``extra`` fields of others, kept.
    """

    storage_path: str
    sha256: str | None = None
    extra: Mapping[str, object] = _NOTHING


class Recipe(NamedTuple):
    """Where the artifacts of one ``cachetype[@version]`` are: ``instances`` maps a parameter hash to a folder."""

    ref: str
    format: str
    instances: Mapping[str, str]
    extra: Mapping[str, object] = _NOTHING


class State(NamedTuple):
    """What a checkout's state says: ``datasets`` by key, ``datacache`` by ``cachetype[@version]``, ``extra`` tables of
    others, kept.
    """

    project_root: Path
    datasets: Mapping[str, Record]
    datacache: Mapping[str, Recipe]
    extra: Mapping[str, object] = _NOTHING

    def find_path(self, key: str) -> Path | None:
        """Where the dataset of that key was last found, absolute; None when it is not recorded."""
        record = self.datasets.get(key)
        return None if record is None else resolve_storage_path(self.project_root, record.storage_path)


def resolve_storage_path(project_root: Path, storage_path: str) -> Path:
    """A recorded path as an absolute one."""
    return Path(os.path.normpath(project_root / storage_path))


def make_storage_path(project_root: Path, path: Path) -> str:
    """A path as it is recorded: relative to the project root when below it.

    Raises `Refused` for a path that is not UTF-8, which no TOML document can hold.
    """
    text = os.path.normpath(path)
    root = os.path.normpath(project_root)
    if text.startswith(root.rstrip("/") + "/"):
        text = text[len(root.rstrip("/")) + 1 :]
    if not text.isascii():
        _check_text(text)
    return text


def list_state_paths(project_root: Path) -> list[Path]:
    """The places of a state, the one that is written to when it exists first."""
    return [project_root / name for name in STATE_NAMES]


def read_state(project_root: Path) -> State:
    """The union of what both places hold, the newer file winning for a key; an empty state when there is none.

    Malformed leftovers inside are dropped. Raises `Malformed` for a file that is not TOML or whose ``_META.schema`` is
    higher than 5, `MachineFailed` when one cannot be read.
    """
    return _unite(project_root, _read_all(project_root))


def merge_state(
    project_root: Path,
    updates: Mapping[str, Record],
    deletes: Iterable[str] = (),
    *,
    recipes: Mapping[str, Recipe] = MappingProxyType({}),
    instance_deletes: Iterable[tuple[str, str]] = (),
    durable: bool = True,
    holder: str | None = None,
    progress: Progress = SILENT,
) -> State:
    """Merge records into the state in one locked read-merge-rename and return what it now holds.

    ``updates`` replace the records of their keys (fields of others in them are kept), ``deletes`` are keys;
    ``recipes`` add their instances to those recorded, ``instance_deletes`` are pairs of recipe and hash. Where both
    places hold a state the union goes to the first and the second is removed. Nothing is written when nothing changes.
    Concurrent writers lose nothing. ``holder`` is what those who wait are shown.

    Raises as `read_state` does, and `Refused` for text that is not UTF-8 and for a link that leads out of the project.
    After a crash the old state is there or the new one.
    """
    from dm.plumbing.records.rewrite import Rewrite, RewriteOptions, rewrite_record

    deleted = tuple(deletes)
    deleted_instances = tuple(instance_deletes)
    result: list[State] = []

    def build(found: list[RecordFile]) -> Rewrite | None:
        old = _unite(project_root, found)
        new = _merge(old, updates, deleted, recipes, deleted_instances)
        result[:] = [new]
        inner, beside, legacy = found
        present = [file for file in (inner, beside) if file.content is not None]
        if new == old and len(present) < 2 and (present or legacy.content is None):
            return None
        target = inner if inner.content is not None else beside
        return Rewrite(target, encode_state(new), [beside.path] if len(present) == 2 else [])

    describe = f"the state of '{project_root}'"
    lock = ensure_private_folder(project_root) / "state.lock"
    options = RewriteOptions(lock, describe, holder, durable, progress, within=project_root)
    rewrite_record([*list_state_paths(project_root), project_root / LEGACY_NAME], build, options)
    return result[0]


def encode_state(state: State) -> bytes:
    """The state's bytes: canonical TOML of schema 5. Raises `Refused` for text that is not UTF-8."""
    document: dict[str, object] = {name: table for name, table in state.extra.items() if name != "_META"}
    meta = state.extra.get("_META")
    document["_META"] = {**(meta if isinstance(meta, Mapping) else {}), "schema": STATE_SCHEMA}
    if state.datacache:
        document["datacache"] = {name: _encode_recipe(recipe) for name, recipe in state.datacache.items()}
    if state.datasets:
        document["datasets"] = {key: _encode_record(record) for key, record in state.datasets.items()}
    text = write_plain(document)
    if text is None:
        from dm.plumbing.records.toml import dump_canonical

        return dump_canonical(document)
    return encode_text(text)


def encode_text(text: str) -> bytes:
    """UTF-8 of a TOML text. Raises `Refused` naming the first line that has none."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        for line in text.split("\n"):
            _check_text(line)
        raise


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Refused(
            f"cannot record '{printable(text)}': it is not UTF-8",
            hint="keep the project and its data below folders with plain names",
            code="not-utf8",
        ) from error


def _encode_record(record: Record) -> dict[str, object]:
    table = {**record.extra, "storage_path": record.storage_path}
    if record.sha256 is not None:
        table["sha256"] = record.sha256
    return table


def _encode_recipe(recipe: Recipe) -> dict[str, object]:
    return {**recipe.extra, "ref": recipe.ref, "format": recipe.format, "instances": dict(recipe.instances)}


# Reading


def _read_all(project_root: Path) -> list[RecordFile]:
    found = [read_record(path) for path in list_state_paths(project_root)]
    if all(file.content is None for file in found):
        found.append(read_record(project_root / LEGACY_NAME))
    return found


def _unite(project_root: Path, found: list[RecordFile]) -> State:
    newest_last = sorted((file for file in found[:2] if file.content is not None), key=lambda file: file.mtime_ns)
    united: State | None = None
    for file in newest_last or found[2:]:
        state = _interpret(project_root, file)
        united = state if united is None else _add(united, state)
    return State(project_root, {}, {}) if united is None else united


def _add(older: State, newer: State) -> State:
    recipes = dict(older.datacache)
    for name, recipe in newer.datacache.items():
        recipes[name] = _add_recipe(recipes.get(name), recipe)
    return State(older.project_root, {**older.datasets, **newer.datasets}, recipes, {**older.extra, **newer.extra})


def _add_recipe(older: Recipe | None, newer: Recipe) -> Recipe:
    if older is None:
        return newer
    return Recipe(
        newer.ref or older.ref,
        newer.format or older.format,
        {**older.instances, **newer.instances},
        {**older.extra, **newer.extra},
    )


def _merge(
    old: State,
    updates: Mapping[str, Record],
    deletes: Iterable[str],
    recipes: Mapping[str, Recipe],
    instance_deletes: Iterable[tuple[str, str]],
) -> State:
    datasets = dict(old.datasets)
    for key in deletes:
        datasets.pop(key, None)
    for key, record in updates.items():
        known = datasets.get(key)
        if known is not None and known.extra:
            record = record._replace(extra={**known.extra, **record.extra})
        datasets[key] = record
    artifacts = dict(old.datacache)
    for name, recipe in recipes.items():
        artifacts[name] = _add_recipe(artifacts.get(name), recipe)
    for name, parameter_hash in instance_deletes:
        known_recipe = artifacts.get(name)
        if known_recipe is None:
            continue
        rest = {known: path for known, path in known_recipe.instances.items() if known != parameter_hash}
        if rest:
            artifacts[name] = known_recipe._replace(instances=rest)
        else:
            del artifacts[name]
    return State(old.project_root, datasets, artifacts, old.extra)


def _interpret(project_root: Path, file: RecordFile) -> State:
    document = read_document(file)
    schema = _read_schema(document, file)
    if schema < STATE_SCHEMA:
        meta = document.get("_META")
        extra = {} if not isinstance(meta, dict) else {"_META": meta}
        return State(project_root, {}, _read_earlier(document, schema), extra)
    others = {name: table for name, table in document.items() if name not in ("datasets", "datacache")}
    return State(
        project_root, _read_datasets(document.get("datasets")), _read_recipes(document.get("datacache")), others
    )


def read_document(file: RecordFile) -> dict[str, object]:
    """A record file's document. Raises `Malformed` with file and line."""
    return read_toml(file.content or b"", file=file.path)


def _read_schema(document: dict[str, object], file: RecordFile) -> int:
    meta = document.get("_META")
    schema = meta.get("schema", 1) if isinstance(meta, dict) else 1
    if not isinstance(schema, int) or isinstance(schema, bool) or not 1 <= schema <= STATE_SCHEMA:
        raise Malformed(
            f"cannot read a state of schema {schema!r}: {STATE_SCHEMA} is the highest that is understood",
            hint="use a newer dm, or move the file aside: it can be made again",
            code="schema-unknown",
            file=file.path,
        )
    return schema


def _read_datasets(table: object) -> dict[str, Record]:
    datasets: dict[str, Record] = {}
    if not isinstance(table, dict):
        return datasets
    for key, fields in table.items():
        if not isinstance(fields, dict):
            continue
        storage_path = fields.get("storage_path")
        if not isinstance(storage_path, str) or not storage_path or "\0" in storage_path:
            continue
        sha256 = fields.get("sha256")
        if sha256 is not None:
            sha256 = sha256.lower() if isinstance(sha256, str) else ""
            if len(sha256) != 64 or not _HEX_DIGITS.issuperset(sha256):
                sha256 = None
        extra = _NOTHING
        if len(fields) > 2 or not fields.keys() <= {"storage_path", "sha256"}:
            extra = {name: value for name, value in fields.items() if name not in ("storage_path", "sha256")}
        datasets[key] = Record(storage_path, sha256, extra)
    return datasets


def _read_recipes(table: object) -> dict[str, Recipe]:
    """The recipe tables of schema 4 (the top level) and 5 (``datacache``)."""
    recipes: dict[str, Recipe] = {}
    if not isinstance(table, dict):
        return recipes
    for name, fields in table.items():
        instances = fields.get("instances") if isinstance(fields, dict) else None
        if not isinstance(instances, dict):
            continue
        paths = {parameter_hash: path for parameter_hash, path in instances.items() if isinstance(path, str)}
        if paths:
            _add_to(recipes, name, _make_recipe(fields, paths))
    return recipes


def _make_recipe(fields: Mapping[str, object], instances: Mapping[str, str]) -> Recipe:
    ref, format_name = fields.get("ref"), fields.get("format")
    known = ("ref", "format", "instances", "cachetype", "version", "hash", "storage_path")
    return Recipe(
        ref if isinstance(ref, str) else "",
        format_name if isinstance(format_name, str) else "",
        instances,
        {name: value for name, value in fields.items() if name not in known},
    )


def _add_to(recipes: dict[str, Recipe], name: str, recipe: Recipe) -> None:
    recipes[name] = _add_recipe(recipes.get(name), recipe)


def _read_earlier(document: dict[str, object], schema: int) -> dict[str, Recipe]:
    """The recipes of schema 1 to 4, which knew produced artifacts only. Paths that were not recorded are ``""``."""
    tables = {name: table for name, table in document.items() if name != "_META" and isinstance(table, dict)}
    if schema == 4:
        return _read_recipes(tables)
    recipes: dict[str, Recipe] = {}
    if schema == 3:
        for name, fields in tables.items():
            # An instance held its parameters; the recipe the folder in which each lies under its hash.
            folder, instances = fields.get("storage_path"), fields.get("instances")
            lead = f"{folder}/" if isinstance(folder, str) and folder else None
            if isinstance(instances, dict):
                hashes = [known for known, parameters in instances.items() if isinstance(parameters, dict)]
                if hashes:
                    paths = {known: "" if lead is None else lead + known for known in hashes}
                    recipes[name] = _make_recipe(fields, paths)._replace(extra=_NOTHING)
        return recipes
    produced = document.get("produced") if schema == 2 else list(tables.values())
    for fields in produced if isinstance(produced, list) else []:
        if isinstance(fields, dict):
            _read_listed(recipes, fields, schema)
    return recipes


def _read_listed(recipes: dict[str, Recipe], fields: dict[str, object], schema: int) -> None:
    """One entry of schema 2 (``[[produced]]`` with a list of instances) or 1 (a table with a single hash)."""
    listed = fields.get("instances") if schema == 2 else [fields]
    cachetype, version = fields.get("cachetype"), fields.get("version")
    if not isinstance(listed, list) or not isinstance(cachetype, str) or not cachetype:
        return
    hashes = [entry.get("hash") for entry in listed if isinstance(entry, dict)]
    paths = {known: "" for known in hashes if isinstance(known, str) and known}
    if paths:
        name = f"{cachetype}@{version}" if isinstance(version, str) and version else cachetype
        _add_to(recipes, name, _make_recipe(fields, paths)._replace(extra=_NOTHING))
