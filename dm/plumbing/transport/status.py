"""What an HTTP status that is no success means: worth another try, or final, and what to do about it."""

from __future__ import annotations

from dm.errors import SourceFailed
from dm.plumbing.transport.address import describe_uri
from dm.plumbing.transport.connections import Answer, PassingFault
from dm.plumbing.transport.journal import read_http_date_s

_PASSING_STATUSES = frozenset({408, 429})


def explain_status(answer: Answer, uri: str) -> PassingFault | SourceFailed:
    """The fault that an answer's status is, when ``uri`` was asked for: `PassingFault` for 5xx, 408 and 429 (with what
    Retry-After says), `SourceFailed` with code ``http-<status>`` for every other.
    """
    status = answer.status
    reason = f"{answer.host} answered {status} {answer.reason}".rstrip()
    if answer.uri != uri:
        reason += f" for '{describe_uri(answer.uri)}'"
    if status >= 500 or status in _PASSING_STATUSES:
        hint = "the server is in trouble, or busy: try again later"
        retry_after_s = _read_retry_after_s(answer.headers.get("Retry-After", ""))
        return PassingFault(reason, hint=hint, code=f"http-{status}", retry_after_s=retry_after_s)
    message = f"cannot fetch '{describe_uri(uri)}': {reason}"
    return SourceFailed(message, hint=_hint_at(answer), code=f"http-{status}")


def _hint_at(answer: Answer) -> str:
    if answer.status in (401, 403):
        host = answer.host.partition(":")[0]
        if answer.added_slash:
            return "this is a folder that may not be listed: name the file itself"
        return f"a login for '{host}' goes into ~/.netrc; or ask its keeper for access"
    if answer.status == 407:
        return "the proxy wants a login: http://user:password@proxy in https_proxy"
    if answer.status in (404, 410):
        return "check the 'uri': the file was moved, renamed or removed"
    return "open the 'uri' in a browser to see what the server has to say"


def _read_retry_after_s(text: str) -> float | None:
    """Seconds of a Retry-After, given as seconds or as a date (RFC 9110, 10.2.3); None when there is none."""
    from dm.environment import read_clock_ns

    text = text.strip()
    if text.isdecimal():
        return float(text)
    date_s = read_http_date_s(text) if text else None
    return None if date_s is None else max(0.0, date_s - read_clock_ns() / 1e9)
