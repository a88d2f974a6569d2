"""The learned policy's part in a decision: its context before, its records after."""

from hashlib import blake2b
from secrets import token_bytes

from sophia.core.bounded import BoundedDict
from sophia.core.events import Settled
from sophia.core.ports import Clock
from sophia.core.uniform import derive_uniform, is_one_in_32
from sophia.learning.online.attempt_outcomes import is_arm_failure, measure_completed_answers
from sophia.learning.online.policy import OnlinePolicy
from sophia.routing.bandit.arms import build_call_mode, format_arm
from sophia.routing.bandit.context.prompt_history import HistoryLookup
from sophia.routing.bandit.policy import PolicyContext, Vector
from sophia.routing.explain.trace import pack_task_probabilities, round_context
from sophia.routing.features.classify import ClassifiedRequest
from sophia.routing.model_name import LEARNED_POLICY
from sophia.routing.rank import LearnedPolicy, RoutingContext
from sophia.routing.types import Hints, TaskSources
from sophia.serving.learned.budget_pacing import BudgetPacing
from sophia.serving.learned.prompt_histories import PromptHistories
from sophia.serving.request import Decision, Request, may_judge_text

MAX_CONVERSATIONS = 10_000
ALWAYS_TIMED_ANSWERS = 100
"""Answers of an arm that are all timed; of later ones, one in 32 is."""
POLICY_STREAM, CHOICE_STREAM, JUDGE_SAMPLE_STREAM = 0, 1, 5


class LearnedRouting:
    """Adds the learned policy to decisions, and records what became of them.

    `judge_share` is the share of the answers that a judge scores; with `shared` all keys learn
    together.
    """

    def __init__(  # noqa: PLR0913 - each is one thing that a decision may depend on
        self,
        policy: OnlinePolicy,
        clock: Clock,
        histories: PromptHistories,
        *,
        budget_pacing: BudgetPacing | None = None,
        judge_share: float = 0.0,
        shared: bool = False,
    ) -> None:
        self.policy = policy
        self.histories = histories
        self.judge_share = judge_share
        self._clock = clock
        self._budget_pacing = budget_pacing
        self._shared = shared
        self._conversations: BoundedDict[bytes, str] = BoundedDict(MAX_CONVERSATIONS)
        self._pending: BoundedDict[int, tuple[bytes | None, Vector]] = BoundedDict(
            MAX_CONVERSATIONS
        )
        self._secret = token_bytes(16)

    def prepare(
        self, request: Request, encoded: ClassifiedRequest, budget_left_nano: int | None = None
    ) -> tuple[LearnedPolicy, RoutingContext]:
        """Return the learned policy, and the request as it sees it; changes nothing.

        `budget_left_nano` is what the key may still spend today.
        """
        hints, uniform = request.hints, derive_uniform(request.id, POLICY_STREAM)
        requested = hints.policy == LEARNED_POLICY
        tenant = "" if self._shared else request.principal.key_id
        posterior = encoded.posterior
        lookup = self.histories.look_up(tenant, request.prompt, posterior)
        if lookup is not None:
            posterior = lookup.adjusted.task_probabilities
        policy = self.policy.assign(uniform, tenant, requested=requested)
        if not (hints.explore and request.principal.explores):
            policy = policy.without_exploration()
        price = 0.0
        if self._budget_pacing is not None and budget_left_nano is not None:
            price = self._budget_pacing.price(request.principal.key_id)
        sampled = derive_uniform(request.id, JUDGE_SAMPLE_STREAM) < self.judge_share
        digest = self._conversation_digest(request)
        return policy, RoutingContext(
            context=round_context(PolicyContext(posterior, float(posterior[-1]), tenant)),
            uniform=derive_uniform(request.id, CHOICE_STREAM),
            state=self.policy.version,
            current_model=None if digest is None else self._conversations.get(digest),
            budget_price=price,
            call_mode=build_call_mode(request.prompt),
            policy_randomized=hints.policy is None and hints.rule is None,
            judge_sampled=sampled and may_judge_text(request.prompt),
            stream=request.stream,
            task_sources=_task_sources(hints, encoded, lookup),
            history_lookup=lookup,
            budget_left_nano=budget_left_nano,
        )

    def record_decision(self, request: Request, decision: Decision) -> None:
        """Record a decision that is being carried out."""
        context, plan = decision.context, decision.plan
        if context is None:
            return
        if context.history_lookup is not None:
            self.histories.record(context.history_lookup)
        if self._budget_pacing is not None and context.budget_left_nano is not None:
            self._budget_pacing.record_request(
                request.principal.key_id, context.budget_left_nano, self._clock.wall()
            )
        tasks = context.context.task_probabilities
        self._pending[request.id] = self._conversation_digest(request), tasks
        if plan.trace is not None and plan.trace.rated_arms:
            self.policy.record_decision(tasks, plan.attempts[0].model, plan.trace)

    def emit(self, event: Settled) -> None:
        """Record failures, lengths, times and costs of a settled request.

        Of well-known arms' answers to requests that were not rated, one in 32 is recorded.
        """
        if self._budget_pacing is not None and event.attempts:
            self._budget_pacing.record_cost(
                event.attempts[0].key_id, event.cost_nano, self._clock.wall()
            )
        pending = self._pending.pop(event.request_id, None)
        if not event.attempts:
            return
        # Sampled by the first attempt, whatever its result: else failures would count too often.
        first_arm = format_arm(event.attempts[0].model, event.mode)
        performance = self.policy.performance
        timed = is_one_in_32(event.request_id) or performance.needs_answers(
            first_arm, ALWAYS_TIMED_ANSWERS
        )
        if pending is None and not timed:
            return
        digest, tasks = pending or (None, None)
        for outcome in event.attempts:
            failed = is_arm_failure(outcome)
            if failed is not None:
                arm = format_arm(outcome.model, event.mode)
                performance.update_attempt(arm, outcome.at_ms, failed=failed)
        if timed:
            for answer in measure_completed_answers(event, tasks):
                self.policy.record_answer(answer)
        if digest is not None and event.status == 200:
            self._conversations[digest] = event.model

    def _conversation_digest(self, request: Request) -> bytes | None:
        """Return a keyed digest of a request's conversation, None when it stands alone.

        Without a session id a tool loop is recognised by the user's message, which stays the same
        in each of its turns. No text is kept.
        """
        prompt = request.prompt
        name = request.hints.session_id or (
            f"{prompt.system}\0{prompt.text}" if prompt.tools else None
        )
        if name is None:
            return None
        text = f"{request.principal.key_id}\0{name}".encode("utf-8", "surrogatepass")
        return blake2b(text, digest_size=16, key=self._secret).digest()


def _task_sources(
    hints: Hints, encoded: ClassifiedRequest, lookup: HistoryLookup | None
) -> TaskSources | None:
    """Return the sources of the task posterior; None when it follows from the text alone."""
    declared = hints.task_type is not None
    text = pack_task_probabilities(encoded.text_posterior)
    if lookup is None or not lookup.history.request_count:
        return TaskSources(text, declared) if declared else None
    return TaskSources(
        text_probabilities=text,
        task_declared=declared,
        history_requests=lookup.history.request_count,
        history_probability=lookup.adjusted.history_probability,
        history_counts=pack_task_probabilities(lookup.history.counts),
    )
