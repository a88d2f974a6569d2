"""A generation as it happens: deltas at the model's pace, with a running count of tokens."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from sophia.testing import shapes
from sophia.testing.asked import Asked
from sophia.testing.listing import Listed
from sophia.testing.pace import Pace
from sophia.testing.shapes import Json
from sophia.testing.speech import Speech


@dataclass(frozen=True, slots=True)
class Delta:
    """What choice `index` says next: the fields of a delta, and the token when it is text."""

    index: int
    fields: Json
    token: str | None = None


@dataclass(slots=True, eq=False)
class Reply:
    """One generation by `model`. `speeches` has one entry for each of the `n` choices.

    `settle` is called when the last token was generated, before the client hears of it: whoever
    has read the answer finds it on the bill.
    """

    id: str
    created: int
    model: Listed
    asked: Asked
    speeches: Sequence[Speech]
    pace: Pace
    settle: Callable[["Reply"], None]
    settled: bool = False
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    finish_reasons: dict[int, str] = field(default_factory=dict)

    @property
    def envelope(self) -> shapes.Envelope:
        """What each body of this generation repeats."""
        live = self.speeches[0].live
        fingerprint = live.fingerprint if live else None
        return shapes.Envelope(self.id, self.created, self.model.id, self.asked.legacy, fingerprint)

    @property
    def planned_tokens(self) -> int:
        """How many tokens the whole reply has, as far as that is known beforehand."""
        return max(self.completion_tokens, sum(speech.tokens for speech in self.speeches))

    def usage(self) -> Json:
        """Return the usage so far."""
        cost = self.model.cost(self.asked.prompt_tokens, self.completion_tokens)
        counts = (self.asked.prompt_tokens, self.completion_tokens, self.reasoning_tokens)
        return shapes.usage(*counts, cost)

    async def deltas(self) -> AsyncIterator[Delta]:
        """Yield what is said, one choice after the other, as fast as the model usually is.

        A token counts once the next one is asked for, so that what never went out is not billed.
        """
        await asyncio.sleep(self.pace.first_token)
        for index, speech in enumerate(self.speeches):
            async for fields, token in self._speak(speech):
                if fields is not None:
                    yield Delta(index, fields, token)
                self.completion_tokens += 1
                await asyncio.sleep(self.pace.gap)
            reason = speech.live.finish_reason if speech.live else speech.finish_reason
            self.finish_reasons[index] = reason
        self.settle(self)

    async def _speak(self, speech: Speech) -> AsyncIterator[tuple[Json | None, str | None]]:
        shown = self.asked.show_thinking
        for piece in speech.reasoning:
            yield {"content": "", **shapes.reasoning(piece)} if shown else None, None
            self.reasoning_tokens += 1
        async for piece in speech.live.pieces() if speech.live else _each(speech.text):
            yield {"content": piece}, piece
        for number, call in enumerate(speech.calls):
            function = {"name": call.name, "arguments": ""}
            opening = {"index": number, "id": call.id, "type": "function", "function": function}
            yield {"content": None, "tool_calls": [opening]}, None
            for piece in call.arguments:
                fragment = {"index": number, "function": {"arguments": piece}}
                yield {"tool_calls": [fragment]}, None


async def _each(pieces: Sequence[str]) -> AsyncIterator[str]:
    for piece in pieces:
        yield piece
