"""`sophia chat` and `sophia route` against a Sophia that serves."""

import json
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from canned_answers import answering
from terminal import SOPHIA, Run, Served, clean_environment


def test_chat_prints_the_answer_and_its_account_apart(served: Served, run_process: Run) -> None:
    """The answer alone is on stdout; model, cost, tokens and decision are on stderr."""
    base = ("--base-url", served.base_url)
    ran = run_process("chat", "Say", "hello", *base, SOPHIA_API_KEY=served.key)
    assert ran.code == 0
    assert ran.out.strip()
    assert "tokens" in ran.err
    assert "dec-" in ran.err
    assert "sandbox" in ran.err
    assert "dec-" not in ran.out


def test_chat_shows_what_sophia_says_when_it_refuses(served: Served, run: Run) -> None:
    """An error is Sophia's own message, with exit code 1."""
    ran = run(
        "chat",
        "hi",
        "--model",
        "nobody/nothing",
        "--base-url",
        served.base_url,
        "--key",
        served.key,
    )
    assert ran.code == 1
    assert "There is no model 'nobody/nothing'" in ran.err
    assert ran.out == ""


def test_a_key_that_is_not_valid_is_refused_with_the_way_to_one(served: Served, run: Run) -> None:
    """A wrong key is told by Sophia."""
    ran = run("chat", "hi", "--base-url", served.base_url, "--key", "sk-sph-wrong")
    assert ran.code == 1
    assert "sophia keys create" in ran.err


@pytest.mark.parametrize("command", ["chat", "route"])
def test_without_a_key_it_says_how_to_make_one(run: Run, command: str) -> None:
    """The first thing a user misses is the key."""
    ran = run(command, "hi", "--data-dir", "my data")
    assert ran.code == 2
    assert "sophia keys create --name me --data-dir 'my data'" in ran.err


@pytest.mark.parametrize("command", ["chat", "route"])
def test_when_nothing_listens_it_says_serve_first(run: Run, command: str) -> None:
    """No server, no traceback."""
    ran = run(command, "hi", "--key", "k", "--base-url", "http://127.0.0.1:1/v1")
    assert ran.code == 1
    assert "sophia serve" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://x/v1", "http://", "http://x:y/v1"])
def test_what_is_no_base_url_is_told(run: Run, url: str) -> None:
    """A mistyped base URL is shown an example."""
    ran = run("route", "hi", "--key", "k", "--base-url", url)
    assert ran.code == 1
    assert "http://127.0.0.1:8080/v1" in ran.err


def test_a_server_that_is_not_sophia_is_told(run_process: Run) -> None:
    """Another program on the port is named as such."""
    with answering(404, "text/html", b"<h1>Not here</h1>") as url:
        ran = run_process("chat", "hi", "--key", "k", "--base-url", url)
    assert ran.code == 1
    assert "that is not Sophia" in ran.err


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (b"", "broke off"),
        (b'data: {"choices":[],"error":{"message":"The model fell silent."}}\n\n', "fell silent"),
    ],
)
def test_an_answer_that_breaks_off_fails(run_process: Run, end: bytes, told: str) -> None:
    """Half an answer is shown, and never taken for a whole one."""
    begun = b'data: {"choices":[{"delta":{"content":"Half an"}}]}\n\n'
    with answering(200, "text/event-stream", begun + end) as url:
        ran = run_process("chat", "hi", "--key", "k", "--base-url", url)
    assert ran.code == 1
    assert ran.out == "Half an\n"
    assert told in ran.err


def test_an_answer_cannot_command_the_terminal(run: Run) -> None:
    """Escape sequences of a model are not passed on."""
    chunk = {"choices": [{"delta": {"content": "a\x1b[2Jb\tc\n"}}]}
    body = b"data: %b\n\ndata: [DONE]\n\n" % json.dumps(chunk).encode()
    with answering(200, "text/event-stream", body) as url:
        ran = run("chat", "hi", "--key", "k", "--base-url", url)
    assert ran.code == 0
    assert ran.out == "a[2Jb\tc\n\n"


def test_ctrl_c_ends_the_answer_cleanly() -> None:
    """An interrupt in mid-answer leaves with 130, closes the connection, shows no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen(
            [*SOPHIA, "chat", "hi", "--key", "k", "--base-url", _url(listener)],
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        with listener.accept()[0] as connection:
            connection.sendall(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
                b'data: {"choices":[{"delta":{"content":"Once"}}]}\n\n'
            )
            assert process.stdout.read(4) == b"Once"
            wait_until_asleep(process.pid)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"Stopped" in told
    assert b"Traceback" not in told


def wait_until_asleep(pid: int) -> None:
    """Wait until a process waits for more: Python acts on a signal just before that only after."""
    end = time.monotonic() + 10
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
        assert time.monotonic() < end
        time.sleep(0.01)


def _url(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


def test_route_tells_candidates_attempts_and_features(served: Served, run: Run) -> None:
    """The decision is explained within 80 columns, no line longer."""
    ran = run(
        "route",
        "Write a quicksort in Python",
        "--base-url",
        served.base_url,
        SOPHIA_API_KEY=served.key,
        COLUMNS="80",
    )
    assert ran.code == 0
    assert "chosen" in ran.out
    assert "coding (estimated)" in ran.out
    assert "1. " in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80


def test_route_prints_what_sophia_sent_as_json(served: Served, run_process: Run) -> None:
    """`--json` is for programs."""
    where = ("--base-url", served.base_url, "--key", served.key)
    ran = run_process("route", "hi", "--json", *where)
    assert ran.code == 0
    told = json.loads(ran.out)
    assert told["object"] == "sophia.route"
    assert told["attempts"][0]["model"] == told["model"]
