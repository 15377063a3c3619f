"""Which proxy stands between here and a host, from the variables that curl and others read too.

``https_proxy``, ``http_proxy``, ``all_proxy`` and ``no_proxy``, lower case before upper case. ``HTTP_PROXY`` in upper
case is not believed where ``REQUEST_METHOD`` is set: there a client of a CGI script could have sent it as a header.
"""

from __future__ import annotations

from dm.environment import Environment


def find_proxy(environment: Environment, scheme: str, host: str, port: int) -> str | None:
    """The URL of the proxy for a host, None for a direct connection. A proxy without a scheme is ``http://``."""
    proxy = _read_variable(environment, f"{scheme}_proxy") or _read_variable(environment, "all_proxy")
    if proxy is None or is_excepted(_read_variable(environment, "no_proxy") or "", host, port):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def is_excepted(rules: str, host: str, port: int) -> bool:
    """Whether ``no_proxy`` rules name a host.

    Separated by commas or blanks: ``*`` is every host; ``example.org`` and ``.example.org`` are that host and those
    below it; ``host:port`` only that port; ``10.0.0.0/8`` every address in that network.
    """
    host = host.strip("[]").rstrip(".").lower()
    for rule in rules.replace(",", " ").lower().split():
        if rule == "*":
            return True
        name, wanted_port = _split_port(rule)
        if wanted_port is not None and wanted_port != port:
            continue
        name = name.strip("[]").lstrip("*").strip(".")
        if name and (host == name or host.endswith("." + name)):
            return True
        if "/" in name and _is_in_network(host, name):
            return True
    return False


def _split_port(rule: str) -> tuple[str, int | None]:
    name, colon, port = rule.rpartition(":")
    # More than one colon without brackets is an IPv6 address, not a port.
    if colon and port.isdecimal() and (":" not in name or name.endswith("]")):
        return name, int(port)
    return rule, None


def _is_in_network(host: str, network: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _read_variable(environment: Environment, name: str) -> str | None:
    value = environment.get(name)
    if value is None and not (name == "http_proxy" and environment.get("REQUEST_METHOD")):
        value = environment.get(name.upper())
    return value.strip() or None if value else None
