"""Sophia's own HTTP/1.1 client: a pool of keep-alive connections for each upstream."""

from sophia.adapters.upstreams.http1.exchange import Connection, Response
from sophia.adapters.upstreams.http1.heads import header_lines
from sophia.adapters.upstreams.http1.origin import Limits, Origin
from sophia.adapters.upstreams.http1.pool import Pool
from sophia.adapters.upstreams.http1.proxy import Proxy, proxy_for

__all__ = [
    "Connection",
    "Limits",
    "Origin",
    "Pool",
    "Proxy",
    "Response",
    "header_lines",
    "proxy_for",
]
