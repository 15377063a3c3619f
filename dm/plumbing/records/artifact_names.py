"""Names of produced datasets: cachetype, version and parameter hash (SCHEMA.md, "Addresses and names").

An artifact's address is ``<cachetype>[/<version>]/<hash>``, its recipe's key in the state ``<cachetype>[@<version>]``.
Both parts are single folders' names. The peers let a cachetype have several parts; such an artifact can be named and
read, but `dm` makes none: ``a`` in version ``b`` and the cachetype ``a/b`` would share one folder.
"""

from __future__ import annotations

from typing import NamedTuple

from dm.errors import Refused, UsageError
from dm.plumbing.records.scopes import find_segment_fault
from dm.values import find_key_fault, printable

#: Hex digits of a parameter hash.
HASH_LENGTH = 64
_HEX_DIGITS = frozenset("0123456789abcdef")


def is_param_hash(text: str) -> bool:
    """Whether a text has the form of a parameter hash: 64 lower-case hex digits."""
    return len(text) == HASH_LENGTH and _HEX_DIGITS.issuperset(text)


def check_cachetype(text: str) -> str:
    """The cachetype, when it is one part of a path and holds no ``@``.

    Raises `Refused` with the reason. Nothing is looked up: `dm` calls it whenever it makes an address.
    """
    fault = _find_fault(text)
    if fault is not None:
        hint = "use a dotted name, as in 'project.module.function'"
        raise Refused(f"cannot use '{printable(text)}' as a cachetype: {fault}", hint=hint, code="cachetype-refused")
    return text


def check_version(text: str) -> str:
    """The version, when it is empty (none) or one part of a path, holds no ``@`` and does not look like a hash.

    Raises `Refused` with the reason.
    """
    fault = None
    if text:
        fault = "it has the form of a parameter hash" if is_param_hash(text) else _find_fault(text)
    if fault is not None:
        hint = "use a short word, as in 'v2'"
        raise Refused(f"cannot use '{printable(text)}' as a version: {fault}", hint=hint, code="version-refused")
    return text


def _find_fault(text: str) -> str | None:
    if "@" in text and "/" not in text:
        return "'@' separates cachetype and version in the state"
    return find_segment_fault(text)


def state_key(cachetype: str, version: str = "") -> str:
    """The recipe's key in the state: ``cachetype[@version]``."""
    return f"{cachetype}@{version}" if version else cachetype


def split_state_key(key: str) -> tuple[str, str]:
    """Cachetype and version (``""``: none) of a recipe's key; a cachetype never holds an ``@``."""
    cachetype, _, version = key.partition("@")
    return cachetype, version


def make_address(cachetype: str, version: str, hash: str) -> str:
    """``<cachetype>[/<version>]/<hash>``: where an artifact lies below its folder, and its name."""
    return f"{cachetype}/{version}/{hash}" if version else f"{cachetype}/{hash}"


class ArtifactName(NamedTuple):
    """What a user writes for an artifact: ``<cachetype>[/<version>]/<prefix of the hash>``.

    ``stem`` is all before the last slash. It may leave out the version: then every version is meant.
    """

    stem: str
    prefix: str

    def names(self, cachetype: str, version: str, hash: str) -> bool:
        """Whether the artifact with this cachetype, version and hash is meant."""
        if not hash.startswith(self.prefix):
            return False
        return self.stem in (cachetype, f"{cachetype}/{version}" if version else cachetype)

    def __str__(self) -> str:
        return f"{self.stem}/{self.prefix}"


def parse_artifact_name(text: str) -> ArtifactName:
    """Read ``<cachetype>[/<version>]/<prefix>``; also ``<cachetype>@<version>/<prefix>``, as the state has it. The
    prefix is one or more hex digits of the parameter hash; upper-case ones are accepted.

    Raises `UsageError` for any other form.
    """
    stem, slash, prefix = text.rpartition("/")
    stem, prefix = stem.replace("@", "/", 1), prefix.lower()
    well_formed = slash and 0 < len(prefix) <= HASH_LENGTH and _HEX_DIGITS.issuperset(prefix)
    if not well_formed or find_key_fault(stem) is not None:
        raise UsageError(
            f"'{printable(text)}' names no artifact",
            hint="write <cachetype>[/<version>]/<first digits of its hash>; dm list --kind cached shows them",
            code="artifact-name",
        )
    return ArtifactName(stem, prefix)
