"""The sandbox in its own process: started, scripted over HTTP, and never left running."""

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sandbox_client import MODELS, PLAIN, chat

LISTENING = re.compile(r"^listening on (http://127\.0\.0\.1:\d+)/api/v1\n$")


@contextmanager
def sandbox(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "sophia.sandbox", "--no-local", "--speed", "0", *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout is not None
            line = LISTENING.match(process.stdout.readline())
            assert line is not None
            yield process, line[1]
        finally:
            process.kill()


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of one sandbox with `MODELS`, for all tests that leave it running."""
    path = tmp_path_factory.mktemp("sandbox") / "models.json"
    path.write_text(json.dumps({"data": MODELS}))
    with sandbox("--models", str(path)) as (_, origin):
        yield origin


def ask(method: str, url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": "Bearer any", "Content-Type": "application/json"}
    request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return json.load(error)


def test_it_answers_obeys_scripts_and_shows_its_bill(origin: str) -> None:
    url = f"{origin}/api/v1/chat/completions"
    answer = ask("POST", url, chat())
    script = {"model": PLAIN, "steps": [{"status": 503, "retry_after": "1"}], "times": None}
    assert ask("POST", f"{origin}/sandbox/script", script) == {"added": 1}
    assert ask("POST", url, chat())["error"]["code"] == 503
    assert ask("DELETE", f"{origin}/sandbox/script?model={PLAIN}") == {"cleared": True}
    assert ask("POST", url, chat())["object"] == "chat.completion"
    bill = ask("GET", f"{origin}/sandbox/bill")
    assert bill["rows"][-2]["generation_id"] == answer["id"]
    assert bill["total"] == sum(row["cost"] for row in bill["rows"])
    requests = ask("GET", f"{origin}/sandbox/requests")["requests"][-3:]
    assert [json.loads(request["body"]) for request in requests] == [chat()] * 3
    assert "any" not in requests[0]["headers"]["authorization"]


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({"steps": [{"statuss": 1}]}, "statuss"),
        ({"steps": [{"status": "high"}]}, "status"),
        ({"steps": [{"raw": [["sleep", "long"]]}]}, "sleep"),
        ({"steps": []}, "at least one step"),
        ({"steps": [{}], "times": 0}, "at least once"),
        ({}, "steps"),
    ],
)
def test_a_bad_script_is_refused_with_its_reason(origin: str, body: Any, part: str) -> None:
    answer = ask("POST", f"{origin}/sandbox/script", body)
    assert answer["error"]["code"] == 400
    assert part in answer["error"]["message"]


def test_raw_steps_can_be_written_in_json(origin: str) -> None:
    raw = ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", ["sleep", 0.001], "{}", "fin"]
    ask("POST", f"{origin}/sandbox/script", {"model": PLAIN, "steps": [{"raw": raw}]})
    assert ask("POST", f"{origin}/v1/chat/completions", chat()) == {}


def test_it_ends_when_its_standard_input_closes() -> None:
    with sandbox() as (process, _):
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0


def test_it_ends_on_sigterm() -> None:
    with sandbox() as (process, _):
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_it_ends_when_the_parent_is_gone() -> None:
    parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with parent, sandbox("--parent-pid", str(parent.pid)) as (process, _):
        parent.kill()
        parent.wait()
        assert process.wait(10) == 0


def test_a_port_in_use_is_reported(origin: str) -> None:
    port = origin.rpartition(":")[2]
    command = [sys.executable, "-m", "sophia.sandbox", "--no-local", "--port", port]
    done = subprocess.run(
        command, stdin=subprocess.PIPE, capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
