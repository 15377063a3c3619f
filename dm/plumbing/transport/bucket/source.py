"""A place in an object store that answers: the backend, the credentials that it took, tries, and faults in words."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import aclosing
from typing import Any, TypeVar

from dm.environment import Environment
from dm.errors import DmError, SourceFailed
from dm.plumbing.transport.bucket.address import BucketAddress
from dm.plumbing.transport.bucket.backend import Backend, Found
from dm.plumbing.transport.bucket.calls import Budget, Calls
from dm.plumbing.transport.bucket.faults import BucketFault, explain, find_fault
from dm.plumbing.transport.bucket.services import Service, find_service, names_account
from dm.plumbing.transport.connections import HttpOptions

_T = TypeVar("_T")
#: Bytes of one request. A large object is read in such pieces, several at once.
PIECE_BYTES = 4 << 20
#: Pieces of one object that are on their way at once, and those of all transfers together (32 MiB).
PIECES_AHEAD = 4
PIECES_IN_ALL = 8
#: Objects below one prefix that are fetched at once.
OBJECTS_AT_ONCE = 8
#: What cannot be reached is tried again this often at most.
_UNREACHABLE_TRIES = 2
#: A prefix of more objects than this is refused.
OBJECTS_MAX = 2_000_000


class Source:
    """One bucket as one kind of user sees it. Made by `Sources.open`; its methods may be called from any thread.

    They raise `SourceFailed` with a message for people; `read` and what it gives raise `BucketFault` where the object
    is another one than was described.
    """

    def __init__(
        self,
        backend: Backend,
        service: Service,
        environment: Environment,
        options: HttpOptions,
        calls: Calls,
        budget: Budget,
        *,
        anonymous: bool,
    ) -> None:
        self.backend = backend
        self.calls = calls
        self.budget = budget
        self.options = options
        self.anonymous = anonymous
        self._service = service
        self._environment = environment

    def describe(self, address: BucketAddress) -> Found | None:
        """The object at an address; None when there is none."""
        return self._ask(address, lambda: self.backend.describe(address))

    def list_below(self, address: BucketAddress, prefix: str) -> list[Found]:
        """All objects whose key begins with ``prefix``.

        Raises `SourceFailed` with code ``prefix-too-large`` when they are more than 2,000,000.
        """

        async def gather() -> list[Found]:
            found: list[Found] = []
            try:
                async with aclosing(self.backend.list_below(address, prefix)) as pages:
                    async for page in pages:
                        found += page
                        if len(found) > OBJECTS_MAX:
                            break
            except Exception as error:
                fault = find_fault(error)
                if fault.kind == "absent":  # a listing may be empty, so it is the bucket that is not there
                    raise BucketFault("no-bucket") from error
                raise
            return found

        found = self._ask(address, gather)
        if len(found) > OBJECTS_MAX:
            message = f"cannot fetch '{address.shown}': more than {OBJECTS_MAX:,} objects lie below it"
            raise SourceFailed(message, hint="name a longer prefix", code="prefix-too-large")
        return found

    def read_later(self, address: BucketAddress, found: Found, start: int, length: int) -> Future[bytes]:
        """Begin to read a piece; `take` gives it."""
        return self.calls.submit(lambda: self._try(lambda: self.backend.read(address, found, start, length)))

    def take_budget(self, should_stop: Callable[[], bool], *, wait: bool) -> bool:
        """Take what one piece in memory costs (see `Budget.take`)."""
        return self.budget.take(lambda: self.calls.closed or should_stop(), wait=wait)

    def take(self, address: BucketAddress, piece: Future[bytes], should_stop: Callable[[], bool]) -> bytes:
        """A piece that was asked for, waited for. Raises `BucketFault` (``changed``, ``absent``) or `SourceFailed`."""
        try:
            return self.calls.result(piece, should_stop)
        except DmError:
            raise
        except Exception as error:
            fault = find_fault(error)
            if fault.kind in ("changed", "absent"):
                raise fault from error
            raise self.explain(address, fault) from error

    def explain(self, address: BucketAddress, fault: BucketFault) -> SourceFailed:
        """The error that a fault is for the user."""
        return explain(fault, address, self._service, self._environment, anonymous=self.anonymous)

    def _ask(self, address: BucketAddress, call: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        try:
            return self.calls.run(lambda: self._try(call))
        except DmError:
            raise
        except Exception as error:
            raise self.explain(address, find_fault(error)) from error

    async def _try(self, call: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Ask again for as long as the fault may pass, with longer and longer waits in between."""
        import asyncio
        import random

        tries = 0
        while True:
            try:
                return await call()
            except Exception as error:
                fault = find_fault(error)
                limit = self.options.retries
                if self.backend.retries is not None:
                    limit = min(limit, self.backend.retries)
                if fault.kind == "unreachable":
                    # adlfs and others have tried that for a minute or two by now.
                    limit = min(limit, _UNREACHABLE_TRIES if self.backend.retries is None else 0)
                tries += 1
                if fault.kind not in ("passing", "unreachable") or tries > limit:
                    raise
                wait_s = min(self.options.backoff_s * 2 ** (tries - 1), self.options.backoff_max_s)
                await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))


