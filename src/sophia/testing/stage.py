"""Performs a reply on the wire, whole or streamed, with the faults that its step asks for."""

import asyncio
from collections.abc import Mapping

import msgspec

from sophia.testing import shapes
from sophia.testing.refusal import ERROR_TYPES, Refusal
from sophia.testing.reply import Delta, Reply
from sophia.testing.script import Step
from sophia.testing.shapes import Json
from sophia.testing.wire import Wire

JSON_TYPE = "application/json"
PROCESSING = b": OPENROUTER PROCESSING\n\n"
MALFORMED = b'data: {"id":"gen-broken","choices":[{"index":0,"delta":{"con\n\n'
BAD_CHUNK = b"zz\r\nnot a chunk\r\n"


class Stage:
    """The one place where an answer is written. `headers` go out with every answer."""

    def __init__(self, wire: Wire, step: Step, headers: Mapping[str, str]) -> None:
        self._wire = wire
        self._step = step
        self._headers = headers

    async def spoils(self) -> bool:
        """Do what the step wants in place of an answer; say whether that was all.

        Raises:
            Ended: the connection was broken.
        """
        step, wire = self._step, self._wire
        wire.dribble = step.dribble
        await asyncio.sleep(step.delay)
        if step.raw is not None:
            await self._raw()
        match step.no_answer:
            case "close":
                await wire.cut()
            case "reset":
                await wire.reset()
            case "hang":
                await wire.hang()
        if step.body is not None:
            data = step.body if isinstance(step.body, bytes) else _encode(step.body)
            await self._whole(step.status, data)
        elif step.refuses:
            await self.refuse(refusal_of(step))
        return step.body is not None or step.refuses

    async def say(self, body: Json) -> None:
        """Answer with `body`."""
        data = self._step.leading + _encode(shapes.bend(body, self._step))
        await self._whole(self._step.status, data)

    async def refuse(self, refusal: Refusal) -> None:
        """Answer with an error."""
        await self._whole(refusal.status, _encode(refusal.body()))

    async def whole(self, reply: Reply) -> None:
        """Answer with everything at once."""
        voices = [_Voice() for _ in reply.speeches]
        async for delta in reply.deltas():
            voices[delta.index].add(delta)
        choices = [self._choice(reply, index, voice) for index, voice in enumerate(voices)]
        body = shapes.bend(reply.envelope.whole(choices, reply.usage()), self._step)
        await self._whole(200, self._step.leading + _encode(body))

    async def stream(self, reply: Reply) -> None:
        """Answer with a stream of events."""
        step, wire = self._step, self._wire
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        await wire.open(200, _merged({**headers, **self._headers}, step.headers))
        await wire.chunk(PROCESSING)
        count = 0
        async for delta in reply.deltas():
            if count == 0:
                await self._open_choices(reply)
            await asyncio.sleep(step.first_delay if count == 0 else step.chunk_delay)
            if await self._fault(reply, count):
                return await wire.end()
            await self._event(reply, [self._chunk_choice(reply, delta)])
            count += 1
        if count == 0:
            await self._open_choices(reply)
        if await self._fault(reply, count):
            return await wire.end()
        await self._close(reply)
        return await wire.end()

    async def _open_choices(self, reply: Reply) -> None:
        if not reply.asked.legacy:
            for index in range(len(reply.speeches)):
                delta = Delta(index, {"role": "assistant", "content": ""})
                await self._event(reply, [self._chunk_choice(reply, delta)])

    async def _close(self, reply: Reply) -> None:
        step = self._step
        for index, reason in reply.finish_reasons.items():
            choice = self._chunk_choice(reply, Delta(index, {"content": ""}), reason)
            for _ in range(2 if step.double_finish else 1):
                await self._event(reply, [choice])
        if not step.no_usage:
            empty = (
                [self._chunk_choice(reply, Delta(0, {"content": ""}))] if step.usage_choice else []
            )
            body = reply.envelope.chunk(empty, reply.usage())
            await self._wire.chunk(shapes.event(shapes.bend(body, step)))
        if not step.no_done:
            await self._wire.chunk(b"data: [DONE]\n\n")

    async def _fault(self, reply: Reply, count: int) -> bool:
        """Do what the step wants to go wrong at event `count`; say whether the stream is over."""
        step, wire = self._step, self._wire
        if step.malformed_at == count:
            await wire.chunk(MALFORMED)
        await self._break(count)
        if step.bad_chunk_at == count:
            await wire.send(BAD_CHUNK)
            await wire.cut()
        if step.comments_after == count:
            while True:
                await wire.chunk(PROCESSING)
                await asyncio.sleep(step.comment_every)
        if step.error_at == count:
            await self._error_event(reply)
            return True
        return False

    async def _break(self, count: int) -> None:
        step, wire = self._step, self._wire
        if step.cut_after == count:
            await wire.cut()
        if step.reset_after == count:
            await wire.reset()
        if step.stall_after == count:
            await wire.hang()

    async def _error_event(self, reply: Reply) -> None:
        choice = self._chunk_choice(reply, Delta(0, {"content": ""}))
        choice |= {"finish_reason": "error", "native_finish_reason": "error"}
        body = reply.envelope.chunk([choice] if self._step.error_choices else [])
        body |= refusal_of(self._step).body()
        await self._wire.chunk(shapes.event(body))

    async def _event(self, reply: Reply, choices: list[Json]) -> None:
        body = shapes.bend(reply.envelope.chunk(choices), self._step)
        await self._wire.chunk(shapes.event(body))

    def _chunk_choice(self, reply: Reply, delta: Delta, reason: str | None = None) -> Json:
        says: Json = {"delta": delta.fields}
        if reply.asked.legacy:
            says = {"text": delta.fields.get("content") or ""}
        top = reply.asked.top_logprobs
        marks = None if top is None or delta.token is None else shapes.logprobs([delta.token], top)
        return {
            "index": delta.index,
            **says,
            **shapes.finish(reason, self._step),
            "logprobs": marks,
        }

    def _choice(self, reply: Reply, index: int, voice: "_Voice") -> Json:
        top = reply.asked.top_logprobs
        marks = None if top is None else shapes.logprobs(voice.tokens, top)
        says: Json = {"message": voice.message()}
        if reply.asked.legacy:
            says = {"text": "".join(voice.tokens)}
        end = shapes.finish(reply.finish_reasons[index], self._step)
        return {"index": index, **says, **end, "logprobs": marks}

    async def _whole(self, status: int, data: bytes) -> None:
        step = self._step
        headers = {"Content-Type": JSON_TYPE, **self._headers}
        if step.retry_after is not None:
            headers["Retry-After"] = step.retry_after
        if step.content_length is not None:
            headers["Content-Length"] = str(step.content_length)
        headers = _merged(headers, step.headers)
        ends = [at for at in (step.cut_after, step.reset_after, step.stall_after) if at is not None]
        if not ends or status >= 400:
            await self._wire.answer(status, headers, data)
            if step.content_length is not None:
                await self._wire.cut()
            return
        headers = {"Content-Length": str(len(data)), **headers}
        await self._wire.partial(status, headers, data[: min(ends)])
        await self._break(min(ends))

    async def _raw(self) -> None:
        for item in self._step.raw or ():
            match item:
                case bytes():
                    await self._wire.send(item)
                case "rst":
                    await self._wire.reset()
                case "fin":
                    await self._wire.cut()
                case "half_close":
                    await self._wire.half_close()
                case (_, seconds):
                    await asyncio.sleep(seconds)
        await self._wire.cut()


