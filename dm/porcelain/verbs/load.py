"""``load``: make a dataset be here and read it, by the first loader that there is.

The ladder (SCHEMA.md, "Loading"): the caller's loader, the dataset's own, the manifest's for its format, the built-in
one, an error. Data that is opened in place (``lazy_access``) goes down the same ladder, with its URI for a path.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dm.errors import Malformed, NotFound, SourceFailed, UsageError
from dm.plumbing.records.bindings import find_loader, list_format_loaders
from dm.porcelain.find import find_known_copy
from dm.porcelain.materialize import FetchOptions, materialize
from dm.porcelain.template import list_variables
from dm.values import Binding, printable

if TYPE_CHECKING:
    from dm.plumbing.formats.loaders import Loader
    from dm.plumbing.records.dataset import Dataset
    from dm.porcelain.project import Project

#: What a caller may give: a function of the path (a `str`; of data opened in place its URI), ``module:function``, or
#: the name of a format.
OwnLoader = Callable[[str], Any] | str


class _Way(NamedTuple):
    """How a dataset is read: by a ``function`` of the caller, a ``binding`` of the manifest, or a ``built_in`` loader;
    by none of them when the last rung has nothing for ``format`` (None: it has no format).
    """

    format: str | None
    function: Callable[[str], Any] | None = None
    binding: Binding | None = None
    built_in: Loader | None = None

    @property
    def runs(self) -> str | None:
        """What runs that the user must have allowed, in one line; None when nothing does."""
        if self.binding is not None:
            return f"loader: {self.binding.describe()}"
        if self.built_in is not None and self.built_in.runs_code:
            return f"{self.built_in.format}: what the data itself says"
        return None


def load(
    project: Project,
    identifier: str,
    *,
    loader: OwnLoader | None = None,
    options: FetchOptions = FetchOptions(),  # noqa: B008 - a frozen value
) -> object:
    """Fetch a dataset unless it is there, verified, and return what its loader makes of it.

    A folder (an extracted archive, several files, a repository) whose format has no loader is its path. Raises what
    fetching raises; `SourceFailed` with ``loader-missing`` when there is no loader, ``binding-broken`` when the one
    there is cannot be imported, ``load-failed`` when a built-in one cannot read the data; `Refused` when code of the
    manifest, or pickle data, would run that the user has not allowed; `UsageError` for a ``loader`` that means nothing.
    What the caller's or the manifest's loader raises passes through as it is.
    """
    dataset = project.manifest.find(identifier)
    way = _choose(project, dataset, loader)
    if way.runs is not None:
        project.demand_trust(f"load '{dataset.name}'", way.runs)  # also now: not after hours of downloading
    if dataset.lazy_access:
        return _read_in_place(project, dataset, way)
    return _read(project, dataset, way, _make_present(project, dataset, options))


def _choose(project: Project, dataset: Dataset, loader: OwnLoader | None) -> _Way:
    if loader is None:
        data_format = dataset.format
        binding = find_loader(project.manifest, dataset, data_format)
        return _Way(data_format, binding=binding) if binding is not None else _choose_built_in(data_format)
    if callable(loader):
        return _Way(None, function=loader)
    if not isinstance(loader, str):
        raise TypeError(f"'loader' is a function or a string, not of type '{type(loader).__name__}'")
    if ":" in loader:
        from dm.plumbing.formats.bindings import import_own

        return _Way(None, function=import_own(loader, origin="the loader that was asked for"))
    name = loader.strip().lower().lstrip(".")
    binding = next((each for known, each in list_format_loaders(project.manifest) if known == name), None)
    way = _Way(name, binding=binding) if binding is not None else _choose_built_in(name)
    if way.binding is None and way.built_in is None:
        from dm.plumbing.formats.loaders import FORMATS

        raise UsageError(
            f"there is no loader called '{printable(loader)}'",
            hint=f"give a function, 'module:function', or one of {', '.join(FORMATS)}",
            code="loader-unknown",
        )
    return way


def _choose_built_in(data_format: str | None) -> _Way:
    if not data_format:
        return _Way(None)
    from dm.plumbing.formats.loaders import find_loader as find_built_in

    return _Way(data_format, built_in=find_built_in(data_format))


# where it is ----------------------------------------------------------------------------------------------------------


def _make_present(project: Project, dataset: Dataset, options: FetchOptions) -> Path:
    """Where a dataset is, after it was fetched if need be; raises what became of it otherwise."""
    if dataset.skip_download:
        return _find_provided(project, dataset)
    outcome = materialize(project, [dataset], options).outcomes[0]
    if outcome.error is not None:
        raise outcome.error
    assert outcome.path is not None
    return outcome.path


def _find_provided(project: Project, dataset: Dataset) -> Path:
    """Where data lies that the user provides (``skip_download``): known as a copy, or just there."""
    project.look_anew()
    candidate = find_known_copy(project, dataset)
    path = project.locate(dataset).path if candidate is None else candidate.copy.path
    if not os.path.exists(path):
        raise NotFound(
            f"'{dataset.name}' is not there, and its user provides it (skip_download)",
            hint=f"put it at '{path}'",
            code="missing",
        )
    return path


# reading --------------------------------------------------------------------------------------------------------------


def _read(project: Project, dataset: Dataset, way: _Way, path: Path) -> object:
    if way.function is not None or way.binding is not None:
        return _call(project, dataset, way, os.fspath(path))
    if way.built_in is None:
        if path.is_dir():
            return path
        raise _refuse_format(dataset, way)
    permission = None if way.runs is None else project.demand_trust(f"load '{dataset.name}'", way.runs)
    return way.built_in.load(path, permission=permission)


def _read_in_place(project: Project, dataset: Dataset, way: _Way) -> object:
    """Read what stays where it is; nothing is kept of it."""
    if len(dataset.uris) != 1:
        raise Malformed(
            f"dataset '{printable(dataset.name)}' is opened in place (lazy_access), which takes one 'uri'",
            file=project.manifest.path,
            line=dataset.find_line("lazy_access"),
            code="contradiction",
        )
    uri = dataset.uris[0]
    if way.function is not None or way.binding is not None:
        return _call(project, dataset, way, uri)
    if way.built_in is None or way.built_in.in_place is None:
        raise _refuse_format(dataset, way)
    from dm.plumbing.records.key import strip_secrets
    from dm.plumbing.transport.bucket import open_in_place, open_mapping

    label = strip_secrets(uri)
    if way.built_in.in_place == "mapping":
        return way.built_in.load(open_mapping(uri, project.environment), label=label)
    file = open_in_place(uri, project.environment)
    is_read_on = False
    try:
        value = way.built_in.load(file, label=label)
        is_read_on = way.built_in.keeps_open
    finally:
        if not is_read_on:
            file.close()
    return value


def _call(project: Project, dataset: Dataset, way: _Way, path: str) -> object:
    """Call the caller's or the manifest's loader. What it raises passes through."""
    if way.function is not None:
        return way.function(path)
    from dm.plumbing.formats.bindings import call_binding

    assert way.binding is not None and way.runs is not None
    return call_binding(
        way.binding,
        project_root=project.root,
        variables={"path": path, **list_variables(dataset, project.root)},
        conventional=lambda function: function(path),
        permission=project.demand_trust(f"load '{dataset.name}'", way.runs),
    )


def _refuse_format(dataset: Dataset, way: _Way) -> SourceFailed:
    """The end of the ladder: no loader, and what to do."""
    name = printable(dataset.name)
    if way.format is None:
        fault = "it has no format"
    elif way.built_in is not None:
        fault = f"data in the format '{way.format}' is not opened in place (lazy_access)"
    else:
        fault = f"there is no loader for the format '{printable(way.format)}'"
    ways = ["give a 'loader'", "set 'format' or 'loader' in the manifest"]
    if dataset.archive_format is not None and not dataset.lazy_access:
        ways.insert(0, "set extract = true to have the archive unpacked")
    if not dataset.lazy_access:
        ways.append(f"dm.path({dataset.name!r}) is where it lies")
    return SourceFailed(f"cannot load '{name}': {fault}", hint=", or ".join(ways), code="loader-missing")
