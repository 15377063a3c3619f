"""What a URI says of a dataset: its storage key, version and format, and the path at which it lands.

A key addresses the same bytes on every machine and for every tool, so its derivation is fixed (SCHEMA.md, "Keys"):
``host/path`` of the URI, host in lower case, without port, user and query, percent escapes as they stand, slashes
trimmed, plus ``#version``. URIs are split as Python's `urllib.parse.urlparse` splits them, which is what the Python
peer uses: of ``http://host/a;b?c`` the path is ``/a``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlparse, urlsplit, urlunsplit

from dm.errors import Malformed
from dm.values import Key, has_control, printable

#: Suffixes of a key that an extracted archive loses; every other key gains ``.d`` (shared with the peers).
STRIPPED_SUFFIXES = (".zip", ".tar.gz", ".tar")
#: What ``format`` may say of an archive, and the archive format that it means.
ARCHIVE_FORMATS = {
    "zip": "zip",
    "tar": "tar",
    "tar.gz": "tar.gz",
    "tgz": "tar.gz",
    "tar.bz2": "tar.bz2",
    "tar.xz": "tar.xz",
    "tar.zst": "tar.zst",
}
#: Query parameters that are secrets or change with every signature: they say nothing of which data a URI means.
_SECRET_PARAMETERS = frozenset(
    ("token", "access_token", "auth_token", "api_key", "apikey", "password", "secret", "sig", "signature")
)
_SECRET_PREFIXES = ("x-amz-", "x-goog-")
#: Characters (beside ``:`` and ``%`` in a host) that a URI parser has to think about.
_SPECIAL_CHARACTERS = frozenset(" ;?@[]\\")


class SourceUri(NamedTuple):
    """The parts of a source's URI that matter. ``path`` keeps its percent escapes and has no trailing slash;
    ``version`` and ``format`` are None where the URI does not say them.
    """

    scheme: str
    host: str
    path: str
    version: str | None
    format: str | None


def read_uri(uri: str) -> SourceUri:
    """Split a source's URI. ``git@host:owner/repo.git`` is read as ``git://host/owner/repo.git``.

    The version is the fragment, else the ``version`` query, else the ``ref`` query. Raises `Malformed`.
    """
    plain = _read_plain_uri(uri)
    if plain is not None:
        return plain
    if uri.startswith("git@"):
        uri = "git://" + uri[4:].replace(":", "/")
    try:
        parts = urlparse(uri)
        host = parts.hostname or ""
    except ValueError as error:
        raise Malformed(f"'{printable(uri)}' is not a URI: {str(error)[:1].lower()}{str(error)[1:]}") from error
    version, file_format = parts.fragment, ""
    if parts.query:
        query = parse_qs(parts.query)
        version = version or query.get("version", [""])[0] or query.get("ref", [""])[0]
        file_format = query.get("format", [""])[0]
    return SourceUri(parts.scheme, host, parts.path.rstrip("/"), version or None, file_format or None)


def _read_plain_uri(uri: str) -> SourceUri | None:
    """What `urlparse` makes of ``http(s)://host/path[#version]``, the usual case, in a tenth of its time (10 µs, which
    is half of what `dm list` has for a dataset); None for a URI with anything else in it.
    """
    scheme, _, rest = uri.partition("://")
    if scheme not in ("http", "https") or not (rest.isascii() and rest.isprintable()):
        return None
    if not _SPECIAL_CHARACTERS.isdisjoint(rest):
        return None
    rest, _, version = rest.partition("#")
    host, slash, path = rest.partition("/")
    if ":" in host or "%" in host:
        return None
    return SourceUri(scheme, host.lower(), (slash + path).rstrip("/"), version or None, None)


class UriFault(NamedTuple):
    """What is wrong with a URI, and the way out. ``message`` goes after the field's name."""

    message: str
    hint: str


def find_uri_fault(uri: str) -> UriFault | None:
    """Say why a URI may not stand in a manifest: user or password in it, control characters, not a URI."""
    if not uri:
        return UriFault("is empty", "remove it, or name the source")
    if has_control(uri):
        return UriFault(f"has a control character: '{printable(uri)}'", "write it percent-encoded")
    if "@" not in uri and "[" not in uri and "]" not in uri:
        return None
    try:
        source = urlsplit("" if uri.startswith("git@") else uri)
        has_user = "@" in source.netloc or (not source.netloc and _is_scp_like(source.path, uri))
    except ValueError:
        return UriFault(f"is not a URI: '{printable(uri)}'", "check its host; an IPv6 address stands in brackets")
    if not has_user:
        return None
    if source.scheme in ("http", "https", "ftp"):
        hint = "take the user and password out of it and put them into ~/.netrc"
    else:
        hint = "take the user out of it and set it in ~/.ssh/config (git@host:owner/repo.git may stay)"
    return UriFault("has a user or password in it, which a manifest must not hold", hint)


