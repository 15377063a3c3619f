"""Which code a manifest names: own-language bindings, the ``shell`` command, fetchers in other languages.

Only read here, never run (SCHEMA.md, "Bindings"). What runs it takes the user's permission.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dm.errors import Malformed
from dm.values import Binding, printable

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.plumbing.records.manifest import Manifest

#: This tool's own language, as a table below ``_LANG``.
OWN_LANGUAGE = "python"


def read_binding(value: object, origin: str) -> Binding:
    """A binding in either form: ``"module:function"`` or ``{ ref, args, kwargs }``. ``origin`` is where it stands.

    Raises `Malformed` for anything else.
    """
    table: Mapping[str, object] = value if isinstance(value, Mapping) else {"ref": value}
    ref, args, kwargs = table.get("ref"), table.get("args", []), table.get("kwargs", {})
    fault = None
    if not isinstance(ref, str):
        fault = "it names no function"
    elif not isinstance(args, list) or not isinstance(kwargs, Mapping):
        fault = "'args' must be a list and 'kwargs' a table"
    if fault is not None:
        hint = 'write "module:function", or { ref = "module:function", args = [], kwargs = {} }'
        raise Malformed(f"{printable(origin)} is no binding: {fault}", hint=hint, code="binding-malformed")
    assert isinstance(ref, str) and isinstance(args, list) and isinstance(kwargs, Mapping)
    return Binding(ref.strip(), tuple(args), dict(kwargs), origin)


def find_fetcher(dataset: Dataset) -> Binding | None:
    """A dataset's fetcher in this tool's own language: explicit (``_LANG.python.fetcher``) beats bare (``fetcher``)."""
    return _find_own(dataset, "fetcher")


def find_loader(manifest: Manifest, dataset: Dataset, data_format: str | None) -> Binding | None:
    """The loader that the manifest gives for a dataset: its own, else the manifest's default for its format."""
    own = _find_own(dataset, "loader")
    if own is not None or data_format is None:
        return own
    return next((binding for name, binding in list_format_loaders(manifest) if name == data_format.lower()), None)


def list_format_loaders(manifest: Manifest) -> Iterator[tuple[str, Binding]]:
    """The manifest's loaders per format (in lower case): explicit ones (``_LANG.python.loaders``) beat ``_LOADERS``.

    A ``_LOADERS`` value without a colon that is the name of another entry stands for that one, as the peers read it.
    A list there is a setting of theirs, and passed over. Raises `Malformed` for a cycle of such names, and for what is
    no binding.
    """
    explicit = _table(_table(_table(manifest.document, "_LANG"), OWN_LANGUAGE), "loaders")
    bare = _table(manifest.document, "_LOADERS")
    for table, place in ((explicit, f"_LANG.{OWN_LANGUAGE}.loaders"), (bare, "_LOADERS")):
        for name in table:
            if table is bare and any(name.lower() == other.lower() for other in explicit):
                continue
            if isinstance(table[name], list):
                continue  # a setting of the peers' (python_includes), no loader
            yield name.lower(), read_binding(_follow_names(table, name, place), f"[{place}] {name}")


def _follow_names(table: Mapping[str, Any], name: str, place: str) -> object:
    seen = [name]
    while isinstance(value := table[seen[-1]], str) and value in table and ":" not in value:
        if value in seen:
            chain = " -> ".join([*seen, value])
            raise Malformed(f"[{place}] goes round in a circle: {printable(chain)}", code="loader-cycle")
        seen.append(value)
    return table[seen[-1]]


def find_shell(dataset: Dataset) -> str | None:
    """A dataset's fetch command: ``shell``, else its older spelling ``_LANG.shell.fetcher``; None when it has none."""
    if dataset.shell:
        return dataset.shell
    older = _table(_table(dataset.table, "_LANG"), "shell").get("fetcher")
    return older if isinstance(older, str) and older else None


def has_source(dataset: Dataset) -> bool:
    """Whether anything says where a dataset's bytes come from: a URI, a command, or a fetcher in any language."""
    if dataset.uris or not {"shell", "fetcher", "python"}.isdisjoint(dataset.table):
        return True
    languages = _table(dataset.table, "_LANG")
    return any(_table(languages, language).get("fetcher") for language in languages)


def list_foreign_fetchers(dataset: Dataset) -> list[tuple[str, Binding]]:
    """A dataset's fetchers in other languages, each with its language, in code-point order of these."""
    languages = _table(dataset.table, "_LANG")
    return [
        (language, read_binding(_table(languages, language)["fetcher"], f"[{dataset.name}] _LANG.{language}.fetcher"))
        for language in sorted(languages)
        if language not in (OWN_LANGUAGE, "shell") and _table(languages, language).get("fetcher")
    ]


def _find_own(dataset: Dataset, field: str) -> Binding | None:
    explicit = _table(_table(dataset.table, "_LANG"), OWN_LANGUAGE).get(field)
    if explicit:
        return read_binding(explicit, f"[{dataset.name}] _LANG.{OWN_LANGUAGE}.{field}")
    bare = dataset.table.get(field)
    if bare:
        return read_binding(bare, f"[{dataset.name}] {field}")
    older = dataset.table.get("python") if field == "fetcher" else None  # before there were tables per language
    return read_binding(older, f"[{dataset.name}] python") if isinstance(older, str) and older else None


def _table(table: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = table.get(name)
    return found if isinstance(found, Mapping) else {}
