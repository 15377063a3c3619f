"""What the exceptions of the services' libraries mean.

Their texts are not shown: they are long, differ from release to release, and may hold a signed address. What is shown
is the service's own word for the fault (``AccessDenied``, 503) where there is one.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from dm.environment import Environment
from dm.errors import SourceFailed
from dm.plumbing.transport.bucket.address import BucketAddress
from dm.plumbing.transport.bucket.services import Service
from dm.values import printable

Kind = Literal["absent", "no-bucket", "denied", "changed", "archived", "unreachable", "passing", "failed"]

_NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted", "InvalidBucketName"})
#: Answered with status 400 by S3, where others answer 401 or 403.
_DENIED = frozenset({"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId"})
_CHANGED = frozenset({"PreconditionFailed", "ConditionNotMet", "InvalidRange"})
_PASSING = frozenset({"SlowDown", "RequestTimeout", "Throttling", "ServerBusy", "InternalError"})
_ARCHIVED = frozenset({"InvalidObjectState", "BlobArchived"})
#: Exceptions by name that mean credentials, and such that mean the network; of botocore, google-auth and azure-core.
_CREDENTIAL_ERRORS = frozenset(
    (
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "ProfileNotFound",
        "TokenRetrievalError",
        "SSOTokenLoadError",
        "UnauthorizedSSOTokenError",
        "ConfigParseError",
        "DefaultCredentialsError",
        "RefreshError",
        "ClientAuthenticationError",
        "CredentialUnavailableError",
    )
)
_UNREACHABLE_ERRORS = frozenset(
    (
        "EndpointConnectionError",
        "ConnectTimeoutError",
        "ProxyConnectionError",
        "ClientConnectorError",
        "ClientConnectorDNSError",
        "ServiceRequestError",
        "ConnectionError",
        "ConnectionRefusedError",
    )
)
_PASSING_ERRORS = frozenset(
    (
        "ReadTimeoutError",
        "ConnectionClosedError",
        "HTTPClientError",
        "ResponseStreamingError",
        "IncompleteReadError",
        "IncompleteRead",
        "ClientPayloadError",
        "ClientError",  # of aiohttp; botocore's has a response and is judged by that
        "ServiceResponseError",
        "TransportError",
        "TimeoutError",
        "FSTimeoutError",
        "OSError",
    )
)
_TLS_ERRORS = frozenset(
    {"SSLError", "SSLCertVerificationError", "ClientConnectorSSLError", "ClientConnectorCertificateError"}
)


class BucketFault(Exception):
    """What went wrong, in kinds that can be acted on; ``reason`` is the service's word for it, or empty."""

    def __init__(self, kind: Kind, reason: str = "") -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


class Interrupted(SourceFailed):
    """The transport was closed while a transfer was under way."""

    default_code = "interrupted"


def find_fault(error: BaseException) -> BucketFault:
    """What an exception of a library means."""
    if isinstance(error, BucketFault):
        return error
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        below = find_fault(error.__cause__)  # fsspec's http says so of every failure
        if below.kind != "failed":
            return below
    word, status = _find_answer(error)
    if word in _NO_BUCKET:
        return BucketFault("no-bucket", word)
    if word in _ARCHIVED:
        return BucketFault("archived", word)
    if word in _CHANGED or status in (412, 416):
        return BucketFault("changed", word or str(status))
    if word in _PASSING or status == 429 or status >= 500:
        return BucketFault("passing", f"it answered {word or status}")
    if isinstance(error, FileNotFoundError) or status == 404:
        return BucketFault("absent", word)
    # gcsfs has no exception of its own for either.
    if isinstance(error, FileExistsError):
        return BucketFault("changed")
    forbidden = type(error) is OSError and str(error).startswith("Forbidden")
    if forbidden or isinstance(error, PermissionError) or word in _DENIED or status in (401, 403):
        return BucketFault("denied", word)
    if status:
        return BucketFault("failed", f"{word} ({status})" if word else str(status))
    return _find_local_fault(error)


def _find_local_fault(error: BaseException) -> BucketFault:
    """What an exception means that is no service's answer."""
    names = {each.__name__ for each in type(error).__mro__}
    if names & _CREDENTIAL_ERRORS:
        return BucketFault("denied")
    if names & _TLS_ERRORS:
        return BucketFault("failed", "no secure connection: check the clock and the certificates of this machine")
    if names & _UNREACHABLE_ERRORS:
        return BucketFault("unreachable")
    if isinstance(error, asyncio.TimeoutError) or names & _PASSING_ERRORS:
        return BucketFault("passing", "the connection was dropped, or silent for too long")
    return BucketFault("failed", type(error).__name__)


