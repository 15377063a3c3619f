"""Which archive format a file name speaks of."""

from __future__ import annotations

#: Suffix of a file name (lower case) to the archive format it stands for.
ARCHIVE_SUFFIXES = {
    ".zip": "zip",
    ".tar": "tar",
    ".tar.gz": "tar.gz",
    ".tgz": "tar.gz",
    ".tar.bz2": "tar.bz2",
    ".tar.xz": "tar.xz",
    ".tar.zst": "tar.zst",
}


def find_archive_format(name: str) -> str | None:
    """The archive format that a file name, key or path ends in, in any case; None when it names no archive.

    A name that is nothing but the suffix (``.zip``) is no archive's.
    """
    last = name.rpartition("/")[2].lower()
    for suffix, archive_format in ARCHIVE_SUFFIXES.items():
        if last.endswith(suffix) and last != suffix:
            return archive_format
    return None


def normalise_archive_format(text: str) -> str | None:
    """The format behind a manifest's ``format`` (``tgz``, ``.zip``, ``TAR.GZ``); None when it is no archive's."""
    return ARCHIVE_SUFFIXES.get("." + text.strip().lower().lstrip("."))
