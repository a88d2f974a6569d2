"""The choice of a learned policy: expected quality against cost and time, sampled."""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from sophia.core.money import TOKENS_PER_PRICE_UNIT
from sophia.routing.bandit.arms import format_arm, strip_call_mode, strip_effort
from sophia.routing.bandit.choose import (
    QUALITY_BIAS_PRESETS,
    ArmChoice,
    ChoiceSet,
    choose_arm,
    compute_utilities,
    cost_weight,
    expect_best_cost,
)
from sophia.routing.bandit.context.prompt_history import HistoryLookup
from sophia.routing.bandit.performance.forecast import Forecast
from sophia.routing.bandit.performance.model import PerformanceModel
from sophia.routing.bandit.performance.summary import pack_summaries
from sophia.routing.bandit.policy import ArmRatings, Policy, PolicyContext, Vector
from sophia.routing.bandit.trials import ArmTrial, compute_trial_probability
from sophia.routing.explain.refusals import BELOW_MIN_QUALITY, format_below_minimum
from sophia.routing.explain.trace import build_rated_arms, pack_context
from sophia.routing.quotes import Quote, resolve_tradeoff
from sophia.routing.types import (
    NO_EXPLORATION,
    DecisionTrace,
    Exploration,
    Hints,
    TaskSources,
    UtilityWeights,
)

PRIORS_POLICY = "priors"
SWITCHING_PENALTY = 0.02
DECLARED_LATENESS_PENALTY = 0.3
FAST_LATENESS_PENALTY = 0.6
FAST_FIRST_CONTENT_MS, FAST_TOKEN_MS = 1500.0, 10.0
"""Latency that counts as fast: to the first content, and for each token of a complete answer."""
FAILURE_PENALTY = 0.25
"""Our judgement: another arm steps in after a failure, but the caller has waited in vain."""


class LearnedPolicy(Struct, frozen=True, kw_only=True):
    """A learned policy as it stands now.

    `outcomes` is the number of outcomes that it may use, None when the priors decide alone;
    `task_shares`, (T,), is the distribution of requests over the tasks.
    """

    policy: Policy
    outcomes: int | None = None
    exploration: Exploration
    performance: PerformanceModel
    trials: tuple[ArmTrial, ...] = ()
    task_shares: Vector | None = None

    @property
    def name(self) -> str:
        """The name of the policy in decisions."""
        return PRIORS_POLICY if self.outcomes is None else self.policy.name

    def without_exploration(self) -> "LearnedPolicy":
        """Return the same policy without exploration and without trials."""
        return replace(self, exploration=NO_EXPLORATION, trials=())


class RoutingContext(Struct, frozen=True, kw_only=True):
    """One request as a learned policy meets it.

    Attributes:
        uniform: random number in [0, 1) that decides.
        state: exact name of the learned state.
        current_model: model that the conversation is on.
        budget_price: addition to the weight of cost by budget pacing.
        call_mode: how models are called; see `bandit.arms`.
        policy_randomized: whether the choice of the policy was left to Sophia.
        judge_sampled: whether the answer is sampled for the judge.
        task_sources: sources of the task posterior besides the text.
        history_lookup: history of the system prompt, to be counted once the request is served.
        budget_left_nano: what the key may still spend today.
    """

    context: PolicyContext
    uniform: float
    state: str = ""
    current_model: str | None = None
    budget_price: float = 0.0
    call_mode: str = ""
    policy_randomized: bool = True
    judge_sampled: bool = False
    stream: bool = False
    task_sources: TaskSources | None = None
    history_lookup: HistoryLookup | None = None
    budget_left_nano: int | None = None

    def build_trace(self) -> DecisionTrace:
        """Return the trace without the choice of a learned policy."""
        return DecisionTrace(
            state=self.state,
            context=pack_context(self.context),
            uniform=self.uniform,
            call_mode=self.call_mode,
            policy_randomized=self.policy_randomized,
            judge_sampled=self.judge_sampled,
            task_sources=self.task_sources,
        )


class RankedQuotes(Struct, frozen=True, kw_only=True):
    """Quotes in the order to try them, the reason for the first, and the trace."""

    quotes: list[Quote]
    reason: str
    propensity: float
    trace: DecisionTrace
    notes: tuple[str, ...] = ()


def rank_quotes(
    learned: LearnedPolicy, context: RoutingContext, quotes: Sequence[Quote], hints: Hints
) -> RankedQuotes | None:
    """Return the order of `quotes`, or None when the policy declines.

    With `min_quality` an arm must be expected to reach it at a standard deviation below. If none
    is, the one that comes closest leads, and the others step in by the same measure.
    """
    ratings = _rate_quotes(learned, context, quotes)
    lower: list[Quote] = []
    shortfall: str | None = None
    if ratings is not None and hints.min_quality is not None:
        bounds = ratings.quality - ratings.sd
        if bounds.max() < hints.min_quality:
            shortfall = format_below_minimum(hints.min_quality, float(bounds.max()))
        quotes, lower = _split_by_quality(quotes, bounds, hints.min_quality)
        # Ratings leave out the uncertainty that all arms share, so fewer arms are rated again.
        ratings = _rate_quotes(learned, context, quotes)
    if ratings is None:
        return None
    models = [quote.pool_model.id for quote in quotes]
    tokens = np.array([quote.expected_tokens for quote in quotes], np.float64)
    forecast = learned.performance.forecast(
        _format_arms(quotes, context),
        context.context.task_probabilities,
        tokens,
        stream=context.stream,
    )
    cost, completion_cost = _estimate_costs(quotes, tokens, forecast)
    weights = _build_utility_weights(hints, context, expect_best_cost(ratings, cost))
    options = ChoiceSet(
        ratings=ratings,
        cost=cost,
        explorable=np.ones(len(models), dtype=np.bool_),
        late_probability=_late_probabilities(forecast, tokens, context, hints),
        failure_probability=forecast.failures / forecast.attempts,
        current_arm=(
            models.index(context.current_model) if context.current_model in models else None
        ),
    )
    best = int(compute_utilities(options, weights).argmax())
    options = replace(options, trial=_find_trial(learned, context, models, cost, best))
    choice = choose_arm(options, weights, learned.exploration, context.uniform)
    order = [choice.arm, *(at for at in np.argsort(-choice.utility).tolist() if at != choice.arm)]
    trace = replace(
        context.build_trace(),
        utility_weights=weights,
        exploration=learned.exploration,
        rated_arms=build_rated_arms(models, options, choice),
        current_index=options.current_arm,
        trial=options.trial,
        performance=pack_summaries(forecast, completion_cost),
    )
    return RankedQuotes(
        quotes=[*(quotes[at] for at in order), *lower],
        reason=shortfall or _format_reason(options, choice, models, learned.outcomes),
        propensity=choice.propensity,
        trace=trace,
        notes=() if shortfall is None else (BELOW_MIN_QUALITY,),
    )


