"""A correction of the learned policy as its challenger: who serves whom, and what a look finds.

One tenant's challenge is decided by that tenant's requests alone. Which side decides a request is
drawn by a lot of its own, and each decision keeps the exact propensities of the side that made it.
A look takes the incumbent's decisions only: a lot made them its own, so they are a fair sample of
all requests, and their propensities are exact. Where challenger and incumbent disagree, a part of
the incumbent's exploring follows the challenger: of what is never tried no log can tell.
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from sophia.learning.correction import Fitted
from sophia.learning.logged import Logged
from sophia.learning.off_policy import compare, foretell
from sophia.learning.outcome_model import Matrix
from sophia.learning.promotion import (
    GATE,
    Contest,
    Gate,
    Ruling,
    Side,
    Stage,
    Trial,
    consider,
    observe,
    ruling_of,
    serving,
    share,
)
from sophia.learning.targets import log_of
from sophia.routing.learned import within_reach
from sophia.routing.policies.choose import Options, choose, utilities
from sophia.routing.policies.policy import Ratings, Vector
from sophia.routing.policies.residual import Correction, Rival

PLAIN = "hierarchical"
"""The incumbent's name where nothing is corrected."""
UNTOLD = 0.5
"""The novelty from which on the text of a request tells nothing."""

_LETTERS = 12
_REMEMBERED = 20


class Ended(Struct, frozen=True):
    """A challenger that had its time: how far it came, when that was over, and why."""

    challenger: str
    incumbent: str
    stage: Stage
    at_ms: int
    reason: str


class Challenge(Struct, frozen=True):
    """A correction and its contest, for one tenant.

    Attributes:
        contest: the challenger's and the incumbent's are names of corrections.
        correction: the challenger's, packed.
        lessons: how many the tenant had given at the last step.
        before: the incumbent's, packed; empty where it corrects nothing.
        last: what the last look came to.
        past: the tenant's earlier challengers, the latest last.
    """

    contest: Contest
    correction: bytes
    lessons: int
    before: bytes = b""
    last: Ruling | None = None
    past: tuple[Ended, ...] = ()

    @property
    def open(self) -> bool:
        """Whether looks or live scores may still change something."""
        return self.contest.stage in {"shadow", "canary", "champion"}

    @property
    def rated_by(self) -> str:
        """The name of the incumbent's correction, "" for none."""
        return "" if self.contest.incumbent == PLAIN else self.contest.incumbent


class Hearing(Struct, frozen=True):
    """One live score: when its request was decided, on which correction, and how it went."""

    decided_ms: int
    rated_by: str
    score: float
    at_ms: int


class Pace(Struct, frozen=True):
    """How often a tenant's challenge goes on, in lessons of that tenant.

    Attributes:
        first: before the learned policy is challenged at all.
        look: from one step to the next look.
        again: from the end of a challenge to the next one; each defeat adds as many.
        most: the latest lessons of the ledger that a correction is learned from.
    """

    first: int = 4000
    look: int = 4000
    again: int = 4000
    most: int = 20_000


def lessons_until(challenge: Challenge | None, lessons: int, pace: Pace) -> float:
    """Return how many more lessons a tenant of so many must give before the next step."""
    if challenge is None:
        return pace.first - lessons
    if challenge.contest.stage == "champion":
        # Live scores alone decide from here on.
        return math.inf
    wait = pace.look if challenge.open else pace.again * (1 + challenge.contest.defeats)
    return wait - (lessons - challenge.lessons)


def challenged(
    before: Challenge | None, fitted: Fitted, lessons: int, at_ms: int
) -> Challenge:
    """Return a new challenge by what was `fitted`, against whoever serves by now.

    Decisions from before `at_ms` were learned from, so that they prove nothing.
    """
    packed = fitted.correction.pack()
    name = hashlib.sha256(packed).hexdigest()[:_LETTERS]
    incumbent, kept, defeats = PLAIN, b"", 0
    past: tuple[Ended, ...] = ()
    if before is not None:
        past = (*before.past, _ended(before.contest))[-_REMEMBERED:]
        incumbent = serving(before.contest)
        kept = before.correction if incumbent == before.contest.challenger else before.before
        if before.contest.stage == "retired":
            defeats = before.contest.defeats + 1
    contest = Contest(name, incumbent, at_ms, defeats=defeats)
    return Challenge(contest, packed, lessons, kept, past=past)


