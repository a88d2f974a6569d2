"""What `sophia doctor` looks at on the network: the upstream, the clock, Sophia's own port."""

import errno
import os
import socket
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException

from sophia.cli.finding import Finding
from sophia.compose import default_place, pool_of, wants_sandbox
from sophia.compose.places import proxy_to
from sophia.config import ConfigError, Settings, UpstreamSettings
from sophia.core.calls import Deadlines
from sophia.core.failures import FailureKind, UpstreamFailure

_DEADLINES = Deadlines(connect=5.0, content=10.0, stall=10.0, total=15.0)
_MOST_SKEW_SECONDS = 30
_MEND = {
    FailureKind.DNS: "check the network and the name in the base URL",
    FailureKind.TLS: "check the machine's clock and certificates; `ca_file` trusts your own CA",
}
_PROXY_MEND = "check the firewall; HTTPS_PROXY names a proxy, NO_PROXY exempts from it"


async def look(settings: Settings, environ: Mapping[str, str]) -> list[Finding]:
    """Return what is found; spends nothing and shows no key."""
    found = [_key(settings, environ)]
    if not wants_sandbox(settings, environ):
        try:
            place = default_place(settings, environ)
            found += await _upstream(place, environ)
        except ConfigError as error:
            found.append(Finding("bad", "upstream", str(error), "correct `upstreams`"))
    found.append(_port(settings.server.host, settings.server.port))
    return found


def _key(settings: Settings, environ: Mapping[str, str]) -> Finding:
    if wants_sandbox(settings, environ):
        seen = "sandbox: no real model is asked, nothing is spent"
        if settings.sandbox.enabled:
            return Finding("good", "key", seen)
        return Finding("good", "key", f"none, so {seen}", "export OPENROUTER_API_KEY=sk-or-…")
    try:
        place = default_place(settings, environ)
    except ConfigError as error:
        return Finding("bad", "key", str(error), "correct `upstreams`")
    variable = place.api_key_env
    if place.api_key or (variable and environ.get(variable)):
        return Finding("good", "key", f"{variable or 'api_key'} is set (not shown)")
    if place.kind == "openrouter":
        mend = f"export {variable or 'OPENROUTER_API_KEY'}=sk-or-… (https://openrouter.ai/keys)"
        return Finding("bad", "key", f"no key for {place.name}", mend)
    return Finding("good", "key", f"{place.name} is asked without one")


async def _upstream(place: UpstreamSettings, environ: Mapping[str, str]) -> list[Finding]:
    is_openrouter = place.kind == "openrouter"
    path = b"/key" if is_openrouter else b"/models"
    pool = pool_of(place, environ)
    proxy = proxy_to(place, environ)
    way = f" through the proxy {proxy}" if proxy is not None else ""
    begun = time.monotonic()
    try:
        response = await pool.send(b"GET", path, None, _DEADLINES)
        took = time.monotonic() - begun
        date = (response.header(b"date") or b"").decode("latin-1")
        response.close()
    except UpstreamFailure as failure:
        mend = _MEND.get(failure.kind, _PROXY_MEND)
        return [Finding("bad", "upstream", f"{place.base_url}{way}: {failure.message}", mend)]
    finally:
        await pool.close()
    seen = f"{place.base_url}{way} answered {response.status} in {took * 1000:.0f} ms"
    return [_verdict(response.status, seen), *_clock(date)]


def _verdict(status: int, seen: str) -> Finding:
    if status == 200:
        return Finding("good", "upstream", seen)
    if status in (401, 403):
        return Finding("bad", "upstream", f"{seen}: the key is refused", "set a valid key")
    if status == 404:
        return Finding("bad", "upstream", seen, "check the base URL; OpenRouter's ends in /api/v1")
    return Finding("odd", "upstream", seen, "try again shortly")


def _clock(date: str) -> list[Finding]:
    try:
        there = parsedate_to_datetime(date)
    except (ValueError, TypeError):
        return []
    skew = time.time() - there.timestamp()
    if abs(skew) <= _MOST_SKEW_SECONDS:
        return [Finding("good", "clock", "agrees with the upstream's")]
    way = "ahead of" if skew > 0 else "behind"
    seen = f"{abs(skew):,.0f} s {way} the upstream's; days and budgets turn at the wrong time"
    return [Finding("odd", "clock", seen, "switch on time synchronisation (NTP)")]


def _port(host: str, port: int) -> Finding:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
        if os.name == "posix":
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except (OSError, UnicodeError) as error:
            return _taken(host, port, error)
    return Finding("good", "port", f"{host}:{port} is free")


def _taken(host: str, port: int, error: OSError | UnicodeError) -> Finding:
    if getattr(error, "errno", None) != errno.EADDRINUSE:
        seen = f"{host}:{port} cannot be listened on: {getattr(error, 'strerror', None) or error}"
        return Finding("bad", "port", seen, "set server.host and server.port")
    # An address for every interface is not one to connect to.
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    connection = HTTPConnection(near, port, timeout=3)
    try:
        connection.request("GET", "/health/ready")
        answer = connection.getresponse()
        status, body = answer.status, answer.read(4096)
    except (OSError, HTTPException):
        status, body = 0, b""
    finally:
        connection.close()
    if status == 200 and b'"ready"' in body:
        return Finding("good", "port", f"Sophia serves on {host}:{port} and is ready")
    if status == 503 and b'"error"' in body:
        return Finding("odd", "port", f"Sophia on {host}:{port} is not ready", "see its log")
    seen = f"{host}:{port} is taken by another program"
    return Finding("bad", "port", seen, "sophia serve --port N")
