"""The sandbox's text is really generated when a small model is there, and a template otherwise."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sandbox_client import MODELS, PLAIN, THINKER, Client, chat

from sophia.sandbox import ScriptedUpstream, ScriptStep
from sophia.sandbox.text.local_model import FINGERPRINT, LocalTextGenerator, find_model_file
from sophia.sandbox.text.template import NOTICE

needs_engine = pytest.mark.skipif(
    find_model_file() is None, reason="the local extra is not installed"
)


async def test_broken_weights_leave_the_template(tmp_path: Path) -> None:
    weights = tmp_path / "broken.gguf"
    weights.write_bytes(b"GGUF and then nothing of use")
    model = LocalTextGenerator(weights)
    async with ScriptedUpstream(models=MODELS, local_model=model) as up:
        model.start()
        answer = (await Client(up).post(chat())).json
        assert answer["choices"][0]["message"]["content"].startswith(NOTICE)
        assert answer["system_fingerprint"] is None


@asynccontextmanager
async def writing() -> AsyncIterator[ScriptedUpstream]:
    """Yield a sandbox whose text the small model writes."""
    weights = find_model_file()
    assert weights is not None
    model = LocalTextGenerator(weights)
    async with ScriptedUpstream(models=MODELS, local_model=model) as up:
        model.start()
        yield up


@needs_engine
async def test_the_first_answer_is_short_and_says_that_no_real_model_wrote_it() -> None:
    async with writing() as up:
        client = Client(up)
        answer = await client.post(chat(text="What is the capital of France?"), patience=30)
        text = answer.json["choices"][0]["message"]["content"]
        assert "Paris" in text and text.endswith(f"\n\n{NOTICE}") and len(text) < 200

        poem = await client.post(chat(text="Write a long poem about the sea."), patience=60)
        choice = poem.json["choices"][0]
        assert choice["finish_reason"] == "stop"
        assert choice["message"]["content"].removesuffix(f"\n\n{NOTICE}")[-1] in ".!?\n"


@needs_engine
async def test_plain_text_is_generated_and_marked() -> None:
    async with writing() as up:
        client = Client(up)
        body = chat(text="Name three fruits.", max_tokens=12, temperature=0)
        whole = (await client.post(body, patience=30)).json
        text = whole["choices"][0]["message"]["content"]
        assert text
        assert NOTICE not in text
        assert whole["model"] == PLAIN
        assert whole["system_fingerprint"] == FINGERPRINT
        assert 0 < whole["usage"]["completion_tokens"] <= 12
        assert round(whole["usage"]["cost"] * 1e9) == up.bill.rows[-1].cost

        stream = await client.post({**body, "stream": True}, patience=30)
        assert stream.text == text
        assert stream.data[-1] == "[DONE]"

        scripted = await client.post({**body, "response_format": {"type": "json_object"}})
        assert scripted.json["system_fingerprint"] is None
        thinking = await client.post({**body, "model": THINKER, "reasoning": {}}, patience=30)
        assert thinking.json["choices"][0]["message"]["content"]

        up.script(PLAIN, ScriptStep(cut_after=2))
        cut = await client.post({**body, "stream": True}, patience=30)
        assert cut.end == "eof"
        data = json.dumps({**body, "max_tokens": 200, "stream": True}).encode()
        async with client.connection("POST", "/v1/chat/completions", data) as reader:
            await reader.readuntil(b'"content":"')
        again = (await client.post(body, patience=30)).json
        assert again["choices"][0]["message"]["content"] == text
