"""The command that reaches another machine: the user's ``ssh_command``, or ssh with patience for slow networks only."""

from __future__ import annotations

from dm.errors import Malformed

#: Without a command of the user's. A host that does not answer, or goes away in the middle, is given up after a while;
#: a slow disk over there is not (ssh itself answers for it). Everything else is what ~/.ssh/config says.
DEFAULT_SSH_COMMAND = ("ssh", "-o", "ConnectTimeout=30", "-o", "ServerAliveInterval=30")

#: What the name of a host, and of a user, may be made of. ssh hands both to the shell of a ``ProxyCommand`` or ``Match
#: exec`` of the user's (CVE-2023-51385), so that nothing here may mean something to one.
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_")
_IPV6_CHARACTERS = frozenset("abcdefABCDEF0123456789:.")


def is_safe_host(host: str) -> bool:
    """Whether a host of a manifest may be given to ssh: a name or an address, and no option."""
    allowed = _IPV6_CHARACTERS if ":" in host else _NAME_CHARACTERS
    return bool(host) and not host.startswith("-") and allowed.issuperset(host)


def is_safe_user(user: str) -> bool:
    """Whether a user's name of a manifest may be given to ssh."""
    return bool(user) and not user.startswith("-") and _NAME_CHARACTERS.issuperset(user.replace("+", ""))


def split_ssh_command(text: str | None) -> list[str]:
    """The words of ``ssh_command``, split as a shell splits words; nothing in them is expanded, no shell runs.

    The words of `DEFAULT_SSH_COMMAND` for None. Raises `Malformed` (exit 7) for a quote that is not closed and for
    blanks only; the command itself is not shown, since it may hold a secret.
    """
    import shlex

    if text is None:
        return list(DEFAULT_SSH_COMMAND)
    try:
        words = shlex.split(text)
    except ValueError as error:
        reason = str(error)[:1].lower() + str(error)[1:]
        raise Malformed(
            f"cannot split 'ssh_command' into words: {reason}",
            hint="write it as in a shell; quote what holds blanks",
            code="ssh-command",
        ) from error
    if not words or not words[0]:
        raise Malformed("'ssh_command' names no program", hint="remove it, or set it to 'ssh …'", code="ssh-command")
    return words
