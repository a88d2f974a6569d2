"""Decisions of the ledger that several channels spoke of, as ballots."""

from collections.abc import Sequence
from itertools import groupby

from sophia.core.ports import Store
from sophia.core.rows import REJECTED, Feedback, served
from sophia.learning.calibration import Ballot
from sophia.learning.channels import CHANNELS, JUDGE
from sophia.learning.lessons import ReadPlan

MOST = 5000


async def ballots_of(store: Store, read: ReadPlan, since_ms: int) -> list[Ballot]:
    """Return the latest decisions since a moment that several channels scored, 5,000 at most.

    Those whose first answer a cascade rejected are left out: not all spoke of the same answer.
    """
    found = []
    rows = await store.compared(since_ms, MOST)
    for decision_id, said in groupby(rows, lambda one: one.decision_id):
        ballot = await _ballot(store, read, decision_id, list(said))
        if ballot is not None:
            found.append(ballot)
    return found


async def _ballot(
    store: Store, read: ReadPlan, decision_id: int, said: Sequence[Feedback]
) -> Ballot | None:
    decision = await store.decision(decision_id)
    made = await store.attempts(decision_id)
    answered = served(made)
    if decision is None or not decision.plan or answered is None:
        return None
    if any((one.failure or "").startswith(REJECTED) for one in made):
        return None
    votes: dict[str, float] = {}
    judge = ""
    for one in said:
        # On one channel the first word counts.
        if one.channel in CHANNELS and one.channel not in votes and one.score is not None:
            votes[one.channel] = one.score
            judge = one.label or "" if one.channel == JUDGE else judge
    if len(votes) < 2:
        return None
    candidates = read(decision.plan).candidates
    expected = next((one.quality for one in candidates if one.model == answered.model), 0.5)
    return Ballot(decision.key_id, answered.model, expected, votes, judge)
