"""Check an answer before the caller gets it, and ask a better model when that pays."""

from collections.abc import Mapping, Sequence

from msgspec import json

from sophia.core.errors import SophiaError
from sophia.core.failures import UpstreamFailure
from sophia.core.ids import encode_id
from sophia.core.rows import CHECK_FAILED_PREFIX, RUBRIC_FINISH
from sophia.routing.escalation import CheckScore, EscalationCandidate
from sophia.routing.request import KeyLimits
from sophia.routing.types import Attempt
from sophia.serving.attempts.answer import Answer, RequestRecord
from sophia.serving.attempts.choices import AnswerChoice, parse_choices
from sophia.serving.attempts.failover import run_attempts
from sophia.serving.attempts.reservation import BudgetScope
from sophia.serving.attempts.targets.failures import FailedAttempt, build_attempts_error
from sophia.serving.cascade.checks import CheckResult, check_answer, parse_requirements
from sophia.serving.cascade.escalation import EscalationSelector
from sophia.serving.cascade_config import AnswerScorer
from sophia.serving.judging.score import build_judge_request, run_judgement
from sophia.serving.runtime import Runtime

_MAX_BYTES = 8 * 1024 * 1024
_MIN_SECONDS = 1.0
_PASS_THRESHOLD = 0.5
_FEEDBACK_CHANNELS: Mapping[str, str] = {"rubric": "judge", "webhook": "test"}
_WEBHOOK_FIELDS = ("messages", "prompt", "response_format", "tools")


async def serve_checked(runtime: Runtime, record: RequestRecord, scope: BudgetScope) -> Answer:
    """Return the first answer that passes its checks, or the last when escalation does not pay.

    It is buffered whole by then; an answer too long for that is delivered unchecked.

    Raises:
        SophiaError: the error for the caller, as for any request.
    """
    webhook = runtime.cascade.find_webhook(record.request.hints.webhook)
    answer = await run_attempts(record, scope, record.decision.plan.attempts)
    return await _Cascade(runtime, record, scope, webhook).run(answer)


