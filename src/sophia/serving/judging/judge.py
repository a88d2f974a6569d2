"""Judge: a model of another family scores sampled answers after they were delivered.

Nothing waits for it: a judgement that cannot be paid, or that comes when too many are queued, is
dropped. Prompts and answers stay in memory until they are judged, and nowhere else.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from sophia.catalogue.model import Model
from sophia.config import JudgeSettings
from sophia.core.background import BackgroundTasks
from sophia.core.errors import BudgetExceeded, ConfigError, SophiaError
from sophia.core.ids import JUDGE_ATTEMPT
from sophia.core.money import nano_from_usd
from sophia.core.rows import JUDGE_ACCOUNT, AttemptOutcome
from sophia.core.uniform import derive_uniform
from sophia.learning.feedback.judge_bias import choose_judge, correct_score
from sophia.learning.feedback.source_reliability import BiasByJudge
from sophia.learning.feedback.sources import JUDGE_CHANNEL
from sophia.routing.request import KeyLimits
from sophia.serving.attempts.answer import RequestRecord
from sophia.serving.attempts.choices import AnswerChoice, parse_choices
from sophia.serving.attempts.reservation import BudgetScope
from sophia.serving.feedback.queue import FeedbackQueue
from sophia.serving.judging.score import build_judge_request, run_judgement
from sophia.serving.request import Decision, Request
from sophia.serving.runtime import Runtime

log = logging.getLogger("sophia.serving")

MAX_QUEUED = 64
MAX_CONCURRENT = 2
TIMEOUT_SECONDS = 60.0
BUDGET_DIVISOR = 10
"""A judgement reserves at most this fraction (1/10) of what its key may still spend today."""
MIN_RELATED_JUDGE_STRENGTH = 0.4
"""Weight, at most 0.5, from which a judge of the answer's own family is worth its cost."""
JUDGE_CHOICE_STREAM = 6


class JudgeConfig(Struct, frozen=True):
    """Ids of the judge models, their budget in nano-dollars a day, and the operator's rubric."""

    models: tuple[str, ...]
    daily_budget_nano: int
    rubric: str | None = None


class JudgeJob(Struct, frozen=True, kw_only=True):
    """An answer to be judged; `model` gave it, `scope` pays."""

    request: Request
    decision: Decision
    scope: BudgetScope
    model: str
    chunks: Sequence[bytes]


