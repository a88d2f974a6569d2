"""The order of a learned policy: what it leaves out, and when a conversation stays on its model."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from msgspec import Struct, structs
from routing_world import BY_ID, DEEPSEEK, FLASH, SONNET, quality_prior

from sophia.routing.bandit.performance.forecast import AnswerMeasurement
from sophia.routing.bandit.performance.latency import DEFAULT_SPEED
from sophia.routing.bandit.performance.model import PerformanceModel
from sophia.routing.bandit.policy import ArmRatings, PolicyContext
from sophia.routing.pool import PoolModel
from sophia.routing.quotes import Quote
from sophia.routing.rank import LearnedPolicy, RankedQuotes, RoutingContext, rank_quotes
from sophia.routing.types import NO_EXPLORATION, Hints

TASKS = 3


class Rated(Struct):
    """A policy that knows the quality and the sd of each arm."""

    known: Mapping[str, tuple[float, float]]
    name: str = "rated"

    def rate(self, context: PolicyContext, arms: Sequence[str]) -> ArmRatings | None:
        quality, sd = np.array([self.known[arm] for arm in arms]).T
        return ArmRatings(quality, sd)


def ranked(
    known: Mapping[str, tuple[float, float]],
    hints: Hints | None = None,
    current_model: str | None = None,
    performance: PerformanceModel | None = None,
    outcomes: int | None = None,
) -> RankedQuotes | None:
    """Rank models that differ in nothing but their ratings."""
    quotes = [
        Quote(
            pool_model=PoolModel.from_model(BY_ID[id], quality_prior(id)),
            quality=0.5,
            expected_nano=1000,
            held_nano=2000,
            expected_tokens=100,
            completion_price=1_000_000,
        )
        for id in known
    ]
    learned = LearnedPolicy(
        policy=Rated(known),
        outcomes=outcomes,
        exploration=NO_EXPLORATION,
        performance=performance or PerformanceModel(TASKS),
    )
    context = RoutingContext(
        context=PolicyContext(np.eye(TASKS)[0]), uniform=0.5, current_model=current_model
    )
    return rank_quotes(learned, context, quotes, hints or Hints())


def order(decided: RankedQuotes | None) -> list[str]:
    assert decided is not None
    return [quote.pool_model.id for quote in decided.quotes]


def test_a_minimal_quality_must_be_reached_a_standard_deviation_below() -> None:
    """The best guess of an arm is not enough when it is only a guess."""
    known = {SONNET: (0.95, 0.2), FLASH: (0.85, 0.05), DEEPSEEK: (0.7, 0.0)}
    assert order(ranked(known)) == [SONNET, FLASH, DEEPSEEK]
    assert order(ranked(known, Hints(min_quality=0.79))) == [FLASH]


def test_a_minimal_quality_that_nothing_reaches_goes_to_the_closest_with_a_note() -> None:
    """The best there is answers, the next best steps in, and the note warns the caller."""
    known = {SONNET: (0.95, 0.2), FLASH: (0.85, 0.05), DEEPSEEK: (0.7, 0.0)}
    decided = ranked(known, Hints(min_quality=0.81))
    assert order(decided) == [FLASH, SONNET, DEEPSEEK]
    assert decided is not None
    assert decided.notes == ("min_quality",)
    assert decided.reason == (
        "No model is expected to reach a quality of 0.81; this one comes closest (0.80)."
    )


def test_a_conversation_stays_on_its_model_unless_another_is_clearly_better() -> None:
    """Going elsewhere costs two hundredths of the score."""
    close, clear = (
        {SONNET: (0.81, 0.0), FLASH: (0.8, 0.0)},
        {SONNET: (0.83, 0.0), FLASH: (0.8, 0.0)},
    )
    assert order(ranked(close))[0] == SONNET
    assert order(ranked(close, current_model=FLASH))[0] == FLASH
    assert order(ranked(clear, current_model=FLASH))[0] == SONNET


@pytest.mark.parametrize(
    ("outcomes", "source"),
    [
        (None, "public ratings and benchmarks"),
        (0, "public ratings and benchmarks"),
        (1234, "1,234 outcomes"),
    ],
)
def test_the_reason_tells_whether_outcomes_decided(outcomes: int | None, source: str) -> None:
    decided = ranked({SONNET: (0.9, 0.05)}, outcomes=outcomes)
    assert decided is not None
    expected = f"Best quality for its price by {source}: expected quality 0.90 ± 0.05."
    assert decided.reason == expected


def test_a_policy_without_outcomes_has_the_name_of_the_priors() -> None:
    learned = LearnedPolicy(
        policy=Rated({}), exploration=NO_EXPLORATION, performance=PerformanceModel(TASKS)
    )
    assert learned.name == "priors"
    assert structs.replace(learned, outcomes=0).name == "rated"
    assert structs.replace(learned, outcomes=0).without_exploration().name == "rated"


def test_no_expected_cost_is_above_what_the_quote_reserves() -> None:
    """However long the answers were: a longer one is cut at its reservation."""
    performance = PerformanceModel(TASKS)
    long = AnswerMeasurement(
        arm=FLASH,
        task_probabilities=np.eye(TASKS)[0],
        expected_tokens=100,
        completion_tokens=20_000,
        total_ms=1000.0,
    )
    performance.set_speed_priors({FLASH: DEFAULT_SPEED, SONNET: DEFAULT_SPEED})
    for _ in range(50):
        performance.update_answer(long)
    decided = ranked({FLASH: (0.8, 0.0), SONNET: (0.7, 0.0)}, performance=performance)
    assert decided is not None
    costs = {arm.model: arm.cost_nano for arm in decided.trace.rated_arms}
    assert max(costs.values()) == 2000