class _Voice:
    """Folds the deltas of one choice into a message."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[Json] = []
        self._arguments: list[list[str]] = []

    def add(self, delta: Delta) -> None:
        if delta.token is not None:
            self.tokens.append(delta.token)
        if isinstance(thought := delta.fields.get("reasoning"), str):
            self._thoughts.append(thought)
        calls = delta.fields.get("tool_calls")
        for call in calls if isinstance(calls, list) else []:
            if "id" in call:
                self._calls.append(call)
                self._arguments.append([])
            self._arguments[-1].append(call["function"]["arguments"])

    def message(self) -> Json:
        content = None if self._calls else "".join(self.tokens)
        message: Json = {"role": "assistant", "content": content, "refusal": None}
        if self._thoughts:
            message |= shapes.reasoning("".join(self._thoughts))
        if self._calls:
            message["tool_calls"] = [
                {**call, "function": {**_function(call), "arguments": "".join(pieces)}}
                for call, pieces in zip(self._calls, self._arguments, strict=True)
            ]
        return message


def refusal_of(step: Step) -> Refusal:
    """Return the error that a step describes; a status that is no error becomes 502."""
    status = step.status if step.status >= 400 else 502
    kind = step.error_type or ERROR_TYPES.get(status)
    metadata = step.metadata or {"provider_name": shapes.PROVIDER}
    return Refusal(status, kind, step.message, metadata=metadata, availability=step.availability)


def _merged(headers: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    replaced = {name.lower() for name in more}
    return {name: value for name, value in headers.items() if name.lower() not in replaced} | dict(
        more
    )


def _function(call: Json) -> Mapping[str, object]:
    function = call["function"]
    return function if isinstance(function, dict) else {}


def _encode(body: object) -> bytes:
    return body.encode() if isinstance(body, str) else msgspec.json.encode(body)