class _Cascade:
    """Checks of one request's answers, from the first to the one that is delivered."""

    def __init__(
        self,
        runtime: Runtime,
        record: RequestRecord,
        scope: BudgetScope,
        webhook: AnswerScorer | None,
    ) -> None:
        self._runtime = runtime
        self._record = record
        self._scope = scope
        self._webhook = webhook
        self._requirements = parse_requirements(record.request.fields)
        self._candidates = EscalationSelector(record, runtime.cascade.value_nano)
        self._rejected_answer: Answer | None = None
        self._failed_attempts: list[FailedAttempt] = []

    async def run(self, answer: Answer) -> Answer:
        """Return `answer` or a better one. Raises SophiaError when all of them broke off."""
        while True:
            try:
                attempt = await self._check(answer)
                if attempt is None:
                    return answer
            except UpstreamFailure as failure:
                # Nothing of it was delivered, so another model can still take over unseen.
                answer.reject(str(failure.kind), interrupted=True)
                self._failed_attempts.append(
                    FailedAttempt(answer.model, answer.upstream.name, failure)
                )
                candidate = self._next_candidate(answer, 0.0, any_price=True)
                attempt = _build_attempt(answer, candidate, "it broke off") if candidate else None
            except BaseException:
                # Also when the client hangs up: the answer read ahead must still be settled.
                answer.close()
                raise
            next_answer = await self._run_attempt(attempt) if attempt else None
            if next_answer is None:
                return self._fallback_answer()
            answer = next_answer

    async def _check(self, answer: Answer) -> Attempt | None:
        """Return the attempt that replaces `answer`, rejected by then; None to keep it.

        Raises UpstreamFailure.
        """
        if not await answer.buffer(_MAX_BYTES):
            return None
        choices = parse_choices(answer.buffered_chunks)
        clamped = answer.attempt.max_tokens is not None
        results = check_answer(choices, self._requirements, clamped=clamped)
        scores = [CheckScore(result.check, float(result.passed)) for result in results]
        if all(result.passed for result in results) and choices:
            scores += await self._run_paid_checks(answer, choices[0], scores)
        success = self._candidates.success_probability(answer.model, scores)
        failed = next((score for score in scores if score.value < _PASS_THRESHOLD), None)
        self._record_checks(answer, results, scores)
        candidate = self._next_candidate(answer, success) if failed else None
        if failed is None or candidate is None:
            return None
        self._candidates.record_failure(answer.model, success)
        answer.reject(CHECK_FAILED_PREFIX + failed.check)
        self._rejected_answer = answer
        return _build_attempt(answer, candidate, _failure_reason(failed, results))

    async def _run_paid_checks(
        self, answer: Answer, choice: AnswerChoice, scores: Sequence[CheckScore]
    ) -> list[CheckScore]:
        """Run the paid checks whose result could lead to an escalation, one after the other."""
        paid: list[CheckScore] = []
        checks = {"webhook": self._run_webhook, "rubric": self._run_rubric}
        if self._webhook is None:
            del checks["webhook"]
        judge = self._runtime.cascade.rubric_model
        # A family's models favour each other's answers, so the judge is of another one.
        if judge is None or judge.partition("/")[0] == answer.model.partition("/")[0]:
            del checks["rubric"]
        for name, check in checks.items():
            worst = self._candidates.success_probability(
                answer.model, [*scores, *paid, CheckScore(name, 0.0)]
            )
            if self._next_candidate(answer, worst) is not None:
                score = await check(answer, choice)
                paid += [] if score is None else [CheckScore(name, score)]
        return paid

    async def _run_webhook(self, answer: Answer, choice: AnswerChoice) -> float | None:
        request = self._record.request
        body = {
            "decision_id": encode_id("dec", request.id),
            "model": answer.model,
            "request": {
                name: request.fields[name] for name in _WEBHOOK_FIELDS if name in request.fields
            },
            "answer": choice,
        }
        return await self._webhook(json.encode(body)) if self._webhook is not None else None

    async def _run_rubric(self, answer: Answer, choice: AnswerChoice) -> float | None:
        judge = self._record.knowledge.find(self._runtime.cascade.rubric_model or "")
        if judge is None:
            return None
        limits = self._remaining_limits(answer)
        try:
            judgement = build_judge_request(self._record, judge, choice, limits)
        except SophiaError:
            return None
        _, score = await run_judgement(judgement, self._scope, self._record.numbers)
        return score

    def _next_candidate(
        self, answer: Answer, success_probability: float, *, any_price: bool = False
    ) -> EscalationCandidate | None:
        """Return the model to ask in place of `answer`, while attempts, time and money are left."""
        runtime, record = self._runtime, self._record
        finished = [o for o in record.outcomes if o.finish_reason != RUBRIC_FINISH]
        models = {answer.model, *(outcome.model for outcome in finished)}
        elapsed = runtime.ledger.clock.monotonic() - record.request.arrived_at
        deadline = record.request.deadline or runtime.limits.request_timeout_seconds
        if len(models) >= runtime.limits.max_attempts:
            return None
        if deadline - elapsed < _MIN_SECONDS:
            return None
        limits = self._remaining_limits(answer)
        return self._candidates.next(answer.model, success_probability, limits, any_price=any_price)

    def _remaining_limits(self, answer: Answer) -> KeyLimits:
        """Return the rest of the request's and the key's limits once `answer` is paid."""
        scope, record = self._scope, self._record
        budget = self._runtime.ledger.remaining(scope)
        cost = record.cost_nano
        if answer.outcome is None:
            cost += answer.cost_nano
            if budget is not None:
                budget = max(budget + answer.attempt.held_nano - answer.cost_nano, 0)
        # A caller's limit for one attempt holds for all attempts together here.
        ceilings = (scope.per_request_limit, record.request.hints.max_cost_nano)
        bounds = [ceiling - cost for ceiling in ceilings if ceiling is not None]
        return KeyLimits(
            per_request_nano=max(min(bounds), 0) if bounds else None,
            budget_left_nano=budget,
            price_margin=self._runtime.limits.price_margin,
        )

    async def _run_attempt(self, attempt: Attempt) -> Answer | None:
        """Return the answer of `attempt`, None when it fails."""
        self._record.muted = True
        try:
            return await run_attempts(self._record, self._scope, (attempt,))
        except SophiaError:
            return None
        finally:
            self._record.muted = False

    def _fallback_answer(self) -> Answer:
        """Return the complete answer that failed its checks. Raises SophiaError without one."""
        record, rejected = self._record, self._rejected_answer
        if rejected is None or rejected.outcome is None:
            error = build_attempts_error(self._failed_attempts)
            record.close(error.status, error.error_type)
            raise error
        record.outcomes.remove(rejected.outcome)
        record.outcomes.append(rejected.outcome)
        record.upstream = rejected.upstream
        record.close(200)
        return rejected

    def _record_checks(
        self, answer: Answer, results: Sequence[CheckResult], scores: Sequence[CheckScore]
    ) -> None:
        """Store the results as feedback on the decision's own arm."""
        queue, request = self._runtime.cascade.feedback, self._record.request
        if queue is None or answer.attempt is not self._record.decision.plan.attempts[0]:
            return
        failed = ",".join(result.check for result in results if not result.passed)
        rows = [("validator", 0.0 if failed else 1.0, failed or "passed")]
        rows += [
            (_FEEDBACK_CHANNELS[score.check], score.value, score.check)
            for score in scores
            if score.check in _FEEDBACK_CHANNELS
        ]
        for channel, score, label in rows:
            queue.add(
                request.id,
                self._scope.key_id,
                answer.model,
                channel=channel,
                score=score,
                label=label,
            )


def _build_attempt(answer: Answer, candidate: EscalationCandidate, problem: str) -> Attempt:
    return Attempt(
        model=candidate.model,
        reason=f"{answer.model} was asked first, but {problem}.",
        expected_nano=candidate.expected_nano,
        held_nano=candidate.held_nano,
        max_tokens=candidate.max_tokens,
    )


def _failure_reason(failed: CheckScore, results: Sequence[CheckResult]) -> str:
    problems = {result.check: result.problem for result in results}
    return problems.get(failed.check, f"the {failed.check} gives its answer {failed.value:.2f}")