def _split_by_quality(
    quotes: Sequence[Quote], bounds: Vector, min_quality: float
) -> tuple[list[Quote], list[Quote]]:
    """Return the quotes to choose from, and those that step in for them.

    The first are those whose bound reaches `min_quality`, without substitutes. If none does, it is
    the highest alone, and the others step in by their bounds.
    """
    enough = np.flatnonzero(bounds >= min_quality).tolist()
    if enough:
        return [quotes[at] for at in enough], []
    first, *rest = np.argsort(-bounds, kind="stable").tolist()
    return [quotes[first]], [quotes[at] for at in rest]


def _estimate_costs(
    quotes: Sequence[Quote], tokens: Vector, forecast: Forecast
) -> tuple[Vector, Vector]:
    """Return the expected costs in nano-dollars, (A,), and the part that grows with the length.

    No cost is above what its quote reserves.
    """
    price = np.array([quote.completion_price for quote in quotes], np.float64)
    expected = np.array([quote.expected_nano for quote in quotes], np.float64)
    most = np.array([quote.held_nano or quote.expected_nano for quote in quotes], np.float64)
    price *= tokens
    price *= 1.0 / TOKENS_PER_PRICE_UNIT
    completion = price * forecast.length_ratio
    return np.minimum(expected + (completion - price), most), completion


def _rate_quotes(
    learned: LearnedPolicy, context: RoutingContext, quotes: Sequence[Quote]
) -> ArmRatings | None:
    if not quotes:
        return None
    return learned.policy.rate(context.context, _format_arms(quotes, context))


def _format_arms(quotes: Sequence[Quote], context: RoutingContext) -> list[str]:
    mode = context.call_mode
    ids = [quote.pool_model.id for quote in quotes]
    return [format_arm(id, mode) for id in ids] if mode else ids


def _build_utility_weights(
    hints: Hints, context: RoutingContext, reference_cost: float
) -> UtilityWeights:
    tradeoff = resolve_tradeoff(hints)
    lateness = DECLARED_LATENESS_PENALTY if hints.max_latency_ms is not None else 0.0
    if tradeoff == "fast":
        lateness = FAST_LATENESS_PENALTY
    bias = hints.quality_bias
    if bias is None:
        bias = QUALITY_BIAS_PRESETS.get(tradeoff, QUALITY_BIAS_PRESETS["balanced"])
    return UtilityWeights(
        cost=cost_weight(bias) + context.budget_price,
        reference_cost=reference_cost,
        lateness=lateness,
        switching=SWITCHING_PENALTY,
        failure=FAILURE_PENALTY,
    )


def _late_probabilities(
    forecast: Forecast, tokens: Vector, context: RoutingContext, hints: Hints
) -> Vector:
    """Return the probability of each arm to be later than the caller wants, (A,)."""
    limit: float | Vector = FAST_FIRST_CONTENT_MS
    if hints.max_latency_ms is not None:
        limit = float(hints.max_latency_ms)
    elif not context.stream:
        limit = FAST_FIRST_CONTENT_MS + FAST_TOKEN_MS * tokens
    return forecast.late_probability(limit)


def _find_trial(
    learned: LearnedPolicy, context: RoutingContext, models: list[str], cost: Vector, best: int
) -> tuple[int, float] | None:
    if learned.task_shares is None:
        return None
    for trial in learned.trials:
        model = strip_call_mode(trial.arm)
        if model in models and trial.arm == strip_effort(format_arm(model, context.call_mode)):
            at = models.index(model)
            probability = compute_trial_probability(
                trial,
                context.context.task_probabilities,
                learned.task_shares,
                float(cost[at]),
                float(cost[best]),
            )
            if probability > 0.0:
                return at, probability
    return None


def _format_reason(
    options: ChoiceSet, choice: ArmChoice, models: list[str], outcomes: int | None
) -> str:
    at = choice.arm
    quality, sd = float(options.ratings.quality[at]), float(options.ratings.sd[at])
    expected = f"expected quality {quality:.2f} ± {sd:.2f}"
    if options.trial is not None and options.trial[0] == at and at != choice.best:
        return f"A new model on trial: {expected}."
    if at != choice.best:
        return (
            f"Explored with probability {choice.propensity:.2g} instead of "
            f"{models[choice.best]}: {expected}."
        )
    source = f"{outcomes:,} outcomes" if outcomes else "public ratings and benchmarks"
    return f"Best quality for its price by {source}: {expected}."
