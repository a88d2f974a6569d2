"""Which policy serves: a challenger looks on, then serves a few, then all; and steps back alone.

    shadow ── gain proved on unseen logs ──► canary ── proved again, not worse live ──► champion
       └───────────── not proved in time ───────┴────────── shown to be worse ──► retired

Two thresholds lie apart: to rise, a challenger's gain must be proved beyond a margin; to fall, it
must be shown to be worse. What is in between changes nothing. Every look at logs spends a part of
one error budget, and live intervals hold at every look, so looking often promotes nobody.
"""

import math
from statistics import NormalDist
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from sophia.learning.always_valid import Interval, Tally, interval
from sophia.learning.off_policy import Comparison, Refused

Stage = Literal["shadow", "canary", "champion", "settled", "retired"]
Side = Literal["challenger", "incumbent"]


class Gate(Struct, frozen=True):
    """What it takes to rise, and to be sent back.

    Attributes:
        error: the chance at most that a challenger without a gain is promoted, however often one
            looks; and the chance at most that one no worse is sent back for its live scores.
        margin: the score by which a challenger must be better, at its lower bound.
        slack: how far its lower bound may lie below on the requests where no text tells.
        canary: the share of traffic that a canary serves.
        holdback: the share that the former champion keeps until the new one is settled.
        decisions: how many unseen logged decisions a look needs.
        outcomes: how many live scores a canary needs before it may be promoted.
        patience: live scores of the challenger after which the matter is closed in any stage.
        looks: at logs, before a challenger that proved nothing is retired.
    """

    error: float = 0.05
    margin: float = 0.002
    slack: float = 0.01
    canary: float = 0.05
    holdback: float = 0.05
    decisions: int = 1000
    outcomes: int = 200
    patience: int = 5000
    looks: int = 12


GATE = Gate()


class Trial(Struct, frozen=True):
    """One look at logged decisions that neither the challenger nor an earlier look has seen.

    `abstention` is the same comparison on requests where the text tells nothing of who does well.
    """

    since_ms: int
    until_ms: int
    gain: Comparison | Refused
    abstention: Comparison | Refused


class Ruling(Struct, frozen=True, tag=True):
    """What a trial came to: the bounds that were held against the gate, at this look's error."""

    trial: Trial
    look: int
    error: float
    low: float
    high: float
    abstention_low: float


class Standing(Struct, frozen=True, tag=True):
    """Where both stand live, by intervals that hold at every look."""

    challenger: Interval
    incumbent: Interval


class Transition(Struct, frozen=True):
    """One step, and the evidence for it."""

    at_ms: int
    before: Stage
    after: Stage
    reason: str
    evidence: Ruling | Standing


class Contest(Struct, frozen=True):
    """A challenger against the incumbent; both are snapshot ids.

    Logs from before `seen_ms` were learned from or looked at. A challenger that was sent back
    before starts with as many `defeats`, and each raises the margin by itself once more.
    """

    challenger: str
    incumbent: str
    seen_ms: int
    stage: Stage = "shadow"
    defeats: int = 0
    looks: int = 0
    ours: Tally = Tally()
    theirs: Tally = Tally()
    history: tuple[Transition, ...] = ()


def serving(contest: Contest) -> str:
    """Return the snapshot that serves whatever no share is set aside for."""
    return contest.challenger if contest.stage in {"champion", "settled"} else contest.incumbent


def share(contest: Contest, gate: Gate = GATE) -> float:
    """Return the share of traffic that the challenger serves, drawn by lot."""
    shares = {"canary": gate.canary, "champion": 1 - gate.holdback, "settled": 1.0}
    return shares.get(contest.stage, 0.0)


def consider(contest: Contest, trial: Trial, at_ms: int, gate: Gate = GATE) -> Contest:
    """Return the contest after a look at unseen logs.

    Raises ValueError when a part of the logs was seen before; a proof on those proves nothing.
    """
    if trial.since_ms < contest.seen_ms:
        raise ValueError("these logs were learned from or looked at before")
    if contest.stage not in {"shadow", "canary"}:
        return contest
    contest = replace(contest, looks=contest.looks + 1, seen_ms=trial.until_ms)
    ruling = ruling_of(trial, contest.looks, gate)
    proved = ruling.low > gate.margin * (1 + contest.defeats)
    proved = proved and ruling.abstention_low >= -gate.slack
    if ruling.high < 0:
        return _step(contest, "retired", "worse than the incumbent on unseen logs", ruling, at_ms)
    if ruling.high < gate.margin:
        return _step(contest, "retired", "no gain worth having on unseen logs", ruling, at_ms)
    if proved and contest.stage == "shadow":
        contest = replace(contest, ours=Tally(), theirs=Tally())
        return _step(contest, "canary", "better than the incumbent on unseen logs", ruling, at_ms)
    if proved and min(contest.ours.count, contest.theirs.count) >= gate.outcomes:
        contest = _step(contest, "champion", "better again, and not worse live", ruling, at_ms)
        return replace(contest, ours=Tally(), theirs=Tally())
    if contest.looks >= gate.looks:
        return _step(contest, "retired", "no gain was proved in time", ruling, at_ms)
    return contest


def observe(
    contest: Contest, side: Side, score: float, at_ms: int, gate: Gate = GATE
) -> Contest:
    """Return the contest after one live score of a request that was dealt out by lot.

    A failure without an answer is a score of 0. Raises ValueError unless it is from 0 to 1.
    """
    if contest.stage not in {"canary", "champion"}:
        return contest
    if side == "challenger":
        contest = replace(contest, ours=contest.ours.plus(score))
    else:
        contest = replace(contest, theirs=contest.theirs.plus(score))
    stands = standing(contest, gate)
    if stands.challenger.high < stands.incumbent.low:
        return _step(contest, "retired", "worse than the incumbent live", stands, at_ms)
    if side == "challenger" and contest.ours.count >= gate.patience:
        if contest.stage == "canary":
            return _step(contest, "retired", "no gain was proved in time", stands, at_ms)
        return _step(contest, "settled", "as good as promised", stands, at_ms)
    return contest


def standing(contest: Contest, gate: Gate = GATE) -> Standing:
    """Return where both stand live."""
    # Two intervals in two stages share the error.
    error = gate.error / 4
    return Standing(interval(contest.ours, error), interval(contest.theirs, error))


def _bounds(told: Comparison | Refused, error: float, decisions: int) -> tuple[float, float]:
    """Return one-sided bounds of the gain, each wrong with a chance of `error`."""
    if isinstance(told, Refused) or told.support.decisions < decisions:
        return -math.inf, math.inf
    z = NormalDist().inv_cdf(1 - error)
    degrees = max(told.support.ess - 1, 1.0)
    half = told.difference.se * (z + (z**3 + z) / (4 * degrees))
    return told.difference.value - half, told.difference.value + half


def ruling_of(trial: Trial, look: int, gate: Gate = GATE) -> Ruling:
    """Return the bounds that the look of that number, the first is 1, holds against the gate."""
    error = gate.error / (look * (look + 1))
    low, high = _bounds(trial.gain, error, gate.decisions)
    return Ruling(trial, look, error, low, high, _bounds(trial.abstention, error, 0)[0])


def _step(
    contest: Contest, after: Stage, reason: str, evidence: Ruling | Standing, at_ms: int
) -> Contest:
    step = Transition(at_ms, contest.stage, after, reason, evidence)
    return replace(contest, stage=after, history=(*contest.history, step))
