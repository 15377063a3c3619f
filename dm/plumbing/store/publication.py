"""What is asked of a store when something is to be published, and what it answers."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from dm.plumbing.fs.link import LinkMode
from dm.plumbing.store.measure import Measured
from dm.values import Digest


class Publication(NamedTuple):
    """One file or folder to be published.

    ``staged`` lies in a private folder and is used up; with ``owned`` False it is somebody's own file or folder, which
    is reflinked or copied and left as it is. ``copy`` is where it will be seen. ``source_id`` goes into the ref.

    ``blob_id`` are the 32 bytes of a file's id, where it was hashed while it arrived; ``measured`` is what
    `measure_copy` said of a folder (asked again only when something in it has changed since); ``aliases`` are other
    digests that were measured of the same bytes. ``stand_alone``: no digest is computed and no object made.
    ``replace``: other content at ``copy`` gives way. ``aside``: whatever lies at ``copy`` is moved to the quarantine
    right before the new is renamed to its place, with this text as its note; it is not compared. ``anew``: objects that
    are there already are read, whatever the stat cache says of them: the copy's bytes were found wrong.
    ``executables``: for a file system that keeps no modes, the relative names of the files that are executable in the
    source (``b""`` for a file itself).
    """

    staged: Path
    copy: Path
    source_id: str | None = None
    blob_id: bytes | None = None
    aliases: tuple[Digest, ...] = ()
    stand_alone: bool = False
    replace: bool = False
    aside: str | None = None
    anew: bool = False
    owned: bool = True
    measured: Measured | None = None
    executables: frozenset[bytes] | None = None


class Published(NamedTuple):
    """A copy that is in place, with its ref and marker.

    ``digest`` is its id (None: it stands alone, unmeasured). ``mode`` says how object and copy share their bytes; None
    when there is no object. ``unchanged``: an equal copy lay there already and stayed. ``kept`` is where that is now
    which was put aside.
    """

    copy: Path
    digest: Digest | None
    size_bytes: int
    files: int
    mode: LinkMode | None
    unchanged: bool = False
    kept: Path | None = None
