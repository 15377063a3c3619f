"""What a URI says of a git repository: how it is reached, where it lies, which commit is meant."""

from __future__ import annotations

from typing import Literal, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from dm.errors import Refused, SourceFailed
from dm.plumbing.transport.address import describe_uri
from dm.plumbing.transport.ssh_command import is_safe_host, is_safe_user
from dm.values import printable

#: What a URI's scheme says of the way to the repository.
_WAYS: dict[str, Way] = {
    "git": "git",
    "http": "http",
    "https": "http",
    "git+http": "http",
    "git+https": "http",
    "ssh": "ssh",
    "ssh+git": "ssh",
    "git+ssh": "ssh",
    "file": "file",
}
GIT_PORT = 9418
#: Parameters that say something of the dataset and nothing to a server.
_OWN_PARAMETERS = frozenset({"ref", "version", "format"})

Way = Literal["git", "http", "ssh", "file"]


class Remote(NamedTuple):
    """A repository as a URI names it.

    ``uri`` is the URI as messages show it. ``path`` is what the server is asked for; for http it is the whole URL.
    ``reference`` is the branch, tag or commit that the URI itself names (its fragment, else ``version``, else ``ref``
    in its query).
    """

    way: Way
    uri: str
    host: str
    port: int | None
    user: str | None
    path: str
    reference: str | None

    @property
    def place(self) -> str:
        """The host with a port that is not the usual one, for messages."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"


def read_remote(uri: str) -> Remote:
    """Read a git URI: ``git://``, ``http(s)://``, ``ssh://``, ``file://`` (with ``git+`` or ``+git`` for http and ssh),
    or ``git@host:owner/repository.git``.

    Raises `SourceFailed` for a scheme over which git is not spoken and for a URI that is none, `Refused` for a host,
    user or path that a program would take for an option, or a shell for more than a name.
    """
    shown = describe_uri(uri)
    text, _, fragment = uri.partition("#")
    text, _, query = text.partition("?")
    remote = _read_short(text, shown) if _is_short(text) else _read_long(text, shown)
    parameters = dict(reversed(parse_qsl(query)))
    other = sorted(parameters.keys() - _OWN_PARAMETERS)
    if other:
        message = f"cannot fetch '{shown}': git knows no '{other[0]}' in a URI"
        hint = "?ref=… names a branch, a tag or a commit; take the rest away"
        raise SourceFailed(message, hint=hint, code="uri-malformed")
    for name in (remote.host, remote.user or "", remote.path):
        if name.startswith("-") and remote.way != "http":
            message = f"cannot fetch '{shown}': a host, user or path that begins with '-' may be taken for an option"
            raise Refused(message, hint="write the path from the root: ssh://host/path", code="option-like")
        if any(ord(character) < 32 or ord(character) == 127 for character in name):
            message = f"cannot fetch '{shown}': its host or path holds a control character"
            raise Refused(message, hint="check the 'uri'", code="uri-malformed")
    if remote.way == "ssh":
        _check_ssh_names(remote)
    reference = unquote(fragment) or parameters.get("version") or parameters.get("ref") or None
    return remote._replace(reference=reference)


def _check_ssh_names(remote: Remote) -> None:
    unsafe = None if is_safe_host(remote.host) else remote.host
    if remote.user is not None and not is_safe_user(remote.user):
        unsafe = remote.user
    if unsafe is not None:
        raise Refused(
            f"cannot fetch '{remote.uri}': '{printable(unsafe)}' is no name of a host or user",
            hint="name the host as ssh knows it; an alias, and any other user, goes into ~/.ssh/config",
            code="host-unsafe",
        )


def _is_short(text: str) -> bool:
    """``user@host:path``, as ssh's own programs have it."""
    head, colon, rest = text.partition(":")
    return bool(colon) and "@" in head and "/" not in head and not rest.startswith("//")


def _read_short(text: str, shown: str) -> Remote:
    user, _, rest = text.partition("@")
    if rest.startswith("["):
        host, _, path = rest[1:].partition("]:")
    else:
        host, _, path = rest.partition(":")
    if not host or not path:
        raise _malformed(shown, "it names no host or no path")
    return Remote("ssh", shown, host, None, user, path, None)


def _read_long(text: str, shown: str) -> Remote:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise _malformed(shown, "it is not a URI") from error
    way = _WAYS.get(parts.scheme.lower())
    if way is None:
        message = f"cannot fetch '{shown}': a repository is not reached over '{parts.scheme}'"
        hint = f"git is spoken over {', '.join(_WAYS)}; what is no repository should not end in .git"
        raise SourceFailed(message, hint=hint, code="unknown-scheme")
    if way == "file":
        from dm.plumbing.transport.file import read_file_path

        return Remote(way, shown, "", None, None, str(read_file_path(text)), None)
    if not host:
        raise _malformed(shown, "it names no host")
    if parts.username is not None or parts.password is not None:
        raise _malformed(shown, "it has a user or password in it")
    if way == "http":
        scheme = "https" if parts.scheme.lower().endswith("https") else "http"
        url = parts._replace(scheme=scheme, path=parts.path.rstrip("/")).geturl()
        return Remote(way, shown, host, port, None, url, None)
    path = unquote(parts.path, errors="surrogateescape")
    if not path.strip("/"):
        raise _malformed(shown, "it names no path")
    # ssh://host/~user/repository is below a home, not below the root.
    return Remote(way, shown, host, port, None, path[1:] if path.startswith("/~") else path, None)


def _malformed(shown: str, fault: str) -> SourceFailed:
    hint = "write git://host/path, https://host/path.git, ssh://host/path.git or git@host:path.git"
    return SourceFailed(f"cannot fetch '{shown}': {fault}", hint=hint, code="uri-malformed")
