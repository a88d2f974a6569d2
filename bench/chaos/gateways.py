"""The gateways of a run: how each is configured, started and stopped."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from bench.chaos.client import write_request
from bench.chaos.faults import CLOSED, FALLBACK, PRIMARY
from bench.gateway import paths, targets
from bench.gateway.process import BenchmarkError, Running, is_listening, launch, start
from bench.gateway.targets import KEY, Target

CLOSED_URL = "http://127.0.0.1:19199/v1"
UPSTREAM_URL = f"http://127.0.0.1:{paths.UPSTREAM_PORT}/api/v1"
FIRST_PORT = 20100
SECONDS, RETRIES = 2.0, 3
"""Every gateway's limit for the next content, and the peers' retries before the fallback."""
DESCRIPTIONS = {
    "sophia": "`models` in the request names the fallback; `content_s`, `whole_s` and `stall_s` 2 s, else the defaults",
    "litellm": "`fallbacks`, `num_retries: 3`, `timeout` and `stream_timeout` 2 s, `allowed_fails: 3`,"
    " `cooldown_time: 30`, after its documentation of reliability",
    "portkey": "a config in a header with `strategy: fallback`, `retry: {attempts: 3, use_retry_after_header: true}`"
    " and `request_timeout` 2 s, after its documentation; with the preload of the gateway benchmark",
}
ALL = tuple(DESCRIPTIONS)


def build_target(name: str, on_cut: str) -> Target:
    """Return the gateway `name`, and write its configuration."""
    paths.RUN.mkdir(parents=True, exist_ok=True)
    port, own = FIRST_PORT + ALL.index(name), f"chaos-{name}"
    values = {
        "FALLBACK": FALLBACK,
        "CLOSED": CLOSED,
        "CLOSED_URL": CLOSED_URL,
        "SECONDS": SECONDS,
        "RETRIES": RETRIES,
        "ON_CUT": on_cut,
    }
    match name:
        case "sophia":
            target = targets.build_sophia(own, port, tls=False, title="Sophia")
            path = targets.write_configuration(own, "chaos_sophia.yaml.in", tls=False, **values)
            return replace(target, command=(*target.command, "--config", path))
        case "litellm":
            return targets.build_litellm(
                own, port, tls=False, template="chaos_litellm.yaml.in", **values
            )
        case _:
            target = targets.build_portkey(own, port, tls=False)
            return replace(target, headers=_portkey_headers(UPSTREAM_URL))


def _portkey_headers(url: str) -> tuple[str, ...]:
    places = ((url, PRIMARY), (UPSTREAM_URL, FALLBACK))
    config = {
        "strategy": {"mode": "fallback"},
        "retry": {"attempts": RETRIES, "use_retry_after_header": True},
        "request_timeout": int(SECONDS * 1000),
        "targets": [
            {
                "provider": "openai",
                "api_key": KEY,
                "custom_host": host,
                "override_params": {"model": model},
            }
            for host, model in places
        ],
    }
    return (f"x-portkey-config: {json.dumps(config)}",)


def write_chat(target: Target, body: dict[str, object]) -> bytes:
    """Return the bytes of a chat request with what this gateway needs to fall back."""
    headers = target.headers
    if target.needs == "portkey" and body["model"] == CLOSED:
        headers = _portkey_headers(CLOSED_URL)
    if target.kind == "ours":
        body = {**body, "models": [body["model"], FALLBACK]}
    return write_request(target.path, headers, body)


@asynccontextmanager
async def running(target: Target, seed: int) -> AsyncIterator[Running]:
    """Run a gateway with an upstream of its own. Raises BenchmarkError if one does not start."""
    if is_listening(paths.UPSTREAM_PORT):
        raise BenchmarkError(f"port {paths.UPSTREAM_PORT} is in use: is another benchmark running?")
    options = ("--port", str(paths.UPSTREAM_PORT), "--seed", str(seed))
    command = (sys.executable, "-m", "bench.chaos.upstream", *options)
    path = f"{paths.REPOSITORY / 'src'}:{paths.REPOSITORY}"
    variables = targets.build_environment(target) | {"PYTHONPATH": path}
    started = [launch("chaos-upstream", None, command, variables)]
    try:
        started.append(await asyncio.to_thread(start, target, None))
        yield started[1]
    finally:
        for each in reversed(started):
            await asyncio.to_thread(each.stop)
