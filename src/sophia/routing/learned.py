"""The choice of a learned policy: what it expects, what money and time are worth, and a lot."""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import astuple, replace

from sophia.core.money import TOKENS_PER_PRICE_UNIT
from sophia.routing.arms import arm_of, model_of, usual
from sophia.routing.evidence import pack, rated
from sophia.routing.forecast import Asked, Forecast
from sophia.routing.habits import Habits
from sophia.routing.nouns import Evidence, Hints, Sources
from sophia.routing.optimizer import Offer, wishes
from sophia.routing.policies.choose import (
    STILL,
    Choice,
    Dial,
    Exploration,
    Options,
    Taste,
    choose,
    price_of,
    utilities,
)
from sophia.routing.policies.policy import Policy, Ratings, Sight, Vector
from sophia.routing.policies.residual import Rival
from sophia.routing.trial import Request as Tried
from sophia.routing.trial import Terms, Trial, chance
from sophia.routing.usual import pack_usual

PATIENCE = 5.0
SWITCHING = 0.02
DECLARED_LATENESS = 0.3
FAST_LATENESS = 0.6
FAST_MS, FAST_TOKEN_MS = 1500.0, 10.0
"""What is fast: until the first content, and for each token of an answer that comes whole."""
FAILING = 0.25
"""Another arm steps in when an attempt fails, but the caller has waited in vain; our judgement."""
PROBE = 0.05
"""The chance that exploring gives to what a challenger would take."""


class Learned(Struct, frozen=True):
    """A learned policy as it stands now.

    Attributes:
        policy: rates the arms.
        state: names exactly what the policy has learned.
        exploration: how far a choice may depart from the best-looking arm.
        habits: how arms answer: their lengths, times and failures.
        trials: of arms that are new.
        shares: shape (T,), how requests are spread over the tasks.
        terms: of a trial.
        rival: whom a part of exploring follows, so that the log can tell what it is worth.
    """

    policy: Policy
    state: str
    exploration: Exploration
    habits: Habits
    trials: tuple[Trial, ...] = ()
    shares: Vector | None = None
    terms: Terms = Terms()
    rival: Rival | None = None

    def still(self) -> "Learned":
        """Return the same policy without exploring: no lots, and nobody on trial."""
        return replace(self, exploration=STILL, trials=())


class Seen(Struct, frozen=True):
    """One request as a learned policy meets it.

    `draw` is uniform in [0, 1); `state` names what had been learned; `current` is the arm that the
    conversation is on; `price` what the budget's pace adds to the price of money; `mode` how models
    are called (see `arms`); `by_lot` whether the policy was left to Sophia; `asked` whether the
    answer is to be judged; `stream` whether it is to come as it is written; `sources` what told the
    task besides the text.
    """

    sight: Sight
    draw: float
    state: str = ""
    current: str | None = None
    price: float = 0.0
    mode: str = ""
    by_lot: bool = True
    asked: bool = False
    stream: bool = False
    sources: Sources | None = None

    def evidence(self) -> Evidence:
        """Return what to keep of a request that somebody else decided."""
        return Evidence(
            self.state,
            pack(self.sight),
            self.draw,
            mode=self.mode,
            by_lot=self.by_lot,
            asked=self.asked,
            sources=self.sources,
        )


class Ranking(Struct, frozen=True):
    """Offers in the order to try them, why the first is, and what it rests on."""

    offers: list[Offer]
    reason: str
    propensity: float
    evidence: Evidence


def rank(learned: Learned, seen: Seen, offers: Sequence[Offer], hints: Hints) -> Ranking | None:
    """Return the order of `offers`, or None when the policy declines or nobody is good enough.

    With `min_quality` an arm must be expected to reach it at a standard deviation below.
    """
    ratings = _rate(learned, seen, offers)
    if ratings is not None and hints.min_quality is not None:
        enough = (ratings.quality - ratings.sd >= hints.min_quality).tolist()
        offers = [offer for offer, good in zip(offers, enough, strict=True) if good]
        # What all arms share is left out of a rating, so a smaller field is rated anew.
        ratings = _rate(learned, seen, offers)
    if ratings is None:
        return None
    arms = [offer.seat.id for offer in offers]
    named = _named(offers, seen)
    outlook = _outlook(learned, seen, offers, named)
    cost = outlook.cost
    options = Options(
        ratings,
        cost,
        np.ones(len(arms), dtype=np.bool_),
        _lateness(outlook, seen, hints),
        arms.index(seen.current) if seen.current in arms else None,
        None,
        outlook.forecast.fails / outlook.forecast.tries,
    )
    options, taste, best = within_reach(options, _taste(hints, seen))
    trial = _trial(learned, seen, arms, cost, best)
    new = trial is not None
    if trial is None and learned.rival is not None and learned.exploration.mode != "off":
        rivals = learned.rival.correct(ratings, seen.sight, named)
        trial = probe(options, taste, best, rivals)
    options = replace(options, trial=trial)
    choice = choose(options, taste, learned.exploration, seen.draw)
    order = np.argsort(-choice.utility).tolist()
    order.remove(choice.arm)
    order.insert(0, choice.arm)
    return Ranking(
        [offers[at] for at in order],
        _reason(options, choice, arms, new=new),
        choice.propensity,
        _evidence(learned, seen, options, taste, choice, arms, outlook),
    )


