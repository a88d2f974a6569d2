"""The scripted upstream: an OpenRouter on loopback that plays every model and obeys scripts."""

import asyncio
import secrets
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

from sophia.sandbox.api.bill import BilledGeneration, SandboxBill
from sophia.sandbox.api.errors import SandboxError
from sophia.sandbox.api.listing import ListedModel, ModelListing, read_listing
from sophia.sandbox.api.pages import answer_get_request
from sophia.sandbox.api.request import SandboxRequest, parse_body, parse_chat, parse_completion
from sophia.sandbox.control import answer_control_request
from sophia.sandbox.response.connection import ConnectionWriter, RecordedRequest, ServerConnection
from sophia.sandbox.response.generation import SimulatedAnswer
from sophia.sandbox.response.speed import NO_WAIT, find_simulated_speed
from sophia.sandbox.response.writer import ScriptedResponseWriter
from sophia.sandbox.script import ANY_MODEL, NORMAL_STEP, ScriptStep, UpstreamScript
from sophia.sandbox.text.choices import generate_choice
from sophia.sandbox.text.embeddings import build_embeddings
from sophia.sandbox.text.local_model import LocalTextGenerator, StreamingText

MAX_REQUESTS = 2_000
REQUEST_PARSERS: Mapping[str, Callable[[Mapping[str, object]], SandboxRequest]] = {
    "/v1/chat/completions": parse_chat,
    "/v1/completions": parse_completion,
}


