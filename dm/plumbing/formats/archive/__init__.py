"""Archives become folders: zip and tar in its compressions, hostile ones refused."""

from dm.plumbing.formats.archive.limits import ArchiveLimits
from dm.plumbing.formats.archive.staging import Unpacked
from dm.plumbing.formats.archive.suffixes import ARCHIVE_SUFFIXES, find_archive_format
from dm.plumbing.formats.archive.unpacking import unpack

__all__ = ["ARCHIVE_SUFFIXES", "ArchiveLimits", "Unpacked", "find_archive_format", "unpack"]