def _ended(contest: Contest) -> Ended:
    step = contest.history[-1]
    sides = contest.challenger, contest.incumbent
    return Ended(*sides, contest.stage, step.at_ms, step.reason)


def drawn(challenge: Challenge, lot: float, gate: Gate = GATE) -> str:
    """Return the correction that `lot`, uniform in [0, 1), deals a request to; "" for none."""
    contest = challenge.contest
    side = contest.challenger if lot < share(contest, gate) else contest.incumbent
    return "" if side == PLAIN else side


def kept_as(challenge: Challenge, name: str) -> bytes | None:
    """Return the correction of that name, None when neither side has it."""
    contest = challenge.contest
    sides = {contest.incumbent: challenge.before, contest.challenger: challenge.correction}
    return sides.get(name)


def heard(challenge: Challenge, told: Hearing, lessons: int, gate: Gate = GATE) -> Challenge:
    """Return the challenge after a live score of a request that was dealt out by lot.

    Requests that were decided before the stage began were dealt otherwise, and do not count.
    """
    contest = challenge.contest
    if not contest.history or told.decided_ms < contest.history[-1].at_ms:
        return challenge
    sides: dict[str, Side] = {contest.incumbent: "incumbent", contest.challenger: "challenger"}
    side = sides.get(told.rated_by or PLAIN)
    if side is None:
        return challenge
    after = observe(contest, side, told.score, told.at_ms, gate)
    ended = after.stage != contest.stage
    return replace(challenge, contest=after, lessons=lessons if ended else challenge.lessons)


class Judged(Struct, frozen=True):
    """A decision of the incumbent's, and what both sides would have done without trials.

    Attributes:
        ours, theirs: (A,), the chances that the sides would have given its arms.
        prices: (A,), what each arm costs in units of score: money, lateness, another model.
    """

    decision: Logged
    ours: Vector
    theirs: Vector
    prices: Vector


def judged(one: Logged, rival: Rival) -> Judged:
    """Return what both sides would have made of a decision."""
    rated = one.options.ratings
    ours = chances(one, rival.correct(rated, one.sight, one.arms))
    prices = rated.quality - utilities(one.options, one.taste)
    return Judged(one, ours, chances(one, rated), prices)


def look(challenge: Challenge, found: Sequence[Judged], until_ms: int, seed: int = 0) -> Trial:
    """Return what the incumbent's decisions say of the challenger.

    Compared is what callers get for their money: the score less the price of cost, lateness and
    leaving the conversation's model, each as it was worth to the caller then.
    """
    decisions = [one.decision for one in found]
    log, arms = log_of(decisions)
    ours, theirs, prices = (np.zeros_like(log.propensities) for _ in range(3))
    place = {arm: number for number, arm in enumerate(arms)}
    for row, one in enumerate(found):
        at = [place[arm] for arm in one.decision.arms]
        ours[row, at], theirs[row, at], prices[row, at] = one.ours, one.theirs, one.prices
    # As if the challenger decided nothing but the requests whose text tells nothing.
    untold = np.array([one.sight.novelty >= UNTOLD for one in decisions])[:, None]
    there: Matrix = np.where(untold, ours, theirs)
    foretold = foretell(log, seed)
    return Trial(
        challenge.contest.seen_ms,
        until_ms,
        compare(log, ours, theirs, foretold=foretold, prices=prices),
        compare(log, there, theirs, foretold=foretold, prices=prices),
    )


def chances(one: Logged, ratings: Ratings) -> Vector:
    """Return the chances, (A,), that the arms of a decision would have had by these ratings.

    Nobody is on trial. What `min_quality` left out of a decision is not kept, and stays out.
    """
    options: Options = replace(one.options, ratings=ratings, trial=None)
    options, taste, _ = within_reach(options, one.taste)
    given = choose(options, taste, one.exploration, 0.0).propensities
    whole: Vector = given / given.sum()
    return whole


def ruled(
    challenge: Challenge, trial: Trial, lessons: int, at_ms: int, gate: Gate = GATE
) -> Challenge:
    """Return the challenge after a look. Raises ValueError when these logs were seen before."""
    contest = consider(challenge.contest, trial, at_ms, gate)
    last = ruling_of(trial, contest.looks, gate)
    return replace(challenge, contest=contest, lessons=lessons, last=last)


def rival_of(challenge: Challenge) -> Rival:
    """Return the challenger's correction as seen from the incumbent's ratings."""
    theirs = Correction.unpack(challenge.before) if challenge.before else None
    return Rival(Correction.unpack(challenge.correction), theirs)
