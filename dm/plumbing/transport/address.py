"""Reading a URI: its scheme, and what of it may be said aloud."""

from __future__ import annotations

from dm.values import printable

#: A query whose parameter names hold one of these words is not shown: it may be what opens the door.
_SECRET_WORDS = ("token", "key", "sig", "secret", "pass", "pwd", "auth", "cred", "session", "jwt", "code", "x-amz")
#: A longer value in a query is taken for a secret whatever its name.
_SECRET_VALUE_CHARACTERS = 24
_SCHEME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789+.-")


def find_scheme(uri: str) -> str | None:
    """The scheme that decides who fetches a URI, in lower case; None when there is none.

    What Git would clone is ``git`` whatever it is fetched over: ``git@host:owner/repository`` and every path that ends
    in ``.git`` (SCHEMA.md, "URI schemes").
    """
    head, colon, rest = uri.partition(":")
    scheme = head.lower()
    if not colon:
        return None
    if "@" in head and "/" not in head:
        return "git"
    if not scheme or not scheme[0].isalpha() or not _SCHEME_CHARACTERS.issuperset(scheme):
        return None
    path = rest.partition("#")[0].partition("?")[0]
    return "git" if path.rstrip("/").endswith(".git") else scheme


def describe_uri(uri: str) -> str:
    """A URI as messages show it: without user, password and fragment, printable on one line.

    The query is shown where it tells two sources apart (``?id=1``) and replaced by ``…`` as a whole where it looks
    like a secret: a parameter named like a token, key or signature, or a value longer than 24 characters.
    """
    text, mark, query = uri.partition("#")[0].partition("?")
    scheme, slashes, rest = text.partition("://")
    if slashes:
        authority, slash, path = rest.partition("/")
        text = f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
    if mark:
        text += "?…" if _looks_secret(query) else f"?{query}"
    return printable(text)


def _looks_secret(query: str) -> bool:
    for parameter in query.replace(";", "&").split("&"):
        name, _, value = parameter.partition("=")
        name = name.lower()
        if len(value) > _SECRET_VALUE_CHARACTERS or len(name) > _SECRET_VALUE_CHARACTERS:
            return True
        if any(word in name for word in _SECRET_WORDS):
            return True
    return False
