"""Which forward proxy stands between this process and an upstream, if any."""

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote, urlsplit

from sophia.adapters.upstreams.http1.origin import read_authority


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy. `authorization` is the value of Proxy-Authorization and never printed."""

    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read `http://user:password@host:port`. Raises ValueError, without the password."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme != "http":
            raise ValueError("The proxy URL must start with http://; other proxies are not spoken.")
        host, port = read_authority(parts)
        if parts.username is None:
            return cls(host, port)
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        token = base64.b64encode(pair.encode()).decode()
        return cls(host, port, f"Basic {token}")


def proxy_for(url: str, environ: Mapping[str, str]) -> Proxy | None:
    """Return the proxy that `environ` names for `url`, in the way of curl and requests.

    HTTPS_PROXY, HTTP_PROXY and ALL_PROXY count in lower case first, then in upper case. NO_PROXY
    lists hosts, domains, `host:port`, addresses and networks; `*` means all. Raises ValueError.
    """
    parts = urlsplit(url)
    host, port = read_authority(parts)
    if _is_exempt(host, port, _variable(environ, "no_proxy")):
        return None
    named = _variable(environ, f"{parts.scheme}_proxy") or _variable(environ, "all_proxy")
    return Proxy.parse(named) if named else None


def _variable(environ: Mapping[str, str], name: str) -> str:
    return (environ.get(name) or environ.get(name.upper()) or "").strip()


def _is_exempt(host: str, port: int, listed: str) -> bool:
    return any(
        _matches(host, port, entry.strip().lower()) for entry in listed.split(",") if entry.strip()
    )


def _matches(host: str, port: int, entry: str) -> bool:
    if entry == "*":
        return True
    if (network := _network(entry)) is not None:
        address = _network(host)
        return (
            address is not None
            and address.version == network.version
            and address.network_address in network
        )
    name, colon, wanted = entry.rpartition(":")
    if colon:
        if wanted != str(port):
            return False
        entry = name
    entry = entry.strip("[]").removeprefix("*").lstrip(".")
    return host == entry or host.endswith(f".{entry}")


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return None
