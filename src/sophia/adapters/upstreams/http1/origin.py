"""The address of an upstream, and the limits of its connection pool."""

from dataclasses import dataclass
from typing import Self
from urllib.parse import SplitResult, urlsplit

from sophia.adapters.upstreams.http1.heads import is_request_target

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """Bounds of one pool: counts, seconds and bytes.

    With `read_high_water` unread bytes of a response reading stops, to resume at `read_low_water`.
    """

    max_connections: int = 1000
    max_idle: int = 100
    idle_expiry: float = 60.0
    max_header_bytes: int = 65536
    read_high_water: int = 64 * 1024
    read_low_water: int = 16 * 1024


@dataclass(frozen=True, slots=True)
class HttpOrigin:
    """The parts of a base URL; `host` has no brackets, `base_path` no slash at its end."""

    scheme: str
    host: str
    port: int
    base_path: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read `url`. Raises ValueError with a sentence on what to change."""
        parts = urlsplit(url)
        if parts.scheme not in _DEFAULT_PORTS:
            raise ValueError("The base URL must start with http:// or https://.")
        if parts.username is not None or parts.password is not None:
            raise ValueError(
                "The base URL must not hold a user or password; set the API key instead."
            )
        if parts.query or parts.fragment:
            raise ValueError("The base URL must end with its path: no query and no fragment.")
        host, port = parse_authority(parts)
        base_path = parts.path.rstrip("/")
        if base_path and not is_request_target(base_path.encode()):
            raise ValueError("The base URL's path may hold only printable ASCII without spaces.")
        return cls(parts.scheme, host, port, base_path)

    @property
    def authority(self) -> str:
        """The value of the Host header: the port is left out if it is the scheme's default."""
        host = bracket_ipv6(self.host)
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse_authority(parts: SplitResult) -> tuple[str, int]:
    """Return host and port of a split URL. Raises ValueError."""
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ValueError("The URL's port must be a number between 1 and 65535.") from error
    if not host:
        raise ValueError("The URL names no host; write it as https://host/path.")
    try:
        host = host if ":" in host else host.encode("idna").decode()
    except UnicodeError as error:
        raise ValueError("The URL's host is not a valid name.") from error
    if not is_request_target(b"/" + host.encode()):
        raise ValueError("The URL's host is not a valid name.")
    return host, _DEFAULT_PORTS[parts.scheme] if port is None else port


def bracket_ipv6(host: str) -> str:
    """Return `host` for an authority: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host
