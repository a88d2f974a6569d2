"""Gateways under test and their start commands."""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bench.gateway import paths
from bench.gateway.paths import ENVIRONMENTS, RUN, TLS_PORT, UPSTREAM_PORT, render_template

Kind = Literal["direct", "limit", "ours", "peer"]

MODEL = "openai/gpt-4o-mini"
KEY = "sk-bench-0001"
FERRO_KEY = "fgw_00000000000000000000000000000000"
AUTHORITY = paths.CERTIFICATES / "client.pem"
SOPHIA_SEED = paths.WORK / "sophia" / "seed"
SOPHIA_KEY = paths.WORK / "sophia" / "key"
# A benchmark must not inherit keys, upstreams, proxies or settings of the calling user.
FOREIGN_SETTINGS = (
    "SOPHIA_",
    "OPENROUTER_",
    "OPENAI_",
    "LITELLM_",
    "FALLBACK_MODELS",
    "MODEL_CACHE_SIZE",
    "OTEL_",
)


@dataclass(frozen=True, slots=True)
class Target:
    """A gateway under test.

    `needs` names its requirement in `setup.py`. `seed` is copied to `data` before each start, so
    that every round begins with the same files. `phases` limits the phases that are measured.
    """

    name: str
    title: str
    kind: Kind
    needs: str
    port: int
    command: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    path: str = "/v1/chat/completions"
    model: str = MODEL
    headers: tuple[str, ...] = (f"Authorization: Bearer {KEY}",)
    seed: Path | None = None
    data: Path | None = None
    phases: tuple[str, ...] = ()
    tls: bool = False
    start_seconds: float = 90.0


def find_nginx() -> str | None:
    """Return the path of the system's nginx, or of the one that setup unpacked."""
    unpacked = paths.WORK / "nginx" / "usr" / "sbin" / "nginx"
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or (
        str(unpacked) if unpacked.exists() else None
    )


def find_sophia() -> Path:
    """Return the `sophia` command of the environment that runs the benchmark."""
    return Path(sys.executable).parent / "sophia"


