"""dm: a Git-style store for research data.

``dm.fetch("sst")`` makes a declared dataset be here, verified, and returns where; `dm.api` documents all of it.
"""

from __future__ import annotations

from dm.version import __version__

TYPE_CHECKING = False  # as `typing` has it, whose import would be half the time of `dm --version`
if TYPE_CHECKING:
    from collections.abc import Sequence

    from dm.api import (
        Failed,
        Manifest,
        add,
        dedup,
        delete,
        fetch,
        hash_params,
        init,
        load,
        lock,
        path,
        pin,
        prune,
        refresh,
        remove,
        show,
        status,
        unlock,
        verify,
    )
    from dm.api import list as list
    from dm.decorator import CachedFunction, CacheWarning, CodeChanged, cached
    from dm.errors import (
        ContentMismatch,
        DmError,
        MachineFailed,
        Malformed,
        NotFound,
        Refused,
        SourceFailed,
        UsageError,
    )
    from dm.values import Difference, Digest, Outcome

# Without `list`: `from dm import *` must not take the builtin away.
__all__ = [
    "CacheWarning",
    "CachedFunction",
    "CodeChanged",
    "ContentMismatch",
    "Difference",
    "Digest",
    "DmError",
    "Failed",
    "MachineFailed",
    "Malformed",
    "Manifest",
    "NotFound",
    "Outcome",
    "Refused",
    "SourceFailed",
    "UsageError",
    "__version__",
    "add",
    "cached",
    "dedup",
    "delete",
    "fetch",
    "hash_params",
    "init",
    "load",
    "lock",
    "path",
    "pin",
    "prune",
    "refresh",
    "remove",
    "show",
    "status",
    "unlock",
    "verify",
]

_DECORATOR = ("CacheWarning", "CachedFunction", "CodeChanged", "cached")
_ERRORS = (
    "ContentMismatch",
    "DmError",
    "MachineFailed",
    "Malformed",
    "NotFound",
    "Refused",
    "SourceFailed",
    "UsageError",
)
_VALUES = ("Difference", "Digest", "Outcome")
_MODULES = {
    **dict.fromkeys([*__all__, "list"], "dm.api"),
    **dict.fromkeys(_DECORATOR, "dm.decorator"),
    **dict.fromkeys(_ERRORS, "dm.errors"),
    **dict.fromkeys(_VALUES, "dm.values"),
}


def __getattr__(name: str) -> object:
    # Imported on first use: `dm --version` and the command line must not pay for the Python face.
    if name not in _MODULES:
        raise AttributeError(f"module 'dm' has no attribute '{name}'")
    import importlib

    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> Sequence[str]:
    return sorted([*__all__, "list"])
