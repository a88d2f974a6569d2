"""Writes answers, whole or streamed, with the faults of their script step."""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from sophia.sandbox.api import shapes
from sophia.sandbox.api.errors import SandboxError
from sophia.sandbox.api.shapes import JsonObject
from sophia.sandbox.response.connection import ConnectionWriter
from sophia.sandbox.response.generation import AnswerDelta, SimulatedAnswer
from sophia.sandbox.script import ScriptStep

PROCESSING = b": OPENROUTER PROCESSING\n\n"
MALFORMED = b'data: {"id":"gen-broken","choices":[{"index":0,"delta":{"con\n\n'
BAD_CHUNK = b"zz\r\nnot a chunk\r\n"


class ScriptedResponseWriter:
    """Writes one answer; a `generation_id` goes out as its header."""

    def __init__(
        self, wire: ConnectionWriter, step: ScriptStep, generation_id: str | None = None
    ) -> None:
        self._wire = wire
        self._step = step
        self._headers = {} if generation_id is None else {"X-Generation-Id": generation_id}

    async def replace_answer(self) -> bool:
        """Write the step's replacement of an answer, and return whether there was one.

        Raises ConnectionEnded if that breaks the connection.
        """
        step, wire = self._step, self._wire
        wire.dribble = step.dribble
        await asyncio.sleep(step.delay)
        if step.raw is not None:
            await self._write_raw()
        match step.no_answer:
            case "close":
                await wire.close()
            case "reset":
                await wire.reset()
            case "hang":
                await wire.hang()
        if step.body is not None:
            data = step.body.encode() if isinstance(step.body, str) else step.body
            await self._write_response(
                step.status, data if isinstance(data, bytes) else msgspec.json.encode(data)
            )
        elif step.is_error:
            await self.send_error(_build_error(step))
        return step.body is not None or step.is_error

    async def send_body(self, body: JsonObject) -> None:
        """Write a whole answer."""
        data = self._step.leading + msgspec.json.encode(self._step.override(body))
        await self._write_response(200, data)

    async def send_error(self, error: SandboxError) -> None:
        """Write an error."""
        await self._write_response(error.status, msgspec.json.encode(error.body()))

    async def send_whole(self, generation: SimulatedAnswer) -> None:
        """Write all of a generation at once."""
        messages = [_MessageBuilder() for _ in generation.choices]
        async for delta in generation.deltas():
            messages[delta.index].add(delta)
        choices = [
            self._choice(
                generation,
                AnswerDelta(index, message.build(), message.tokens),
                generation.finish_reasons[index],
            )
            for index, message in enumerate(messages)
        ]
        await self.send_body(generation.body(choices))

    async def send_stream(self, generation: SimulatedAnswer) -> None:
        """Write a generation as a stream of events."""
        step, wire = self._step, self._wire
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        await wire.start_chunked(200, _merge_headers(headers | self._headers, step.headers))
        await wire.send_chunk(PROCESSING)
        count = 0
        async for delta in generation.deltas():
            if count == 0:
                await self._send_roles(generation)
            await asyncio.sleep(step.first_delay if count == 0 else step.chunk_delay)
            if await self._apply_fault(generation, count):
                break
            await self._send_choice(generation, delta)
            count += 1
        else:
            if count == 0:
                await self._send_roles(generation)
            if not await self._apply_fault(generation, count):
                await self._send_end(generation)
        await wire.send_chunk(b"")

    async def _send_roles(self, generation: SimulatedAnswer) -> None:
        if not generation.request.legacy:
            for index in range(len(generation.choices)):
                await self._send_choice(
                    generation, AnswerDelta(index, {"role": "assistant", "content": ""})
                )

    async def _send_end(self, generation: SimulatedAnswer) -> None:
        step = self._step
        for index, reason in generation.finish_reasons.items():
            for _ in range(2 if step.double_finish else 1):
                await self._send_choice(generation, AnswerDelta(index, {"content": ""}), reason)
        if not step.no_usage:
            empty = [self._choice(generation, AnswerDelta(0, {"content": ""}))]
            body = generation.body(empty if step.usage_choice else [])
            await self._send_event(step.override(body | {"usage": generation.usage()}))
        if not step.no_done:
            await self._wire.send_chunk(b"data: [DONE]\n\n")

    async def _apply_fault(self, generation: SimulatedAnswer, count: int) -> bool:
        """Apply the faults of event `count`; return whether they end the stream."""
        step, wire = self._step, self._wire
        if step.malformed_at == count:
            await wire.send_chunk(MALFORMED)
        await self._break_connection(count)
        if step.bad_chunk_at == count:
            await wire.send(BAD_CHUNK)
            await wire.close()
        if step.comments_after == count:
            while True:
                await wire.send_chunk(PROCESSING)
                await asyncio.sleep(step.comment_every)
        if step.error_at == count:
            choice = self._choice(generation, AnswerDelta(0, {"content": ""}))
            choice |= {"finish_reason": "error", "native_finish_reason": "error"}
            body = generation.body([choice] if step.error_choices else [])
            await self._send_event(body | _build_error(step).body())
        return step.error_at == count

    async def _break_connection(self, count: int) -> None:
        step, wire = self._step, self._wire
        if step.cut_after == count:
            await wire.close()
        if step.reset_after == count:
            await wire.reset()
        if step.stall_after == count:
            await wire.hang()

    async def _send_choice(
        self, generation: SimulatedAnswer, delta: AnswerDelta, reason: str | None = None
    ) -> None:
        choice = self._choice(generation, delta, reason)
        await self._send_event(self._step.override(generation.body([choice])))

    async def _send_event(self, body: JsonObject) -> None:
        await self._wire.send_chunk(b"data: " + msgspec.json.encode(body) + b"\n\n")

    def _choice(
        self, generation: SimulatedAnswer, delta: AnswerDelta, reason: str | None = None
    ) -> JsonObject:
        """Return a choice of a chunk, or of a whole answer when `delta` is all of it."""
        request, logprobs = generation.request, None
        content: JsonObject = {"delta" if request.stream else "message": delta.fields}
        if request.legacy:
            content = {"text": delta.fields.get("content") or ""}
        if request.top_logprobs is not None and delta.tokens is not None:
            logprobs = shapes.build_logprobs(delta.tokens, request.top_logprobs)
        finish = self._step.finish_fields(reason)
        return {"index": delta.index, **content, **finish, "logprobs": logprobs}

    async def _write_response(self, status: int, data: bytes) -> None:
        step = self._step
        headers = {"Content-Type": "application/json", **self._headers}
        if step.retry_after is not None:
            headers["Retry-After"] = step.retry_after
        if step.content_length is not None:
            headers["Content-Length"] = str(step.content_length)
        headers = _merge_headers(headers, step.headers)
        ends = [at for at in (step.cut_after, step.reset_after, step.stall_after) if at is not None]
        if ends and status < 400:
            headers = {"Content-Length": str(len(data)), **headers}
            await self._wire.send_response(status, headers, data[: min(ends)])
            await self._break_connection(min(ends))
        else:
            await self._wire.send_response(status, headers, data)
            if step.content_length is not None:
                await self._wire.close()

    async def _write_raw(self) -> None:
        for item in self._step.raw or ():
            match item:
                case bytes():
                    await self._wire.send(item)
                case "rst":
                    await self._wire.reset()
                case "fin":
                    await self._wire.close()
                case "half_close":
                    await self._wire.half_close()
                case (_, seconds):
                    await asyncio.sleep(seconds)
        await self._wire.close()


