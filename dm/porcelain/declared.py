"""What a manifest declares about sources, code and order that could never be brought so, found by reading alone.

These are the faults that `fetch` and `load` tell of one dataset at a time. Nothing is run, imported or looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dm.errors import DmError, Malformed
from dm.plumbing.formats.bindings import split_reference
from dm.plumbing.records.bindings import (
    find_fetcher,
    find_loader,
    find_shell,
    find_table_by_format,
    list_foreign_fetchers,
    list_format_loaders,
    list_format_savers,
)
from dm.plumbing.transport.registry import check_uri
from dm.plumbing.transport.runtimes import split_foreign_reference
from dm.porcelain.order import Cycles, Required, find_identified
from dm.porcelain.template import expand_template
from dm.porcelain.uris import check_list

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.plumbing.records.manifest import Manifest
    from dm.values import Binding


class Fault(NamedTuple):
    """What is wrong with a manifest: the path of the table, its field, and what using it would raise."""

    table: tuple[str, ...]
    field: str
    error: DmError


def find_faults(manifest: Manifest) -> Iterator[Fault]:
    """What is wrong with the URIs, commands, bindings and ``requires`` of a manifest, in its order.

    That is: a URI that no transport serves, or a list of them that makes no folder, where nothing else brings the
    dataset; a command that cannot be split, names no program or uses a path that there is none of; a binding that is
    not of the form ``module:function``; an identifier in ``requires`` that names no dataset, or several; a circle.
    """
    cycles = Cycles(manifest)
    for dataset in manifest.datasets.values():
        faults = [*_check_requires(manifest, dataset, cycles), *_check_code(manifest, dataset)]
        faults += _check_uris(manifest, dataset)
        yield from (Fault((dataset.name,), field, error) for field, error in faults)
    for kind, listed in (("loaders", list_format_loaders), ("savers", list_format_savers)):
        error = _attempt(partial(_check_listed, listed(manifest)))
        if error is not None:
            yield Fault(find_table_by_format(manifest, kind), "", error)


def _check_listed(bindings: Iterator[tuple[str, Binding]]) -> None:
    for _, binding in bindings:
        split_reference(binding)


def _check_requires(manifest: Manifest, dataset: Dataset, cycles: Cycles) -> Iterator[tuple[str, DmError]]:
    identifiers = dict.fromkeys(dataset.requires)
    checks: list[Callable[[], object]] = [partial(find_identified, manifest, dataset, each) for each in identifiers]
    checks.append(partial(cycles.check, dataset))
    errors = [_attempt(check) for check in checks]
    yield from (("requires", error) for error in errors if error is not None)


def _check_code(manifest: Manifest, dataset: Dataset) -> Iterator[tuple[str, DmError]]:
    template = find_shell(dataset)
    checks: tuple[tuple[str, Callable[[], object]], ...] = (
        ("shell", lambda: template is None or expand_template(template, {}, _list_required(manifest, dataset))),
        ("fetcher", lambda: (binding := find_fetcher(dataset)) is None or split_reference(binding)),
        ("loader", lambda: (binding := find_loader(manifest, dataset, None)) is None or split_reference(binding)),
        ("_LANG", lambda: [split_foreign_reference(binding) for _, binding in list_foreign_fetchers(dataset)]),
    )
    for field, check in checks:
        error = _attempt(check)
        if error is not None:
            yield field, error


def _check_uris(manifest: Manifest, dataset: Dataset) -> Iterator[tuple[str, DmError]]:
    """Of a dataset that is brought by its URIs: code and users may know schemes that no transport of ours does."""
    check = check_uri
    try:
        if dataset.skip_download:
            return
        if dataset.lazy_access:
            if find_loader(manifest, dataset, dataset.format) is not None:
                return
            check = _check_opened
        elif find_shell(dataset) is not None or find_fetcher(dataset) is not None:
            return
    except DmError:
        return  # told as a fault of that code
    field = "uri" if "uri" in dataset.table else "uris"
    errors = [_attempt(partial(check, uri)) for uri in dict.fromkeys(dataset.uris)]
    if dataset.is_list:
        errors.append(_attempt(partial(check_list, manifest, dataset)))
    yield from ((field, error) for error in errors if error is not None)


def _check_opened(uri: str) -> None:
    from dm.plumbing.transport.address import find_scheme
    from dm.plumbing.transport.bucket.services import find_service

    find_service(uri, find_scheme(uri) or "", opened=True)


def _list_required(manifest: Manifest, dataset: Dataset) -> list[Required]:
    """What is required and can be found, at places that stand for the real ones."""
    found = []
    for identifier in dict.fromkeys(dataset.requires):
        try:
            other = find_identified(manifest, dataset, identifier)
        except Malformed:
            continue  # told by itself
        found.append(Required(identifier, other.name, None if other.lazy_access else Path(other.name)))
    return found


def _attempt(check: Callable[[], object]) -> DmError | None:
    try:
        check()
    except DmError as error:
        return error
    return None