def _find_answer(error: BaseException) -> tuple[str, int]:
    """The service's word for an error and the HTTP status, where the exception holds them; else empty and 0."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        word = str(response.get("Error", {}).get("Code", ""))
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        status = status if isinstance(status, int) else int(word) if word.isdecimal() else 0
        return ("" if word.isdecimal() else printable(word)[:60]), status
    named: Any = getattr(error, "error_code", None)  # azure-core
    named = getattr(named, "value", named)
    # One after the other: aiohttp has a `code` as well, and warns whoever looks at it.
    found = (getattr(error, name, None) for name in ("status_code", "status", "code"))
    status = next((each for each in found if type(each) is int), 0)
    return (printable(named)[:60] if isinstance(named, str) else ""), status


def explain(
    fault: BucketFault,
    address: BucketAddress,
    service: Service,
    environment: Environment,
    *,
    anonymous: bool,
    verb: str = "fetch",
) -> SourceFailed:
    """The error that a fault is for the user."""
    subject = f"cannot {verb} '{address.shown}'"
    if address.scheme in ("http", "https"):
        return _explain_web(fault, subject)
    where = _describe_endpoint(service, environment)
    bucket, key = printable(address.bucket), printable(address.key)
    word = f" ({fault.reason})" if fault.reason else ""
    if fault.kind == "no-bucket":
        message = f"{subject}: {where} has no bucket '{bucket}'"
        hint = "check the 'uri', and that it is this service that has it"
        return SourceFailed(message, hint=hint, code="no-such-bucket")
    if fault.kind == "absent":
        what = f"nothing lies below '{key}'" if address.is_prefix else f"there is no object '{key}'"
        message = f"{subject}: {what} in the bucket '{bucket}'" if key else f"{subject}: the bucket '{bucket}' is empty"
        return SourceFailed(message, hint="check the 'uri': keys are case-sensitive", code="no-such-object")
    if fault.kind == "denied" and anonymous:
        message = f"{subject}: {where} wants credentials, and none were found"
        return SourceFailed(message, hint=f"set {service.credentials}", code="access-denied")
    if fault.kind == "denied":
        message = f"{subject}: {where} refuses the credentials that were found{word}"
        hint = f"wrong, expired, or without a right to this bucket: check {service.credentials}"
        return SourceFailed(message, hint=hint, code="access-denied")
    if fault.kind == "changed":
        message = f"{subject}: the object changed while it was fetched"
        hint = "wait until whoever writes it is done, then try again"
        return SourceFailed(message, hint=hint, code="source-changing")
    if fault.kind == "archived":
        message = f"{subject}: the object is archived and has to be restored first{word}"
        return SourceFailed(message, hint="ask the bucket's owner to restore it", code="object-archived")
    if fault.kind == "unreachable":
        hint = "is it up, and can it be reached from this machine? AWS_ENDPOINT_URL says where S3 is"
        if service.name != "S3":
            hint = "is it up, and can it be reached from this machine?"
        return SourceFailed(f"{subject}: cannot connect to {where}", hint=hint, code="cannot-connect")
    if fault.kind == "passing":
        return SourceFailed(f"{subject}: {where} failed: {fault.reason}", hint="try again later", code="service-failed")
    reason = f": {fault.reason}" if fault.reason else ""
    message = f"{subject}: {where} refused the request{reason}"
    return SourceFailed(message, hint="check the 'uri'", code="request-failed")


def _explain_web(fault: BucketFault, subject: str) -> SourceFailed:
    if fault.kind == "absent":
        return SourceFailed(f"{subject}: the server has no such file", hint="check the 'uri'", code="no-such-object")
    if fault.kind == "denied":
        message = f"{subject}: the server refuses access"
        return SourceFailed(message, hint="a login goes into ~/.netrc", code="access-denied")
    if fault.kind == "unreachable":
        message = f"{subject}: cannot connect to the server"
        hint = "is it up, and can it be reached from this machine?"
        return SourceFailed(message, hint=hint, code="cannot-connect")
    reason = f": {fault.reason}" if fault.reason else ""
    return SourceFailed(f"{subject}: the server failed{reason}", hint="try again later", code="service-failed")


def _describe_endpoint(service: Service, environment: Environment) -> str:
    """The service by name, with the host where the user said which one."""
    from urllib.parse import urlsplit

    names = {"S3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), "Google Cloud Storage": ("STORAGE_EMULATOR_HOST",)}
    endpoint = next(filter(None, map(environment.get, names.get(service.name, ()))), None)
    if endpoint is None:
        return service.name
    try:
        host = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}").netloc.rpartition("@")[2]
    except ValueError:
        host = ""
    return f"{service.name} at {printable(host)}" if host else service.name