@dataclass(kw_only=True, eq=False)
class ScriptedUpstream:
    """A sandbox, served inside `async with ScriptedUpstream() as up:` at `up.base_url`.

    Args:
        models: bodies as in OpenRouter's `GET /models`; by default the snapshot that Sophia ships.
        speed: how many times as fast as the real models; 0 never waits.
        tls: serves https.
        local_model: a real small model that writes the plain text.
    """

    models: Sequence[Mapping[str, object]] | ModelListing | None = None
    host: str = "127.0.0.1"
    port: int = 0
    speed: float = 0.0
    tls: ssl.SSLContext | None = None
    local_model: LocalTextGenerator | None = None

    def __post_init__(self) -> None:
        self.bill = SandboxBill()
        self.requests: deque[RecordedRequest] = deque(maxlen=MAX_REQUESTS)
        self.scripts = UpstreamScript()
        models = read_listing() if self.models is None else self.models
        self._listing = models if isinstance(models, ModelListing) else ModelListing(models)
        self._connections: set[ServerConnection] = set()
        self._numbers = count(1)
        self._nonce = secrets.token_hex(4)

    async def __aenter__(self) -> "ScriptedUpstream":
        self._server = await asyncio.get_running_loop().create_server(
            lambda: ServerConnection(self._serve, self._connections),
            self.host,
            self.port,
            ssl=self.tls,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        for connection in tuple(self._connections):
            connection.transport.abort()
        # Two turns of the loop: one for the connections to be lost, one for their tasks to end.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    @property
    def base_url(self) -> str:
        """The base URL for OpenRouter clients."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}/api/v1"

    def script(self, model: str, *steps: ScriptStep, times: int | None = 1) -> None:
        """Let `model` play `steps` after earlier ones, `times` times, or for ever if that is None.

        `*` is every model without a script of its own; a path such as `/v1/models` is a GET of it.
        Raises ValueError if there are no steps or `times` is below 1.
        """
        self.scripts.add(model, *steps, times=times)

    async def _serve(self, wire: ConnectionWriter, recorded: RecordedRequest) -> None:
        path = recorded.path.removeprefix("/api")
        plain = ScriptedResponseWriter(wire, NORMAL_STEP)
        try:
            if path.startswith("/sandbox/"):
                body = answer_control_request(recorded, self.scripts, self.bill, self.requests)
                return await plain.send_body(body)
            self.requests.append(recorded)
            scheme, _, key = recorded.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not key.strip():
                raise SandboxError(401, "No auth credentials found")
            if recorded.method == "POST" and path in REQUEST_PARSERS:
                request = REQUEST_PARSERS[path](parse_body(recorded.body))
                return await self._serve_completion(wire, recorded, request)
            if recorded.method == "POST" and path == "/v1/embeddings":
                return await self._serve_embeddings(wire, recorded)
            if recorded.method == "GET":
                return await self._serve_page(wire, path, recorded.query)
            raise SandboxError(404, f"No route {recorded.method} {recorded.path}")
        except SandboxError as error:
            await plain.send_error(error)

    async def _serve_completion(
        self, wire: ConnectionWriter, recorded: RecordedRequest, request: SandboxRequest
    ) -> None:
        model, step = self._choose_model(request)
        recorded.model = model.id
        generation = SimulatedAnswer(
            id=self._generation_id(),
            created=int(time.time()),
            model=model,
            request=request,
            choices=[generate_choice(request, model, step, index) for index in range(request.n)],
            speed=find_simulated_speed(model.id).scaled(self.speed),
            on_complete=self._book,
        )
        writer = ScriptedResponseWriter(wire, step, generation.id)
        if await writer.replace_answer():
            return
        stream = await self._attach_local_text(generation) if step.text is None else None
        send = writer.send_stream if request.stream else writer.send_whole
        try:
            await send(generation)
        except asyncio.CancelledError:
            self._book(generation, aborted=True)
            raise
        finally:
            self._book(generation)
            if stream is not None:
                await stream.close()

    def _choose_model(self, request: SandboxRequest) -> tuple[ListedModel, ScriptStep]:
        """Return the first of the models that does not refuse, and its step.

        The answer to the last model is final: its error is raised, or returned as its step.
        """
        errors: list[dict[str, object]] = []
        for left, name in zip(range(len(request.models))[::-1], request.models, strict=True):
            try:
                model = self._listing.find(name)
                request.check(model)
                step = self.scripts.next(name, ANY_MODEL)
            except SandboxError as error:
                if not left:
                    raise
                errors.append({"provider": None, "code": error.status, "status": error.error_type})
                continue
            if not left or not step.is_error:
                if errors and step.is_error:
                    step = replace(step, metadata={**step.metadata, "previous_errors": errors})
                return model, step
            errors.append({"provider": "Sandbox", "code": step.status, "status": step.error_type})
        raise SandboxError(400, "No models provided")

    async def _attach_local_text(self, generation: SimulatedAnswer) -> StreamingText | None:
        """Let the local model write the text, if there is one and plain text is enough."""
        choice, request = generation.choices[0], generation.request
        needs_template = request.n > 1 or request.schema is not None or choice.tool_calls
        if self.local_model is None or needs_template:
            return None
        stream = await self.local_model.generate(request)
        if stream is not None:
            generation.choices = [replace(choice, text=(), streaming_text=stream)]
            generation.speed = NO_WAIT
        return stream

    def _book(self, generation: SimulatedAnswer, *, aborted: bool = False) -> None:
        """Book `generation` once: a whole answer in full, one without output or end for nothing."""
        if generation.settled:
            return
        generation.settled = True
        request, model = generation.request, generation.model
        if aborted and not request.stream:
            planned = sum(choice.tokens for choice in generation.choices)
            generation.completion_tokens = max(generation.completion_tokens, planned)
        output, reason = generation.completion_tokens, generation.finish_reasons.get(0)
        self.bill.book(
            BilledGeneration(
                generation_id=generation.id,
                model=model.id,
                prompt_tokens=request.prompt_tokens,
                completion_tokens=output,
                reasoning_tokens=generation.reasoning_tokens,
                cost=model.cost(request.prompt_tokens, output) if output or reason else 0,
                aborted=aborted,
                streamed=request.stream,
                finish_reason=reason,
                created=generation.created,
            )
        )

    async def _serve_embeddings(self, wire: ConnectionWriter, recorded: RecordedRequest) -> None:
        body = parse_body(recorded.body)
        model = self._listing.find_embedding_model(str(body.get("model")))
        recorded.model = model.id
        generation_id = self._generation_id()
        writer = ScriptedResponseWriter(wire, self.scripts.next(model.id, ANY_MODEL), generation_id)
        if await writer.replace_answer():
            return
        answer, tokens = build_embeddings(body, model)
        self.bill.book(
            BilledGeneration(
                generation_id=generation_id,
                model=model.id,
                prompt_tokens=tokens,
                cost=model.cost(tokens, 0),
                finish_reason="stop",
                created=int(time.time()),
            )
        )
        await writer.send_body(answer)

    async def _serve_page(self, wire: ConnectionWriter, path: str, query: str) -> None:
        writer = ScriptedResponseWriter(wire, self.scripts.next(path))
        if not await writer.replace_answer():
            await writer.send_body(answer_get_request(path, query, self._listing, self.bill))

    def _generation_id(self) -> str:
        return f"gen-{int(time.time())}-{self._nonce}{next(self._numbers):08d}"
