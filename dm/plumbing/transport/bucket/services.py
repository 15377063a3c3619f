"""Which library serves a scheme, what to install when it is missing, and what it is told of this user's surroundings.

Credentials are found as each service's own tools find them. What stands in the `Environment` is passed on by name, so
that a session uses what it was opened with; the rest (configuration files, roles of a machine, a login of the service's
own command) is left to the library. Instances are never shared through fsspec's global cache: one session's credentials
must not serve another.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from dm.environment import Environment
from dm.errors import SourceFailed
from dm.plumbing.transport.address import describe_uri

# These log tracebacks, and every way to log in that they tried. What matters of it becomes the error; the rest is for
# whoever sets up logging, and not for stderr.
for _library in ("adlfs", "azure", "fsspec", "gcsfs", "gdrive_fsspec", "google", "s3fs"):
    logging.getLogger(_library).addHandler(logging.NullHandler())


class Service(NamedTuple):
    """One kind of object store: what to call it, the library's module and class, and how to install it."""

    name: str
    module: str
    class_name: str
    package: str
    install: str
    #: Where credentials come from, for the hint of an error.
    credentials: str


_S3 = Service(
    "S3", "s3fs", "S3FileSystem", "s3fs", "pip install 'dm[s3]'",
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or ~/.aws/credentials",
)  # fmt: skip
_GCS = Service(
    "Google Cloud Storage", "gcsfs.core", "GCSFileSystem", "gcsfs", "pip install 'dm[gcs]'",
    "GOOGLE_APPLICATION_CREDENTIALS, or gcloud auth application-default login",
)  # fmt: skip
_AZURE = Service(
    "Azure Blob Storage", "dm.plumbing.transport.bucket.azure_system", "GivenAzureFileSystem", "adlfs",
    "pip install 'dm[azure]'",
    "AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, or az login",
)  # fmt: skip
_DRIVE = Service(
    # No extra: its library wants a login that only its own documentation tells how to make.
    "Google Drive", "gdrive_fsspec", "GoogleDriveFileSystem", "gdrive-fsspec", "pip install gdrive-fsspec",
    "a login as gdrive-fsspec documents it",
)  # fmt: skip
_HTTP = Service(
    "the server", "fsspec.implementations.http", "HTTPFileSystem", "fsspec and aiohttp", "pip install 'dm[lazy]'",
    "~/.netrc",
)  # fmt: skip
_FILE = Service(
    "this machine", "fsspec.implementations.local", "LocalFileSystem", "fsspec", "pip install 'dm[lazy]'", "its owner"
)

SERVICES: Mapping[str, Service] = {
    "s3": _S3,
    "gs": _GCS,
    "gcs": _GCS,
    "az": _AZURE,
    "abfs": _AZURE,
    "abfss": _AZURE,
    "gdrive": _DRIVE,
}
#: What can be opened in place beside object stores.
_OPENED: Mapping[str, Service] = {"http": _HTTP, "https": _HTTP, "file": _FILE}


def find_service(uri: str, scheme: str, *, opened: bool = False) -> Service:
    """The service of a scheme; with ``opened`` also of those that are only opened in place.

    Raises `SourceFailed`: code ``scheme-retired`` for ``adl``, ``unknown-scheme`` for what nothing serves.
    """
    service = SERVICES.get(scheme) or (_OPENED.get(scheme) if opened else None)
    if service is not None:
        return service
    verb = "open" if opened else "fetch"
    if scheme == "adl":
        message = f"cannot {verb} '{describe_uri(uri)}': the service behind 'adl' was switched off in February 2024"
        hint = "name the data where it was moved to, such as az://container/path"
        raise SourceFailed(message, hint=hint, code="scheme-retired")
    known = ", ".join(sorted((*SERVICES, *(_OPENED if opened else ()))))
    message = f"cannot {verb} '{describe_uri(uri)}': nothing opens '{scheme}'"
    raise SourceFailed(message, hint=f"known are {known}", code="unknown-scheme")


def load_class(service: Service, uri: str, *, verb: str = "fetch") -> Callable[..., Any]:
    """The fsspec class of a service, imported now.

    Raises `SourceFailed` with code ``extra-missing`` when it is not installed; the hint is the command that does it.
    """
    from importlib import import_module

    try:
        found: Callable[..., Any] = getattr(import_module(service.module), service.class_name)
    except (ImportError, AttributeError) as error:
        message = f"cannot {verb} '{describe_uri(uri)}': it needs {service.package}, which is not installed"
        raise SourceFailed(message, hint=service.install, code="extra-missing") from error
    return found


def build_options(scheme: str, environment: Environment, *, account: str | None, anonymous: bool) -> dict[str, Any]:
    """What the class of a scheme is called with, from the `Environment` given and nothing else."""
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    service = SERVICES.get(scheme)
    if service is _S3:
        options.update(_build_s3(environment, anonymous))
    elif service is _GCS:
        options.update(_build_google(environment, anonymous))
    elif service is _AZURE:
        options.update(_build_azure(environment, account, anonymous))
    return options


