"""The fields of ``[_STORAGE]`` and the config files: what each one holds and who may set it.

A field is a directive with a type of its own. Everything else in such a table is a *symbol*: a string that expressions
name as ``$name``. Fields that name commands, services, remotes or limits are *personal*: they are read from the
environment and the user's config file, never from a manifest or a checkout (SCHEMA.md, "What a cloned project may not
decide").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Field(NamedTuple):
    """One field: its name, what kind of value it holds, and whether it is personal.

    Kinds: ``path`` (an expression, and a symbol too), ``paths`` (a list of expressions), ``selector``
    (``$folder[/sub/path]``), ``segment`` (one part of a path, ``""`` is a value), ``text``, ``flag``, ``seconds``
    (above 0), ``count`` (a whole number from 1), ``whole`` (one from 0), ``number`` (above 0), ``size`` (bytes, or
    ``10GB``), ``links`` (a list of link modes) and ``durability``.
    """

    name: str
    kind: str
    meaning: str
    personal: bool = False


_FIELDS = (
    Field("data", "path", "folder root for fetched data"),
    Field("cache", "path", "folder root for what can be made again"),
    Field("repo", "path", "folder root of the project itself"),
    Field("user_data_dir", "path", "the platform's folder for user data"),
    Field("user_cache_dir", "path", "the platform's folder for user caches"),
    Field("datasets_dir", "path", "where fetched datasets lie, by key"),
    Field("datacache_dir", "path", "where produced artifacts lie"),
    Field("datasets_pools", "paths", "folders searched for datasets before a fetch"),
    Field("datacache_pools", "paths", "folders searched for produced artifacts"),
    Field("default", "selector", "folder of the composed layout when a dataset has no 'store'"),
    Field("scope", "segment", "partition of the composed layout"),
    Field("project", "text", "the project's name"),
    Field("canonical", "flag", "whether manifests are written in canonical form"),
    Field("lock_stale_age", "seconds", "age in seconds from which a peer's lock is stale"),
    Field("link", "links", "ways to make a working copy, in order", personal=True),
    Field("durability", "durability", "whether what is published is flushed to disk first", personal=True),
    Field("jobs", "count", "fetches at once", personal=True),
    Field("archive_max_bytes", "size", "bytes an archive may unpack to", personal=True),
    Field("archive_max_files", "count", "entries an archive may hold", personal=True),
    Field("archive_max_ratio", "number", "times its own size that an archive may unpack to", personal=True),
    Field("http_timeout", "seconds", "seconds without a byte after which a server is given up", personal=True),
    Field("http_retries", "whole", "further attempts after the first", personal=True),
    Field("ssh_command", "text", "command that reaches another machine", personal=True),
    Field("doi_url", "text", "address of doi.org, which says where a DOI leads", personal=True),
    Field("zenodo_url", "text", "address of Zenodo", personal=True),
    Field("figshare_url", "text", "address of figshare's API", personal=True),
    Field("dataverse_url", "text", "Dataverse asked in place of the one that a DOI leads to", personal=True),
    Field("pangaea_url", "text", "address of PANGAEA", personal=True),
    Field("osf_url", "text", "address of OSF's API", personal=True),
    Field("datacite_url", "text", "address of DataCite's API", personal=True),
    Field("default_remote", "text", "remote of push and pull when none is named", personal=True),
)
#: Every field by name.
FIELDS: Mapping[str, Field] = {field.name: field for field in _FIELDS}

#: The kinds of object that have a scope and a prefix of their own, with the built-in prefix of each.
OBJECT_KINDS: Mapping[str, str] = {"datasets": "datasets", "cached": "cached"}

#: Sub-tables whose entries are fields of their own, written with a dot: ``_SCOPE.datasets``.
KIND_TABLES = ("_SCOPE", "_PREFIX")

LINK_MODES = ("reflink", "hardlink", "copy")
DURABILITIES = ("batch", "none")
#: Names that an expression may not take as symbols although they are unused as fields: `DATAMANIFEST_DIR` and
#: `DATAMANIFEST_TOML` have meanings of their own.
_WITHOUT_ENVIRONMENT = frozenset(("dir", "toml"))
#: Names that end in these words are commands or services for ever, so that a later field cannot be set by a manifest
#: of today.
_PERSONAL_SUFFIXES = ("_command", "_url", "_service", "_remote")

_SIZE_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_FLAGS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def find_field(name: str) -> Field | None:
    """The field called ``name`` (``_SCOPE.datasets`` included), or None when it is a symbol."""
    table, dot, kind = name.partition(".")
    if dot and table in KIND_TABLES and kind in OBJECT_KINDS:
        word = "partition" if table == "_SCOPE" else "folder"
        return Field(name, "segment", f"{word} of {kind} in the composed layout")
    return FIELDS.get(name)


def is_personal(name: str) -> bool:
    """Whether ``name`` may be set by the environment and the user's config file only."""
    field = FIELDS.get(name)
    return field.personal if field is not None else name.endswith(_PERSONAL_SUFFIXES)


