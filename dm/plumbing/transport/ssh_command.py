"""The command that reaches another machine: the user's ``ssh_command``, or ssh with patience for slow networks only."""

from __future__ import annotations

from dm.errors import Malformed

#: Without a command of the user's. A host that does not answer, or goes away in the middle, is given up after a while;
#: a slow disk over there is not (ssh itself answers for it). Everything else is what ~/.ssh/config says.
DEFAULT_SSH_COMMAND = ("ssh", "-o", "ConnectTimeout=30", "-o", "ServerAliveInterval=30")


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
