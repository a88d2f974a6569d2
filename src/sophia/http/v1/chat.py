"""Chat completions, legacy completions and embeddings: one path for whole and streamed answers."""

from sophia.core.calls import ChunkBatch, Endpoint
from sophia.core.failures import UpstreamFailure
from sophia.http.app import App, Handler
from sophia.http.v1 import render
from sophia.http.v1.decode import parse_request
from sophia.http.wire import EVENT_STREAM_HEADERS, JSON_HEADERS, HttpRequest, ResponseWriter
from sophia.serving.attempts.answer import Answer
from sophia.serving.pipeline import serve_request
from sophia.serving.request import Request


def build_handler(endpoint: Endpoint) -> Handler:
    """Return the handler of an endpoint that calls a model."""

    async def handle(app: App, incoming: HttpRequest, reply: ResponseWriter) -> None:
        request = read_request(app, incoming, endpoint)
        answer = await serve_request(app.runtime, request)
        try:
            await (_send_stream if request.stream else _send_whole)(answer, reply)
        finally:
            answer.close()

    return handle


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
    try:
        while (batch := await answer.next()) is not None:
            if batch.id is not None:
                last = batch
            if batch.chunks:
                await reply.write(_take_events(batch))
    except UpstreamFailure as failure:
        await reply.write(render.render_stream_error(answer, last, failure))
    else:
        assert answer.outcome is not None, "a complete answer has an outcome"
        await reply.write(render.render_stream_end(answer, last, answer.outcome))
    await reply.end()


def _take_events(batch: ChunkBatch) -> bytes:
    """Return the chunks as events, and leave none, so that a slow reader keeps one copy only."""
    chunks, batch.chunks = batch.chunks, []
    if len(chunks) == 1:
        return b"data: %b\n\n" % chunks[0]
    return b"".join([b"data: %b\n\n" % chunk for chunk in chunks])
