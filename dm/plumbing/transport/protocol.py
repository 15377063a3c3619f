"""What every transport is asked and what it answers.

A transport brings the bytes of one URI into a folder that the caller chose. It publishes nothing, knows no manifest and
judges no contract: the digests it returns were measured while the bytes arrived, the caller compares them.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

from dm.progress import Progress, Task
from dm.values import Digest


class FetchRequest(NamedTuple):
    """One URI to bring here.

    ``folder`` is private to the caller and survives a kill; in it ``file_name``, one path segment, and names that begin
    with it and a dot are private to this URI: given again, what lies there is the start of a resumed transfer.
    ``algorithms`` are measured on the way and always include ``blake3``. ``expected_format`` is the dataset's format
    (``nc``, ``csv``, …), None when unknown. ``branch`` is the branch, tag or commit of a git source; None leaves it to
    the URI (``#v1.2``, ``?ref=v1.2``), else it is the repository's default branch. Other transports ignore it.
    """

    uri: str
    folder: Path
    file_name: str
    algorithms: tuple[str, ...]
    expected_format: str | None = None
    branch: str | None = None


class Fetched(NamedTuple):
    """What arrived.

    ``path`` is ``folder/file_name`` of the request: a file, or a folder where the source is one. ``digests`` holds one
    entry per requested algorithm for a file and is empty for a folder, whose tree the store measures when it is
    published. ``from_cache`` says that a whole earlier transfer was still there and only confirmed by the source.
    ``revision`` is the commit of a git source, in hex, whose files they are.
    """

    path: Path
    digests: dict[str, Digest]
    size_bytes: int
    content_type: str | None = None
    from_cache: bool = False
    revision: str | None = None


class Fetcher(Protocol):
    """A transport. Its methods may be called from any thread, for different folders at the same time."""

    @property
    def schemes(self) -> frozenset[str]:
        """The URI schemes it serves, in lower case."""

    def fetch(self, request: FetchRequest, *, task: Task, progress: Progress) -> Fetched:
        """Bring the bytes of ``request.uri`` to ``request.folder / request.file_name``.

        ``task`` counts bytes; it is resized when the total becomes known and may be advanced by a negative amount when
        a transfer has to begin anew. ``progress`` takes notes and warnings.

        Raises `SourceFailed` when the source does not deliver, `Refused` when what it offers is unsafe to follow,
        `MachineFailed` when this machine cannot keep it. After a failure or a kill the folder holds nothing, or what a
        later call can go on from.
        """

    def close(self) -> None:
        """Let go of connections and end what is under way: a thread inside `fetch` raises `SourceFailed` soon."""
