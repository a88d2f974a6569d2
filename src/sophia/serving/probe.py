"""Ask models the questions of a pack, each a request of its own: held, dispatched and settled."""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct, json
from msgspec.structs import replace

from sophia.catalogue.model import Model
from sophia.core.calls import Fields
from sophia.core.errors import SophiaError
from sophia.core.failures import UpstreamFailure
from sophia.core.ids import Ids, aside
from sophia.learning.probes import Call, Probe, is_right
from sophia.routing.named import plan_named
from sophia.routing.nouns import Hints, Plan, Prompt
from sophia.routing.request import Limits
from sophia.serving.answer import Answer, Record
from sophia.serving.checks import Said, choices
from sophia.serving.decide import Decision
from sophia.serving.desk import Desk
from sophia.serving.request import Request
from sophia.serving.tab import Payer
from sophia.serving.walk import walk
from sophia.tenants.keys import Principal

PURSE = "sophia:probe"
"""The account of all probing; its name is no key's."""
ANSWER_TOKENS = 2048
"""Room for models that think before they answer; whoever needs more has not answered."""
AT_ONCE = 4
_MOST_BYTES = 1024 * 1024


class Errand(Struct, frozen=True):
    """One probe for one model, planned and priced; `request` is what is sent."""

    model: str
    probe: Probe
    plan: Plan
    request: Request

    @property
    def expected_nano(self) -> int:
        """What it is expected to cost, in nano-dollars."""
        return self.plan.attempts[0].expected_nano

    @property
    def held_nano(self) -> int:
        """The most that it can cost, in nano-dollars."""
        return self.plan.attempts[0].held_nano


class Marked(Struct, frozen=True):
    """What became of an errand: whether the answer is right, None without one; why not, and cost.

    `cost_nano` is in nano-dollars.
    """

    model: str
    probe: str
    right: bool | None
    problem: str = ""
    cost_nano: int = 0


def errands(
    desk: Desk, models: Sequence[Model], probes: Sequence[Probe], ids: Ids, today: str
) -> list[Errand]:
    """Return what is to be asked, probe by probe, so that pairs are complete however far it comes.

    Raises SophiaError when a model cannot be asked: it takes no tools, or its price is not known.
    """
    made = []
    for probe in probes:
        for model in models:
            fields, prompt = _asked(probe)
            limits = Limits(None, None, 1, desk.limits.price_headroom)
            plan = plan_named(model, prompt, limits, today=today, seat_of=desk.knowledge.seat)
            request = Request(
                aside(ids.next()),
                "chat/completions",
                Principal(PURSE, PURSE, "inference", None, None),
                desk.books.clock.monotonic(),
                model.id,
                (),
                False,
                fields,
                prompt,
                Hints(),
            )
            made.append(Errand(model.id, probe, plan, request))
    return made


async def ask(
    desk: Desk, payer: Payer, made: Iterable[Errand], hear: Callable[[Marked], None]
) -> list[Marked]:
    """Ask all errands, a few at once; `hear` is told of each as it ends."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(errand: Errand) -> Marked:
        async with turns:
            marked = await _mark(desk, payer, errand)
        hear(marked)
        return marked

    return list(await asyncio.gather(*map(one, made)))


async def _mark(desk: Desk, payer: Payer, errand: Errand) -> Marked:
    request = _now(errand.request, desk)
    record = Record(desk, request, Decision(errand.plan, {}))
    right, problem = None, ""
    try:
        answer = await walk(desk, record, payer)
        right, problem = await _read(answer, errand.probe)
    except SophiaError as error:
        problem = error.message
    return Marked(errand.model, errand.probe.id, right, problem, record.cost_nano)


async def _read(answer: Answer, probe: Probe) -> tuple[bool | None, str]:
    try:
        whole = await answer.hold(_MOST_BYTES)
        said = choices(chunk for piece in answer.held for chunk in piece.chunks)
        while whole and await answer.next() is not None:
            pass
    except UpstreamFailure as failure:
        return None, failure.message
    finally:
        answer.close()
    if not whole or not said:
        return None, "the answer was no answer"
    if said[0].finish == "length":
        return None, f"the answer was longer than {ANSWER_TOKENS:,} tokens"
    return is_right(probe.check, said[0].text, _calls(said[0])), ""


def _calls(said: Said) -> list[Call]:
    return [Call(call.name, call.arguments) for call in said.calls]


def _now(request: Request, desk: Desk) -> Request:
    """Return the request as if it arrived now: it may have waited for its turn."""
    return replace(request, arrived=desk.books.clock.monotonic())


def _asked(probe: Probe) -> tuple[Fields, Prompt]:
    text = probe.prompt
    fields: dict[str, object] = {
        "messages": [{"role": "user", "content": text}],
        "max_tokens": ANSWER_TOKENS,
        "temperature": 0,
    }
    tool = probe.tool
    if tool is not None:
        function = {
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters,
        }
        fields["tools"] = [{"type": "function", "function": function}]
    size = len(json.encode(fields))
    prompt = Prompt(
        text,
        chars=len(text),
        utf8_bytes=len(text.encode()),
        tools=int(tool is not None),
        max_tokens=ANSWER_TOKENS,
        body_bytes=size,
    )
    return fields, prompt
