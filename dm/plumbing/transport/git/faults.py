"""What goes wrong with a repository, before it is known which URI it was."""

from __future__ import annotations

import zlib

from dm.plumbing.transport.connections import PassingFault
from dm.values import printable

#: What dulwich, zlib and struct raise over bytes that are not what they should be, beside their own errors.
MALFORMED_BYTES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
    zlib.error,
)
#: The characters of a server's message that are shown.
_SHOWN_CHARACTERS = 200


class GitFault(Exception):
    """A fault that no other try would change. ``refused``: it is refused for safety, not a failure of the source."""

    def __init__(
        self, reason: str, *, hint: str | None = None, code: str = "git-failed", refused: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.code = code
        self.refused = refused


class NotHandedOut(GitFault):
    """The server does not hand out the commit that was asked for, or not without its history."""


def corrupt(reason: str) -> GitFault:
    """The fault of bytes that are no proper repository."""
    hint = "run it again; if it stays so, the repository is damaged: ask its keeper to run 'git fsck'"
    return GitFault(reason, hint=hint, code="git-corrupt")


def unsafe(path: bytes, reason: str) -> GitFault:
    """The fault of an entry that must not be made here."""
    shown = printable(path.decode("utf-8", "surrogateescape"))
    hint = "nothing of it is used; ask the keeper of the repository"
    return GitFault(f"its entry '{shown}' {reason}", hint=hint, code="unsafe-entry", refused=True)


def explain(told: str, place: str) -> GitFault | PassingFault:
    """The fault that the words of a server or of ssh mean (of git, of the daemon, of the forges)."""
    # dulwich writes ``?`` for the end of a line, too.
    shown = printable(" ".join(told.split()))[:_SHOWN_CHARACTERS].rstrip("?.")
    for prefix in ("fatal: ", "upload-pack: "):
        shown = shown.removeprefix(prefix)
    low = told.lower()
    if any(words in low for words in ("not our ref", "unadvertised object", "not valid", "support shallow")):
        return NotHandedOut(f"{place} says: {shown}", hint="is the repository complete?")
    if any(words in low for words in _AUTH_WORDS):
        hint = f"try 'ssh {place}' by hand; a key goes into ssh-agent (ssh-add), the user into ~/.ssh/config"
        return GitFault(f"{place} does not let this user in: {shown}", hint=hint, code="ssh-auth")
    if "host key" in low:
        hint = f"run 'ssh {place}' once by hand and compare its key with the one that its keeper gives"
        return GitFault(f"the key of {place} is not known: {shown}", hint=hint, code="ssh-host-key")
    if any(words in low for words in _DROPPED_WORDS):
        return PassingFault(f"{place} dropped the connection", code="connection-dropped")
    if any(words in low for words in _UNREACHED_WORDS):
        hint = f"is {place} up, and can it be reached from this machine? try 'ssh {place}' by hand"
        return PassingFault(f"cannot connect to {place}: {shown}", hint=hint, code="cannot-connect", limit=2)
    if "could not resolve hostname" in low:
        hint = "check the host in the 'uri', or name it in ~/.ssh/config"
        return GitFault(f"no host {place} is known: {shown}", hint=hint, code="unknown-host")
    if "command not found" in low or "git-upload-pack: not found" in low:
        hint = f"install git on {place}, or put it on the PATH of its logins"
        return GitFault(f"{place} has no git: {shown}", hint=hint, code="git-program-missing")
    if any(words in low for words in _MISSING_WORDS):
        hint = "check the 'uri'; a private repository may look like one that is not there"
        return GitFault(f"there is no such repository: {shown}", hint=hint, code="git-not-found")
    return GitFault(f"{place} says: {shown}" if shown else f"{place} gave no answer", hint="try again later")


_AUTH_WORDS = ("permission denied", "authentication fail", "access denied for", "no supported authentication")
_DROPPED_WORDS = ("closed by remote host", "connection reset", "broken pipe", "server not responding", "early eof")
_UNREACHED_WORDS = (
    "ssh: connect to host",
    "kex_exchange_identification",
    "during banner exchange",
    "temporary failure in name resolution",
)
_MISSING_WORDS = (
    "not found",
    "not exported",
    "does not appear to be a git repository",
    "no such file",
    "could not be found",
    "does not exist",
    "not a git repository",
)