def is_symbol(name: str) -> bool:
    """Whether an expression may name ``$name``: a folder or any word that is not a field."""
    if name == "project":
        return True
    field = FIELDS.get(name)
    if field is not None:
        return field.kind == "path"
    return is_word(name) and not name.startswith("_") and name != "key"


def is_word(name: str) -> bool:
    """Whether ``name`` is letters, digits and ``_`` only."""
    return name.replace("_", "a").isalnum()


def list_environment_names(name: str) -> list[str]:
    """The variables that set ``name``, first one first: ``DATAMANIFEST_DATA_DIR``, ``DATAMANIFEST_DATA``."""
    table, dot, kind = name.partition(".")
    if dot:
        return [f"DATAMANIFEST_{table.lstrip('_')}_{kind}".upper()]
    if name in _WITHOUT_ENVIRONMENT:
        return []
    upper = f"DATAMANIFEST_{name.upper()}"
    is_root = is_symbol(name) and name != "project" and not name.endswith("_dir") and f"{name}_dir" not in FIELDS
    return [f"{upper}_DIR", upper] if is_root else [upper]


def counts_when_empty(name: str) -> bool:
    """Whether an empty variable sets ``name``: an empty scope is shared, an empty list of pools is none."""
    field = find_field(name)
    return field is not None and field.kind in ("segment", "paths")


def find_nearest_field(name: str, symbols: Iterable[str] = ()) -> str | None:
    """The known field or symbol that ``name`` was probably meant to be, or None."""
    from difflib import get_close_matches

    known = [*FIELDS, *(f"{table}.{kind}" for table in KIND_TABLES for kind in OBJECT_KINDS), *symbols]
    matches = get_close_matches(name, known, n=1, cutoff=0.75)
    return matches[0] if matches else None


class WrongValue(Exception):
    """A value is not what its field holds. ``str()`` says what it must be."""


def convert_value(name: str, raw: object) -> object:
    """The value of ``name`` in its own type, from a TOML value or from text (environment, command line).

    Gives a `str` for expressions, selectors, segments and texts, a tuple of `str` for lists, `bool`, `float` for
    seconds and numbers, `int` for counts and sizes (bytes). Raises `WrongValue`.
    """
    field = find_field(name)
    kind = "path" if field is None else field.kind
    if kind == "segment":
        return _convert_text(raw)
    if kind in ("path", "selector", "text"):
        text = _convert_text(raw)
        if not text:
            raise WrongValue("a string that is not empty")
        return text
    if kind in ("paths", "links"):
        return _convert_list(raw, kind)
    if kind == "flag":
        flag = raw if isinstance(raw, bool) else _FLAGS.get(raw.strip().lower()) if isinstance(raw, str) else None
        if flag is None:
            raise WrongValue("true or false")
        return flag
    if kind == "durability":
        if raw not in DURABILITIES:
            raise WrongValue(" or ".join(f"'{word}'" for word in DURABILITIES))
        return raw
    return _convert_number(raw, kind)


def convert_variable(name: str, text: str) -> object:
    """The value of ``name`` from an environment variable: lists are separated by ``:``. Raises `WrongValue`."""
    field = find_field(name)
    if field is not None and field.kind == "paths":
        return tuple(part for part in text.split(":") if part)
    return convert_value(name, text)


def _convert_text(raw: object) -> str:
    if not isinstance(raw, str):
        raise WrongValue("a string")
    return raw


def _convert_list(raw: object, kind: str) -> tuple[str, ...]:
    if isinstance(raw, str):
        raw = [part for part in raw.replace(",", ":").split(":") if part] if kind == "links" else [raw]
    if not isinstance(raw, (list, tuple)) or not all(isinstance(part, str) and part for part in raw):
        raise WrongValue("a list of strings")
    if kind == "links" and (not raw or any(part not in LINK_MODES for part in raw)):
        raise WrongValue("a list of " + ", ".join(f"'{mode}'" for mode in LINK_MODES))
    return tuple(raw)


def _convert_number(raw: object, kind: str) -> float | int:
    words = {
        "seconds": "a number of seconds above 0",
        "number": "a number above 0",
        "count": "a whole number from 1",
        "whole": "a whole number from 0",
        "size": "a number of bytes, or one with a unit as in '10GB'",
    }
    number: float | int | None = None
    if isinstance(raw, str):
        number = _parse_number(raw.strip().lower(), with_unit=kind == "size")
    elif isinstance(raw, (int, float)) and not isinstance(raw, bool):
        number = raw
    whole = kind in ("count", "size", "whole")
    allowed = number is not None and (0 < number < float("inf") or (number == 0 and kind == "whole"))
    if number is None or not allowed or (whole and number != int(number)):
        raise WrongValue(words[kind])
    return int(number) if whole else float(number)


def _parse_number(text: str, *, with_unit: bool) -> float | int | None:
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyz ") if with_unit else text
    factor = _SIZE_UNITS.get(text[len(digits) :].strip())
    try:
        number = int(digits)
    except ValueError:
        try:
            number_with_fraction = float(digits)
        except ValueError:
            return None
        return None if factor is None else number_with_fraction * factor
    return None if factor is None else number * factor