def within_reach(options: Options, taste: Taste) -> tuple[Options, Taste, int]:
    """Return what may be tried out of `options`, the taste as they set it, and the best of them.

    A reference is what the best arm costs; what costs a few times the best worth is not tried.
    """
    cost = options.cost
    reference = max(float(cost[int(options.ratings.quality.argmax())]), 1.0)
    taste = replace(taste, reference=reference)
    best = int(utilities(options, taste).argmax())
    able = cost <= PATIENCE * max(float(cost[best]), 1.0)
    return replace(options, explorable=able), taste, best


def probe(
    options: Options, taste: Taste, best: int, rivals: Ratings
) -> tuple[int, float] | None:
    """Return the arm that is best by a rival's ratings and its chance of being tried for that.

    None where the two agree, or where the rival's is too dear to be tried.
    """
    _, _, theirs = within_reach(replace(options, ratings=rivals), taste)
    return (theirs, PROBE) if theirs != best and options.explorable[theirs] else None


class _Outlook(Struct, frozen=True):
    """What answers are expected to be like, (A,) each: how, of what length and at what price.

    `tokens` are those expected of anybody; `cost` and `answer`, the part of it that grows with the
    length, are in nano-dollars.
    """

    forecast: Forecast
    tokens: Vector
    cost: Vector
    answer: Vector


def _outlook(
    learned: Learned, seen: Seen, offers: Sequence[Offer], arms: Sequence[str]
) -> _Outlook:
    """Return what is expected of `offers`; nothing costs more than is held for it."""
    tokens = np.array([one.tokens for one in offers], np.float64)
    price = np.array([one.completion for one in offers], np.float64)
    expected = np.array([one.expected for one in offers], np.float64)
    most = np.array([one.held or one.expected for one in offers], np.float64)
    forecast = learned.habits.forecast(arms, Asked(seen.sight.tasks, tokens, seen.stream))
    price *= tokens
    price *= 1.0 / TOKENS_PER_PRICE_UNIT
    answer = price * forecast.length
    return _Outlook(forecast, tokens, np.minimum(expected + (answer - price), most), answer)


def _rate(learned: Learned, seen: Seen, offers: Sequence[Offer]) -> Ratings | None:
    if not offers:
        return None
    return learned.policy.rate(seen.sight, _named(offers, seen))


def _named(offers: Sequence[Offer], seen: Seen) -> list[str]:
    """Return the names of the arms that stand behind offers."""
    mode = seen.mode
    return [arm_of(offer.seat.id, mode) if mode else offer.seat.id for offer in offers]


def _taste(hints: Hints, seen: Seen) -> Taste:
    wish = wishes(hints)
    lateness = DECLARED_LATENESS if hints.max_latency_ms is not None else 0.0
    if wish == "fast":
        lateness = FAST_LATENESS
    dial: Dial = "cheap" if wish == "cheap" else "best" if wish == "best" else "balanced"
    price = price_of(dial if hints.dial is None else hints.dial)
    return Taste(price + seen.price, 1.0, lateness, SWITCHING, FAILING)


def _lateness(outlook: _Outlook, seen: Seen, hints: Hints) -> Vector:
    """Return the chance of each arm to be later than the caller wants, (A,)."""
    if hints.max_latency_ms is not None:
        return outlook.forecast.late(float(hints.max_latency_ms))
    return outlook.forecast.late(
        FAST_MS if seen.stream else FAST_MS + FAST_TOKEN_MS * outlook.tokens
    )


def _trial(
    learned: Learned, seen: Seen, arms: list[str], cost: Vector, best: int
) -> tuple[int, float] | None:
    if learned.shares is None:
        return None
    for trial in learned.trials:
        model = model_of(trial.arm)
        if model in arms and trial.arm == usual(arm_of(model, seen.mode)):
            at = arms.index(model)
            asked = Tried(seen.sight.tasks, learned.shares, float(cost[at]), float(cost[best]))
            probability = chance(trial, asked, learned.terms)
            if probability > 0.0:
                return at, probability
    return None


def _reason(options: Options, choice: Choice, arms: list[str], *, new: bool) -> str:
    at, quality, sd = choice.arm, options.ratings.quality, options.ratings.sd
    told = f"expected quality {quality[at]:.2f} ± {sd[at]:.2f}"
    if options.trial is not None and options.trial[0] == at and at != choice.best:
        what = "A new model on trial" if new else "Tried out as a challenger of the policy would"
        return f"{what}: {told}."
    if at != choice.best:
        return (
            f"Tried out with probability {choice.propensity:.2f} instead of {arms[choice.best]}: "
            f"{told}."
        )
    return f"The best worth for its price by what was learned: {told}."


def _evidence(  # noqa: PLR0913 - each is one part of what decided
    learned: Learned,
    seen: Seen,
    options: Options,
    taste: Taste,
    choice: Choice,
    arms: list[str],
    outlook: _Outlook,
) -> Evidence:
    return Evidence(
        learned.state,
        pack(seen.sight),
        seen.draw,
        astuple(taste),
        astuple(learned.exploration),
        rated(arms, options, choice),
        options.current,
        options.trial,
        seen.mode,
        seen.by_lot,
        seen.asked,
        pack_usual(outlook.forecast, outlook.answer),
        seen.sources,
    )
