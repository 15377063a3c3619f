"""Connections to HTTP servers: one shared pool, proxies, logins, redirects; and what went wrong in words.

With `kept` and `wakeable` the only module that knows urllib3 (imported on first use: 60 ms). Bodies are read from the
inner answer of http.client, whose `readinto` fills the caller's buffer without copies and which decodes nothing but
chunks.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from dm.environment import Environment
from dm.errors import DmError, Refused, SourceFailed
from dm.plumbing.transport.address import describe_uri
from dm.plumbing.transport.credentials import Credentials
from dm.plumbing.transport.proxies import find_proxy
from dm.plumbing.transport.wakeable import Sockets, make_pool_classes
from dm.progress import Progress
from dm.values import printable

if TYPE_CHECKING:
    import http.client

    import urllib3
    from urllib3.util import Url

    from dm.plumbing.transport.kept import KeptResponse

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: A body of an answer nobody wants is read to its end up to this size, to keep the connection; else it is closed.
_DRAIN_BYTES = 64 << 10
#: More hosts than any manifest has: a pool is never closed while it may be in use.
_HOSTS_MAX = 100_000
#: A name that could not be resolved for now (EAI_AGAIN): worth another try, unlike one that does not exist.
_RESOLVE_AGAIN = "EAI_AGAIN"


class HttpOptions(NamedTuple):
    """Limits of the HTTP transport.

    ``retries`` after the first try, for what may pass (5xx, 408, 429, a dropped connection, a truncated body); a try
    that brought at least 1 MiB of new bytes starts the count again. Waits grow as ``backoff_s`` × 2ⁿ, with jitter, to
    at most ``backoff_max_s``; a server's Retry-After is obeyed up to ``retry_after_max_s``. ``read_timeout_s`` is the
    longest silence, not the longest transfer. ``connections`` are kept open per host: as many as there are jobs.
    ``flush_every_s`` is how much of a long transfer a power failure may cost.
    """

    retries: int = 5
    connect_timeout_s: float = 15.0
    read_timeout_s: float = 60.0
    backoff_s: float = 0.5
    backoff_max_s: float = 30.0
    retry_after_max_s: float = 120.0
    redirects: int = 10
    connections: int = 16
    flush_every_s: float = 30.0
    user_agent: str = "dm"


class PassingFault(Exception):
    """A failure that may pass: another try is worth while. ``limit`` bounds the tries further, where it is set."""

    def __init__(
        self,
        reason: str,
        *,
        hint: str | None = None,
        code: str = "source-failed",
        retry_after_s: float | None = None,
        limit: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.code = code
        self.retry_after_s = retry_after_s
        self.limit = limit


class Answer:
    """An answer whose body has not been read. A context manager: leaving it gives the connection back or closes it.

    ``uri`` is where it came from after redirects; ``host`` that one's name with a port that is not the usual one;
    ``added_slash`` says that a redirect did nothing but add a slash, as servers do for a folder.
    """

    def __init__(
        self,
        connections: Connections,
        response: urllib3.HTTPResponse | KeptResponse,
        uri: str,
        host: str,
        added_slash: bool,
    ) -> None:
        self._connections = connections
        self._response = response
        body = response._fp  # the answer of http.client, see the module's head
        assert body is not None
        self._body: http.client.HTTPResponse = body
        self.status: int = response.status
        self.reason: str = printable(response.reason or "")
        self.headers: Mapping[str, str] = response.headers
        self.uri = uri
        self.host = host
        self.added_slash = added_slash
        self._broken = False

    @property
    def length_bytes(self) -> int | None:
        """Bytes that the body still has by its Content-Length; None when it did not say (chunks, or until the end)."""
        return self._body.length

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer from the body as it came over the wire; 0 at its end. Raises `PassingFault`."""
        import http.client
        from ssl import SSLError

        try:
            return self._body.readinto(buffer)
        except TimeoutError as error:
            self._broken = True
            timeout_s = self._connections.options.read_timeout_s
            raise PassingFault(f"{self.host} was silent for {timeout_s:g} s", code="timeout") from error
        except (OSError, ValueError, http.client.HTTPException, SSLError) as error:
            self._broken = True
            raise PassingFault(f"{self.host} dropped the connection", code="connection-dropped") from error

    def finish(self) -> None:
        """Give the connection back when the body was read to its end (or is short), else close it."""
        if not self._broken and not self._body.isclosed() and not self._connections.closed:
            length = self._body.length
            if length is not None and length <= _DRAIN_BYTES:
                self._response.drain_conn()
        if self._body.isclosed() and not self._broken:
            self._response.release_conn()
        else:
            self._response.close()

    def interrupt(self) -> None:
        """Wake a thread that waits for the body; from any thread."""
        try:
            self._response.shutdown()
        except (ValueError, RuntimeError, OSError):
            return  # read to its end, or closed, in the meantime

    def __enter__(self) -> Answer:
        self._connections.under_way.add(self)
        if self._connections.closed:  # meanwhile: `close` did not see this one
            self.interrupt()
        return self

    def __exit__(self, *_: object) -> None:
        self._connections.under_way.discard(self)
        self.finish()


