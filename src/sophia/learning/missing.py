"""Who says how it went: weights that make the few who speak stand for those who do not.

People speak up about some requests and some arms more than about others, so a plain mean over what
was said answers for the talkative. The chance of a word is estimated from the request, the arm, and
whether we asked for one; each score then counts for one over its chance. This removes what those
three explain. Silence that depends on the score itself beyond them is removed where a random few
were asked, since they tell what all think: the words of the others are weighed so that together
they say the same (`weigh`; calibration weights, Deville and Särndal, 1992). `asked_only` uses those
few alone.
"""

import math
from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from sophia.learning.outcome_model import Matrix, Vector

LEAST_CHANCE = 0.02
"""A score never counts for more than fifty decisions."""

LEAST_ASKED = 100
"""Answers of those who were asked, before anything is told from them."""

LEAST_WORDS = 20
"""Words of those who were not asked, before they are weighed by what the others say."""

LEAST_RATE = 0.8
"""Share of those who were asked that must have answered, to stand for all."""

_STEPS = 25

Bools = NDArray[np.bool_]


class Voices(Struct, frozen=True):
    """Who said what of N decisions; nobody writes to its arrays.

    Attributes:
        contexts: (N, F), what is known of each request.
        arms: (N,), which arm answered.
        asked: (N,), whether the lot fell on it to be judged.
        scores: (N,), all that was said of it as one score; NaN where nobody spoke.
        verdicts: (N,), what the one who was asked said; NaN where nobody was, or answered.
        volunteered: (N,), whether anybody spoke without being asked.
    """

    contexts: Matrix
    arms: NDArray[np.intp]
    asked: Bools
    scores: Vector
    verdicts: Vector
    volunteered: Bools

    @property
    def spoke(self) -> Bools:
        """(N,), whether anybody said a word."""
        return np.isfinite(self.scores)

    @property
    def told(self) -> Vector:
        """(N,), the score of each: that of the one who was asked, wherever one was and answered.

        Whoever speaks up beside them is not like those who do not.
        """
        return np.where(self.asked & np.isfinite(self.verdicts), self.verdicts, self.scores)


class Weighing(Struct, frozen=True):
    """(N,) weights of scores, and what the chance of a word was told by.

    `by` is `nothing` where everybody spoke, `request` where it is told by request and arm, and
    `score` where those who were asked tell how it depends on the score as well.
    """

    weights: Vector
    by: Literal["nothing", "request", "score"]


class Mean(Struct, frozen=True):
    """A mean score, the standard error of it, and how many decisions said it."""

    value: float
    se: float
    count: int


class Means(Struct, frozen=True):
    """The mean score of all decisions, as it is told by those who speak.

    Attributes:
        plain: as if the silent thought as they do.
        weighted: each counts for those like it who were silent.
        by: what that likeness is told by; see `Weighing`.
        asked: of those alone on whom the lot fell; None for too few, or too few answers.
    """

    plain: Mean
    weighted: Mean
    by: str
    asked: Mean | None = None


def weigh(voices: Voices, *, least: float = LEAST_CHANCE, ridge: float = 1.0) -> Weighing:
    """Return for how many decisions each score counts; where nobody spoke, it means nothing.

    Args:
        voices: who said what.
        least: the smallest chance of a word that is believed.
        ridge: the pull of every coefficient but the intercept towards zero.
    """
    spoke, asked = voices.spoke, voices.asked
    if spoke.all() or not spoke.any():
        return Weighing(np.ones(len(spoke)), "nothing")
    answered = asked & np.isfinite(voices.verdicts)
    own = spoke & ~asked
    enough = _is_enough(int(answered.sum()), int(asked.sum())) and own.sum() >= LEAST_WORDS
    if not enough or asked.all():
        inverse = inverse_chances(
            voices.contexts, voices.arms, asked, spoke, least=least, ridge=ridge
        )
        return Weighing(inverse, "request")
    design = np.hstack(
        [_plain(voices.contexts, voices.arms), np.nan_to_num(voices.scores)[:, None]]
    )
    total = design[~asked].sum(axis=0)
    total[-1] = (~asked).sum() * voices.verdicts[answered].mean()
    weights = np.full(len(spoke), asked.sum() / answered.sum())
    weights[own] = _agreeing(design[own], total, 1 / least, ridge)
    return Weighing(weights, "score")


def means(voices: Voices, weighing: Weighing | None = None) -> Means | None:
    """Return what the words say of all decisions together; None when there are none."""
    spoke = voices.spoke
    if not spoke.any():
        return None
    weighing = weighing or weigh(voices)
    plain, scores = voices.scores[spoke], voices.told[spoke]
    few = asked_only(voices.asked, np.isfinite(voices.verdicts))[spoke]
    enough = _is_enough(int((few > 0).sum()), int(voices.asked.sum()))
    asked = _mean(scores[few > 0], few[few > 0]) if enough else None
    weighted = _mean(scores if weighing.by == "score" else plain, weighing.weights[spoke])
    if weighing.by == "score" and asked is not None:
        # What is known of the silent is known from those who were asked, and no better.
        weighted = Mean(weighted.value, max(weighted.se, asked.se), weighted.count)
    return Means(_mean(plain, np.ones(len(plain))), weighted, weighing.by, asked)


