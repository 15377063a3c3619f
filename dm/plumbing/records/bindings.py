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
    for name, value, origin in _list_by_format(manifest, "loaders"):
        yield name, read_binding(value, origin)


def list_format_savers(manifest: Manifest) -> Iterator[tuple[str, Binding]]:
    """The manifest's savers per format, found and named as `list_format_loaders` has it: ``_LANG.python.savers`` and
    ``_SAVERS``.

    Raises `Malformed` for what is no binding, and for one with arguments that is not given the value (``$value``) or
    not told where to write (``$path``).
    """
    for name, value, origin in _list_by_format(manifest, "savers"):
        binding = read_binding(value, origin)
        if binding.args or binding.kwargs:
            _check_saver(binding)
        yield name, binding


def find_table_by_format(manifest: Manifest, kind: str) -> tuple[str, ...]:
    """Where the manifest's ``loaders`` or ``savers`` per format stand: the explicit table, else the bare one."""
    explicit = _table(_table(manifest.document, "_LANG"), OWN_LANGUAGE)
    return ("_LANG", OWN_LANGUAGE, kind) if kind in explicit else (f"_{kind.upper()}",)


def _check_saver(binding: Binding) -> None:
    texts = [each for each in _list_arguments([binding.args, binding.kwargs]) if isinstance(each, str)]
    fault = None
    if "$value" not in texts and "${value}" not in texts:
        fault = "none of its arguments is '$value', what it is to save"
    elif not any("$path" in each or "${path}" in each for each in texts):
        fault = "none of its arguments has '$path', where it is to write"
    if fault is not None:
        hint = "write \"module:function\" for function(value, path), or name both in 'args' and 'kwargs'"
        raise Malformed(f"{printable(binding.origin)} is no saver: {fault}", hint=hint, code="binding-malformed")


def _list_arguments(value: object) -> Iterator[object]:
    """What stands in lists and tables, at any depth."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _list_arguments(each)
    else:
        yield value


def _list_by_format(manifest: Manifest, kind: str) -> Iterator[tuple[str, object, str]]:
    """The manifest's ``loaders`` or ``savers``, each as its format in lower case, what it says, and where it stands."""
    explicit_place, bare_place = f"_LANG.{OWN_LANGUAGE}.{kind}", f"_{kind.upper()}"
    explicit = _table(_table(manifest.document, "_LANG"), OWN_LANGUAGE).get(kind, {})
    if not isinstance(explicit, Mapping):
        raise Malformed(f"[{explicit_place}] is no table of {kind} by format", code="binding-malformed")
    bare = _table(manifest.document, bare_place)
    for table, place in ((explicit, explicit_place), (bare, bare_place)):
        for name in table:
            if table is bare and any(name.lower() == other.lower() for other in explicit):
                continue
            if kind == "loaders" and isinstance(table[name], list):
                continue  # a setting of the peers' (python_includes), no loader
            yield name.lower(), _follow_names(table, name, place), f"[{place}] {name}"


def _follow_names(table: Mapping[str, Any], name: str, place: str) -> object:
    seen = [name]
    while isinstance(value := table[seen[-1]], str) and value in table and ":" not in value:
        if value in seen:
            chain = " -> ".join([*seen, value])
            raise Malformed(f"[{place}] goes round in a circle: {printable(chain)}", code="binding-cycle")
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