def _build_s3(environment: Environment, anonymous: bool) -> dict[str, Any]:
    get = environment.get
    options: dict[str, Any] = {"anon": anonymous}
    endpoint = get("AWS_ENDPOINT_URL_S3") or get("AWS_ENDPOINT_URL")
    if endpoint is not None:
        options["endpoint_url"] = endpoint
    region = get("AWS_REGION") or get("AWS_DEFAULT_REGION")
    if region is not None:
        options["client_kwargs"] = {"region_name": region}
    if not anonymous and get("AWS_ACCESS_KEY_ID") and get("AWS_SECRET_ACCESS_KEY"):
        names = {"key": "AWS_ACCESS_KEY_ID", "secret": "AWS_SECRET_ACCESS_KEY", "token": "AWS_SESSION_TOKEN"}
        options.update({name: get(variable) for name, variable in names.items() if get(variable)})
    return options


def _build_google(environment: Environment, anonymous: bool) -> dict[str, Any]:
    options: dict[str, Any] = {"access": "read_only"}
    endpoint = environment.get("STORAGE_EMULATOR_HOST")
    if endpoint is not None:
        options["endpoint_url"] = endpoint if "://" in endpoint else f"http://{endpoint}"
    project = environment.get("GOOGLE_CLOUD_PROJECT")
    if project is not None:
        options["project"] = project
    if anonymous:
        options["token"] = "anon"
    elif (token := _find_google_token(environment)) is not None:
        options["token"] = token
    return options


def _find_google_token(environment: Environment) -> str | None:
    """The file that GOOGLE_APPLICATION_CREDENTIALS names, where it is of a kind that gcsfs reads by itself; other
    kinds (a federated identity) are found by Google's own library.
    """
    import json

    named = environment.get("GOOGLE_APPLICATION_CREDENTIALS")
    if named is None:
        return None
    path = environment.working_folder / named
    try:
        kind = json.loads(path.read_bytes()).get("type")
    except (OSError, ValueError, AttributeError):
        return None
    return str(path) if kind in ("service_account", "authorized_user") else None


def names_account(environment: Environment, account: str | None) -> bool:
    """Whether it is said which storage account of Azure is meant, by the URI or the environment."""
    names = ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_CONNECTION_STRING")
    return account is not None or any(map(environment.get, names))


def _build_azure(environment: Environment, account: str | None, anonymous: bool) -> dict[str, Any]:
    """Keys, tokens and connection strings are those of one account: another that a URI names gets none of them. Who
    one is at Azure (a client and its secret, a login) is told to Azure alone and holds for every account.
    """
    get = environment.get
    options: dict[str, Any] = {"anon": anonymous}
    connection = _read_connection_string(get("AZURE_STORAGE_CONNECTION_STRING") or "")
    own = get("AZURE_STORAGE_ACCOUNT_NAME") or get("AZURE_STORAGE_ACCOUNT") or _find_account(connection)
    name = account or own
    if name is not None:
        options["account_name"] = name
    is_own = account is None or (own is not None and account.lower() == own.lower())
    if connection and (account is None or account.lower() == (_find_account(connection) or "").lower()):
        # The address of the account may be an unusual one, for everybody.
        secrets = ("accountkey", "sharedaccesssignature")
        kept = {field: value for field, value in connection.items() if not anonymous or field.lower() not in secrets}
        options["connection_string"] = ";".join(f"{field}={value}" for field, value in kept.items())
        return options
    if anonymous:
        return options
    names: dict[str, tuple[str, ...]] = {
        "client_id": ("AZURE_STORAGE_CLIENT_ID",),
        "client_secret": ("AZURE_STORAGE_CLIENT_SECRET",),
        "tenant_id": ("AZURE_STORAGE_TENANT_ID",),
    }
    if is_own:
        names["account_key"] = ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY")
        names["sas_token"] = ("AZURE_STORAGE_SAS_TOKEN",)
    for option, variables in names.items():
        value = next(filter(None, map(get, variables)), None)
        if value is not None:
            options[option] = value
    if "sas_token" in options:
        options["sas_token"] = "?" + options["sas_token"].removeprefix("?")
    if str(get("AZURE_STORAGE_ANON")).lower() in ("1", "t", "true", "yes"):
        options["anon"] = True
    return options


def _read_connection_string(text: str) -> dict[str, str]:
    """The fields of a connection string in their order."""
    pairs = (field.partition("=") for field in text.rstrip(";").split(";") if field)
    return {name: value for name, _, value in pairs}


def _find_account(connection: Mapping[str, str]) -> str | None:
    """The storage account that a connection string is for: named, else the first label of its address."""
    from urllib.parse import urlsplit

    fields = {name.lower(): value for name, value in connection.items()}
    if fields.get("accountname"):
        return fields["accountname"]
    try:
        host = urlsplit(fields.get("blobendpoint", "")).hostname or ""
    except ValueError:
        return None
    return host.partition(".")[0] or None