def _is_enough(answered: int, asked: int) -> bool:
    return answered >= LEAST_ASKED and answered >= LEAST_RATE * asked


def _mean(scores: Vector, weights: Vector) -> Mean:
    total = float(weights.sum())
    value = float(weights @ scores) / total
    spread = float(((weights * (scores - value)) ** 2).sum())
    return Mean(value, math.sqrt(spread) / total, len(scores))


def inverse_chances(  # noqa: PLR0913 # the columns of a log
    contexts: Matrix,
    arms: NDArray[np.intp],
    asked: Bools,
    spoke: Bools,
    *,
    least: float = LEAST_CHANCE,
    ridge: float = 1.0,
) -> Vector:
    """Return (N,), one over the chance that anybody says how a decision went.

    Args:
        contexts: (N, F), what is known of each request.
        arms: (N,), which arm answered.
        asked: (N,), whether we asked for a word.
        spoke: (N,), whether one came.
        least: the smallest chance that is believed; smaller ones are raised to it.
        ridge: the pull of every coefficient but the intercept towards zero.
    """
    design = _design(contexts, arms, asked)
    chances = _chances(design, _fit(design, spoke.astype(np.float64), ridge))
    return np.asarray(1.0 / np.maximum(chances, least))


def asked_only(asked: Bools, spoke: Bools) -> Vector:
    """Return (N,) weights that hear only those who were asked, at the rate at which they answer.

    Right when whom we asked was drawn by lot and nearly all who were asked answered.
    """
    answered = asked & spoke
    rate = answered.sum() / max(int(asked.sum()), 1)
    share = asked.mean() if len(asked) else 0.0
    if rate * share == 0:
        return np.zeros(len(asked))
    return np.where(answered, 1.0 / (rate * share), 0.0)


def _design(contexts: Matrix, arms: NDArray[np.intp], asked: Bools) -> Matrix:
    solicited = asked.astype(np.float64)[:, None]
    plain = _plain(contexts, arms)
    # Those who are asked differ less from one another than those who speak up by themselves.
    return np.hstack([plain, plain[:, 1:] * solicited, solicited])


def _plain(contexts: Matrix, arms: NDArray[np.intp]) -> Matrix:
    """Return a one, the arm that answered, and the contexts at one scale, for each decision."""
    spread = contexts.std(axis=0)
    kept = spread > 1e-9
    scaled = (contexts[:, kept] - contexts[:, kept].mean(axis=0)) / spread[kept]
    chosen = np.eye(int(arms.max()) + 1 if len(arms) else 1)[arms]
    return np.hstack([np.ones((len(arms), 1)), chosen, scaled])


def _agreeing(design: Matrix, total: Vector, most: float, ridge: float) -> Vector:
    """Return weights, 1 to `most`, with which the rows of `design` sum to `total`, nearly.

    They have the form of one over a logistic chance; Newton steps on a convex penalised objective.
    """
    pull = np.full(design.shape[1], ridge)
    pull[0] = 1e-6
    coefficients = np.zeros(design.shape[1])
    coefficients[0] = -math.log(max(total[0] / len(design) - 1, 1e-3))
    for _ in range(2 * _STEPS):
        odds = np.exp(-np.clip(design @ coefficients, -math.log(most - 1), 30))
        slope = design.T @ (1 + odds) - total - pull * coefficients
        curve = (design * odds[:, None]).T @ design + np.diag(pull)
        step = np.linalg.solve(curve, slope)
        coefficients += step * min(1.0, 1.0 / max(float(np.abs(step).max()), 1e-12))
        if float(np.abs(step).max()) < 1e-8:
            break
    return np.asarray(1 + np.exp(-np.clip(design @ coefficients, -math.log(most - 1), 30)))


def _chances(design: Matrix, coefficients: Vector) -> Vector:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(design @ coefficients, -30, 30))))


def _fit(design: Matrix, said: Vector, ridge: float) -> Vector:
    """Return the coefficients of the chances, by Newton steps on the penalised likelihood."""
    pull = np.full(design.shape[1], ridge)
    pull[0] = 1e-6
    coefficients = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        chances = _chances(design, coefficients)
        slope = design.T @ (said - chances) - pull * coefficients
        curve = (design * (chances * (1 - chances))[:, None]).T @ design + np.diag(pull)
        step = np.linalg.solve(curve, slope)
        # Far from the optimum a whole step can overshoot; no coefficient needs to leap.
        coefficients += step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        if float(np.abs(step).max()) < 1e-8:
            break
    return coefficients
