"""The two servers of these tests, each in a process of its own: the scripted upstream and Sophia."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READY_WITHIN = 20.0
SETTINGS = """\
upstreams:
  - name: vectors
    base_url: "{url}"
    api_key: sk-test
    models: [{{id: vectors/embed-small, kind: embedding, prompt_usd_per_mtok: 0.02}}]
"""
SOPHIA = Path(sys.executable).with_name("sophia")


@dataclass(frozen=True)
class Upstream:
    """The scripted upstream, by its control routes."""

    base_url: str

    def script(self, *steps: dict[str, Any], times: int | None = None) -> None:
        """Let every model play `steps` next, `times` times, by default for ever."""
        self._control("POST", "script", {"model": "*", "steps": steps, "times": times})

    def clear(self) -> None:
        """Remove all scripts."""
        self._control("DELETE", "script")

    def last_body(self) -> dict[str, Any]:
        """Return the decoded body of the last call; a new gateway reads price lists meanwhile."""
        received = self._control("GET", "requests")["requests"]
        decoded: dict[str, Any] = json.loads([one["body"] for one in received if one["body"]][-1])
        return decoded

    def _control(self, method: str, name: str, body: object = None) -> Any:
        origin = self.base_url.removesuffix("/api/v1")
        return json.loads(send(method, f"{origin}/sandbox/{name}", body))


@dataclass(frozen=True)
class Gateway:
    """The address of a running Sophia, and a key for it."""

    url: str
    key: str


@contextmanager
def upstream() -> Iterator[Upstream]:
    """Run the scripted upstream; its models answer at once."""
    command = [sys.executable, "-m", "sophia.sandbox", "--no-local", "--speed", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Upstream(process.stdout.readline().split()[-1])
        finally:
            process.terminate()


@contextmanager
def gateway(upstream: Upstream, data: Path) -> Iterator[Gateway]:
    """Run Sophia before `upstream`, with its data folder at `data`."""
    environment = {name: value for name, value in os.environ.items() if "SOPHIA" not in name}
    environment |= {"OPENROUTER_API_KEY": "sk-or-test", "OPENROUTER_BASE_URL": upstream.base_url}
    environment["SOPHIA_SERVER_LINGER_S"] = "0"
    (data / "sophia.yaml").write_text(SETTINGS.format(url=upstream.base_url))
    folder = ["--data-dir", str(data)]
    make_key = [str(SOPHIA), "keys", "create", "--name", "clients", "--json", *folder]
    created = subprocess.run(
        make_key, env=environment, cwd=data, check=True, stdout=subprocess.PIPE
    )
    port = free_port()
    serve = [str(SOPHIA), "serve", "--host", "127.0.0.1", "--port", str(port), *folder]
    with subprocess.Popen(serve, env=environment, cwd=data) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(f"{url}/health/ready")
            yield Gateway(url, json.loads(created.stdout)["key"])
        finally:
            process.terminate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while True:
        try:
            send("GET", url)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def send(method: str, url: str, body: object = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=5) as answer:
        content: bytes = answer.read()
    return content
