"""Probe requests: packaged questions, each reserved, dispatched and settled like any request."""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct, json
from msgspec.structs import replace

from sophia.catalogue.model import Model
from sophia.core.calls import Fields
from sophia.core.errors import SophiaError
from sophia.core.failures import UpstreamFailure
from sophia.core.ids import IdGenerator
from sophia.learning.priors.probes import Probe, ProbeToolCall, is_probe_answer_correct
from sophia.routing.plan import plan_named
from sophia.routing.request import KeyLimits
from sophia.routing.types import Attempt, Hints, Prompt
from sophia.serving.attempts.answer import Answer, RequestRecord
from sophia.serving.attempts.choices import parse_choices
from sophia.serving.attempts.failover import run_attempts
from sophia.serving.attempts.reservation import BudgetScope
from sophia.serving.request import Decision, Request
from sophia.serving.runtime import Runtime
from sophia.tenants.keys import Principal

PROBE_ACCOUNT = "sophia:probe"
"""Account of all probes; no key has this id."""
MAX_ANSWER_TOKENS = 2048
"""Room for models that reason before they answer; a longer answer counts as none."""
MAX_CONCURRENT = 4
_MAX_BYTES = 1024 * 1024


class ProbeCall(Struct, frozen=True):
    """One probe of one model, planned and priced."""

    probe: Probe
    record: RequestRecord

    @property
    def attempt(self) -> Attempt:
        """The one attempt, with its cost."""
        return self.record.decision.plan.attempts[0]


class ProbeOutcome(Struct, frozen=True, kw_only=True):
    """Result of a probe call; `correct` is None without an answer."""

    model: str
    probe: str
    correct: bool | None
    problem: str
    cost_nano: int


def build_probe_calls(
    runtime: Runtime, models: Sequence[Model], probes: Sequence[Probe]
) -> list[ProbeCall]:
    """Return the calls, probe by probe, so that a run that stops early has complete pairs.

    Raises SophiaError when a model takes no tools, or its price is not known.
    """
    ledger, knowledge = runtime.ledger, runtime.knowledge
    ids = IdGenerator(lambda: int(ledger.clock.wall() * 1000), ledger.store.worker)
    limits = KeyLimits(per_request_nano=None, price_margin=runtime.limits.price_margin)
    principal = Principal(
        key_id=PROBE_ACCOUNT,
        name=PROBE_ACCOUNT,
        scope="inference",
        daily_budget_nano=None,
        per_request_nano=None,
    )
    calls = []
    for probe in probes:
        fields, prompt = _build_fields(probe)
        for model in models:
            plan = plan_named([knowledge.pool_model(model)], prompt, limits, today=ledger.window())
            request = Request(
                id=ids.next(),
                endpoint="chat/completions",
                principal=principal,
                arrived_at=ledger.clock.monotonic(),
                model=model.id,
                fallback_models=(),
                stream=False,
                fields=fields,
                prompt=prompt,
                hints=Hints(),
            )
            record = RequestRecord(runtime, knowledge, request, Decision(plan, {}))
            calls.append(ProbeCall(probe, record))
    return calls


async def run_probe_calls(
    scope: BudgetScope, calls: Iterable[ProbeCall], on_result: Callable[[ProbeOutcome], None]
) -> list[ProbeOutcome]:
    """Run all calls, a few at a time; `on_result` is called after each."""
    slots = asyncio.Semaphore(MAX_CONCURRENT)

    async def run(call: ProbeCall) -> ProbeOutcome:
        async with slots:
            outcome = await _run_probe_call(scope, call)
        on_result(outcome)
        return outcome

    return list(await asyncio.gather(*map(run, calls)))


async def _run_probe_call(scope: BudgetScope, call: ProbeCall) -> ProbeOutcome:
    record = call.record
    # The call may have waited for its turn.
    now = record.dependencies.ledger.clock.monotonic()
    record.request = replace(record.request, arrived_at=now)
    correct, problem = None, ""
    try:
        answer = await run_attempts(record, scope, (call.attempt,))
        correct, problem = await _grade(answer, call.probe)
    except (SophiaError, UpstreamFailure) as error:
        problem = error.message
    return ProbeOutcome(
        model=call.attempt.model,
        probe=call.probe.id,
        correct=correct,
        problem=problem,
        cost_nano=record.cost_nano,
    )


async def _grade(answer: Answer, probe: Probe) -> tuple[bool | None, str]:
    """Return whether an answer is right, or the problem. Raises UpstreamFailure."""
    try:
        whole = await answer.buffer(_MAX_BYTES)
        choices = parse_choices(answer.buffered_chunks)
        while whole and await answer.next() is not None:
            pass
    finally:
        answer.close()
    if not whole or not choices:
        return None, "the answer was empty or too long"
    choice = choices[0]
    if choice.finish_reason == "length":
        return None, f"the answer was longer than {MAX_ANSWER_TOKENS:,} tokens"
    calls = [ProbeToolCall(call.name, call.arguments) for call in choice.tool_calls]
    return is_probe_answer_correct(probe.check, choice.text, calls), ""


def _build_fields(probe: Probe) -> tuple[Fields, Prompt]:
    text, tool = probe.prompt, probe.tool
    fields: dict[str, object] = {
        "messages": [{"role": "user", "content": text}],
        "max_tokens": MAX_ANSWER_TOKENS,
        "temperature": 0,
    }
    if tool is not None:
        fields["tools"] = [{"type": "function", "function": tool}]
    prompt = Prompt(
        text=text,
        chars=len(text),
        utf8_bytes=len(text.encode()),
        tools=int(tool is not None),
        max_tokens=MAX_ANSWER_TOKENS,
        body_bytes=len(json.encode(fields)),
    )
    return fields, prompt
