"""Built-in loaders and savers, by format: what each gives is the table of docs/formats.md."""

from dm.plumbing.formats.loaders.finding import FORMATS, LIBRARIES, find_loader, find_saved_loader, find_saver
from dm.plumbing.formats.loaders.kinds import Loader, Saver, Source

__all__ = ["FORMATS", "LIBRARIES", "Loader", "Saver", "Source", "find_loader", "find_saved_loader", "find_saver"]
