"""The two documents in an artifact's folder: ``config.toml``, which proves what it is, and ``metadata.toml``, which
tells where it comes from (SCHEMA.md, "Sidecars").

``config.toml`` holds the key table at its root, then ``[_META]``; whoever reads it recomputes the hash. Its bytes are
those that the Python peer writes. ``metadata.toml`` is never hashed and decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, cast

from dm.errors import Malformed
from dm.plumbing.records.params import RESERVED_NAME, Plain, hash_plain, make_plain_table
from dm.plumbing.records.toml import dump_sorted, read_toml
from dm.values import find_key_fault, printable

CONFIG_NAME = "config.toml"
METADATA_NAME = "metadata.toml"
#: The names in an artifact's folder that are not its data.
SIDECAR_NAMES = frozenset((CONFIG_NAME, METADATA_NAME))
#: The number of the shape of both.
SIDECAR_SCHEMA = 1

_NOTHING: Mapping[str, object] = MappingProxyType({})


class Config(NamedTuple):
    """What ``config.toml`` says: the key table, whose artifact it is (``version`` is ``""`` where there is none), and
    the parameter hash.
    """

    params: dict[str, Plain]
    cachetype: str
    version: str
    hash: str


def encode_config(cachetype: str, version: str, params: Mapping[str, object], hash: str) -> bytes:
    """The bytes of ``config.toml``, the same as the Python peer's for the same key table.

    Raises `UsageError` for a table that is not plain (`make_plain_table`).
    """
    meta = {"schema": SIDECAR_SCHEMA, "cachetype": cachetype, "hash": hash}
    if version:
        meta["version"] = version
    return dump_sorted({**make_plain_table(params), RESERVED_NAME: meta})


def decode_config(data: bytes, *, file: Path | None = None) -> Config:
    """Read ``config.toml`` and prove it: the hash is computed again from the key table.

    Raises `Malformed` for what is not TOML, a ``_META.schema`` above 1, a cachetype or version that is no safe path,
    and a hash that is not the key table's.
    """
    document, meta = _read(data, file)
    found = [meta.get(name, "") for name in ("cachetype", "version", "hash")]
    cachetype, version, recorded = (value if isinstance(value, str) else "" for value in found)
    for name, text in (("cachetype", cachetype), ("version", version)):
        # Peers let a cachetype have several parts.
        fault = find_key_fault(text) if text or name == "cachetype" else None
        if fault is not None:
            raise Malformed(f"unsafe '_META.{name}' '{printable(text)}': {fault}", file=file, code="sidecar-malformed")
    try:
        computed = hash_plain(cast("dict[str, Plain]", document))
    except (TypeError, ValueError) as error:
        reason = "a time, a date, nan, an infinity or a number of over 4300 digits is no parameter"
        raise Malformed(f"it holds no key table: {reason}", file=file, code="sidecar-malformed") from error
    if computed != recorded:
        raise Malformed(
            f"its parameters have the hash {computed[:12]}…, it says '{printable(recorded[:12])}…'",
            hint="it was changed by hand or damaged; the artifact is made again when it is asked for",
            file=file,
            code="sidecar-hash",
        )
    return Config(cast("dict[str, Plain]", document), cachetype, version, recorded)


class Metadata(NamedTuple):
    """Where an artifact comes from. Nothing of it is trusted; empty means unknown.

    ``created`` RFC 3339 in UTC; ``tool`` what wrote it, with its version; ``host``, ``user`` and ``runtime`` (the
    language with its version) of the computation, ``duration_s`` how long it took; ``git`` the project's ``commit``,
    ``branch`` and ``dirty``; ``state_file`` where it was recorded; ``code_digest`` of the function's source;
    ``packages`` versions by name; ``extra`` what others wrote, kept. ``earlier`` has the same of data that lies beside,
    by its name, where an earlier computation made that; its own ``earlier`` is empty.
    """

    created: str = ""
    tool: str = ""
    host: str = ""
    user: str = ""
    runtime: str = ""
    duration_s: float | None = None
    git: Mapping[str, object] = _NOTHING
    state_file: str = ""
    code_digest: str = ""
    packages: Mapping[str, object] = _NOTHING
    extra: Mapping[str, object] = _NOTHING
    earlier: Mapping[str, Metadata] = MappingProxyType({})

    def find_of(self, name: str) -> Metadata:
        """What is said of the data with this name."""
        known = self.earlier.get(name)
        return self._replace(earlier=MappingProxyType({})) if known is None else known


#: The table of `Metadata.earlier`.
_EARLIER = "earlier"
_TEXTS = ("created", "tool", "host", "user", "runtime")


def encode_metadata(metadata: Metadata) -> bytes:
    """The bytes of ``metadata.toml``; what is unknown is left out. Text that is not Unicode is escaped: a host's odd
    name is no reason to lose a result.
    """
    document = {**_make_document(metadata), RESERVED_NAME: {"schema": SIDECAR_SCHEMA}}
    if metadata.earlier:
        document[_EARLIER] = {name: _make_document(each) for name, each in metadata.earlier.items()}
    return dump_sorted(cast("dict[str, object]", _escape(document)))


def _make_document(metadata: Metadata) -> dict[str, object]:
    document: dict[str, object] = dict(metadata.extra)
    document.update((name, value) for name in _TEXTS if (value := getattr(metadata, name)))
    document.update((name, value) for name in ("git", "packages") if (value := getattr(metadata, name)))
    if metadata.duration_s is not None:
        document["duration_s"] = float(metadata.duration_s)
    for table, name, value in (
        ("origin", "state_file", metadata.state_file),
        ("code", "digest", metadata.code_digest),
    ):
        if value:
            kept = document.get(table)
            document[table] = {**(kept if isinstance(kept, Mapping) else {}), name: value}
    return document


def decode_metadata(data: bytes, *, file: Path | None = None) -> Metadata:
    """Read ``metadata.toml``, of a peer too; fields of another type than they should have are dropped.

    Raises `Malformed` for what is not TOML and for a ``_META.schema`` above 1.
    """
    document, _ = _read(data, file)
    earlier = _take_table(document, _EARLIER)
    found = {name: _read_metadata(table) for name, table in earlier.items() if isinstance(table, dict)}
    return _read_metadata(document)._replace(earlier=found)


def _read_metadata(document: dict[str, object]) -> Metadata:
    document.pop(_EARLIER, None)
    created, tool, host, user, runtime = (
        value if isinstance(value := document.pop(name, ""), str) else "" for name in _TEXTS
    )
    seconds = document.pop("duration_s", None)
    git, packages = (_take_table(document, name) for name in ("git", "packages"))
    return Metadata(
        created,
        tool,
        host,
        user,
        runtime,
        duration_s=float(seconds) if type(seconds) is float or type(seconds) is int else None,
        git=git,
        packages=packages,
        state_file=_take_text(document, "origin", "state_file"),
        code_digest=_take_text(document, "code", "digest"),
        extra=document,
    )


def _read(data: bytes, file: Path | None) -> tuple[dict[str, object], dict[str, object]]:
    """A sidecar's document without its ``_META``, and that table, empty where there is none."""
    document = read_toml(data, file=file)
    meta = document.pop(RESERVED_NAME, {})
    if not isinstance(meta, dict):
        raise Malformed(f"'{RESERVED_NAME}' is no table", file=file, code="sidecar-malformed")
    schema = meta.get("schema", SIDECAR_SCHEMA)
    if type(schema) is not int or schema < 1:
        raise Malformed("'_META.schema' is no whole number from 1", file=file, code="sidecar-malformed")
    if schema > SIDECAR_SCHEMA:
        raise Malformed(
            f"it has schema {schema}, this dm reads {SIDECAR_SCHEMA}",
            hint="install a newer dm",
            file=file,
            code="schema-newer",
        )
    return document, meta


def _take_table(document: dict[str, object], name: str) -> Mapping[str, object]:
    value = document.pop(name, None)
    return value if isinstance(value, dict) else {}


def _take_text(document: dict[str, object], table: str, name: str) -> str:
    """A text out of a table; the table goes with its last field."""
    found = document.get(table)
    if not isinstance(found, dict):
        document.pop(table, None)
        return ""
    text = found.pop(name, "")
    if not found:
        del document[table]
    return text if isinstance(text, str) else ""


def _escape(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, Mapping):
        return {_escape(name): _escape(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_escape(each) for each in value]
    return value
