"""What channels and judges are worth, told from decisions that several of them spoke of.

Where keys learn apart, each key's verdicts tell only of its own. Where they learn together, every
key has one seat, beside seats that keep to what everybody believes, and the extremes are cut off:
so no key turns a channel around, however much it says. A judge's favour is measured by key alone.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from msgspec import Struct

from sophia.learning.channels import CHANNELS, JUDGE, Channel, calibrate
from sophia.learning.credence import Credence, Known
from sophia.learning.influence import Voice, pooled
from sophia.learning.judging import Pair, measure

LEAST = 50
"""Decisions of a key that several channels spoke of, before anything is told from them."""
_HUMAN = ("score", "test", "thumb", "accepted", "edit")
"""Channels that belong to no family of models."""


class Ballot(Struct, frozen=True):
    """One decision that several channels spoke of: whose, what was expected, who said what.

    `judge` names the model behind the vote on the channel `judge`, if one does; `model` answered.
    """

    key_id: str
    model: str
    expected: float
    votes: Mapping[str, float]
    judge: str = ""


def credences(ballots: Iterable[Ballot], *, shared: bool) -> dict[str, Credence]:
    """Return what to believe by key, or for all keys together (by the empty name)."""
    by_key: dict[str, list[Ballot]] = {}
    for ballot in ballots:
        by_key.setdefault(ballot.key_id, []).append(ballot)
    apart = {
        key_id: _of_key(cast) for key_id, cast in sorted(by_key.items()) if len(cast) >= LEAST
    }
    if not shared:
        return apart
    return {"": _together(list(apart.values()))} if apart else {}


def _of_key(cast: Sequence[Ballot]) -> Credence:
    names = sorted({name for one in cast for name in one.votes if name in CHANNELS})
    ballots = np.array([[one.votes.get(name, np.nan) for name in names] for one in cast])
    expected = np.array([one.expected for one in cast])
    found = calibrate(ballots, expected, names)
    counts = np.isfinite(ballots).sum(axis=0).tolist()
    return Credence(found, _favours(cast), dict(zip(names, counts, strict=True)))


def _favours(cast: Sequence[Ballot]) -> tuple[Known, ...]:
    pairs = [
        Pair(one.judge, one.model, one.votes[JUDGE], float(np.mean(said)))
        for one in cast
        if one.judge and (said := [one.votes[name] for name in _HUMAN if name in one.votes])
    ]
    return tuple(
        Known(judge, family, favour) for (judge, family), favour in sorted(measure(pairs).items())
    )


def _together(keys: Sequence[Credence]) -> Credence:
    names = sorted({name for one in keys for name in one.channels})
    compared = {name: sum(one.compared.get(name, 0) for one in keys) for name in names}
    return Credence({name: _pooled(name, keys) for name in names}, (), compared)


def _pooled(name: str, keys: Sequence[Credence]) -> Channel:
    usual, told = CHANNELS[name], [one.channels[name] for one in keys if name in one.channels]
    hit = pooled([Voice(one.hit, sum(one.good)) for one in told], usual.hit).mean
    slip = pooled([Voice(one.slip, sum(one.bad)) for one in told], usual.slip).mean
    good, bad = sum(usual.good), sum(usual.bad)
    return Channel((hit * good, (1 - hit) * good), (slip * bad, (1 - slip) * bad))
