"""The ladder: who set a field or a symbol, first that is set wins.

1. environment: ``DATAMANIFEST_<NAME>_DIR`` for a folder root, then ``DATAMANIFEST_<NAME>``
2. the checkout's ``.datamanifest/config.toml``: matching ``_HOST`` tables, then its root
3. the manifest's matching ``[_STORAGE._HOST."<pattern>"]``
4. the manifest's ``[_STORAGE]``
5. the user's ``config.toml``: matching ``_HOST`` tables, then its root
6. built in

Everything is read when the ladder is made; what changes later does not move it (SCHEMA.md, "The ladder").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from dm.environment import Environment
from dm.errors import Malformed
from dm.plumbing.records.fields import (
    KIND_TABLES,
    WrongValue,
    convert_value,
    convert_variable,
    counts_when_empty,
    is_personal,
    list_environment_names,
)

ENVIRONMENT = 1
CHECKOUT = 2
MANIFEST_HOST = 3
MANIFEST = 4
USER = 5
BUILT_IN = 6
#: A dataset's own fields stand above the ladder; they come from the manifest.
DATASET = 0
#: The rungs that come with a clone: what they set may not leave the project unasked.
FROM_PROJECT = frozenset((DATASET, CHECKOUT, MANIFEST_HOST, MANIFEST))

_NOT_FROM_HERE = "ignored: only the environment and the user's config may set it"

LineFinder = Callable[[tuple[str, ...], str], int | None]


class Source(NamedTuple):
    """A table of fields with the file it was read from.

    ``root`` is where the table lies in its document (``("_STORAGE",)`` in a manifest); ``find_line`` gives the line,
    from 1, of a field of a table of that document. ``path`` is None for a table that came from no file.
    """

    path: Path | None
    table: Mapping[str, object]
    root: tuple[str, ...] = ()
    find_line: LineFinder | None = None


class Rung:
    """What one rung says of a name.

    ``value`` is as it stands there, in its own type (None: not set there); ``level`` the number of the rung (0: a
    dataset's own field); ``wins`` whether this is the value in force; ``note`` why a value that stands higher does not
    win; ``host`` the pattern of the ``_HOST`` table it stands in, if any; ``file`` and ``line`` where there are some;
    ``origin`` all of that for people: ``environment DATAMANIFEST_DATA_DIR``,
    ``/p/datamanifest.toml:7 [_STORAGE._HOST."login*"]``, ``built in``.
    """

    __slots__ = ("_find_line", "_line", "_where", "file", "host", "level", "name", "note", "value", "wins")

    def __init__(
        self,
        name: str,
        value: object,
        level: int,
        where: str,
        *,
        file: Path | None = None,
        find_line: Callable[[], int | None] | None = None,
        wins: bool = False,
        note: str = "",
        host: str | None = None,
    ) -> None:
        self.name = name
        self.value = value
        self.level = level
        self.file = file
        self.wins = wins
        self.note = note
        self.host = host
        self._where = where
        self._find_line = find_line
        self._line: int | None = None

    @property
    def line(self) -> int | None:
        """The line of ``file``, from 1, where known. Looked for when first asked: it costs a scan of the text."""
        if self._find_line is not None:
            self._line = self._find_line()
            self._find_line = None
        return self._line

    @property
    def origin(self) -> str:
        """Where the value stands, for people."""
        if self.file is None:
            return self._where
        line = "" if self.value is None or self.line is None else f":{self.line}"
        return f"{self.file}{line} {self._where}".rstrip()

    def fault(self, message: str, *, hint: str | None = None, code: str | None = None) -> Malformed:
        """A `Malformed` that points at this rung: the file with its line, or the variable's name."""
        if self.file is not None:
            return Malformed(message, hint=hint, code=code, file=self.file, line=self.line)
        where = f"{self._where}: " if self.level == ENVIRONMENT else ""
        return Malformed(where + message, hint=hint, code=code)

    def __repr__(self) -> str:
        return f"Rung({self.name!r}, {self.value!r}, {self.origin!r}, {self.level})"


class _Layer(NamedTuple):
    level: int
    source: Source
    table: Mapping[str, object]
    path: tuple[str, ...]  # of the table in the document


class Ladder:
    """Every rung for every name, frozen when it is made. Reads no file and no process state."""

    def __init__(
        self,
        environment: Environment,
        checkout: Source | None = None,
        manifest: Source | None = None,
        user: Source | None = None,
        *,
        project_root: Path | None = None,
    ) -> None:
        """Take the picture. Raises `Malformed` (with file and line) for a ``_HOST`` that is not tables of tables."""
        self.environment = environment._replace(variables=dict(environment.variables))
        self.project_root = project_root
        self._layers: list[_Layer] = []
        for source, host_level, level in ((checkout, CHECKOUT, CHECKOUT), (manifest, MANIFEST_HOST, MANIFEST)):
            self._add_layers(source, host_level, level)
        self._add_layers(user, USER, USER)
        self._found: dict[str, Rung | None] = {}

    def _add_layers(self, source: Source | None, host_level: int, level: int) -> None:
        if source is None:
            return
        hosts = source.table.get("_HOST")
        if hosts is not None:
            for pattern, table in _match_hosts(source, hosts, self.environment.host_name):
                self._layers.append(_Layer(host_level, source, dict(table), (*source.root, "_HOST", pattern)))
        self._layers.append(_Layer(level, source, dict(source.table), source.root))

    def for_user_alone(self) -> Ladder:
        """The same ladder without what comes with a clone: environment, user's config and built in."""
        ladder = Ladder(self.environment, project_root=self.project_root)
        ladder._layers = [layer for layer in self._layers if layer.level == USER]
        return ladder

    def lookup(self, name: str) -> Rung | None:
        """The rung in force for a field or symbol (``_SCOPE.datasets`` for a kind's own), None when nowhere set.

        Raises `Malformed` when the value in force is of the wrong type.
        """
        if name not in self._found:
            self._found[name] = self._find(name)
        return self._found[name]

    def _find(self, name: str) -> Rung | None:
        for rung in self._walk(name):
            if rung.value is not None and not rung.note:
                rung.value = self._convert(rung)
                rung.wins = True
                return rung
        return None

    def explain(self, name: str) -> list[Rung]:
        """Every rung for ``name`` from the first to the last, those where it is not set too; one at most wins."""
        winner = self.lookup(name)
        rungs = list(self._walk(name))
        for rung in rungs:
            if winner is not None and rung.value is not None and not rung.note:
                rung.wins = True
                rung.value = winner.value
                break
        return rungs

    def list_names(self) -> list[str]:
        """Every name that a file sets on a rung of this ladder, fields of ``_SCOPE`` and ``_PREFIX`` dotted, sorted."""
        names: set[str] = set()
        for layer in self._layers:
            for name, value in layer.table.items():
                if name in KIND_TABLES and isinstance(value, Mapping):
                    names.update(f"{name}.{kind}" for kind in value)
                elif not name.startswith("_"):
                    names.add(name)
        return sorted(names)

    def _walk(self, name: str) -> Iterator[Rung]:
        yield from self._walk_environment(name)
        personal = is_personal(name)
        table_name, dot, kind = name.partition(".")
        for layer in self._layers:
            table, path = layer.table, layer.path
            if dot:
                table, path = _find_kind_table(layer, table_name), (*path, table_name)
            field = kind if dot else name
            value = table.get(field)
            yield Rung(
                name,
                value,
                layer.level,
                _label(path) if layer.source.path is not None or path else "given table",
                file=layer.source.path,
                find_line=_line_finder(layer.source, path, field),
                note=_NOT_FROM_HERE if personal and value is not None and layer.level != USER else "",
            )
        built_in = self._find_built_in(name)
        if built_in is not None:
            yield built_in

    def _walk_environment(self, name: str) -> Iterator[Rung]:
        for variable in list_environment_names(name):
            value = self.environment.variables.get(variable)
            if value == "" and not counts_when_empty(name):
                value = None
            yield Rung(name, value, ENVIRONMENT, f"environment {variable}")

    def _find_built_in(self, name: str) -> Rung | None:
        value: object = None
        where = "built in"
        if name in ("data", "cache"):
            value = self.environment.get("DATAMANIFEST_DIR")
            if value is not None:
                where = "built in: environment DATAMANIFEST_DIR"
            else:
                value = f"$user_{name}_dir/datamanifest"
        elif name in ("user_data_dir", "user_cache_dir"):
            value = str(getattr(self.environment, name))
        elif name == "repo":
            value = None if self.project_root is None else str(self.project_root)
        else:
            value = _BUILT_IN.get(name)
        return None if value is None else Rung(name, value, BUILT_IN, where)

    def _convert(self, rung: Rung) -> object:
        try:
            if rung.level == ENVIRONMENT:
                return convert_variable(rung.name, str(rung.value))
            return convert_value(rung.name, rung.value)
        except WrongValue as error:
            raise rung.fault(
                f"'{rung.name}' must be {error}, not {_show(rung.value)}",
                hint=f"correct it, or take it out with 'dm config unset {rung.name}'" if rung.file else None,
                code="wrong-type",
            ) from None


#: Values in force where nobody set anything (SCHEMA.md, "Where things live"). Scopes are not here: theirs comes after
#: two walks of the ladder.
_BUILT_IN: Mapping[str, object] = {
    "default": "$data",
    "datasets_pools": (
        "$repo/datasets",
        "$user_data_dir/datamanifest/shared/datasets",
        "$user_data_dir/datamanifest/datasets",
        "~/.cache/Datasets",
    ),
    "datacache_pools": (),
    "_PREFIX.datasets": "datasets",
    "_PREFIX.cached": "cached",
    "canonical": False,
    "lock_stale_age": 30.0,
    "link": ("reflink", "hardlink"),
    "durability": "batch",
}


def list_settings(source: Source) -> list[Rung]:
    """Everything that one file sets, its ``_HOST`` tables included: the value as it stands, its ``host`` pattern.

    In the file's order, those for hosts last. Raises `Malformed` for a ``_HOST`` that is not tables of tables.
    """
    rungs = _list_table(source, source.table, source.root, None)
    hosts = source.table.get("_HOST", {})
    if not isinstance(hosts, Mapping):
        raise _not_a_table(source, source.root, "_HOST")
    for pattern, table in hosts.items():
        path = (*source.root, "_HOST", pattern)
        if not isinstance(table, Mapping):
            raise _not_a_table(source, path[:-1], pattern)
        rungs += _list_table(source, table, path, pattern)
    return rungs


def _list_table(source: Source, table: Mapping[str, object], path: tuple[str, ...], host: str | None) -> list[Rung]:
    rungs = []
    for name, value in table.items():
        if name in KIND_TABLES and isinstance(value, Mapping):
            below = [(f"{name}.{kind}", kind, each, (*path, name)) for kind, each in value.items()]
        else:
            below = [] if name.startswith("_") else [(name, name, value, path)]
        for dotted, field, each, where in below:
            level = USER if not source.root else MANIFEST
            finder = _line_finder(source, where, field)
            rungs.append(Rung(dotted, each, level, _label(where), file=source.path, find_line=finder, host=host))
    return rungs


def _match_hosts(source: Source, hosts: object, host_name: str) -> list[tuple[str, Mapping[str, object]]]:
    """The ``_HOST`` tables that match, in code-point order of their patterns."""
    from fnmatch import fnmatchcase

    if not isinstance(hosts, Mapping):
        raise _not_a_table(source, source.root, "_HOST")
    matches: list[tuple[str, Mapping[str, object]]] = []
    for pattern in sorted(hosts):
        table = hosts[pattern]
        if not isinstance(table, Mapping):
            raise _not_a_table(source, (*source.root, "_HOST"), pattern)
        if fnmatchcase(host_name, pattern) or _matches_expression(pattern, host_name):
            matches.append((pattern, table))
    return matches


def _matches_expression(pattern: str, host_name: str) -> bool:
    import re

    try:
        return re.fullmatch(pattern, host_name) is not None
    except re.error:
        return False  # a shell glob need not be an expression: "*.cluster"


def _find_kind_table(layer: _Layer, name: str) -> Mapping[str, object]:
    table = layer.table.get(name, {})
    if not isinstance(table, Mapping):
        raise _not_a_table(layer.source, layer.path, name)
    return table


def _label(path: tuple[str, ...]) -> str:
    if not path:
        return ""
    return "[" + ".".join(part if part.startswith("_") else f'"{part}"' for part in path) + "]"


def _not_a_table(source: Source, path: tuple[str, ...], name: str) -> Malformed:
    line = None if source.find_line is None else source.find_line(path, name)
    shown = ".".join((*path, name))
    return Malformed(f"'{shown}' must be a table", file=source.path, line=line, code="wrong-type")


def _line_finder(source: Source, path: tuple[str, ...], name: str) -> Callable[[], int | None] | None:
    find_line = source.find_line
    return None if find_line is None else lambda: find_line(path, name)


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