class Judge:
    """Judges answers in the background, a few at a time.

    `report` is called with the result of each job in a word, and its outcomes. `biases` returns the
    measured bias of each judge towards its own family, for a key.
    """

    def __init__(
        self,
        runtime: Runtime,
        config: JudgeConfig,
        feedback: FeedbackQueue,
        report: Callable[[str, Sequence[AttemptOutcome]], None],
        biases: Callable[[str], BiasByJudge],
    ) -> None:
        self._runtime = runtime
        self._config = config
        self._feedback = feedback
        self._report = report
        self._biases = biases
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)
        self._tasks = BackgroundTasks()
        self._closing = False

    def submit(self, job: JudgeJob) -> None:
        """Queue an answer, or drop it when too many are queued."""
        if self._closing or len(self._tasks) >= MAX_QUEUED:
            self._report("dropped", ())
            return
        self._tasks.start(self._run(job))

    async def close(self, grace_seconds: float = 2.0) -> None:
        """Take no more jobs, and end within `grace_seconds`; dispatched calls are settled."""
        self._closing = True
        await self._tasks.close(grace_seconds)

    async def _run(self, job: JudgeJob) -> None:
        async with self._slots:
            if self._closing:
                self._report("dropped", ())
                return
            try:
                result, outcomes = await self._judge(job)
            except Exception:
                # The border of a job: whatever is wrong with one, the next is judged.
                log.exception("a judgement failed")
                result, outcomes = "failed", ()
            self._report(result, outcomes)

    async def _judge(self, job: JudgeJob) -> tuple[str, Sequence[AttemptOutcome]]:
        """Return the result in a word, and the outcomes."""
        judge, choices = self._choose_judge(job), parse_choices(job.chunks)
        if judge is None:
            return "no_judge", ()
        if not choices:
            return "empty", ()
        now = self._runtime.ledger.clock.monotonic()
        # The answer took its own time; the judge has a deadline of its own.
        request = replace(job.request, arrived_at=now, deadline=TIMEOUT_SECONDS)
        record = RequestRecord(self._runtime, self._runtime.knowledge, request, job.decision)
        try:
            replied, score = await self._call(record, job.scope, judge, choices[0])
        except SophiaError as error:
            return "unpaid" if isinstance(error, BudgetExceeded) else "failed", ()
        if score is None:
            return "unparsable" if replied else "failed", record.outcomes
        # The judge's bias is removed where the score is learned from.
        self._feedback.add(
            job.request.id,
            job.scope.key_id,
            job.model,
            channel=JUDGE_CHANNEL,
            score=score,
            label=judge.id,
        )
        return "judged", record.outcomes

    async def _call(
        self, record: RequestRecord, scope: BudgetScope, judge: Model, answer: AnswerChoice
    ) -> tuple[bool, float | None]:
        """Return whether the judge replied and its score; the key pays, within both budgets.

        An unknown cost stays reserved in both accounts. Raises SophiaError when it is not paid.
        """
        scope = replace(scope, also=(JUDGE_ACCOUNT, self._config.daily_budget_nano))
        await self._runtime.ledger.refresh(scope)
        judgement = build_judge_request(
            record, judge, answer, self._limits(scope), self._config.rubric
        )
        attempt = judgement.decision.plan.attempts[0]
        if attempt.max_tokens is not None:
            raise BudgetExceeded("what is left covers only a part of a judgement")
        result = await run_judgement(judgement, scope, iter([JUDGE_ATTEMPT]))
        if not record.outcomes:
            raise BudgetExceeded("the key's budget does not cover a judgement")
        return result

    def _limits(self, scope: BudgetScope) -> KeyLimits:
        ledger = self._runtime.ledger
        left = ledger.remaining(scope)
        judge_scope = BudgetScope(
            key_id=JUDGE_ACCOUNT, daily_limit=self._config.daily_budget_nano, window=scope.window
        )
        bounds = [
            scope.per_request_limit,
            ledger.remaining(judge_scope),
            None if left is None else left // BUDGET_DIVISOR,
        ]
        return KeyLimits(
            per_request_nano=min(bound for bound in bounds if bound is not None),
            budget_left_nano=left,
            price_margin=self._runtime.limits.price_margin,
        )

    def _choose_judge(self, job: JudgeJob) -> Model | None:
        """Return a sampled judge of another family, or a related one with a well-known bias."""
        judges = self._config.models
        uniform = derive_uniform(job.request.id, JUDGE_CHOICE_STREAM)
        chosen = choose_judge(job.model, judges, uniform)
        if chosen is None:
            biases = self._biases(job.scope.key_id)
            corrected = [(correct_score(0.5, judge, job.model, biases), judge) for judge in judges]
            weighted = [(score.strength, judge) for score, judge in corrected if score is not None]
            strength, chosen = max(weighted, default=(0.0, ""))
            if strength < MIN_RELATED_JUDGE_STRENGTH:
                return None
        return self._runtime.knowledge.find(chosen)


def build_judge_config(
    settings: JudgeSettings, find_model: Callable[[str], Model | None]
) -> JudgeConfig | None:
    """Return the judge's configuration; None when no answers are to be judged.

    Raises:
        ConfigError: no judge model is named, or one is unknown.
    """
    if not settings.share:
        return None
    if not settings.models:
        raise ConfigError("`learning.judge.models`: name at least one judge model")
    ids = []
    for name in settings.models:
        model = find_model(name)
        if model is None:
            raise ConfigError(f"`learning.judge.models`: there is no model {name!r}")
        ids.append(model.id)
    return JudgeConfig(tuple(ids), nano_from_usd(settings.daily_budget_usd), settings.rubric)
