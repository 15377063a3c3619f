"""Who asks S3: a session of the AWS library that sees the `Environment` given, not the process's."""

from __future__ import annotations

from typing import Any

from dm.environment import Environment

#: What the AWS tools are told of certificates, then what other programs are, as over http.
_CERTIFICATE_VARIABLES = ("AWS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE")


def make_session(environment: Environment) -> Any:
    """An aiobotocore session: its variables are the environment's, its ``~`` is the environment's home.

    Beyond variables and files (``~/.aws``) it asks what the AWS tools ask: a process, a container, the machine's role.
    """
    from aiobotocore.session import AioSession  # type: ignore[import-untyped]
    from botocore.configprovider import ConfigChainFactory, ConstantProvider  # type: ignore[import-untyped]

    session = AioSession()
    get = environment.get
    # Left alone, the library would look into the process's variables for these two.
    chains = ConfigChainFactory(session, environ=dict(environment.variables))
    store = session.get_component("config_store")
    store.set_config_provider("region", chains.create_config_chain("region", "AWS_DEFAULT_REGION", "region"))
    store.set_config_provider("profile", ConstantProvider(get("AWS_PROFILE") or get("AWS_DEFAULT_PROFILE")))
    values = {
        "config_file": get("AWS_CONFIG_FILE") or str(environment.home / ".aws" / "config"),
        "credentials_file": get("AWS_SHARED_CREDENTIALS_FILE") or str(environment.home / ".aws" / "credentials"),
        "region": get("AWS_REGION"),
        "ca_bundle": next(filter(None, map(get, _CERTIFICATE_VARIABLES)), None),
    }
    for name, value in values.items():
        if value is not None:
            session.set_config_variable(name, value)
    resolver = session.get_component("credential_provider")
    for provider in resolver.providers:
        if provider.METHOD == "env":
            provider.environ = dict(environment.variables)
    return session


async def has_credentials(session: Any) -> bool:
    """Whether any credentials can be found; those that are there and wrong count."""
    return await session.get_credentials() is not None
