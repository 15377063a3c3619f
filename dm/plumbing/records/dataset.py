"""One dataset as the manifest declares it: its fields checked and normalised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, overload

from dm.errors import Malformed, Refused
from dm.plumbing.records.dataset_fields import check_table
from dm.values import Digest, Key, printable

LineFinder = Callable[[str, str], int | None]


class _Text:
    """A field that is text: None when it is absent or empty."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, dataset: None, owner: type) -> _Text: ...
    @overload
    def __get__(self, dataset: Dataset, owner: type) -> str | None: ...
    def __get__(self, dataset: Dataset | None, owner: type) -> _Text | str | None:
        return self if dataset is None else dataset.table.get(self._name) or None


class _Flag:
    """A field that is true or false, false when it is absent."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, dataset: None, owner: type) -> _Flag: ...
    @overload
    def __get__(self, dataset: Dataset, owner: type) -> bool: ...
    def __get__(self, dataset: Dataset | None, owner: type) -> _Flag | bool:
        return self if dataset is None else dataset.table.get(self._name, False)


class Dataset:
    """One dataset, frozen. ``table`` is what the manifest holds, unknown fields included; the attributes are what it
    means: text fields are None when absent or empty (only ``scope`` knows ``""``), flags are false when absent.

    ``uris`` are the sources, none, one or several; ``is_list`` says that they are files of one folder. ``checksum`` and
    ``digest`` are the contract, None where nothing is pinned.
    """

    __slots__ = (
        "_find_line", "_key", "_key_text", "_source_id", "checksum", "digest", "is_list", "name", "table", "uris",
    )  # fmt: skip

    name: str
    table: Mapping[str, Any]
    uris: tuple[str, ...]
    is_list: bool
    checksum: Digest | None
    digest: Digest | None
    _find_line: LineFinder
    _key: Key | None
    _key_text: str | None
    _source_id: str | None

    branch = _Text("branch")
    description = _Text("description")
    doi = _Text("doi")
    local_path = _Text("local_path")
    shell = _Text("shell")
    storage_path = _Text("storage_path")
    store = _Text("store")
    extract = _Flag("extract")
    lazy_access = _Flag("lazy_access")
    skip_checksum = _Flag("skip_checksum")
    skip_download = _Flag("skip_download")

    def __init__(self, name: str, table: Mapping[str, Any], find_line: LineFinder) -> None:
        """Check a table and make the dataset of it; ``find_line`` gives the line of a field. Raises `Fault`."""
        uris, is_list, checksum, digest = check_table(table)
        put = object.__setattr__
        put(self, "name", name)
        put(self, "table", MappingProxyType(table))
        put(self, "uris", uris)
        put(self, "is_list", is_list)
        put(self, "checksum", checksum)
        put(self, "digest", digest)
        put(self, "_find_line", find_line)
        put(self, "_key", None)
        put(self, "_key_text", None)
        put(self, "_source_id", None)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a dataset is frozen: cannot set '{name}'")

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, {dict(self.table)!r})"

    @property
    def aliases(self) -> tuple[str, ...]:
        """Further identifiers."""
        return tuple(self.table.get("aliases", ()))

    @property
    def requires(self) -> tuple[str, ...]:
        """Identifiers of the datasets that come first."""
        return tuple(self.table.get("requires", ()))

    @property
    def scope(self) -> str | None:
        """The partition of the composed layout; ``""`` is shared, None is not said."""
        scope: str | None = self.table.get("scope")
        return scope

    @property
    def delegate(self) -> bool | None:
        """Whether a fetcher in another language may be used; None when the manifest does not say."""
        delegate: bool | None = self.table.get("delegate")
        return delegate

    @property
    def is_user_managed(self) -> bool:
        """Whether the manifest names the place itself, without ``$key``."""
        expression = self.storage_path or self.local_path
        return expression is not None and "$key" not in expression and "${key}" not in expression

    def find_line(self, field: str) -> int | None:
        """The line of a field in the manifest's file, from 1; the dataset's own where it has no such field."""
        return self._find_line(self.name, field)

    # what the sources say

    @property
    def version(self) -> str | None:
        """The version in the storage key: the URI's own, else the field; none for several files."""
        if self.is_list:
            return None
        said: str | None = self.table.get("version") or None
        if not self.uris:
            return said
        from dm.plumbing.records.key import read_uri

        return read_uri(self.uris[0]).version or said

    @property
    def format(self) -> str | None:
        """The format without a leading dot: the field, else the URI's ``format`` query, else the key's extension; the
        path's for a file of the user's whose key is only its name.
        """
        said = self._find_said_format()
        if said is not None:
            return said
        from dm.plumbing.records.key import find_format

        try:
            key = self.find_key()
        except Refused:
            return None
        if key is None:
            return None
        if self.is_user_managed and key.text == self.name:
            return find_format(self.storage_path or self.local_path or "") or find_format(key.text)
        return find_format(key.text)

    @property
    def archive_format(self) -> str | None:
        """Which archive the source is (``zip``, ``tar``, ``tar.gz``, ``tar.bz2``, ``tar.xz``, ``tar.zst``), None when
        neither the format nor the URI's path nor the key says one.
        """
        from dm.plumbing.records.key import ARCHIVE_FORMATS, find_format, read_uri

        names = [self._find_said_format() or ""]
        names += [find_format(read_uri(uri).path) or "" for uri in self.uris[:1]]
        names.append(find_format(self.show_key()) or "")
        return next((ARCHIVE_FORMATS[name.lower()] for name in names if name.lower() in ARCHIVE_FORMATS), None)

    def _find_said_format(self) -> str | None:
        said = str(self.table.get("format", "")).lstrip(".")
        if not said and len(self.uris) == 1 and "?" in self.uris[0]:
            from dm.plumbing.records.key import read_uri

            said = (read_uri(self.uris[0]).format or "").lstrip(".")
        return said or None

    @property
    def file_names(self) -> tuple[str, ...]:
        """Where each of several files lies in the dataset's folder, in the order of ``uris``.

        Raises `Malformed` where two lie on each other, `Refused` for a name that is not safe.
        """
        from dm.plumbing.records.key import derive_file_names

        try:
            return derive_file_names(self.uris)
        except (Malformed, Refused) as error:
            message = f"dataset '{printable(self.name)}': {error.message}"
            raise type(error)(message, hint=error.hint, code=error.code) from error

    # where it lands

    @property
    def key(self) -> Key:
        """The storage key: the field, else derived from the sources (SCHEMA.md, "Keys"). Derived on first use.

        Raises `Refused` for one that is not safe, an empty one included: a dataset without a source needs a ``key``,
        unless it is user-managed; such a one is recorded under its name.
        """
        if self._key is None:
            text = self._derive_key()
            try:
                key = Key.parse(text)
                if self.extract:
                    Key.parse(self._landing_text(key))
            except Refused as error:
                hint = "set a plain relative 'key'" if self.uris or text else "set 'uri', or a 'key' of its own"
                fault = error.message if text else "it has no key, and no 'uri' to derive one from"
                raise Refused(f"dataset '{printable(self.name)}': {fault}", hint=hint, code=error.code) from error
            object.__setattr__(self, "_key", key)
            return key
        return self._key

    @property
    def landing(self) -> Key:
        """The path at which the data lands below a store root: the key, or the folder of an extracted archive.

        Raises as `key` does.
        """
        key = self.key
        return Key(self._landing_text(key)) if self.extract else key

    def find_key(self) -> Key | None:
        """The key, None where there is nothing to derive one from. Raises `Refused` for one that is not safe."""
        return self.key if self._derive_key() else None

    def show_key(self) -> str:
        """The key for people, also one that would be refused; on one line."""
        return printable(self._derive_key())

    def _landing_text(self, key: Key) -> str:
        from dm.plumbing.records.key import landing_key

        return landing_key(key.text, extract=self.extract)

    def _derive_key(self) -> str:
        if self._key_text is None:
            object.__setattr__(self, "_key_text", self._compute_key())
        assert self._key_text is not None
        return self._key_text

    def _compute_key(self) -> str:
        said: str = self.table.get("key", "")
        if said:
            return said
        from dm.plumbing.records.key import derive_folder_key, derive_key

        if self.is_list:
            return derive_folder_key(self.uris)
        if self.uris:
            return derive_key(self.uris[0], self.table.get("version"))
        host, path = self.table.get("host", ""), self.table.get("path", "")
        if host or path:  # from before there was a 'uri'
            return derive_key(f"{self.table.get('scheme') or 'https'}://{host}/{path.strip('/')}", self.version)
        return self.name if self.is_user_managed else ""

    # what it is

    @property
    def source(self) -> tuple[object, ...]:
        """What tells this dataset's bytes from another's: the sources, the branch, how it is fetched and unpacked."""
        table = self.table
        fetcher = table.get("fetcher") or table.get("_LANG")
        return (
            self.uris,
            self.is_list,
            table.get("branch") or "",
            table.get("shell") or "",
            repr(fetcher) if fetcher else "",
            bool(table.get("extract")),
        )

    @property
    def source_id(self) -> str:
        """BLAKE3 (hex) of the source list without secrets, by which a copy's ref remembers where it came from.

        The list is each URI without user, tokens and signatures, then ``branch``, ``shell``, ``fetcher`` and those
        fetchers below ``_LANG`` (by language) that may bring it, as ``<name> <text>`` with NUL after each
        (SCHEMA.md, "Refs").
        """
        if self._source_id is None:
            object.__setattr__(self, "_source_id", self._compute_source_id())
        assert self._source_id is not None
        return self._source_id

    def _compute_source_id(self) -> str:
        from dm.plumbing import hashing
        from dm.plumbing.records.key import strip_secrets

        words = [f"uri {strip_secrets(uri)}" for uri in self.uris]
        words += [f"{name} {text}" for name in ("branch", "shell") if (text := self.table.get(name))]
        languages = self.table.get("_LANG")
        fetchers = [self.table.get("fetcher")]
        if isinstance(languages, Mapping):
            # Those of other languages are no source where there is another (SCHEMA.md, "Fetch").
            only_own = bool(self.uris or self.table.get("shell"))
            fetchers += [
                each.get("fetcher")
                for language, each in sorted(languages.items())
                if isinstance(each, Mapping) and (language == "python" or not only_own)
            ]
        for fetcher in filter(None, fetchers):
            import json

            words.append(f"fetcher {json.dumps(fetcher, sort_keys=True, default=str)}")
        return hashing.blake3_of("".join(f"{word}\0" for word in words).encode("utf-8", "surrogateescape")).hex()
