"""The first start: an address that is taken costs nothing, least of all the only look at a key."""

import json
import re
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from terminal import SOPHIA, Run, clean_environment, serving

QUICK = {
    "SOPHIA_SANDBOX_SPEED": "0",
    "SOPHIA_SANDBOX_LOCAL_MODEL": "false",
    "SOPHIA_SERVER_LINGER_S": "0",
}


@contextmanager
def started(
    folder: Path, *, merged: bool = False, **more: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start on a free port; give the process, and what it said until it served.

    `merged` adds the log.
    """
    process = subprocess.Popen(
        [*SOPHIA, "serve", "--port", "0", "--data-dir", str(folder)],
        env=clean_environment() | QUICK | more,
        cwd=folder.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if merged else subprocess.DEVNULL,
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
    assert "Your first key, shown this once:" in said and (data / "sandbox" / "admin.key").exists()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_whoever_stops_it_loses_nothing_that_was_learned(
    run: Run, tmp_path: Path, how: signal.Signals
) -> None:
    """What is open is written before the process ends, whichever signal ends it."""
    data = tmp_path / "data"
    with started(data) as (process, said):
        base, key = find_address_and_key(said)
        asked = {"model": "sophia/auto", "messages": [{"role": "user", "content": "Say hello."}]}
        decision = post(f"{base}/v1/chat/completions", key, asked)["sophia"]["decision_id"]
        post(f"{base}/v1/feedback", key, {"decision_id": decision, "score": 1.0})
        process.send_signal(how)
        assert process.wait(20) == 0
    steps = json.loads(run("policy", "history", "--json", "--data-dir", str(data)).out)
    assert [(one["reason"], one["lessons"]) for one in steps][-1] == ("stopped", 1)


@contextmanager
def openrouter() -> Iterator[str]:
    """Run a double of OpenRouter on a free port; give its address."""
    command = [sys.executable, "-m", "sophia.sandbox", "--port", "0", "--speed", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().removeprefix("listening on ").strip()
        finally:
            process.terminate()


def test_nothing_of_the_sandbox_is_left_once_there_is_a_key(run: Run, tmp_path: Path) -> None:
    """Keys, spending and lessons of simulated answers never mix with those of real ones."""
    data = tmp_path / "data"
    said, decisions = {}, {}
    with openrouter() as url:
        environments = ({}, {"OPENROUTER_API_KEY": "k", "OPENROUTER_BASE_URL": url})
        for name, environment in zip(("sandbox", "real"), environments, strict=True):
            with started(data, **environment) as (process, said[name]):
                base, key = find_address_and_key(said[name])
                asked = {"model": "sophia/auto", "messages": [{"role": "user", "content": "Hi."}]}
                answer = post(f"{base}/v1/chat/completions", key, asked)
                decisions[name] = answer["sophia"]["decision_id"]
                post(f"{base}/v1/feedback", key, {"decision_id": decisions[name], "score": 1.0})
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == 0
    assert "answers come from the sandbox" in said["sandbox"]
    assert f"stays apart in {data / 'sandbox'}" in said["real"]
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    # The operator's shell has no key: it reads the real traffic, and the sandbox's where asked to.
    for name, folder in (("real", data), ("sandbox", data / "sandbox")):
        report = json.loads(run("usage", "--json", "--data-dir", str(folder)).out)
        assert sum(row["requests"] for row in report["rows"]) == 1
        ran = run("decisions", "show", decisions[name], "--data-dir", str(folder))
        assert ran.code == 0, ran.err
        steps = json.loads(run("policy", "history", "--json", "--data-dir", str(folder)).out)
        assert steps[-1]["lessons"] == 1
    other = run("decisions", "show", decisions["sandbox"], "--data-dir", str(data))
    assert other.code != 0


def test_a_key_that_is_named_but_not_set_is_reported_at_the_start(tmp_path: Path) -> None:
    """Without it every call of that upstream would be refused, one by one."""
    file = tmp_path / "sophia.yaml"
    file.write_text(
        "upstreams: [{name: team, base_url: 'http://127.0.0.1:1/v1', api_key_env: TEAM_KEY,"
        " models: [{id: a/b}]}]\n"
    )
    with started(tmp_path / "data", merged=True, SOPHIA_CONFIG=str(file)) as (_, said):
        assert "TEAM_KEY is not set; team is called without a key" in said


def find_address_and_key(said: str) -> tuple[str, str]:
    found = re.search(r"serves (\S+)/v1 ", said), re.search(r"once:\s+(\S+)", said)
    base, key = (one[1] for one in found if one is not None)
    return base, key


def post(url: str, key: str, body: object) -> dict:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    made = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(made, timeout=20) as answer:
        return json.loads(answer.read())


@pytest.mark.parametrize("learning", ["true", "false"])
def test_a_second_server_on_a_folder_is_refused(run: Run, tmp_path: Path, learning: str) -> None:
    """Two would each spend the whole budget, whether they learn or not."""
    environment = {"SOPHIA_LEARNING_ENABLED": learning, "SOPHIA_SANDBOX_LOCAL_MODEL": "false"}
    with serving("sophia", "serve", "--port", "0", folder=tmp_path, **environment) as lines:
        assert "Sophia serves" in next(lines)
        ran = run("serve", "--port", "0", **environment)
        assert ran.code != 0 and "another Sophia serves from" in ran.err


def test_commands_read_the_folder_of_the_server_that_runs(run: Run, tmp_path: Path) -> None:
    """Without the key in its environment, a terminal cannot know it otherwise."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "sophia.db").touch()
    environment = {"SOPHIA_SANDBOX_LOCAL_MODEL": "false"}
    with serving("sophia", "serve", "--port", "0", folder=tmp_path, **environment) as lines:
        assert "Sophia serves" in next(lines)
        created = run("keys", "create", "--name", "mine")
        assert created.code == 0, created.err
        assert "mine" in run("keys", "list", "--data-dir", "data/sandbox").out
