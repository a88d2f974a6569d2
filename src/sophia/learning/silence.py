"""For how many decisions each word of the ledger stands, the silent ones included."""

from collections.abc import Mapping

import numpy as np
from msgspec import Struct

from sophia.core.ports import Store
from sophia.learning.logged import MOST, ReadPlan, words_of
from sophia.learning.missing import Means, means, weigh
from sophia.learning.targets import voices
from sophia.routing.arms import arm_of
from sophia.routing.evidence import unpack

MOST_COUNT = 5.0
"""A word counts for at most five times the mean one when it is learned from: what it says of the
silent is a guess, and one odd voice must not decide."""


class Counts(Struct, frozen=True):
    """What every word counts for by the decision that it is on, 1 in the mean; and what they say.

    `means` is None where nobody said a word.
    """

    by_decision: Mapping[int, float]
    means: Means | None = None


async def counts_of(store: Store, read: ReadPlan) -> Counts:
    """Return what the words in a ledger count for, from all decisions that could have had one."""
    words = await words_of(store)
    ids, contexts, arms, asked = [], [], [], []
    for row in await store.decisions(0, MOST):
        plan = read(row.plan) if row.plan else None
        if plan is None or plan.evidence is None or not plan.attempts:
            continue
        ids.append(row.attempt_id)
        contexts.append(unpack(plan.evidence.sight).tasks)
        # Of a silent decision all that is known is who was asked first.
        arms.append(arm_of(plan.attempts[0].model, plan.evidence.mode))
        asked.append(plan.evidence.asked)
    spoken = [at for at, id in enumerate(ids) if id in words]
    if not spoken:
        return Counts({})
    names = sorted(set(arms))
    taken = np.array([names.index(arm) for arm in arms], dtype=np.intp)
    said = voices(np.array(contexts), taken, asked, [words.get(id) for id in ids])
    weighing = weigh(said)
    weights = weighing.weights[spoken]
    bounded = np.minimum(weights / weights.mean(), MOST_COUNT)
    bounded /= bounded.mean()
    counts = {ids[at]: float(count) for at, count in zip(spoken, bounded, strict=True)}
    return Counts(counts, means(said, weighing))