class _MessageBuilder:
    """Joins the deltas of one choice into a message."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self._reasoning = ""
        self._calls: list[dict[str, Any]] = []

    def add(self, delta: AnswerDelta) -> None:
        self.tokens += delta.tokens or ()
        self._reasoning += str(delta.fields.get("reasoning", ""))
        calls: Any = delta.fields.get("tool_calls", ())
        for call in calls:
            if "id" in call:
                self._calls.append(call)
            else:
                self._calls[-1]["function"]["arguments"] += call["function"]["arguments"]

    def build(self) -> JsonObject:
        content = None if self._calls else "".join(self.tokens)
        message: JsonObject = {"role": "assistant", "content": content, "refusal": None}
        if self._reasoning:
            message |= shapes.build_reasoning_fields(self._reasoning)
        if self._calls:
            message["tool_calls"] = self._calls
        return message


def _build_error(step: ScriptStep) -> SandboxError:
    """Return the error of a step; a status that is no error becomes 502."""
    return SandboxError(
        step.status if step.status >= 400 else 502,
        step.message,
        error_type=step.error_type,
        metadata=step.metadata or {"provider_name": shapes.PROVIDER},
        availability=step.availability,
    )


def _merge_headers(headers: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    replaced = {name.lower() for name in more}
    others = {name: value for name, value in headers.items() if name.lower() not in replaced}
    return others | dict(more)
