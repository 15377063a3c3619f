"""Bring one dataset from its source into its private place, checked: the fetch ladder.

An own fetcher, else ``shell``, else a fetcher in another language (where there is no ``uri``), else the ``uri``
(SCHEMA.md, "Fetch"). The first rung that the manifest has is taken; one that is broken is an error, and nothing falls
through it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dm.errors import ContentMismatch, Malformed, Refused, SourceFailed
from dm.porcelain.checking import check_arrived, check_expected
from dm.porcelain.staging import Staged
from dm.porcelain.uris import fetch_uri
from dm.values import quote_word

if TYPE_CHECKING:
    from dm.plumbing.records.dataset import Dataset
    from dm.porcelain.job import Job

#: The fields that may bring code; most datasets have none of them.
CODE_FIELDS = frozenset(("fetcher", "shell", "_LANG", "python"))


def obtain_from_source(job: Job) -> Staged:
    """Fetch, check and, for an archive, unpack one dataset.

    Raises `SourceFailed`, `Refused` or `MachineFailed` as the source's transport or code does, and `ContentMismatch`
    when the bytes are not what the manifest declares. The private place is cleared when nothing in it can be gone on
    from: what was refused, what is not what was declared, an archive that is none, a source that gave nothing; and
    whatever code left.
    """
    if not CODE_FIELDS.isdisjoint(job.dataset.table):
        from dm.porcelain.running import obtain_by_code

        staged = obtain_by_code(job)
        if staged is not None:
            return staged
    if not job.dataset.uris:
        raise _refuse_no_source(job.dataset)
    if job.dataset.is_list:
        from dm.porcelain.file_list import obtain_list

        return obtain_list(job)
    try:
        return _obtain_by_uri(job)
    except (ContentMismatch, Refused, Malformed):
        job.staging.clear()
        raise
    except SourceFailed:
        job.staging.clear_if_empty()
        raise


def find_code(dataset: Dataset) -> str | None:
    """What of the manifest's code would bring a dataset, as one line; None when its URI would."""
    if CODE_FIELDS.isdisjoint(dataset.table):
        return None
    from dm.porcelain.running import describe_code

    return describe_code(dataset)


def _obtain_by_uri(job: Job) -> Staged:
    dataset, staging = job.dataset, job.staging
    uri = dataset.uris[0]
    folder, name = (staging.make_folder(), "data") if dataset.extract else (staging.folder, staging.name)
    fetched = fetch_uri(job, uri, folder, name, task=job.task)
    if job.shared.expected:
        check_expected(dataset, dataset.key.parts[-1], fetched, job.shared.expected.get(uri))
    return check_arrived(job.project, dataset, fetched, staging)


def _refuse_no_source(dataset: Dataset) -> SourceFailed:
    return SourceFailed(
        f"there is nothing to fetch '{dataset.name}' from: it has no 'uri', 'shell' or 'fetcher'",
        hint=f"give it one of them, or put the data where dm resolve-path {quote_word(dataset.name)} points",
        code="no-source",
    )
