"""The scripted upstream: an OpenRouter on loopback that plays every model and obeys scripts."""

import asyncio
import secrets
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from sophia.testing import pages
from sophia.testing.asked import Asked, read_body, read_chat, read_legacy
from sophia.testing.bill import Bill, BillRow
from sophia.testing.control import control
from sophia.testing.listing import Listed, Listing, read_listing
from sophia.testing.local import Live, LocalText
from sophia.testing.pace import NO_WAIT, Pace, pace_of
from sophia.testing.refusal import Refusal
from sophia.testing.reply import Reply
from sophia.testing.script import GOOD, Script, Step
from sophia.testing.speech import compose
from sophia.testing.stage import Stage
from sophia.testing.wire import Connection, Seen, Wire, listen

MAX_REQUESTS = 2_000
READERS: Mapping[str, Callable[[Mapping[str, object]], Asked]] = {
    "/v1/chat/completions": read_chat,
    "/v1/completions": read_legacy,
}


@dataclass(kw_only=True, eq=False)
class ScriptedUpstream:
    """A sandbox to use as `async with ScriptedUpstream() as up:`; then ask `up.base_url`.

    Args:
        models: bodies as in OpenRouter's `GET /models`; by default the snapshot that Sophia ships.
        key: the only key that is accepted; None accepts any.
        speed: how many times as fast as the real models; 0 never waits.
        paces: paces by name pattern that go before the usual ones.
        tls: serves https.
        local: a real small model that writes the plain text.
        now: wall clock in Unix seconds.
    """

    models: Sequence[Mapping[str, object]] | Listing | None = None
    host: str = "127.0.0.1"
    port: int = 0
    key: str | None = None
    speed: float = 0.0
    paces: Mapping[str, Pace] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    local: LocalText | None = None
    now: Callable[[], float] = time.time
    bill: Bill = field(default_factory=Bill, init=False)
    requests: deque[Seen] = field(default_factory=lambda: deque(maxlen=MAX_REQUESTS), init=False)
    scripts: Script = field(default_factory=Script, init=False)

    def __post_init__(self) -> None:
        given = self.models
        if given is None:
            self.listing = read_listing()
        else:
            self.listing = given if isinstance(given, Listing) else Listing(given)
        self._connections: set[Connection] = set()
        self._numbers = count(1)
        self._nonce = secrets.token_hex(4)

    async def __aenter__(self) -> "ScriptedUpstream":
        self._server = await listen(self._serve, self._connections, self.host, self.port, self.tls)
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
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    @property
    def base_url(self) -> str:
        """What an OpenRouter client takes as its base URL."""
        return f"{self.origin}/api/v1"

    def script(self, model: str, *steps: Step, times: int | None = 1) -> None:
        """Let `model` play `steps` in order after earlier ones, `times` times over, None for ever.

        `*` stands for every model without a script of its own; a path such as `/v1/models` for a
        GET of it.

        Raises:
            ValueError: there are no steps, or `times` is below 1.
        """
        self.scripts.add(model, *steps, times=times)

    async def _serve(self, wire: Wire, seen: Seen) -> None:
        path = seen.path.removeprefix("/api")
        if path.startswith("/sandbox/"):
            return await control(wire, seen, self.scripts, self.bill, self.requests)
        self.requests.append(seen)
        try:
            self._authenticate(seen)
            if seen.method == "POST" and path in READERS:
                return await self._generate(wire, seen, READERS[path](read_body(seen.body)))
            if seen.method == "POST" and path == "/v1/embeddings":
                return await self._embed(wire, seen)
            if seen.method == "GET":
                return await self._page(wire, seen, path)
            raise Refusal(404, "not_found", f"No route {seen.method} {seen.path}")
        except Refusal as refusal:
            await Stage(wire, GOOD, {}).refuse(refusal)

    def _authenticate(self, seen: Seen) -> None:
        scheme, _, key = seen.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise Refusal(401, "authentication", "No auth credentials found")
        if self.key is not None and not secrets.compare_digest(key.strip(), self.key):
            raise Refusal(401, "authentication", "User not found.")

    async def _generate(self, wire: Wire, seen: Seen, asked: Asked) -> None:
        model, step = self._choose(asked)
        seen.model = model.id
        reply = Reply(
            id=self._generation_id(),
            created=int(self.now()),
            model=model,
            asked=asked,
            speeches=[compose(asked, model, step, turn) for turn in range(asked.n)],
            pace=pace_of(model.id, self.paces).scaled(self.speed),
            settle=self._settle,
        )
        stage = Stage(wire, step, {"X-Generation-Id": reply.id})
        if await stage.spoils():
            return
        live = await self._enliven(reply) if step.text is None else None
        try:
            await (stage.stream(reply) if asked.stream else stage.whole(reply))
        except asyncio.CancelledError:
            self._settle(reply, aborted=True)
            raise
        finally:
            self._settle(reply)
            if live is not None:
                await live.close()

    def _choose(self, asked: Asked) -> tuple[Listed, Step]:
        """Return the first of the models that does not refuse, and its step.

        The refusal of the last model is the answer, even when it was scripted: then with its step.
        """
        errors: list[dict[str, object]] = []
        for left, name in zip(range(len(asked.models) - 1, -1, -1), asked.models, strict=True):
            try:
                model = self.listing.find(name)
                asked.check(model)
                step = self.scripts.next(name)
            except Refusal as refusal:
                if not left:
                    raise
                errors.append(
                    {"provider": None, "code": refusal.status, "status": refusal.error_type}
                )
                continue
            if not left or not step.refuses:
                if errors and step.refuses:
                    step = replace(step, metadata={**step.metadata, "previous_errors": errors})
                return model, step
            errors.append({"provider": "Sandbox", "code": step.status, "status": step.error_type})
        raise Refusal(400, "invalid_request", "No models provided")

    async def _enliven(self, reply: Reply) -> Live | None:
        """Let the local model write the text, if there is one and plain text is all it takes."""
        speech = reply.speeches[0]
        asked = reply.asked
        if self.local is None or asked.n > 1 or asked.schema is not None or speech.calls:
            return None
        live = await self.local.speak(asked)
        if live is not None:
            reply.speeches = [replace(speech, text=(), live=live)]
            reply.pace = NO_WAIT
        return live

    def _settle(self, reply: Reply, *, aborted: bool = False) -> None:
        """Book `reply` once: a whole answer in full, one without output or end for nothing."""
        if reply.settled:
            return
        reply.settled = True
        if aborted and not reply.asked.stream:
            reply.completion_tokens = reply.planned_tokens
        output, prompt = reply.completion_tokens, reply.asked.prompt_tokens
        reason = reply.finish_reasons.get(0)
        self.bill.book(
            BillRow(
                generation_id=reply.id,
                model=reply.model.id,
                prompt_tokens=prompt,
                completion_tokens=output,
                reasoning_tokens=reply.reasoning_tokens,
                cost=reply.model.cost(prompt, output) if output or reason else 0,
                aborted=aborted,
                streamed=reply.asked.stream,
                finish_reason=reason,
                created=reply.created,
            )
        )

    async def _embed(self, wire: Wire, seen: Seen) -> None:
        body = read_body(seen.body)
        model = self.listing.find_embedder(str(body.get("model")))
        seen.model = model.id
        step = self.scripts.next(model.id)
        generation_id = self._generation_id()
        stage = Stage(wire, step, {"X-Generation-Id": generation_id})
        if await stage.spoils():
            return
        answer, tokens = pages.embeddings(body, model)
        cost = model.cost(tokens, 0)
        created = int(self.now())
        row = BillRow(generation_id, model.id, tokens, 0, 0, cost, False, False, "stop", created)
        self.bill.book(row)
        await stage.say(answer)

    async def _page(self, wire: Wire, seen: Seen, path: str) -> None:
        step = self.scripts.next_page(path)
        stage = Stage(wire, step, {})
        if await stage.spoils():
            return
        await stage.say(pages.page(path, seen.query, self.listing, self.bill))

    def _generation_id(self) -> str:
        return f"gen-{int(self.now())}-{self._nonce}{next(self._numbers):08d}"
