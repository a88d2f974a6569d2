"""Overload: refused before anything is reserved, fairly, and streams are kept alive."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from gateway import MINI, Start, chat
from sophia.config import ServerSettings
from sophia.core.errors import Unavailable
from sophia.http.v1 import chat as chat_route
from sophia.sandbox import ScriptStep
from sophia.serving.admission import Admission


async def test_more_than_the_limit_is_refused_before_anything_is_reserved(start: Start) -> None:
    """Row 31."""
    async with start(server=ServerSettings(max_in_flight=2)) as gateway, AsyncExitStack() as held:
        gateway.up.script(MINI, ScriptStep(first_delay=5.0), times=2)
        body = gateway.client.request(chat(MINI, stream=True))
        for _ in range(2):
            await held.enter_async_context(gateway.client.connection(body))
        async with asyncio.timeout(3):
            while len(gateway.up.requests) < 2:
                await asyncio.sleep(0.01)
        answer = await gateway.client.chat()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert answer.error["metadata"]["error_type"] == "overloaded"
        assert len(gateway.up.requests) == 2 and len(await gateway.rows("intents")) == 2
        await held.aclose()
        async with asyncio.timeout(3):
            while (await gateway.client.chat()).status != 200:
                await asyncio.sleep(0.01)


def test_no_key_gets_more_than_its_share_when_it_is_crowded() -> None:
    admission, running = Admission(10), list[str]()

    def enter(key: str) -> bool:
        try:
            admission.enter(key)
        except Unavailable:
            return False
        running.append(key)
        return True

    assert enter("small") and all(enter("big") for _ in range(7))
    assert not enter("big"), "crowded, and it has more than half"
    assert enter("small") and enter("new") and not enter("newest"), "until there is no room at all"
    for key in running:
        admission.leave(key)
    assert all(enter("big") for _ in range(8)), "alone it may have four fifths"
    assert not enter("big") and enter("new"), "there is room for another"


async def test_a_silent_stream_gets_comments(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_route, "KEEP_ALIVE_SECONDS", 0.05)
    async with start() as gateway:
        gateway.up.script(MINI, ScriptStep(chunk_delay=0.2, text="two words"))
        answer = await gateway.client.chat(stream=True)
        text = answer.body.decode()
        assert text.count(": keep-alive\n\n") >= 2
        assert text.endswith("data: [DONE]\n\n")
        assert text.index(": keep-alive") > text.index("data: ")
