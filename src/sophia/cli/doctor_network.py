"""Checks of the network for `sophia doctor`: upstream, clock, Sophia's own port."""

import errno
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import msgspec
from msgspec import Struct

from sophia.cli.doctor_machine import DoctorFinding
from sophia.compose.upstreams import build_connection_pool, describe_proxy
from sophia.config import (
    SANDBOX_FOLDER,
    Settings,
    UpstreamSettings,
    is_sandbox_used,
    resolve_upstreams,
)
from sophia.core.calls import Deadlines
from sophia.core.errors import ConfigError
from sophia.core.failures import FailureKind, UpstreamFailure

_DEADLINES = Deadlines(connect=5.0, content=10.0, stall=10.0, total=15.0)
_MAX_SKEW_SECONDS = 30
_MAX_LISTING_BYTES = 10_000_000
_FIXES = {
    FailureKind.DNS: "check the network and the name in the base URL",
    FailureKind.TLS: "check the machine's clock and certificates; `ca_file` trusts your own CA",
}
_DEFAULT_FIX = "check the firewall; HTTPS_PROXY names a proxy, NO_PROXY exempts from it"


class _ListedModel(Struct):
    id: str


class _Listing(Struct):
    data: list[_ListedModel]


async def check_network(settings: Settings, environ: Mapping[str, str]) -> list[DoctorFinding]:
    """Return the findings; spends nothing and shows no key."""
    findings = []
    upstreams: Sequence[UpstreamSettings] = resolve_upstreams(settings, environ)
    if is_sandbox_used(settings, environ):
        findings.append(_describe_sandbox(settings))
        upstreams = settings.upstreams
    for upstream in upstreams:
        findings.append(_check_key(upstream, environ))
        try:
            findings += await _check_upstream(upstream, environ)
        except ConfigError as error:
            subject = f"upstream {upstream.name}"
            findings.append(DoctorFinding("error", subject, str(error), "correct `upstreams`"))
    findings.append(_check_port(settings.server.host, settings.server.port))
    return findings


def _describe_sandbox(settings: Settings) -> DoctorFinding:
    detail = "sandbox: no real model is asked, nothing is spent"
    if settings.sandbox.enabled:
        return DoctorFinding("ok", "key", detail)
    if Path(settings.data_dir).name != SANDBOX_FOLDER:
        detail = "not set in this terminal; the server has its own environment, and may spend"
        return DoctorFinding("warning", "key", f"OPENROUTER_API_KEY is {detail}")
    return DoctorFinding("ok", "key", f"none, so {detail}", "export OPENROUTER_API_KEY=sk-or-…")


def _check_key(upstream: UpstreamSettings, environ: Mapping[str, str]) -> DoctorFinding:
    subject, variable = f"key of {upstream.name}", upstream.api_key_env
    if upstream.api_key or (variable and environ.get(variable)):
        return DoctorFinding("ok", subject, f"{variable or 'api_key'} is set (not shown)")
    if variable:
        page = " (https://openrouter.ai/keys)" if upstream.kind == "openrouter" else ""
        fix = f"export {variable}=…{page}"
        return DoctorFinding("error", subject, f"{variable} is not set", fix)
    if upstream.kind == "openrouter":
        return DoctorFinding("error", subject, "none", "set `api_key_env` of this upstream")
    return DoctorFinding("ok", subject, "none; it is used without one")


async def _check_upstream(
    settings: UpstreamSettings, environ: Mapping[str, str]
) -> list[DoctorFinding]:
    is_openrouter = settings.kind == "openrouter"
    path = b"/key" if is_openrouter else b"/models"
    pool = build_connection_pool(settings, environ)
    proxy = describe_proxy(settings, environ)
    way = f" through the proxy {proxy}" if proxy is not None else ""
    subject, started = f"upstream {settings.name}", time.monotonic()
    try:
        response = await pool.send(b"GET", path, None, _DEADLINES)
        took = time.monotonic() - started
        date = (response.header(b"date") or b"").decode("latin-1")
        body = await response.body(_MAX_LISTING_BYTES)
        response.close()
    except UpstreamFailure as failure:
        fix = _FIXES.get(failure.kind, _DEFAULT_FIX)
        detail = f"{settings.base_url}{way}: {failure.message}"
        return [DoctorFinding("error", subject, detail, fix)]
    finally:
        await pool.close()
    detail = f"{settings.base_url}{way} answered {response.status} in {took * 1000:.0f} ms"
    findings = [_check_status(subject, response.status, detail), *_check_clock(date)]
    if response.status == 200 and settings.models:
        findings += _check_models(subject, settings, body)
    return findings


def _check_status(subject: str, status: int, detail: str) -> DoctorFinding:
    if status == 200:
        return DoctorFinding("ok", subject, detail)
    if status in (401, 403):
        return DoctorFinding("error", subject, f"{detail}: the key is refused", "set a valid key")
    if status == 404:
        fix = "check the base URL: it usually ends in /v1, OpenRouter's in /api/v1"
        return DoctorFinding("error", subject, detail, fix)
    return DoctorFinding("warning", subject, detail, "try again shortly")


def _check_models(subject: str, settings: UpstreamSettings, body: bytes) -> Iterator[DoctorFinding]:
    """Yield a warning when the upstream does not list a model that it is to serve."""
    try:
        listed = {model.id for model in msgspec.json.decode(body, type=_Listing).data}
    except msgspec.DecodeError:
        return
    names = [model.served_as or model.id for model in settings.models]
    missing = [name for name in names if name not in listed]
    if missing:
        detail = f"it does not list {', '.join(missing)}"
        yield DoctorFinding("warning", subject, detail, "correct `served_as` of the model")


def _check_clock(date: str) -> list[DoctorFinding]:
    try:
        there = parsedate_to_datetime(date)
    except (ValueError, TypeError):
        return []
    skew = time.time() - there.timestamp()
    if abs(skew) <= _MAX_SKEW_SECONDS:
        return [DoctorFinding("ok", "clock", "agrees with the upstream's")]
    way = "ahead of" if skew > 0 else "behind"
    detail = f"{abs(skew):,.0f} s {way} the upstream's; days and budgets turn at the wrong time"
    return [DoctorFinding("warning", "clock", detail, "switch on time synchronisation (NTP)")]


def _check_port(host: str, port: int) -> DoctorFinding:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, UnicodeError) as error:
            return _explain_bind_error(host, port, error)
    return DoctorFinding("ok", "port", f"{host}:{port} is free")


def _explain_bind_error(host: str, port: int, error: OSError | UnicodeError) -> DoctorFinding:
    if getattr(error, "errno", None) != errno.EADDRINUSE:
        detail = f"{host}:{port} cannot be listened on: {getattr(error, 'strerror', None) or error}"
        return DoctorFinding("error", "port", detail, "set server.host and server.port")
    # A wildcard address is not one to connect to.
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
        return DoctorFinding("ok", "port", f"Sophia serves on {host}:{port} and is ready")
    if status == 503 and b'"error"' in body:
        return DoctorFinding(
            "warning", "port", f"Sophia on {host}:{port} is not ready", "see its log"
        )
    detail = f"{host}:{port} is taken by another program"
    return DoctorFinding("error", "port", detail, "sophia serve --port N")