class Sources:
    """The buckets of a session: one backend for each service, account and kind of user."""

    def __init__(self, environment: Environment, options: HttpOptions) -> None:
        self._environment = environment
        self._options = options
        self._calls = Calls()
        self._budget = Budget(PIECES_IN_ALL)
        self._made: dict[tuple[str, str | None, bool], Source] = {}
        self._lock = threading.Lock()

    @property
    def calls(self) -> Calls:
        """What runs the backends' coroutines."""
        return self._calls

    def open(self, address: BucketAddress) -> Source:
        """The source of an address, with this user's credentials; without any where the user has none.

        Raises `SourceFailed`: no such scheme, the service's library is not installed, credentials that cannot be read.
        """
        return self._make(address, anonymous=False)

    def open_public(self, address: BucketAddress) -> Source:
        """The source of an address as everybody sees it."""
        return self._make(address, anonymous=True)

    def close(self) -> None:
        """End what is under way and let go of all connections."""

        async def close_backends() -> None:
            for source in {id(each): each for each in self._made.values()}.values():
                await source.backend.close()

        self._calls.close(close_backends)

    def _make(self, address: BucketAddress, *, anonymous: bool) -> Source:
        service = find_service(address.uri, address.scheme)
        if service.package == "adlfs" and not names_account(self._environment, address.account):
            message = f"cannot fetch '{address.shown}': nothing says which storage account has '{address.bucket}'"
            hint = f"set AZURE_STORAGE_ACCOUNT_NAME, or write az://ACCOUNT.blob.core.windows.net/{address.place}"
            raise SourceFailed(message, hint=hint, code="no-account")
        place = (service.name, address.account, anonymous)
        with self._lock:
            if place not in self._made:
                self._made[place] = self._make_now(address, service, anonymous)
            return self._made[place]

    def _make_now(self, address: BucketAddress, service: Service, anonymous: bool) -> Source:
        from dm.plumbing.transport.bucket.s3 import S3Backend

        environment, options = self._environment, self._options
        make = _find_backend(service)
        try:
            backend = make.create(address, service, environment, options, anonymous=anonymous)
            if isinstance(backend, S3Backend) and not anonymous and not self._calls.run(backend.has_credentials):
                anonymous = True
                backend = make.create(address, service, environment, options, anonymous=True)
        except DmError:
            raise
        except Exception as error:
            fault = find_fault(error)
            if service.name != "S3" and fault.kind == "failed":
                fault = BucketFault("denied")  # adlfs says ValueError for an account that nobody named
            raise explain(fault, address, service, environment, anonymous=anonymous) from error
        return Source(backend, service, environment, options, self._calls, self._budget, anonymous=anonymous)


def _find_backend(service: Service) -> type[Backend]:
    if service.module == "s3fs":
        from dm.plumbing.transport.bucket.s3 import S3Backend

        return S3Backend
    if service.package == "gcsfs":
        from dm.plumbing.transport.bucket.google import GoogleBackend

        return GoogleBackend
    if service.package == "adlfs":
        from dm.plumbing.transport.bucket.azure import AzureBackend

        return AzureBackend
    return Backend
