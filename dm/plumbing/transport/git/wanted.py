"""Which commit is meant: what a server's branches and tags make of the name that a manifest or a URI says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from dm.plumbing.transport.git.faults import GitFault
from dm.values import printable

_HEX_DIGITS = frozenset("0123456789abcdef")
#: Digits of a whole name: SHA-1, SHA-256.
_WHOLE_LENGTHS = (40, 64)
#: Git itself takes no shorter abbreviation.
_SHORTEST_ABBREVIATION = 4
_BRANCHES, _TAGS, _PEELED = b"refs/heads/", b"refs/tags/", b"^{}"


class Wanted(NamedTuple):
    """What to ask a server for: an object's hex name, and whether the server has named it itself."""

    name: str
    advertised: bool


def list_prefixes(reference: str | None) -> list[bytes]:
    """What to ask a server to list, so that `choose` can choose and name what is near."""
    prefixes = [b"HEAD", _BRANCHES, _TAGS]
    if reference is not None and reference.startswith("refs/"):
        prefixes.append(reference.encode("utf-8", "surrogateescape"))
    return prefixes


def choose(references: Mapping[bytes, bytes], reference: str | None) -> Wanted:
    """The object that ``reference`` names, in git's order: a branch, a tag, a full name below ``refs/``, a commit.

    ``references`` are the server's, hex names by full reference name. Without a reference it is what ``HEAD`` is: the
    default branch. A commit is named by all of its digits, in either case: abbreviations are refused, since they may
    mean another commit tomorrow and a server cannot be asked for one. Raises `GitFault`.
    """
    if reference is None:
        head = references.get(b"HEAD")
        if head is None:
            raise _no_head(references)
        return Wanted(head.decode("ascii"), True)
    raw = reference.encode("utf-8", "surrogateescape")
    for full in (_BRANCHES + raw, _TAGS + raw, raw):
        found = references.get(full)
        if found is not None:
            return Wanted(found.decode("ascii"), True)
    digits = reference.lower()
    known = {value.decode("ascii") for value in references.values()}
    if len(digits) in _WHOLE_LENGTHS and _HEX_DIGITS.issuperset(digits):
        return Wanted(digits, digits in known)
    raise _no_reference(references, reference, known)


def _no_head(references: Mapping[bytes, bytes]) -> GitFault:
    if not references:
        hint = "push a commit to it first"
        return GitFault("the repository is empty: it has no commit", hint=hint, code="git-empty")
    names = _list_names(references)
    hint = f"set 'branch' to one of its own: {_quote(names[:5])}" if names else "set 'branch' to a commit"
    return GitFault("the repository names no default branch", hint=hint, code="git-no-ref")


def _no_reference(references: Mapping[bytes, bytes], reference: str, known: set[str]) -> GitFault:
    from difflib import get_close_matches

    if not references:
        return _no_head(references)
    shown = printable(reference)
    digits = reference.lower()
    names = _list_names(references)
    near = get_close_matches(reference, names, n=3, cutoff=0.5)
    if len(digits) >= _SHORTEST_ABBREVIATION and _HEX_DIGITS.issuperset(digits) and not near:
        whole = [name for name in sorted(known) if name.startswith(digits)]
        hint = f"it may be '{whole[0]}'" if len(whole) == 1 else f"all {_WHOLE_LENGTHS[0]} digits are needed"
        reason = f"it has no branch or tag '{shown}', and an abbreviated commit is not looked for"
        return GitFault(reason, hint=hint, code="git-no-ref")
    listed = near or names[:5]
    hint = f"{'near' if near else 'it has'}: {_quote(listed)}" if listed else "name a commit by all of its digits"
    return GitFault(f"it has no branch, tag or commit '{shown}'", hint=hint, code="git-no-ref")


def _list_names(references: Mapping[bytes, bytes]) -> list[str]:
    """The branches, then the tags, as a manifest names them."""
    names = []
    for prefix in (_BRANCHES, _TAGS):
        found = [name for name in references if name.startswith(prefix) and not name.endswith(_PEELED)]
        names += [name.removeprefix(prefix).decode("utf-8", "replace") for name in sorted(found)]
    return names


def _quote(names: list[str]) -> str:
    return ", ".join(f"'{printable(name)}'" for name in names)
