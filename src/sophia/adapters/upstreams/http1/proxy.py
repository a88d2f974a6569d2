"""The forward proxy between this process and an upstream, if the environment names one."""

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote, urlsplit

from sophia.adapters.upstreams.http1.origin import bracket_ipv6, parse_authority


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy; `authorization` is the value of Proxy-Authorization and never printed."""

    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read `http://user:password@host:port`. Raises ValueError, without the password."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme != "http":
            raise ValueError("The proxy URL must start with http://; no other kind is supported.")
        host, port = parse_authority(parts)
        if parts.username is None:
            return cls(host, port)
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        token = base64.b64encode(pair.encode()).decode()
        return cls(host, port, f"Basic {token}")


def find_proxy(url: str, environ: Mapping[str, str]) -> Proxy | None:
    """Return the proxy that `environ` names for `url`, in the way of curl and requests.

    HTTPS_PROXY, HTTP_PROXY and ALL_PROXY count in lower case first, then in upper case. NO_PROXY
    lists hosts, domains, `host:port`, addresses and networks; `*` means all. Raises ValueError.
    """
    parts = urlsplit(url)
    host, port = parse_authority(parts)
    if _is_exempt(host, port, _read_variable(environ, "no_proxy")):
        return None
    proxy = _read_variable(environ, f"{parts.scheme}_proxy") or _read_variable(environ, "all_proxy")
    return Proxy.parse(proxy) if proxy else None


def _read_variable(environ: Mapping[str, str], name: str) -> str:
    return (environ.get(name) or environ.get(name.upper()) or "").strip()


def _is_exempt(host: str, port: int, no_proxy: str) -> bool:
    names = (f".{host}", f".{bracket_ipv6(host)}:{port}")
    for entry in filter(None, map(str.strip, no_proxy.lower().split(","))):
        suffix = "." + entry.removeprefix("*").lstrip(".")
        if entry == "*" or _contains(entry, host) or any(name.endswith(suffix) for name in names):
            return True
    return False


def _contains(network: str, host: str) -> bool:
    """Return whether `network` is an IP address or network with the address `host` in it."""
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network.strip("[]"), strict=False)
    except ValueError:
        return False
