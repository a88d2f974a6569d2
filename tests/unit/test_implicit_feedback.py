"""Signs over time: what is not asked again is good news, for those who had bad news before."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sophia.adapters.store.store import SqlStore
from sophia.core.calls import ChunkBatch
from sophia.core.ids import IdGenerator
from sophia.routing.types import Hints, Prompt
from sophia.serving.attempts.observer import AnswerEnd, AnswerObserver
from sophia.serving.feedback.implicit import (
    MAX_TRACKED,
    RETRY_WINDOW_SECONDS,
    ImplicitFeedbackDetector,
)
from sophia.serving.feedback.queue import FeedbackQueue
from sophia.serving.request import Request
from sophia.tenants.keys import Principal
from stores import open_test_store


@dataclass
class HeldClock:
    """A clock that stands where it is put."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


class Scene:
    """Callers who ask and get answers, one after the other."""

    def __init__(self, store: SqlStore) -> None:
        self.clock = HeldClock()
        self.store = store
        self.verdicts = FeedbackQueue(self.store, self.clock)
        self.signs = ImplicitFeedbackDetector(self.verdicts, self.clock)
        self._ids = IdGenerator(lambda: 10**12)
        self._asked: list[int] = []

    def ask(
        self, text: str, key: str = "k", finish: str = "stop", said: bytes = b"", **prompt: Any
    ) -> None:
        request = Request(
            id=self._ids.next(),
            endpoint="chat/completions",
            principal=principal(key),
            arrived_at=0.0,
            model="sophia/auto",
            fallback_models=(),
            stream=False,
            fields={},
            prompt=Prompt(text=text, chars=len(text), **prompt),
            hints=Hints(),
        )
        self._asked.append(request.id)
        turn = self.signs.observe_request(request)
        ending = AnswerEnd(model="m", finish_reason=finish, complete=True)
        ear = AnswerObserver(lambda ear, end: self.signs.observe_end(request, turn, ear, end), 1000)
        ear.observe(ChunkBatch(chunks=[said] if said else []))
        ear.end(ending)
        ear.end(ending)

    async def heard(self) -> list[tuple[str, float]]:
        await self.verdicts.close()
        rows = [row for id in self._asked for row in await self.store.feedback(id)]
        return [(row.channel, row.score or 0.0) for row in rows]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with open_test_store(tmp_path) as store:
        yield Scene(store)


def principal(key: str) -> Principal:
    return Principal(
        key_id=key, name="name", scope="inference", daily_budget_nano=None, per_request_nano=None
    )


async def test_what_is_not_asked_again_is_told_once_anybody_of_the_key_asked_again(
    scene: Scene,
) -> None:
    scene.ask("one")
    scene.clock.now += RETRY_WINDOW_SECONDS + 1
    scene.ask("two")
    scene.ask("two")
    assert await scene.heard() == [("retry", 0.0)], "good news before any bad ones are no news"
    scene.ask("three")
    scene.clock.now += RETRY_WINDOW_SECONDS + 1
    scene.ask("three")
    assert await scene.heard() == [("retry", 0.0), ("retry", 1.0), ("retry", 1.0)]


async def test_another_keys_bad_news_opens_nothing(scene: Scene) -> None:
    scene.ask("one", finish="length")
    scene.ask("two", key="other")
    assert await scene.heard() == [("validator", 0.0)]
    scene.ask("three")
    assert await scene.heard() == [("validator", 0.0), ("validator", 1.0)]


async def test_good_and_bad_signs_are_dropped_alike_where_there_are_too_many(scene: Scene) -> None:
    """What is taken is a fair part of both, so that haste makes nobody look better or worse."""
    for number in range(4000):
        scene.ask(f"{number}", finish="length" if number % 4 == 0 else "stop")
        scene.clock.now += 1.0
    heard = [score for channel, score in await scene.heard() if channel == "validator"]
    assert 780 <= len(heard) <= 840
    assert 0.6 < sum(heard) / len(heard) < 0.9


async def test_a_flood_of_one_key_leaves_room_for_others(scene: Scene) -> None:
    for number in range(500):
        scene.ask(f"{number}", key="loud", finish="length")
    scene.ask("one", key="quiet", finish="length")
    assert len(await scene.heard()) == 21


async def test_the_same_words_elsewhere_in_a_conversation_are_another_question(
    scene: Scene,
) -> None:
    scene.ask("go on", turns=1)
    scene.ask("go on", turns=3)
    scene.ask("a question that is long enough", turns=1)
    scene.ask("a question that is long enough", turns=7)
    assert await scene.heard() == []


async def test_haste_keeps_no_bad_news_alone(scene: Scene) -> None:
    """Who is forgotten to make room was not asked again so far, and that is told as well."""
    scene.ask("again")
    scene.ask("again")
    for number in range(MAX_TRACKED + 5000):
        scene.ask(f"{number}")
        scene.clock.now += RETRY_WINDOW_SECONDS / MAX_TRACKED / 2
    told = [score for channel, score in await scene.heard() if channel == "retry"]
    assert told[0] == 0.0 and len(told) > 10 and set(told[1:]) == {1.0}


async def test_what_cannot_be_read_is_a_sign_and_no_accident(scene: Scene) -> None:
    scene.ask("one", finish="tool_calls", said=b'{"choices":[{"delta":{"content":"\\ud800"}}]}')
    assert await scene.heard() == [("validator", 0.0)]


async def test_what_was_not_forgotten_yet_is_too_old_all_the_same(scene: Scene) -> None:
    """A request forgets a few answers at most, since after a pause there may be thousands."""
    for number in range(40):
        scene.ask(f"{number}")
    scene.clock.now += RETRY_WINDOW_SECONDS + 1
    scene.ask("39")
    scene.ask("39")
    assert await scene.heard() == [("retry", 0.0)]
