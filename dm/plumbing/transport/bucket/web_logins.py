"""Logins for http and https sources that are opened in place: the rules of downloads, for aiohttp.

By itself aiohttp looks into netrc again at each redirect: it would send a login over plain http after https, and an
entry ``default`` to any host.
"""

from __future__ import annotations

from contextvars import ContextVar
from functools import partial
from typing import Any

from dm.environment import Environment
from dm.plumbing.transport.credentials import Credentials
from dm.progress import SILENT

#: In the task that sends them: whether a request of the same chain of redirects went over https.
_encrypted: ContextVar[bool] = ContextVar("encrypted", default=False)


def build_web_options(environment: Environment) -> dict[str, Any]:
    """What fsspec's http file system is called with. They can be pickled, as what reads on from it is by dask and its
    like; there is no secret in them.
    """
    logins = environment._replace(variables={"NETRC": environment.get("NETRC") or ""})
    return {"skip_instance_cache": True, "get_client": partial(_make_session, logins)}


async def _make_session(logins: Environment, **options: Any) -> Any:
    """A session of aiohttp each of whose requests, also one that a redirect leads to, has the login of its own host,
    and none over http once its chain was at https. Proxies are aiohttp's to find, and what is wrong with netrc its to
    tell.
    """
    import aiohttp

    watch = aiohttp.TraceConfig()
    watch.on_request_start.append(_begin_chain)
    request = _make_request_class(aiohttp.ClientRequest, Credentials(logins))
    return aiohttp.ClientSession(trust_env=True, request_class=request, trace_configs=[watch], **options)


async def _begin_chain(*_: object) -> None:
    _encrypted.set(False)


def _make_request_class(base: Any, credentials: Credentials) -> Any:
    class Request(base):  # type: ignore[misc]
        def __init__(self, method: str, url: Any, **options: Any) -> None:
            super().__init__(method, url, **options)
            self.headers.popall("Authorization", None)
            if url.scheme == "https":
                _encrypted.set(True)
            elif _encrypted.get():
                return
            authorization = credentials.find_authorization(url.host, SILENT)
            if authorization is not None:
                self.headers["Authorization"] = authorization

    return Request
