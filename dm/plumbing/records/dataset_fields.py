"""The fields of a dataset: what each one holds, checked when the manifest is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dm.errors import Malformed
from dm.values import Digest, printable

_TYPE_WORDS: dict[type, str] = {
    str: "a string",
    bool: "true or false",
    list: "a list",
    dict: "a table",
    int: "a number",
    float: "a number",
}


class Fault(Exception):
    """What is wrong with a dataset's table: one line, the way out, the field. ``is_table`` off: it is no table."""

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        code: str = "wrong-type",
        *,
        field: str | None = None,
        is_table: bool = True,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        self.field = field
        self.is_table = is_table


#: The type of each field that has a single one. ``uri``, ``fetcher`` and ``loader`` are checked on their own.
_TYPES: dict[str, type] = {
    "uris": list,
    "version": str,
    "branch": str,
    "doi": str,
    "aliases": list,
    "description": str,
    "key": str,
    "storage_path": str,
    "local_path": str,
    "store": str,
    "scope": str,
    "checksum": str,
    "sha256": str,
    "digest": str,
    "skip_checksum": bool,
    "skip_download": bool,
    "lazy_access": bool,
    "delegate": bool,
    "extract": bool,
    "format": str,
    "requires": list,
    "shell": str,
    "host": str,
    "path": str,
    "scheme": str,
}
#: Every field of a dataset that `dm` knows.
FIELD_NAMES = ("uri", *_TYPES, "fetcher", "loader")


def check_table(table: Any) -> tuple[tuple[str, ...], bool, Digest | None, Digest | None]:
    """Check one dataset's table; return its sources, whether they are a list, and its contract. Raises `Fault`."""
    if not isinstance(table, Mapping):
        raise _no_table(table)
    for name, value in table.items():
        wanted = _TYPES.get(name)
        if wanted is not None and type(value) is not wanted:
            raise _wrong_type(name, value, wanted)
        if wanted is list:
            _check_strings(name, value)
    if "fetcher" in table or "loader" in table:
        _check_bindings(table)
    if "store" in table or "storage_path" in table or "local_path" in table:
        _check_place(table)
    uris, is_list = _read_sources(table)
    checksum = digest = None
    if "checksum" in table or "sha256" in table:
        checksum = _read_checksum(table)
    if table.get("digest"):
        digest = _read_digest(table)
    return uris, is_list, checksum, digest


def _no_table(value: object) -> Fault:
    kind = _name_type(value)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return Fault("is a list of tables, not a dataset", "write its header in single brackets", is_table=False)
    return Fault(
        f"is not a dataset: a top-level key must be a table, not {kind}",
        "put it below the header of the dataset that it belongs to",
        "stray-key",
        is_table=False,
    )


def _name_type(value: object) -> str:
    return _TYPE_WORDS.get(type(value)) or "a date or time"


def _wrong_type(name: str, value: object, wanted: type) -> Fault:
    if wanted is bool:
        hint = f"write {name} = true or {name} = false, without quotes"
        return Fault(f"'{name}' must be true or false, not {_name_type(value)}", hint, field=name)
    if wanted is list:
        example = f'"{value}"' if isinstance(value, str) and value.isprintable() else '"…"'
        return Fault(
            f"'{name}' must be a list of strings, not {_name_type(value)}", f"write {name} = [{example}]", field=name
        )
    if name in ("storage_path", "local_path") or isinstance(value, (list, dict)):
        hint = f'write {name} = "…"'
    else:
        hint = f'write {name} = "{str(value).lower() if isinstance(value, bool) else value}"'
    return Fault(f"'{name}' must be a string, not {_name_type(value)}", hint, field=name)


def _check_strings(name: str, values: list[object]) -> None:
    for value in values:
        if type(value) is not str:
            raise Fault(
                f"'{name}' must be a list of strings, it holds {_name_type(value)}", "put quotes around it", field=name
            )


def _check_bindings(table: Mapping[str, Any]) -> None:
    for name in ("fetcher", "loader"):
        value = table.get(name)
        if value is None or type(value) is str:
            continue
        if type(value) is not dict:
            message = f"'{name}' must be a string or a table, not {_name_type(value)}"
            raise Fault(message, f'write {name} = "module:function"', field=name)
        for part, wanted in (("ref", str), ("args", list), ("kwargs", dict)):
            if part in value and type(value[part]) is not wanted:
                message = f"'{name}.{part}' must be {_TYPE_WORDS[wanted]}, not {_name_type(value[part])}"
                hint = f'write {name} = {{ ref = "module:function", args = [], kwargs = {{}} }}'
                raise Fault(message, hint, field=name)


