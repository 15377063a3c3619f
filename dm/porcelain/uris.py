"""Ask the transport of one URI for its bytes, on behalf of a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dm.porcelain.checking import list_algorithms

if TYPE_CHECKING:
    from pathlib import Path

    from dm.plumbing.records.dataset import Dataset
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


def is_repository(uri: str) -> bool:
    """Whether a URI names something that Git clones."""
    from dm.plumbing.transport.address import find_scheme

    scheme = find_scheme(uri)
    return scheme is not None and "git" in scheme.split("+")


def _find_branch(dataset: Dataset, uri: str) -> str | None:
    from dm.plumbing.records.key import read_uri

    return dataset.branch or read_uri(uri).version or None
