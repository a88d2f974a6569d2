"""Chat completions, legacy completions and embeddings: one path for whole and streamed answers."""

import asyncio
from collections.abc import Awaitable

from msgspec import structs

from sophia.core.calls import ChunkBatch, Endpoint
from sophia.core.errors import SophiaError
from sophia.core.failures import UpstreamFailure
from sophia.core.ids import encode_id
from sophia.http.app import App, Handler
from sophia.http.errors import send_error
from sophia.http.shorten import drop_middle_turns
from sophia.http.v1 import render
from sophia.http.v1.decode import parse_request
from sophia.http.wire import EVENT_STREAM_HEADERS, JSON_HEADERS, HttpRequest, ResponseWriter
from sophia.routing.features.extract import extract_features
from sophia.serving.attempts.answer import Answer
from sophia.serving.pipeline import serve_request
from sophia.serving.request import Request

CONTEXT_PERCENT = 90
"""Part of a context that a shortened conversation and its answer may fill, as estimates err."""
KEEP_ALIVE_SECONDS = 15.0
"""Time without content after which a stream gets a comment."""


def build_handler(endpoint: Endpoint) -> Handler:
    """Return the handler of an endpoint that calls a model."""

    def handle(app: App, incoming: HttpRequest, reply: ResponseWriter) -> Awaitable[object]:
        request = read_request(app, incoming, endpoint)
        if request.hints.on_too_long == "middle_out" and endpoint == "chat/completions":
            request = _shorten(app, incoming, request)
        key = incoming.fields.get(b"idempotency-key")
        if key is None:
            return _answer(app, request, reply)

        async def run(recording: ResponseWriter) -> bool:
            try:
                return await _answer(app, request, recording)
            except SophiaError as error:
                await send_error(recording, error, encode_id("req", request.id))
                return True
            except asyncio.CancelledError:
                if not app.runtime.interrupted:
                    raise
                await send_error(recording, app.shutting_down(), encode_id("req", request.id))
                return False

        owner = request.principal.key_id
        return app.idempotent_answers.answer(owner, key, incoming, run, reply)

    return handle


async def _answer(app: App, request: Request, reply: ResponseWriter) -> bool:
    """Serve a request; return whether its answer is complete."""
    admission, key_id = app.runtime.admission, request.principal.key_id
    admission.enter(key_id)
    try:
        answer = await serve_request(app.runtime, request)
        try:
            await (_send_stream if request.stream else _send_whole)(answer, reply)
        finally:
            answer.close()
    finally:
        admission.leave(key_id)
    return answer.outcome is not None and answer.outcome.failure is None


def _shorten(app: App, incoming: HttpRequest, request: Request) -> Request:
    """Return a request that fits into the longest context it may use, as its warning says."""
    knowledge = app.runtime.knowledge
    names = request.hints.models or (request.model,)
    named = [model for name in names if (model := knowledge.find(name)) is not None]
    models = named or [each.model for each in knowledge.pool.models]
    window = max(model.context_length for model in models)
    features = extract_features(request.prompt, request.hints)
    room = window * CONTEXT_PERCENT // 100 - features.output_tokens
    if features.prompt_tokens <= room or (found := drop_middle_turns(incoming.body, room)) is None:
        return request
    body, dropped = found
    shorter = parse_request(
        request.endpoint,
        structs.replace(incoming, body=body),
        request.id,
        request.principal,
        request.arrived_at,
        knowledge.resolve_alias,
    )
    warning = f"{dropped} messages in the middle were left out to fit a context of {window:,}."
    return structs.replace(shorter, warning=warning)


def read_request(app: App, incoming: HttpRequest, endpoint: Endpoint) -> Request:
    """Parse a request. Raises SophiaError."""
    arrived_at = app.runtime.ledger.clock.monotonic()
    principal = incoming.require_principal()
    return parse_request(
        endpoint,
        incoming,
        app.ids.next(),
        principal,
        arrived_at,
        app.runtime.knowledge.resolve_alias,
    )


async def _send_whole(answer: Answer, reply: ResponseWriter) -> None:
    body = b""
    while (batch := await answer.next()) is not None:
        body = batch.chunks[0] if batch.chunks else body
    outcome = answer.outcome
    assert outcome is not None, "a complete answer has an outcome"
    body = render.render_answer(answer, body, outcome)
    await reply.send(200, JSON_HEADERS + render.render_headers(answer, outcome), body)


async def _send_stream(answer: Answer, reply: ResponseWriter) -> None:
    last = ChunkBatch(chunks=[])
    await reply.begin(200, EVENT_STREAM_HEADERS + render.render_headers(answer, answer.outcome))
    keep_alive = _KeepAlive(reply)
    try:
        while (batch := await answer.next()) is not None:
            if batch.id is not None:
                last = batch
            if batch.chunks:
                await reply.write(_take_events(batch))
            keep_alive.has_written = True
    except UpstreamFailure as failure:
        await reply.write(render.render_stream_error(answer, last, failure))
    except asyncio.CancelledError:
        if not answer.record.dependencies.interrupted:
            raise
        answer.close()
        await reply.write(render.render_stream_interruption(answer, last))
    else:
        assert answer.outcome is not None, "a complete answer has an outcome"
        await reply.write(render.render_stream_end(answer, last, answer.outcome))
    finally:
        keep_alive.stop()
    await reply.end()


class _KeepAlive:
    """Comments on a stream while the upstream is silent, so that no proxy takes it for dead."""

    def __init__(self, reply: ResponseWriter) -> None:
        self.has_written = False
        self._reply = reply
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(KEEP_ALIVE_SECONDS, self._check)

    def _check(self) -> None:
        loop = asyncio.get_running_loop()
        if not self.has_written and (self._task is None or self._task.done()):
            self._task = loop.create_task(self._reply.write(b": keep-alive\n\n"))
        self.has_written = False
        self._timer = loop.call_later(KEEP_ALIVE_SECONDS, self._check)

    def stop(self) -> None:
        """Write no more comments."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()


def _take_events(batch: ChunkBatch) -> bytes:
    """Return the chunks as events, and leave none, so that a slow reader keeps one copy only."""
    chunks, batch.chunks = batch.chunks, []
    if len(chunks) == 1:
        return b"data: %b\n\n" % chunks[0]
    return b"".join([b"data: %b\n\n" % chunk for chunk in chunks])