def _check_place(table: Mapping[str, Any]) -> None:
    storage_path, local_path, store = (table.get(name) for name in ("storage_path", "local_path", "store"))
    if storage_path and local_path and storage_path != local_path:
        raise Fault(
            "'storage_path' and 'local_path' say two places", "keep 'storage_path'", "contradiction", field="local_path"
        )
    if not store:
        return
    if storage_path or local_path:
        other = "storage_path" if storage_path else "local_path"
        message = f"'store' and '{other}' contradict each other: both say where it lives"
        raise Fault(message, "keep one of them", "contradiction", field="store")
    if not store.startswith("$"):
        raise Fault(
            f"'store' is '{printable(store)}', which does not begin with a folder as '$data' does",
            _fix_selector(store),
            "selector-bare",
            field="store",
        )


def _fix_selector(store: str) -> str:
    """The way out of a selector without ``$``: with it, or the nearest root's name, or a ``storage_path``."""
    if store.startswith(("/", "~", ".")):
        return f'for a folder of your own write storage_path = "{printable(store.rstrip("/"))}/$key"'
    from difflib import get_close_matches

    folder, slash, rest = store.partition("/")
    near = get_close_matches(folder.lower(), ("data", "cache", "repo"), n=1, cutoff=0.75)
    return f'write store = "${near[0] if near else printable(folder)}{slash}{printable(rest)}"'


def _read_sources(table: Mapping[str, Any]) -> tuple[tuple[str, ...], bool]:
    uri, uris = table.get("uri"), table.get("uris")
    if uri and uris:
        message = "'uri' and 'uris' contradict each other: one source, or several files of one folder"
        raise Fault(message, "keep one of them", "contradiction", field="uris")
    field = "uris" if uris else "uri"
    source = uris or uri
    if not source:
        if uri is not None and type(uri) not in (str, list):
            raise _wrong_uri(uri)
        return _read_old_source(table) if "downloads" in table else ((), False)
    if type(source) is str:
        if "@" in source or "[" in source or not source.isprintable():
            _check_uri(field, source)
        return (source,), False
    if type(source) is not list:
        raise _wrong_uri(source)
    _check_strings(field, source)
    for each in source:
        _check_uri(field, each)
    return tuple(source), True


def _wrong_uri(value: object) -> Fault:
    message = f"'uri' must be a string, not {_name_type(value)}"
    return Fault(message, 'write uri = "https://…", or uris = [ … ] for several files', field="uri")


def _read_old_source(table: Mapping[str, Any]) -> tuple[tuple[str, ...], bool]:
    """``downloads``, the oldest spelling of ``uri``: a list that the peers too read only when it holds one."""
    downloads = table["downloads"]
    uris = [downloads] if type(downloads) is str else downloads
    if type(uris) is not list or len(uris) > 1 or any(type(uri) is not str for uri in uris):
        raise Fault("'downloads' must hold one string", 'write uri = "…" instead', field="downloads")
    for uri in uris:
        _check_uri("downloads", uri)
    return tuple(uris), False


def _check_uri(field: str, uri: str) -> None:
    from dm.plumbing.records.key import find_uri_fault

    fault = find_uri_fault(uri)
    if fault is not None:
        raise Fault(f"'{field}' {fault.message}", fault.hint, "uri-refused", field=field)


def _parse_digest(field: str, text: str) -> Digest:
    try:
        return Digest.parse(text)
    except Malformed as error:
        raise Fault(f"'{field}': {error.message}", error.hint, error.code, field=field) from None


def _read_checksum(table: Mapping[str, Any]) -> Digest | None:
    text, older = table.get("checksum"), table.get("sha256")
    checksum = _parse_digest("checksum", text) if text else None
    if checksum is not None and checksum.is_tree:
        raise Fault(
            "'checksum' holds the digest of a folder",
            f'write digest = "{checksum}"',
            "digest-misplaced",
            field="checksum",
        )
    if not older:
        return checksum
    sha256 = _parse_digest("sha256", older)
    if sha256.algorithm != "sha256":
        raise Fault("'sha256' holds another digest", f'write checksum = "{sha256}"', "digest-misplaced", field="sha256")
    if checksum is not None and checksum.algorithm == "sha256" and checksum != sha256:
        message = f"'checksum' is {checksum.short}, 'sha256' is {sha256.short}: they contradict each other"
        raise Fault(message, "keep the one that is right, as 'checksum'", "contradiction", field="sha256")
    return checksum or sha256


def _read_digest(table: Mapping[str, Any]) -> Digest:
    text = table["digest"]
    if not text.strip().lower().startswith("blake3-tree:"):
        hint = "a folder's digest is blake3-tree:<64 hex digits>; any other goes into 'checksum'"
        message = f"'digest' is '{printable(text)}', not a blake3-tree digest"
        raise Fault(message, hint, "digest-misplaced", field="digest")
    return _parse_digest("digest", text)