def build_environment(target: Target) -> dict[str, str]:
    """Return the environment variables of a gateway."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(FOREIGN_SETTINGS) and not name.lower().endswith("_proxy")
    }
    trust = (
        {"SSL_CERT_FILE": str(AUTHORITY), "NODE_EXTRA_CA_CERTS": str(AUTHORITY)}
        if target.tls
        else {}
    )
    return inherited | trust | target.environment


def _upstream_url(tls: bool) -> str:
    return (
        f"https://localhost:{TLS_PORT}/api/v1"
        if tls
        else f"http://127.0.0.1:{UPSTREAM_PORT}/api/v1"
    )


def write_configuration(name: str, template: str, tls: bool, **values: object) -> str:
    """Write the configuration of one target, and return its path."""
    path = RUN / f"{name}{Path(template.removesuffix('.in')).suffix}"
    path.write_text(
        render_template(
            template,
            {
                "RUN": RUN,
                "NAME": name,
                "MODEL": MODEL,
                "KEY": KEY,
                "AUTHORITY": AUTHORITY,
                "SCHEME": "https" if tls else "http",
                "UPSTREAM_PORT": TLS_PORT if tls else UPSTREAM_PORT,
                "UPSTREAM": _upstream_url(tls),
                **values,
            },
        )
    )
    return str(path)


def build_direct(name: str, port: int, tls: bool) -> Target:
    """Return the mock upstream without a gateway, the reference of latencies."""
    del port, tls
    phases = ("sat", "r200", "r500", "sse", "burst", "pace")
    return Target(
        name,
        "the mock upstream itself",
        "direct",
        "",
        UPSTREAM_PORT,
        path="/api/v1/chat/completions",
        phases=phases,
    )


def _build_nginx(name: str, port: int, tls: bool) -> Target:
    configuration = write_configuration(name, "nginx.conf.in", tls, PORT=port)
    return Target(
        name,
        "nginx, proxy_pass",
        "limit",
        "nginx",
        port,
        (find_nginx() or "nginx", "-c", configuration),
        tls=tls,
    )


def _build_envoy(name: str, port: int, tls: bool) -> Target:
    transport = render_template("envoy_tls.yaml.in", {"AUTHORITY": AUTHORITY}) if tls else ""
    configuration = write_configuration(name, "envoy.yaml.in", tls, PORT=port, TRANSPORT=transport)
    binary = str(ENVIRONMENTS / "envoy" / "bin" / "envoy")
    command = (
        binary,
        "--concurrency",
        "1",
        "-l",
        "error",
        "--disable-hot-restart",
        "-c",
        configuration,
    )
    return Target(name, "Envoy, proxy", "limit", "envoy", port, command, tls=tls)


def build_sophia(  # noqa: PLR0913 - what differs between the ways to run it, each by name
    name: str,
    port: int,
    tls: bool,
    *,
    model: str = MODEL,
    title: str = "Sophia, named model",
    needs: str = "sophia",
    command: Path | None = None,
    phases: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
) -> Target:
    """Return Sophia with a fresh copy of its prepared data folder."""
    data = RUN / f"{name}-data"
    key = SOPHIA_KEY.read_text().strip() if SOPHIA_KEY.exists() else ""
    started = (
        str(command or find_sophia()),
        "serve",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--data-dir",
        str(data),
    )
    return Target(
        name,
        title,
        "ours",
        needs,
        port,
        started,
        environment={
            "OPENROUTER_API_KEY": "sk-or-mock",
            "OPENROUTER_BASE_URL": _upstream_url(tls),
            "SOPHIA_SERVER_LINGER_S": "0",
        }
        | (environment or {}),
        model=model,
        headers=(f"Authorization: Bearer {key}",),
        seed=SOPHIA_SEED,
        data=data,
        phases=phases,
        tls=tls,
    )


def _build_sophia_auto(name: str, port: int, tls: bool) -> Target:
    return build_sophia(name, port, tls, model="sophia/auto", title="Sophia, sophia/auto")


def _build_workers(name: str, port: int, tls: bool) -> Target:
    count = name.removeprefix("sophia-")
    return build_sophia(
        name,
        port,
        tls,
        title=f"Sophia, named model, {count} processes on the core",
        phases=("sat", "r500"),
        environment={"SOPHIA_SERVER_WORKERS": count},
    )


def _build_on_postgres(name: str, port: int, tls: bool) -> Target:
    return build_sophia(
        name,
        port,
        tls,
        title="Sophia, named model, store on PostgreSQL",
        needs="PostgreSQL",
        phases=("sat", "r500"),
    )


def _build_with_pgo(name: str, port: int, tls: bool) -> Target:
    is_auto = name == "sophia-auto-pgo"
    return build_sophia(
        name,
        port,
        tls,
        model="sophia/auto" if is_auto else MODEL,
        title=f"Sophia, {'sophia/auto' if is_auto else 'named model'}, Python with PGO",
        needs="system Python",
        command=ENVIRONMENTS / "system" / "bin" / "sophia",
        phases=("sat", "large", "r500", "sse"),
    )


def build_litellm(
    name: str, port: int, tls: bool, *, template: str = "litellm.yaml.in", **values: object
) -> Target:
    """Return LiteLLM's proxy; `values` are for another template than that of the benchmark."""
    configuration = write_configuration(name, template, tls, **values)
    binary = str(ENVIRONMENTS / "litellm" / "bin" / "litellm")
    address = ("--host", "127.0.0.1", "--port", str(port))
    settings = {
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MASTER_KEY": KEY,
    }
    command = (binary, "--config", configuration, *address, "--num_workers", "1")
    return Target(
        name, "LiteLLM proxy (Python)", "peer", "litellm", port, command, settings, tls=tls
    )