def _is_scp_like(path: str, uri: str) -> bool:
    """``user@host:path``, which ssh tools read as a remote place."""
    user, _, rest = uri.partition("@")
    return "/" not in user and "/" not in rest.partition(":")[0] and ":" in rest and bool(path)


def derive_key(uri: str, version: str | None = None) -> str:
    """The key of a single source, unchecked: ``version`` is what the manifest says where the URI says none.

    ``https://Example.com:8080/a/b.nc?x=1#2`` gives ``example.com/a/b.nc#2``; ``file:///a/b`` gives ``a/b``.
    """
    source = read_uri(uri)
    path = source.path.strip("/")
    key = f"{source.host}/{path}" if source.host and path else source.host + "/" if source.host else path
    version = source.version or version
    return (f"{key}#{version}" if version else key).strip("/")


def derive_folder_key(uris: Sequence[str]) -> str:
    """The key of several files, unchecked: the first one's host plus the folders that all of them share."""
    sources = [read_uri(uri) for uri in uris]
    shared = _find_shared([_split_path(source.path)[:-1] for source in sources])
    return "/".join([sources[0].host, *shared]).strip("/")


def derive_file_names(uris: Sequence[str]) -> tuple[str, ...]:
    """Where each of several files lies in their folder: its path below the folders that all of them share.

    Raises `Malformed` where two would lie on each other, `Refused` for a name that is not safe.
    """
    paths = [_split_path(read_uri(uri).path) for uri in uris]
    count = len(_find_shared([path[:-1] for path in paths]))
    names = [Key.parse("/".join(path[count:])).text for path in paths]
    taken: dict[str, str] = {}
    for name, uri in sorted(zip(names, uris, strict=True)):
        above = [name, *("/".join(name.split("/")[:depth]) for depth in range(1, name.count("/") + 1))]
        other = next((taken[path] for path in above if path in taken), None)
        if other is not None:
            raise Malformed(
                f"'{printable(other)}' and '{printable(uri)}' would both be the file '{printable(name)}'",
                hint="make them datasets of their own, each with a 'key'",
                code="key-collision",
            )
        taken[name] = uri
    return tuple(names)


def _split_path(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _find_shared(folders: Sequence[Sequence[str]]) -> list[str]:
    shared = []
    for parts in zip(*folders, strict=False):
        if any(part != parts[0] for part in parts):
            break
        shared.append(parts[0])
    return shared


def landing_key(key: str, *, extract: bool) -> str:
    """The path at which a key's data lands: the key itself, or for an extracted archive the folder's.

    ``a.zip``, ``a.tar.gz`` and ``a.tar`` become ``a``; anything else gains ``.d`` (``a.zip#2`` is ``a.zip#2.d``).
    """
    if not extract:
        return key
    for suffix in STRIPPED_SUFFIXES:
        if key.endswith(suffix):
            return key.removesuffix(suffix)
    return key + ".d"


def find_format(key: str) -> str | None:
    """The format that a key's extension names, without the dot (``nc``, ``tar.gz``); None when it has none."""
    name = key.partition("#")[0].rstrip("/").rpartition("/")[2]
    stem, dot, extension = name.rpartition(".")
    if not dot or not stem.strip("."):
        return None
    if stem.endswith(".tar") and len(stem) > 4:
        extension = f"tar.{extension}"
    return extension or None


def suggest_name(source: str) -> str:
    """A dataset's name for a URI or path: its last part without extension, escapes and ``.git``."""
    uri = read_uri(source) if "://" in source or source.startswith("git@") else None
    path = source if uri is None else unquote(uri.path)
    last = path.rstrip("/").rpartition("/")[2]
    extension = find_format(last)
    if extension is not None:
        last = last.removesuffix(f".{extension}")
    name = "".join(character if character.isprintable() else "_" for character in last).strip()
    return name or (uri.host if uri is not None and uri.host else "data")


def strip_secrets(uri: str) -> str:
    """A URI without user, password, tokens and signatures."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return uri
    host = parts.netloc.rpartition("@")[2]
    query = "&".join(item for item in parts.query.split("&") if not _is_secret(item.partition("=")[0]))
    return uri if (host, query) == (parts.netloc, parts.query) else urlunsplit(parts._replace(netloc=host, query=query))


def _is_secret(parameter: str) -> bool:
    name = unquote(parameter).lower()
    return name in _SECRET_PARAMETERS or name.startswith(_SECRET_PREFIXES)
