"""Logged decisions as a log for evaluation, and the chances that other policies give on them."""

import math
from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from sophia.learning.logged import Logged, Word
from sophia.learning.missing import Means, Voices, means, weigh
from sophia.learning.outcome_model import Matrix
from sophia.learning.support import Log
from sophia.routing.arms import model_of
from sophia.routing.heuristic import choose_role, lineup
from sophia.routing.learned import FAST_LATENESS
from sophia.routing.optimizer import DEFAULT_MIN_QUALITY, Offer, prefer
from sophia.routing.policies.choose import Options, choose, price_of
from sophia.routing.policies.policy import Ratings, Vector
from sophia.routing.pool import Pool, quality_of


def log_of(decisions: Sequence[Logged]) -> tuple[Log, tuple[str, ...]]:
    """Return decisions as a log over all arms that any of them could take, and these arms."""
    arms = tuple(sorted({arm for one in decisions for arm in one.arms}))
    taken = np.array([arms.index(one.arms[one.chosen]) for one in decisions], dtype=np.intp)
    contexts = np.array(
        [np.concatenate([one.sight.tasks, one.sight.features]) for one in decisions]
    )
    asked, words = [one.asked for one in decisions], [one.word for one in decisions]
    said = voices(contexts, taken, asked, words)
    weighing = weigh(said)
    inverse = None if weighing.by == "nothing" else weighing.weights
    chances = spread(decisions, arms, [one.chances for one in decisions])
    return Log(contexts, taken, chances, said.scores, inverse), arms


def means_of(decisions: Sequence[Logged]) -> Means | None:
    """Return the mean score of decisions as those who speak tell it; None when nobody does."""
    names = sorted({one.arms[one.chosen] for one in decisions})
    taken = np.array([names.index(one.arms[one.chosen]) for one in decisions], dtype=np.intp)
    contexts = np.array([one.sight.tasks for one in decisions])
    asked, words = [one.asked for one in decisions], [one.word for one in decisions]
    return means(voices(contexts, taken, asked, words))


def voices(
    contexts: Matrix, arms: NDArray[np.intp], asked: Sequence[bool], words: Sequence[Word | None]
) -> Voices:
    """Return decisions, a row each, with what was said of them, as voices.

    Args:
        contexts: (N, F), what is known of each request.
        arms: (N,), which arm answered.
        asked: whether the lot fell on it.
        words: what was said; None for silence.
    """
    drawn = np.array(asked, dtype=np.bool_)
    scores = [math.nan if one is None else one.score for one in words]
    verdicts = [math.nan if one is None or one.verdict is None else one.verdict for one in words]
    # Whom the lot did not fall on was not asked by us: what a judge says there, somebody sent.
    others = [one is not None and (one.others or not drawn[at]) for at, one in enumerate(words)]
    return Voices(
        contexts,
        arms,
        drawn,
        np.array(scores),
        np.where(drawn, np.array(verdicts), np.nan),
        np.array(others, dtype=np.bool_),
    )


def spread(
    decisions: Sequence[Logged], arms: tuple[str, ...], values: Sequence[Vector]
) -> Matrix:
    """Return each decision's values at the places of all arms, (N, A); zeros elsewhere."""
    place = {arm: number for number, arm in enumerate(arms)}
    placed = np.zeros((len(decisions), len(arms)))
    for row, (one, some) in enumerate(zip(decisions, values, strict=True)):
        placed[row, [place[arm] for arm in one.arms]] = some
    return placed


def costs_of(decisions: Sequence[Logged], arms: tuple[str, ...]) -> Matrix:
    """Return what each arm was expected to cost, (N, A), in nano-dollars."""
    return spread(decisions, arms, [one.options.cost for one in decisions])


def fixed(decision: Logged, model: str) -> Vector:
    """Return certainty of one model, (A,); where it could not be taken, what was done then."""
    models = [model_of(one) for one in decision.arms]
    if model not in models:
        return decision.chances
    return _certain(len(models), models.index(model))


def rechosen(
    decision: Logged,
    ratings: Ratings | None,
    price: float | None = None,
    models: frozenset[str] = frozenset(),
) -> Vector:
    """Return the chances that ratings give the arms, (A,), chosen among as was chosen then.

    Args:
        decision: what could be taken, and by which taste.
        ratings: of its arms; None where a policy declines: then what was done stands.
        price: of money instead of the one that held then; see `choose.price_of`.
        models: the only ones that may be taken; empty: all. Where none of them could be, what was
            done stands.
    """
    kept = [at for at, arm in enumerate(decision.arms) if not models or model_of(arm) in models]
    if ratings is None or not kept:
        return decision.chances
    taste = decision.taste if price is None else replace(decision.taste, price=price)
    options = _among(replace(decision.options, ratings=ratings), kept)
    chances: Vector = np.zeros(len(decision.arms))
    chances[kept] = choose(options, taste, decision.exploration, 0.0).propensities
    return chances


def tabled(decision: Logged, pool: Pool) -> Vector:
    """Return certainty of the model that the table of the first day names, (A,).

    What the caller asked for (cheap, fast, best) is told by the taste that was logged. Where no
    model of `pool` could be taken, what was done stands.
    """
    models = [model_of(one) for one in decision.arms]
    listed = decision.options.cost if decision.listed is None else decision.listed
    features = decision.features
    if features is None or not set(models) & pool.by_id.keys():
        return decision.chances
    offers = {
        name: Offer(
            pool.by_id[name],
            quality_of(pool.by_id[name], features.task_type),
            int(listed[at]),
            int(listed[at]),
            None,
            True,
        )
        for at, name in enumerate(models)
        if name in pool.by_id
    }

    def of_role(role: str) -> Offer | None:
        seat = pool.by_role.get(role)
        return None if seat is None else offers.get(seat.id)

    ranked = [offers[seat.id] for seat in pool.ranking[features.task_type] if seat.id in offers]
    paying = lineup(choose_role(features)[0], of_role, ranked)
    ordered, _ = prefer(paying, _wish(decision), DEFAULT_MIN_QUALITY)
    first = (ordered or [of_role("fallback") or min(paying, key=lambda one: one.expected)])[0]
    return _certain(len(models), models.index(first.seat.id))


def _wish(decision: Logged) -> str:
    taste = decision.taste
    if taste.lateness >= FAST_LATENESS:
        return "fast"
    if taste.price >= price_of("cheap"):
        return "cheap"
    return "best" if taste.price <= price_of("best") else ""


def _among(options: Options, kept: list[int]) -> Options:
    """Return the options at these places alone."""
    place = {at: number for number, at in enumerate(kept)}
    trial = options.trial
    return Options(
        Ratings(options.ratings.quality[kept], options.ratings.sd[kept]),
        options.cost[kept],
        options.explorable[kept],
        None if options.late is None else options.late[kept],
        None if options.current is None else place.get(options.current),
        None if trial is None or trial[0] not in place else (place[trial[0]], trial[1]),
        None if options.fail is None else options.fail[kept],
    )


def _certain(count: int, at: int) -> Vector:
    chances: Vector = np.zeros(count)
    chances[at] = 1.0
    return chances