class Connections:
    """One pool of connections for each way out (direct, or a proxy), shared by all threads."""

    def __init__(self, environment: Environment, options: HttpOptions) -> None:
        self.options = options
        #: Answers whose bodies are being read now.
        self.under_way: set[Answer] = set()
        self._environment = environment
        self._credentials = Credentials(environment)
        self._managers: dict[str | None, urllib3.PoolManager] = {}
        self._pools: dict[tuple[str | None, str | None, int | None], urllib3.HTTPConnectionPool] = {}
        self._limits: dict[str, Any] | None = None
        self._lock = threading.Lock()
        #: Every connection, and those of other protocols that are to end with them.
        self.sockets = Sockets()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self.sockets.closed

    def wait(self, seconds: float) -> None:
        """Sleep, or until `close`."""
        self.sockets.wait(seconds)

    def close(self) -> None:
        """Close every connection; threads that wait for a connection, an answer, a body or between two tries come back
        at once.
        """
        self.sockets.close()
        for answer in tuple(self.under_way):
            answer.interrupt()
        with self._lock:
            for manager in self._managers.values():
                manager.clear()

    def get(self, uri: str, headers: Mapping[str, str], progress: Progress) -> Answer:
        """Send a GET and return the answer, whatever its status, after redirects.

        Redirects are followed to http and https only, at most ``options.redirects``; no login goes to a host that is
        not its own, nor from https down to http. Raises `PassingFault`, `SourceFailed` and `Refused`.
        """
        encrypted = added_slash = False
        for _ in range(self.options.redirects + 1):
            encrypted = encrypted or uri.partition(":")[0].lower() == "https"
            answer = self._ask("GET", uri, headers, progress, may_log_in=not encrypted, added_slash=added_slash)
            location = answer.headers.get("Location") if answer.status in _REDIRECTS else None
            if location is None:
                return answer
            answer.finish()
            target = self._follow(uri, location, answer.host)
            added_slash = target.partition("?")[0] == uri.partition("#")[0].partition("?")[0] + "/"
            uri = target
        message = f"cannot fetch '{describe_uri(uri)}': more than {self.options.redirects} redirects"
        raise SourceFailed(message, hint="open the 'uri' in a browser to see where it leads", code="too-many-redirects")

    def post(
        self, uri: str, headers: Mapping[str, str], body: bytes, progress: Progress, *, may_log_in: bool = True
    ) -> Answer:
        """Send a POST and return the answer, whatever its status; a redirect is not followed. Raises as `get`.

        A login goes over https, and over plain http where ``may_log_in``.
        """
        return self._ask("POST", uri, headers, progress, body=body, may_log_in=may_log_in)

    def _ask(
        self,
        method: str,
        uri: str,
        headers: Mapping[str, str],
        progress: Progress,
        *,
        body: bytes | None = None,
        may_log_in: bool = True,
        added_slash: bool = False,
    ) -> Answer:
        """One request and its answer. A login is sent over https, over plain http where ``may_log_in``."""
        from urllib3.exceptions import HTTPError, LocationParseError
        from urllib3.util import parse_url

        try:
            address = parse_url(uri)
        except LocationParseError as error:
            raise SourceFailed(f"cannot read the URI '{describe_uri(uri)}'", code="uri-malformed") from error
        scheme = address.scheme or ""
        if not address.host:
            raise SourceFailed(f"the URI '{describe_uri(uri)}' names no host", code="uri-malformed")
        port = address.port or (443 if scheme == "https" else 80)
        host = address.host if address.port is None else f"{address.host}:{address.port}"
        sent = {"User-Agent": self.options.user_agent, "Accept": "*/*", "Accept-Encoding": "identity", **headers}
        if scheme == "https" or may_log_in:
            authorization = self._credentials.find_authorization(address.host, progress)
            if authorization is not None:
                sent["Authorization"] = authorization
        proxy = find_proxy(self._environment, scheme, address.host, port)
        if self.closed:
            raise PassingFault("interrupted", code="interrupted")
        try:
            response = self._send(method, address, proxy, sent, body)
        except (HTTPError, ValueError) as error:
            raise self._explain(error, uri, host, proxy) from error
        return Answer(self, response, uri, printable(host), added_slash)  # type: ignore[arg-type]

    def _follow(self, uri: str, location: str, host: str) -> str:
        from urllib.parse import urljoin

        try:
            target = urljoin(uri, location.strip())
        except ValueError:
            target = ""
        scheme = target.partition(":")[0].lower()
        if scheme not in ("http", "https"):
            where = describe_uri(location)
            message = f"cannot fetch '{describe_uri(uri)}': {host} redirects to '{where}', which is not http or https"
            hint = "a server may not choose what is read here; if you trust that place, name it as the 'uri' yourself"
            raise Refused(message, hint=hint, code="redirect-unsafe")
        return target

    def _send(
        self, method: str, address: Url, proxy: str | None, headers: dict[str, str], body: bytes | None
    ) -> urllib3.BaseHTTPResponse | KeptResponse:
        from urllib3.util import Retry, Timeout

        from dm.plumbing.transport.kept import ask_again

        if self._limits is None:
            self._limits = {
                "redirect": False,
                "retries": Retry(False),
                "preload_content": False,
                "decode_content": False,
                "timeout": Timeout(connect=self.options.connect_timeout_s, read=self.options.read_timeout_s),
            }
        if proxy is not None:
            uri = address._replace(auth=None, fragment=None).url
            return self._manager(proxy).urlopen(method, uri, body=body, headers=headers, **self._limits)
        # What the manager does for every request (parse again, make a key) costs as much as the request.
        place = (address.scheme, address.host, address.port)
        pool = self._pools.get(place)
        if pool is None:
            pool = self._manager(None).connection_from_host(address.host, address.port, address.scheme)
            self._pools[place] = pool
        if method == "GET":
            kept = ask_again(pool, address.request_uri, headers, self.options.read_timeout_s)
            if kept is not None:
                return kept
        path = address.request_uri
        return pool.urlopen(method, path, body=body, headers=headers, assert_same_host=False, **self._limits)

    def _manager(self, proxy: str | None) -> urllib3.PoolManager:
        manager = self._managers.get(proxy)
        if manager is None:
            with self._lock:
                manager = self._managers.get(proxy)
                if manager is None:
                    manager = self._managers[proxy] = self._make_manager(proxy)
        return manager

    def _make_manager(self, proxy: str | None) -> urllib3.PoolManager:
        import urllib3
        from urllib3.util import make_headers, parse_url

        settings: dict[str, object] = {"maxsize": self.options.connections, "num_pools": _HOSTS_MAX}
        # What OpenSSL, curl and requests are told about certificates holds here too.
        names = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
        bundle = next(filter(None, map(self._environment.get, names)), None)
        if bundle is not None:
            settings["ca_certs"] = bundle
        if proxy is None:
            return self._wakeable(urllib3.PoolManager(**settings))  # type: ignore[arg-type]
        try:
            address = parse_url(proxy)
        except urllib3.exceptions.LocationParseError:
            address = parse_url("")
        if address.scheme not in ("http", "https") or not address.host:
            message = f"cannot use the proxy '{describe_uri(proxy)}': only http and https proxies are known"
            raise SourceFailed(message, hint="set http_proxy, https_proxy or no_proxy", code="proxy-unknown")
        if address.auth is not None:
            from urllib.parse import unquote

            settings["proxy_headers"] = make_headers(proxy_basic_auth=unquote(address.auth))
        return self._wakeable(urllib3.ProxyManager(address._replace(auth=None).url, **settings))  # type: ignore[arg-type]

    def _wakeable(self, manager: urllib3.PoolManager) -> urllib3.PoolManager:
        manager.pool_classes_by_scheme = make_pool_classes(self.sockets)
        return manager

    def _explain(self, error: Exception, uri: str, host: str, proxy: str | None) -> Exception:
        """What an exception of urllib3 means: `PassingFault`, or a `DmError` that no other try would change."""
        from urllib3 import exceptions

        options = self.options
        host = printable(host)
        subject = f"cannot fetch '{describe_uri(uri)}'"
        if self.closed:
            return PassingFault("interrupted", code="interrupted")
        if isinstance(error, exceptions.ProxyError):
            reason = f"cannot reach the proxy '{describe_uri(proxy or '')}'{_because(error)}"
            return PassingFault(reason, hint="check http_proxy, https_proxy and no_proxy", code="proxy-failed", limit=2)
        if isinstance(error, exceptions.SSLError):
            message = f"{subject}: no secure connection to {host}{_because(error)}"
            hint = "check the clock and the certificates of this machine; SSL_CERT_FILE names a bundle of your own"
            return SourceFailed(message, hint=hint, code="tls-failed")
        if isinstance(error, exceptions.NameResolutionError):
            if _RESOLVE_AGAIN in repr(error.__context__) or "Temporary failure" in str(error):
                return PassingFault(f"the name of {host} cannot be resolved now", code="unknown-host", limit=2)
            hint = "check the spelling of the 'uri' and the network of this machine"
            return SourceFailed(f"{subject}: no host {host} is known", hint=hint, code="unknown-host")
        if isinstance(error, exceptions.ConnectTimeoutError | exceptions.NewConnectionError):
            reason = f"cannot connect to {host}{_because(error)}"
            # A refused connection is a NewConnectionError, which urllib3 counts among the timeouts.
            if not isinstance(error, exceptions.NewConnectionError):
                reason = f"cannot connect to {host} within {options.connect_timeout_s:g} s"
            hint = f"is {host} up, and can it be reached from this machine?"
            return PassingFault(reason, hint=hint, code="cannot-connect", limit=2)
        if isinstance(error, exceptions.ReadTimeoutError):
            return PassingFault(f"{host} gave no answer within {options.read_timeout_s:g} s", code="timeout")
        if isinstance(error, exceptions.ProtocolError):
            return PassingFault(f"{host} dropped the connection", code="connection-dropped")
        return SourceFailed(f"{subject}: {printable(str(error))}", code="request-failed")


def _because(error: BaseException) -> str:
    """The reason of the operating system or of TLS below an exception of urllib3, as ``: reason``; empty when none."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and not isinstance(cause, DmError):
            verify = getattr(cause, "verify_message", "")
            reason = verify or getattr(cause, "reason", None) or cause.strerror or str(cause)
            return ": " + printable(str(reason)).replace("_", " ").lower().rstrip(".")
        inner = getattr(cause, "original_error", None) or next(
            (part for part in cause.args if isinstance(part, BaseException)), None
        )
        cause = inner or cause.__cause__ or cause.__context__
    return ""