def build_portkey(name: str, port: int, tls: bool) -> Target:
    """Return Portkey's gateway."""
    package = paths.NODE / "portkey" / "node_modules" / "@portkey-ai" / "gateway"
    preload = str(paths.CONFIGURATIONS / "portkey_streams.mjs")
    start = ("node", "--import", preload, str(package / "build" / "start-server.js"))
    headers = (
        f"Authorization: Bearer {KEY}",
        "x-portkey-provider: openai",
        f"x-portkey-custom-host: {_upstream_url(tls)}",
    )
    command = (*start, f"--port={port}", "--headless")
    settings = {"NODE_ENV": "production"}
    return Target(
        name,
        "Portkey gateway (Node)",
        "peer",
        "portkey",
        port,
        command,
        settings,
        headers=headers,
        tls=tls,
    )


def _build_smg(name: str, port: int, tls: bool) -> Target:
    binary = str(ENVIRONMENTS / "smg" / "bin" / "smg")
    workers = ("--worker-urls", _upstream_url(tls).removesuffix("/api/v1"), "--backend", "openai")
    options = ("--policy", "round_robin", "--log-level", "error", "--disable-load-monitoring")
    address = ("--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(port + 100))
    return Target(
        name,
        "smg (Rust; checks no key)",
        "peer",
        "smg",
        port,
        (binary, "launch", *address, *workers, *options),
        tls=tls,
    )


def _build_ferrogw(name: str, port: int, tls: bool) -> Target:
    settings = {
        "OPENAI_API_KEY": "sk-or-mock",
        "OPENAI_BASE_URL": _upstream_url(tls).removesuffix("/v1"),
        "MASTER_KEY": FERRO_KEY,
        "GATEWAY_CONFIG": write_configuration(name, "ferrogw.yaml.in", tls),
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "LOG_LEVEL": "error",
        "RATE_LIMIT_RPS": "1000000",
        "RATE_LIMIT_BURST": "1000000",
        "GOMAXPROCS": "1",
    }
    return Target(
        name,
        "ferrogw (Go)",
        "peer",
        "ferrogw",
        port,
        (str(ENVIRONMENTS / "ferrogw" / "bin" / "ferrogw"), "serve"),
        settings,
        model="gpt-4o-mini",
        headers=(f"Authorization: Bearer {FERRO_KEY}",),
        tls=tls,
    )


BUILDERS: dict[str, Callable[[str, int, bool], Target]] = {
    "direct": build_direct,
    "nginx": _build_nginx,
    "envoy": _build_envoy,
    "sophia": build_sophia,
    "sophia-auto": _build_sophia_auto,
    "sophia-2": _build_workers,
    "sophia-4": _build_workers,
    "sophia-postgres": _build_on_postgres,
    "sophia-pgo": _build_with_pgo,
    "sophia-auto-pgo": _build_with_pgo,
    "litellm": build_litellm,
    "portkey": build_portkey,
    "smg": _build_smg,
    "ferrogw": _build_ferrogw,
}
TLS_SUFFIX = "+tls"
WITH_TLS = ("nginx", "envoy", "sophia", "litellm", "portkey")
ALL = (*BUILDERS, *(name + TLS_SUFFIX for name in WITH_TLS))
QUICK = ("direct", "nginx", "sophia", "sophia-auto")


def build_targets(names: tuple[str, ...]) -> list[Target]:
    """Build the targets `names`, and write their configurations.

    Raises KeyError for a name that is not in `ALL`.
    """
    RUN.mkdir(parents=True, exist_ok=True)
    found = []
    for name in names:
        port = paths.FIRST_GATEWAY_PORT + ALL.index(name) if name in ALL else 0
        tls = name.endswith(TLS_SUFFIX)
        found.append(BUILDERS[name.removesuffix(TLS_SUFFIX)](name, port, tls))
    return found
