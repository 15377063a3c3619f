"""Documents against their JSON Schemas: every finding, with its line and the name that was probably meant.

``schemas/`` (draft 2020-12) describes manifest, state, config file and sidecars as `dm` writes them. Fields that other
tools add are allowed there; one that is nearly a known name is a finding all the same. jsonschema gives all findings of
a document, where fastjsonschema stops at the first; its import (70 ms) is paid by the commands that validate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dm.errors import DmError, UsageError
from dm.plumbing.records.plain import quote_key
from dm.plumbing.records.toml import read_toml
from dm.values import printable

#: The kinds of document, each with its schema's file.
KINDS = {
    "manifest": "manifest.v6.0.json",
    "state": "state.v6.0.json",
    "config": "config.v6.0.json",
    "artifact-config": "artifact-config.v6.0.json",
    "artifact-metadata": "artifact-metadata.v6.0.json",
}

#: How alike two names are (difflib's ratio) when one is taken for a slip of the other: in a table whose other names
#: are free for other tools, and in one where users have names of their own.
_ALIKE, _ALIKE_AMONG_OWN = 0.75, 0.85
#: Shorter names of the user's own are never taken for a slip.
_OWN_NAME_MIN = 6
#: Names that people write for another one, too unlike it for a ratio.
_SLIPS = {"url": "uri", "urls": "uris", "href": "uri", "md5": "checksum", "sha512": "checksum", "hash": "checksum"}
#: Fields of other tools that would pass for slips.
_FOREIGN = frozenset(("python", "julia", "callable", "julia_modules", "python_modules", "downloads", "extras"))
_TYPE_WORDS: tuple[tuple[type, str], ...] = (
    (bool, "true or false"),
    (str, "a string"),
    (int, "a number"),
    (float, "a number"),
    (dict, "a table"),
    (list, "a list"),
)
_WANTED_WORDS = {
    "string": "a string",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "array": "a list of strings",
    "object": "a table",
}


class Finding(NamedTuple):
    """One fault of a document: its file and line (from 1) where they are known, the field's dotted name (empty for the
    document itself), one line that says what is wrong, and one that says what to do.
    """

    file: Path | None
    line: int | None
    field: str
    message: str
    hint: str | None = None


def validate(kind: str, data: bytes | str, file: Path | None = None) -> list[Finding]:
    """Hold a TOML document against the schema of its kind, one of `KINDS`; all that is wrong with it, in the order of
    its lines. A manifest, and an artifact's configuration without findings, is also read as `dm` reads it.

    Raises `Malformed` for a text that is not TOML and `UsageError` for an unknown kind.
    """
    if kind not in KINDS:
        from difflib import get_close_matches

        near = get_close_matches(kind, KINDS, n=1, cutoff=0.4)
        known = ", ".join(f"'{one}'" for one in KINDS)
        way_out = f"did you mean '{near[0]}'?" if near else f"known are {known}"
        raise UsageError(f"unknown kind of document '{printable(kind)}'", hint=way_out, code="kind-unknown")
    document = read_toml(data, file=file)
    text = data if isinstance(data, str) else data.decode("utf-8")
    from dm.plumbing.records.toml_lines import TomlText

    lines = TomlText(text)
    findings: dict[tuple[str, bool], list[Finding]] = {}
    for error in _make_validator(KINDS[kind]).iter_errors(document):
        path = _name_place(error)
        message, hint = _explain(error, path)
        names = _leading_names(path)
        line = lines.find_line(names[:-1], names[-1]) if names else None
        field = ".".join(f"{part}" if isinstance(part, int) else quote_key(part) for part in path)
        finding = Finding(file, line, field, message, hint)
        findings.setdefault((field, error.validator == "nearest"), []).append(finding)
    # Of a slip it does not matter what else is wrong with it.
    told = [one for (field, slip), each in findings.items() if slip or (field, True) not in findings for one in each]
    if kind == "manifest":
        told += _read_as_manifest(document, text, file, is_told=bool(told))
    if kind == "artifact-config" and not told:
        told += _read_as_sidecar(data, file)
    return sorted(set(told), key=lambda finding: (finding.line or 0, finding.field, finding.message))


def read_schema(name: str) -> dict[str, Any]:
    """A schema's document, from the installed package or from the checkout's ``schemas/``."""
    import json
    from importlib import resources

    installed = resources.files("dm") / "schemas" / name
    place = installed if installed.is_file() else Path(__file__).resolve().parents[3] / "schemas" / name
    schema: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    return schema


def _make_validator(name: str) -> Any:
    from jsonschema import Draft202012Validator, validators  # type: ignore[import-untyped]
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    schemas = {other: read_schema(other) for other in KINDS.values()}
    for schema in schemas.values():
        del schema["$schema"]  # jsonschema would go on with its own class below a reference to it
    resources = [(other, DRAFT202012.create_resource(schema)) for other, schema in schemas.items()]
    registry: Registry[Any] = Registry().with_resources(resources)
    check_properties = Draft202012Validator.VALIDATORS["properties"]

    def properties(validator: Any, known: Mapping[str, Any], instance: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
        yield from check_properties(validator, known, instance, schema)
        if validator.is_type(instance, "object"):
            yield from _find_slips(validator, known, instance, schema)

    checker = validators.extend(Draft202012Validator, {"properties": properties})
    return checker(schemas[name], registry=registry)


def _find_slips(
    validator: Any, known: Mapping[str, Any], instance: Mapping[str, Any], schema: Mapping[str, Any]
) -> Iterator[Any]:
    """Names that the schema does not know and that are nearly one which it knows; a table only where one may be."""
    from difflib import get_close_matches

    from jsonschema import ValidationError

    own_names = "additionalProperties" in schema and "$defs" not in schema
    for name, value in instance.items():
        if name in known or name in _FOREIGN or name.rstrip("_0123456789") in known:
            continue
        if own_names and len(name) < _OWN_NAME_MIN:
            continue
        alike = [other for other in known if (other[:1] == "_") == (name[:1] == "_")]
        near = [_SLIPS[name]] if _SLIPS.get(name) in known else []
        near = near or get_close_matches(name, alike, n=1, cutoff=_ALIKE_AMONG_OWN if own_names else _ALIKE)
        if near and isinstance(value, dict):
            meant = validator.evolve(schema=known[near[0]])
            if not meant.is_valid({}) and not meant.is_valid(value):
                continue
        if near:
            yield ValidationError(near[0], validator="nearest", path=[name])


def _name_place(error: Any) -> list[str | int]:
    path = list(error.absolute_path)
    return [*path, error.instance] if "propertyNames" in error.absolute_schema_path else path


def _leading_names(path: list[str | int]) -> tuple[str, ...]:
    names: list[str] = []
    for part in path:
        if not isinstance(part, str):
            break
        names.append(part)
    return tuple(names)


def _explain(error: Any, path: list[str | int]) -> tuple[str, str | None]:
    """One line in the words of the other messages, and the way out."""
    name = f"'{printable(str(next((part for part in reversed(path) if isinstance(part, str)), 'the document')))}'"
    means = error.schema.get("description") if isinstance(error.schema, Mapping) else None
    if error.validator == "nearest":
        return f"{name} is not a known name; the nearest is '{error.message}'", f"write '{error.message}', or leave it"
    if error.validator == "not" and "required" in error.validator_value:
        contradiction, _, way_out = str(means).partition(": ")
        return contradiction, way_out
    if error.validator == "not":
        return f"{name} has a user or password in it", "put them into ~/.netrc"
    if error.validator == "required":
        missing = next((part for part in error.validator_value if part not in error.instance), "")
        return f"'{missing}' is missing" + (f" in {name}" if path else ""), None
    if error.validator == "type":
        wanted = _WANTED_WORDS.get(str(error.validator_value), str(means).partition(",")[0])
        hint = "put it below the header of a dataset" if means == "a table: a dataset" else None
        return f"{name} must be {wanted}, not {_name_type(error.instance)}", hint
    if error.validator == "anyOf" and isinstance(error.instance, Mapping):
        # A table is allowed: what is wrong lies in it.
        for inner in error.context:
            if inner.validator == "required":
                return f"{name} must have a 'ref'", 'write { ref = "module:function", args = [], kwargs = {} }'
            if inner.path:
                wanted = {"array": "a list", "object": "a table"}.get(inner.validator_value, "a string")
                return f"{inner.path[-1]!r} of {name} must be {wanted}, not {_name_type(inner.instance)}", None
    if error.validator == "anyOf" and not isinstance(error.instance, str):
        return f"{name} must be {means}, not {_name_type(error.instance)}", None
    value = f"'{printable(error.instance)}'" if isinstance(error.instance, str) else str(error.instance)
    return f"{name} is {value}, it must be {means}" if means else f"{name} must not be {value}", None


def _name_type(value: object) -> str:
    return next((words for kind, words in _TYPE_WORDS if isinstance(value, kind)), "a date or time")


def _read_as_sidecar(data: bytes | str, file: Path | None) -> Iterator[Finding]:
    """What no schema can say: a hash that is not the key table's."""
    from dm.plumbing.records.sidecars import decode_config

    try:
        decode_config(data.encode("utf-8") if isinstance(data, str) else data, file=file)
    except DmError as error:
        yield Finding(file, None, "", error.message.removeprefix(f"{file}: "), error.hint)


def _read_as_manifest(
    document: Mapping[str, Any], text: str, file: Path | None, *, is_told: bool
) -> Iterator[Finding]:
    """What no schema can say: contradicting digests, users in URIs of other forms, keys that lie on each other.

    ``is_told`` says that the schema has found something, which is then why a manifest cannot be read at all.
    """
    from dm.plumbing.records.manifest import Manifest

    try:
        manifest = Manifest(document, text=text, path=file)
    except DmError as error:
        if is_told:
            return
        line = getattr(error, "line", None)
        where = f"{file}:{line}: " if file is not None and line is not None else f"{file}: "
        yield Finding(file, line, "", error.message.removeprefix(where), error.hint)
        return
    for name, dataset in manifest.datasets.items():
        try:
            _ = dataset.key  # derived here
        except DmError as error:
            message = error.message.removeprefix(f"dataset '{printable(name)}': ")
            yield Finding(file, dataset.find_line("key"), quote_key(name), message, error.hint)
    for name, others in manifest.find_collisions().items():
        told = ", ".join(f"'{printable(other)}'" for other in others)
        message = f"'{printable(name)}' would land on {told}, from another source"
        yield Finding(file, manifest.find_line((name,)), quote_key(name), message, "set 'key' for it")
