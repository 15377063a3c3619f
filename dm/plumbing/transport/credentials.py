"""Logins from the user's netrc file: the one place where `dm` takes a password from."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dm.environment import Environment
from dm.progress import Progress

if TYPE_CHECKING:
    from netrc import netrc


class Credentials:
    """Logins by host. The file (``$NETRC``, else ``~/.netrc``) is read once, when the first one is asked for.

    Only entries that name a host count: an entry ``default`` would go to any host that a manifest names. A file that
    cannot be read or understood is told as a warning, once, and holds no logins. Usable from any thread.
    """

    def __init__(self, environment: Environment) -> None:
        named = environment.get("NETRC") or "~/.netrc"
        below_home = named.removeprefix("~/")
        self._path = (environment.working_folder if below_home == named else environment.home) / below_home
        self._lock = threading.Lock()
        self._read = False
        self._logins: netrc | None = None

    def find_authorization(self, host: str, progress: Progress) -> str | None:
        """The value of an Authorization header (Basic, RFC 7617) for a host; None when there is no login for it."""
        with self._lock:
            if not self._read:
                self._read = True
                self._logins = self._read_logins(progress)
        # The parser keeps the entry `default` under that name.
        login = self._logins.hosts.get(host) if self._logins is not None and host != "default" else None
        if login is None:
            return None
        from base64 import b64encode

        user, _, password = login
        return "Basic " + b64encode(f"{user}:{password or ''}".encode()).decode("ascii")

    def _read_logins(self, progress: Progress) -> netrc | None:
        if not self._path.is_file():
            return None
        from netrc import NetrcParseError, netrc

        try:
            return netrc(self._path)
        except NetrcParseError as error:
            progress.warn(f"cannot use '{self._path}': line {error.lineno}: {error.msg}; no login is sent")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            progress.warn(f"cannot read '{self._path}': {reason}; no login is sent")
        return None
