"""adlfs's file system, told who asks by its caller alone.

By itself adlfs takes what it is not told from the process's variables: the connection string of one storage account
when another is asked, a key or a SAS token when data is read as everybody may read it.
"""

from __future__ import annotations

from typing import Any

from adlfs import AzureBlobFileSystem  # type: ignore[import-untyped]


class _OnlyGiven:
    """An attribute that is what the file system was made with, whatever is assigned to it later."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, system: Any, owner: type | None = None) -> Any:
        return system.given.get(self._name)

    def __set__(self, system: Any, value: object) -> None:
        return None


class GivenAzureFileSystem(AzureBlobFileSystem):  # type: ignore[misc]
    """As its base, without its look into the process's variables. A SAS token is given with its ``?``."""

    account_name = _OnlyGiven()
    account_key = _OnlyGiven()
    connection_string = _OnlyGiven()
    sas_token = _OnlyGiven()
    client_id = _OnlyGiven()
    client_secret = _OnlyGiven()
    tenant_id = _OnlyGiven()

    def __init__(self, **options: Any) -> None:
        self.given = options
        super().__init__(**options)
