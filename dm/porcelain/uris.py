"""Ask the transport of one URI for its bytes, on behalf of a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dm.errors import Malformed
from dm.porcelain.checking import list_algorithms
from dm.values import printable

if TYPE_CHECKING:
    from pathlib import Path

    from dm.plumbing.records.dataset import Dataset
    from dm.plumbing.records.manifest import Manifest
    from dm.plumbing.transport.protocol import Fetched
    from dm.porcelain.job import Job
    from dm.progress import Task


def fetch_uri(job: Job, uri: str, folder: Path, name: str, *, task: Task) -> Fetched:
    """Have the transport of one URI bring it to ``folder / name``, measured on the way."""
    from dm.plumbing.transport.protocol import FetchRequest
    from dm.plumbing.transport.registry import find_fetcher

    dataset, project = job.dataset, job.project
    expected = job.shared.expected.get(uri) if job.shared.expected else None
    data_format = None if dataset.extract else dataset.format
    request = FetchRequest(uri, folder, name, list_algorithms(dataset, expected), data_format)
    if is_repository(uri):
        request = request._replace(branch=_find_branch(dataset, uri))
    return find_fetcher(uri, project.fetchers).fetch(request, task=task, progress=project.progress)


def check_list(manifest: Manifest, dataset: Dataset) -> None:
    """Raise what a list of URIs cannot be brought for: `Malformed` for ``extract``, which is of one archive; what
    `Dataset.file_names` raises.
    """
    if dataset.extract:
        raise Malformed(
            f"dataset '{printable(dataset.name)}': 'extract' goes with one archive, and it has a list of 'uris'",
            hint="make each archive a dataset of its own, or take 'extract' out",
            file=manifest.path,
            line=dataset.find_line("extract"),
            code="contradiction",
        )
    _ = dataset.file_names  # derived here


def is_repository(uri: str) -> bool:
    """Whether a URI names something that Git clones."""
    from dm.plumbing.transport.address import find_scheme

    scheme = find_scheme(uri)
    return scheme is not None and "git" in scheme.split("+")


def _find_branch(dataset: Dataset, uri: str) -> str | None:
    from dm.plumbing.records.key import read_uri

    return dataset.branch or read_uri(uri).version or None
