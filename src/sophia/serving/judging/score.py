"""Score of an answer by a judge model, as one more attempt on its request's bill."""

from collections.abc import Iterator

import msgspec
from msgspec.structs import replace

from sophia.catalogue.model import Model
from sophia.core.calls import Fields
from sophia.core.errors import SophiaError
from sophia.core.failures import UpstreamFailure
from sophia.core.rows import RUBRIC_FINISH
from sophia.routing.plan import plan_named
from sophia.routing.request import KeyLimits
from sophia.routing.types import Hints, Prompt
from sophia.serving.attempts.answer import RequestRecord
from sophia.serving.attempts.choices import AnswerChoice, parse_choices
from sophia.serving.attempts.failover import run_attempts
from sophia.serving.attempts.reservation import BudgetScope
from sophia.serving.judging.prompt import MAX_REPLY_TOKENS, build_judge_messages, parse_judge_score
from sophia.serving.request import Decision

_MAX_REPLY_BYTES = 64 * 1024
_PROVIDER_CONSTRAINTS = ("data_collection", "zdr", "only", "ignore")
"""Provider preferences of the caller that limit where its text may go; they hold here too."""
_decode_provider = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def build_judge_request(
    record: RequestRecord,
    judge: Model,
    answer: AnswerChoice,
    limits: KeyLimits,
    rubric: str | None = None,
) -> RequestRecord:
    """Return the record of a call that asks `judge`; its outcomes join those of `record`.

    Raises SophiaError when `limits` do not cover it.
    """
    messages = build_judge_messages(record.request.fields, answer, rubric)
    text = "".join(message["content"] for message in messages)
    size = len(text.encode("utf-8", "replace"))
    prompt = Prompt(
        text="",
        chars=len(text),
        utf8_bytes=size,
        turns=len(messages),
        max_tokens=MAX_REPLY_TOKENS,
        body_bytes=size,
    )
    today = record.dependencies.ledger.window()
    plan = plan_named([record.knowledge.pool_model(judge)], prompt, limits, today=today)
    fields = {
        "messages": messages,
        "max_tokens": MAX_REPLY_TOKENS,
        "temperature": 0,
        **_provider_constraints(record.request.fields),
    }
    request = replace(
        record.request,
        endpoint="chat/completions",
        stream=False,
        fields=fields,
        prompt=prompt,
        hints=Hints(),
        max_tokens_field="max_tokens",
    )
    judgement = RequestRecord(record.dependencies, record.knowledge, request, Decision(plan, {}))
    judgement.muted, judgement.outcomes = True, record.outcomes
    return judgement


async def run_judgement(
    judgement: RequestRecord, scope: BudgetScope, numbers: Iterator[int]
) -> tuple[bool, float | None]:
    """Return whether the judge replied, and its score from 0 to 1, None when it gave none.

    Its attempts, with the next of `numbers`, are reserved and settled like any other.
    """
    attempts = judgement.decision.plan.attempts
    try:
        answer = await run_attempts(judgement, scope, attempts, numbers)
    except SophiaError:
        return False, None
    try:
        whole = await answer.buffer(_MAX_REPLY_BYTES)
        chunks = answer.buffered_chunks
        answer.settle_internal(RUBRIC_FINISH)
    except UpstreamFailure as failure:
        answer.reject(str(failure.kind), interrupted=True)
        return False, None
    finally:
        answer.close()
    choices = parse_choices(chunks) if whole else ()
    return bool(choices), parse_judge_score(choices[0].text) if choices else None


def _provider_constraints(fields: Fields) -> dict[str, object]:
    """Return the caller's `provider` field, reduced to what limits where text may go."""
    raw = fields.get("provider")
    if not isinstance(raw, msgspec.Raw):
        return {}
    try:
        provider = _decode_provider(raw)
    except msgspec.DecodeError:
        # No upstream takes it either.
        return {}
    kept = {name: provider[name] for name in _PROVIDER_CONSTRAINTS if name in provider}
    return {"provider": kept} if kept else {}
