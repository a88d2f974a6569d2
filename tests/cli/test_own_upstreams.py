"""Own upstreams without OpenRouter: their models alone are offered, and nobody else is called."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from terminal import Run, serving

SETTINGS = """
upstreams:
  - preset: ollama
    base_url: {url}
    api_key: any
    models:
      - {{id: "llama3.1:8b", served_as: meta-llama/llama-3.1-8b-instruct}}
      - {{id: "qwen3:32b", served_as: qwen/qwen3-32b}}
"""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A Sophia with two models of its own and no key of OpenRouter: its address and a key.

    A proxy that nobody listens at catches every call to another host.
    """
    nowhere = {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
    sandbox = ("sophia.sandbox", "--port", "0", "--speed", "0")
    with serving(*sandbox, folder=tmp_path) as upstream:
        url = next(upstream).split()[-1]
        (tmp_path / "sophia.yaml").write_text(SETTINGS.format(url=url))
        with serving("sophia", "serve", "--port", "0", folder=tmp_path, **nowhere) as lines:
            base_url = next(lines).split()[2].replace("localhost", "127.0.0.1")
            assert "through ollama" in next(lines)
            key = next(line for line in lines if line.startswith("Your first key")).split()[-1]
            yield base_url, key


def ask(own: tuple[str, str], path: str, body: object = None) -> Any:
    base_url, key = own
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(f"{base_url}{path}", data, {"Authorization": f"Bearer {key}"})) as answer:
        return json.load(answer)


def test_auto_chooses_among_own_models_and_nobody_else_is_called(own: tuple[str, str]) -> None:
    """Their quality is known by their names, and the better one is preferred."""
    messages = [{"role": "user", "content": "Prove that there are infinitely many primes."}]
    body = {"model": "sophia/auto", "messages": messages, "max_tokens": 20}
    body["sophia"] = {"explore": False}
    assert ask(own, "/chat/completions", body)["sophia"]["model"] == "qwen3:32b"
    plan = ask(own, "/route", body)
    assert {one["model"] for one in plan["candidates"]} == {"qwen3:32b", "llama3.1:8b"}
    assert [one["id"] for one in ask(own, "/models")["data"] if "/" not in one["id"]] == [
        "llama3.1:8b",
        "qwen3:32b",
    ]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ("catalogue: {own_models_only: true}", "needs `upstreams`"),
        ("upstreams: [{preset: ollama}]", "list the `models`"),
        ("upstreams: [{base_url: http://x/v1, models: [{id: a}]}]", "neither a `name`"),
        ("upstreams: [{preset: nobody, models: [{id: a}]}]", "preset"),
        ("upstreams: [{preset: ollama, models: [{id: a}, {id: a}]}]", "lists 'a' twice"),
        (
            "upstreams: [{preset: ollama, models: [{id: a, prompt_usd_per_mtok: 1}]}, "
            "{preset: vllm, models: [{id: a, prompt_usd_per_mtok: 2}]}]",
            "other prices, limits or modalities at 'vllm'",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(
    run: Run, tmp_path: Path, settings: str, problem: str
) -> None:
    (tmp_path / "sophia.yaml").write_text(settings)
    ran = run("config", "check")
    assert ran.code != 0
    assert problem in ran.err + ran.out


def test_a_preset_fills_in_what_is_unset(run: Run, tmp_path: Path) -> None:
    (tmp_path / "sophia.yaml").write_text(
        "upstreams: [{preset: openai, name: mine, models: [{id: openai/gpt-5.5}]}]"
    )
    shown = run("config", "show").out
    assert "https://api.openai.com/v1" in shown
    assert "OPENAI_API_KEY" in shown
    assert "mine" in shown
