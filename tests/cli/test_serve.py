"""The first start: an address that is taken costs nothing, least of all the only look at a key."""

import json
import re
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from terminal import SOPHIA, Run, clean_environment

QUICK = {"SOPHIA_SANDBOX_SPEED": "0", "SOPHIA_SANDBOX_LOCAL_MODEL": "false"}


@contextmanager
def started(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start on a free port; give the process, and what it said until it served."""
    process = subprocess.Popen(
        [*SOPHIA, "serve", "--port", "0", "--data-dir", str(folder)],
        env=clean_environment() | QUICK,
        cwd=folder.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    said = ""
    try:
        for line in process.stdout:
            said += line
            if line.startswith("Try it"):
                break
        yield process, said
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


def test_a_taken_port_leaves_the_first_start_to_the_next_one(
    run_process: Run, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ran = run_process(
            "serve", "--host", "127.0.0.1", "--port", str(port), "--data-dir", str(data), **QUICK
        )
    assert ran.code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in ran.err
    assert "`sophia serve --port N` takes another" in ran.err
    assert "key" not in ran.out and not (data / "admin.key").exists()
    with started(data) as (_, said):
        pass
    assert "Your first key, shown this once: " in said and (data / "admin.key").exists()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_whoever_stops_it_loses_nothing_that_was_learned(
    run: Run, tmp_path: Path, how: signal.Signals
) -> None:
    """What is open is written before the process ends, whichever signal ends it."""
    data = tmp_path / "data"
    with started(data) as (process, said):
        found = re.search(r"serves (\S+)/v1 ", said), re.search(r"once: (\S+)", said)
        base, key = (one[1] for one in found if one is not None)
        asked = {"model": "sophia/auto", "messages": [{"role": "user", "content": "Say hello."}]}
        decision = post(f"{base}/v1/chat/completions", key, asked)["sophia"]["decision_id"]
        post(f"{base}/v1/feedback", key, {"decision_id": decision, "score": 1.0})
        process.send_signal(how)
        assert process.wait(20) == 0
    steps = json.loads(run("policy", "history", "--json", "--data-dir", str(data)).out)
    assert [(one["reason"], one["lessons"]) for one in steps][-1] == ("stopped", 1)


def post(url: str, key: str, body: object) -> dict:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    made = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(made, timeout=20) as answer:
        return json.loads(answer.read())
