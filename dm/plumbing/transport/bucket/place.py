"""Data that is read where it lies: nothing is downloaded, nothing is verified (``lazy_access``)."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, BinaryIO, cast

from dm.environment import Environment
from dm.errors import SourceFailed
from dm.plumbing.transport.address import describe_uri, find_scheme
from dm.plumbing.transport.bucket.address import BucketAddress
from dm.plumbing.transport.bucket.faults import explain, find_fault
from dm.plumbing.transport.bucket.services import SERVICES, Service, build_options, find_service, load_class

#: Readers of NetCDF and HDF5 jump about: 16 blocks of 4 MiB of a file are kept.
_BLOCK_BYTES = 4 << 20
_BLOCKS_KEPT = 16


def open_in_place(uri: str, environment: Environment) -> BinaryIO:
    """Open what a URI names for reading, where it lies: object stores, ``http``, ``https`` and ``file``.

    The file seeks (over http: where the server sends ranges) and keeps at most 64 MiB of what it read. Close it, or
    drop it; its connections go with it. What goes wrong later, while it is read, comes as the library's own exception.

    Raises `SourceFailed`: ``extra-missing`` with the command that installs what is missing, ``no-such-object``,
    ``access-denied`` and so on, as a fetch does.
    """
    scheme = find_scheme(uri)
    if scheme == "file":
        return _open_file(uri)
    with _Explained(uri, environment) as place:
        system, path = place.connect()
        # A look at what is there, so that a wrong name is told now and not by the reader's library.
        details = system.info(path)
        if details.get("type") == "directory":
            hint = "name a file, or a format that is a folder (zarr)"
            raise SourceFailed(f"cannot open '{describe_uri(uri)}': it is a folder", hint=hint, code="not-a-file")
        if details.get("size") is None:
            return cast("BinaryIO", system.open(path, "rb"))
        kept = {"maxblocks": _BLOCKS_KEPT}
        opened = system.open(path, "rb", block_size=_BLOCK_BYTES, cache_type="blockcache", cache_options=kept)
        return cast("BinaryIO", opened)


def open_mapping(uri: str, environment: Environment) -> MutableMapping[str, bytes]:
    """The files below a URI as a mapping from relative name to bytes, read one by one when asked for (fsspec's
    mapper, which zarr takes as a store). Nothing is asked of the source yet. Raises as `open_in_place` does.
    """
    with _Explained(uri, environment) as place:
        system, path = place.connect()
        from dm.plumbing.transport.bucket.blocking import BlockingFileSystem

        mapping = BlockingFileSystem(system).get_mapper(path.rstrip("/"))
        return cast("MutableMapping[str, bytes]", mapping)


class _Explained:
    """A `with` block in which a library's exceptions become `SourceFailed`, and the way to what a URI names."""

    def __init__(self, uri: str, environment: Environment) -> None:
        self.uri = uri
        self.environment = environment
        self.anonymous = False
        self.service: Service | None = None

    def connect(self) -> tuple[Any, str]:
        """An fsspec file system of its own and the path in it."""
        scheme = find_scheme(self.uri) or ""
        self.service = service = find_service(self.uri, scheme, opened=True)
        make = load_class(service, self.uri, verb="open")
        if scheme == "file":
            from dm.plumbing.transport.file import read_file_path

            return make(skip_instance_cache=True), str(read_file_path(self.uri))
        if scheme not in SERVICES:
            from dm.plumbing.transport.bucket.web_logins import build_web_options

            return make(**build_web_options(self.environment)), self.uri.partition("#")[0]
        address = BucketAddress.parse(self.uri)
        if service.name == "S3":
            self.anonymous = not _finds_credentials(self.environment)
        options = build_options(scheme, self.environment, account=address.account, anonymous=self.anonymous)
        if service.name == "S3" and not self.anonymous and self.environment.get("AWS_PROFILE"):
            options["profile"] = self.environment.get("AWS_PROFILE")
        path = address.place
        if address.version is not None:
            options["version_aware"] = True
            mark = {"S3": "?versionId=", "Google Cloud Storage": "#"}.get(service.name, "?versionid=")
            path += mark + address.version
        return make(**options), path

    def __enter__(self) -> _Explained:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, SourceFailed) or self.service is None:
            return
        found = explain(
            find_fault(error),
            BucketAddress.parse(self.uri),
            self.service,
            self.environment,
            anonymous=self.anonymous,
            verb="open",
        )
        raise found from error


def _finds_credentials(environment: Environment) -> bool:
    from fsspec.asyn import get_loop, sync  # type: ignore[import-untyped]

    from dm.plumbing.transport.bucket.identity import has_credentials, make_session

    return bool(sync(get_loop(), has_credentials, make_session(environment)))


def _open_file(uri: str) -> BinaryIO:
    from dm.plumbing.fs.machine import machine_errors
    from dm.plumbing.transport.file import read_file_path

    path = read_file_path(uri)
    with machine_errors("read", path):
        return open(path, "rb")
