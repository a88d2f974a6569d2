"""A live policy believes of a new model what probes said, where no outcome speaks of it yet."""

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct

from sophia.learning.live import Live
from sophia.learning.probing import Expected, Matrix, Pairs, believed_after, enough, shift
from sophia.routing.arms import CALLS, arm_of
from sophia.routing.policies.policy import Sight, Vector


class Kinds(Struct, frozen=True):
    """The K kinds of work, and shape (T, K) how the classes are spread over them; rows sum to 1."""

    names: tuple[str, ...]
    weights: Matrix


class Concluded(Struct, frozen=True):
    """What a model was believed to be, and what it is believed to be by its probes.

    `after` is None where there were too few pairs: then nothing changes. Both are over the kinds.
    """

    before: Expected
    after: Expected | None


def is_judged(live: Live, model: str) -> bool:
    """Say whether outcomes of a model are known: then a probe has nothing to add."""
    return any(live.learner.is_taught(arm_of(model, call)) for call in CALLS)


def conclude(
    live: Live, model: str, known: Sequence[str], pairs: Mapping[str, Pairs], kinds: Kinds
) -> Concluded:
    """Have `live`, which knows all these models, believe what pairs say of `model`.

    Earlier probes of the model are forgotten: the same questions must not count twice.

    Raises:
        ValueError: outcomes of the model were learned already.
    """
    arms = [arm_of(model, call) for call in CALLS]
    for arm in arms:
        live.learner.believe(arm, live.unprobed(arm))
    before = _expected(live, model, kinds)
    if not enough(pairs):
        for arm in arms:
            live.learner.believe(arm, live.prior_of(arm))
        return Concluded(before, None)
    others = [_expected(live, one, kinds) for one in known]
    moved = shift(kinds.names, pairs, before, others)
    for arm in arms:
        live.probe(arm, believed_after(live.unprobed(arm), moved, kinds.weights))
    return Concluded(before, _expected(live, model, kinds))


def _expected(live: Live, model: str, kinds: Kinds) -> Expected:
    """Return what is expected of a model by kind, from what is expected of it by class."""
    told = [live.learner.rate(sight, [model]) for sight in _sights(len(kinds.weights))]
    quality = np.array([one.quality[0] for one in told])
    sd = np.array([one.sd[0] for one in told])
    return Expected(_by_kind(quality, kinds), np.sqrt(_by_kind(sd * sd, kinds)))


def _by_kind(values: Vector, kinds: Kinds) -> Vector:
    by_kind: Vector = (values @ kinds.weights) / kinds.weights.sum(axis=0)
    return by_kind


def _sights(classes: int) -> list[Sight]:
    nothing = np.zeros(0)
    return [Sight(task, nothing, nothing) for task in np.eye(classes)]
