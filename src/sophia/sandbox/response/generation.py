"""One generation in progress: deltas at the model's speed, with a running count of tokens."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from sophia.sandbox.api import shapes
from sophia.sandbox.api.listing import ListedModel
from sophia.sandbox.api.request import SandboxRequest
from sophia.sandbox.api.shapes import JsonObject
from sophia.sandbox.response.speed import SimulatedSpeed
from sophia.sandbox.text.choices import GeneratedChoice
from sophia.sandbox.text.local_model import FINGERPRINT


@dataclass(frozen=True, slots=True)
class AnswerDelta:
    """The next fields of choice `index`, and the tokens in them when they are text."""

    index: int
    fields: JsonObject
    tokens: Sequence[str] | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class SimulatedAnswer:
    """One generation by `model`, with an entry in `choices` for each of the `n` choices.

    `on_complete` is called when the last token was generated and before it is sent, so that a
    client that has read the whole answer finds it on the bill.
    """

    id: str
    created: int
    model: ListedModel
    request: SandboxRequest
    choices: Sequence[GeneratedChoice]
    speed: SimulatedSpeed
    on_complete: Callable[["SimulatedAnswer"], None]
    settled: bool = False
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    finish_reasons: dict[int, str] = field(default_factory=dict)

    def usage(self) -> JsonObject:
        """Return the usage so far, with the cost in US dollars."""
        prompt, completion = self.request.prompt_tokens, self.completion_tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "cost": self.model.cost(prompt, completion) / shapes.NANO_PER_USD,
            "is_byok": False,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
        }

    def body(self, choices: Sequence[JsonObject]) -> JsonObject:
        """Return a chunk of a stream, or for a request without one the whole answer."""
        is_stream = self.request.stream
        kind = "chat.completion.chunk" if is_stream else "chat.completion"
        body: JsonObject = {
            "id": self.id,
            "provider": shapes.PROVIDER,
            "model": self.model.id,
            "object": "text_completion" if self.request.legacy else kind,
            "created": self.created,
        }
        fingerprint = FINGERPRINT if self.choices[0].streaming_text else None
        # Strict clients demand the field in a whole answer and refuse null in a chunk.
        if fingerprint is not None or not is_stream:
            body["system_fingerprint"] = fingerprint
        body["choices"] = choices
        return body if is_stream else body | {"usage": self.usage()}

    async def deltas(self) -> AsyncIterator[AnswerDelta]:
        """Yield the deltas of one choice after the other.

        A token counts once the next one is requested, so that a token that was not sent is free.
        """
        await asyncio.sleep(self.speed.first_token_s)
        for index, choice in enumerate(self.choices):
            async for fields, tokens in self._choice_deltas(choice):
                if fields is not None:
                    yield AnswerDelta(index, fields, tokens)
                self.completion_tokens += 1
                await asyncio.sleep(self.speed.seconds_per_token)
            self.finish_reasons[index] = (choice.streaming_text or choice).finish_reason
        self.on_complete(self)

    async def _choice_deltas(
        self, choice: GeneratedChoice
    ) -> AsyncIterator[tuple[JsonObject | None, Sequence[str] | None]]:
        visible = self.request.show_reasoning
        for token in choice.reasoning:
            yield {"content": "", **shapes.build_reasoning_fields(token)} if visible else None, None
            self.reasoning_tokens += 1
        if choice.streaming_text is not None:
            async for token in choice.streaming_text.chunks():
                yield {"content": token}, [token]
        for token in choice.text:
            yield {"content": token}, [token]
        for number, call in enumerate(choice.tool_calls):
            function = {"name": call.name, "arguments": ""}
            head = {"index": number, "id": f"call_sandbox_{number}", "type": "function"}
            yield {"content": None, "tool_calls": [{**head, "function": function}]}, None
            for token in call.arguments:
                fragment = {"index": number, "function": {"arguments": token}}
                yield {"tool_calls": [fragment]}, None
