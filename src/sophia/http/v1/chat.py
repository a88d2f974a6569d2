"""Chat completions, legacy completions and embeddings: one path for whole and streamed answers."""

from collections.abc import Awaitable, Callable

from sophia.core.calls import Endpoint
from sophia.core.failures import UpstreamFailure
from sophia.http.front import Front
from sophia.http.v1 import decode, render
from sophia.http.wire import EVENTS, JSON, Headers, Incoming, Reply
from sophia.serving.answer import Answer
from sophia.serving.pipeline import serve
from sophia.serving.request import Request
from sophia.tenants.keys import Principal

Reader = Callable[[bytes, Headers], decode.Understood]


def chat(front: Front, incoming: Incoming, reply: Reply) -> Awaitable[None]:
    """Answer `POST /v1/chat/completions`."""
    return _complete(front, incoming, reply, "chat/completions", decode.chat)


def completions(front: Front, incoming: Incoming, reply: Reply) -> Awaitable[None]:
    """Answer `POST /v1/completions`."""
    return _complete(front, incoming, reply, "completions", decode.completion)


def embeddings(front: Front, incoming: Incoming, reply: Reply) -> Awaitable[None]:
    """Answer `POST /v1/embeddings`."""
    return _complete(front, incoming, reply, "embeddings", decode.embedding)


async def _complete(
    front: Front, incoming: Incoming, reply: Reply, endpoint: Endpoint, read: Reader
) -> None:
    arrived = front.desk.books.clock.monotonic()
    principal = await front.principal(incoming)
    understood = read(incoming.body, incoming.headers)
    request = as_request(front, understood, endpoint, principal, arrived)
    answer = await serve(front.desk, request)
    try:
        await (_stream if request.stream else _whole)(answer, reply)
    finally:
        answer.close()


def as_request(
    front: Front,
    understood: decode.Understood,
    endpoint: Endpoint,
    principal: Principal,
    arrived: float,
) -> Request:
    """Return what serving is asked."""
    return Request(front.ids.next(), endpoint, principal, arrived, *understood)


async def _whole(answer: Answer, reply: Reply) -> None:
    body = b""
    while (piece := await answer.next()) is not None:
        body = piece.chunks[0] if piece.chunks else body
    outcome = answer.outcome
    if outcome is None:
        raise RuntimeError("a complete answer has an outcome")
    body = render.whole(answer, body, outcome)
    await reply.whole(200, JSON + render.headers(answer, outcome), body)


async def _stream(answer: Answer, reply: Reply) -> None:
    head = render.ChunkHead(answer)
    await reply.begin(200, EVENTS + render.headers(answer, answer.outcome))
    try:
        while (piece := await answer.next()) is not None:
            if piece.id is not None:
                head.id = piece.id
                head.model = piece.model or head.model
                head.created = piece.created or head.created
                head.provider = piece.provider
            chunks = piece.chunks
            if len(chunks) == 1:
                await reply.write(b"data: %b\n\n" % chunks[0])
            elif chunks:
                await reply.write(b"".join([b"data: %b\n\n" % chunk for chunk in chunks]))
    except UpstreamFailure as failure:
        await reply.write(render.broken(answer, head, failure))
    else:
        outcome = answer.outcome
        if outcome is not None:
            await reply.write(render.closing(answer, head, outcome))
    await reply.end()
