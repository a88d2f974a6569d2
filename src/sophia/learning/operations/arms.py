"""Expected quality, cost and time of every arm, by the policy in service."""

from contextlib import suppress

import numpy as np
from msgspec import Struct

from sophia.core.money import TOKENS_PER_PRICE_UNIT
from sophia.core.ports import Store
from sophia.learning.online.archive import PolicyArchive
from sophia.learning.online.catch_up import catch_up
from sophia.learning.online.policy import OnlinePolicy
from sophia.routing.bandit.arms import CALL_KINDS, format_arm, strip_call_mode
from sophia.routing.bandit.performance.summary import (
    PerformanceSummary,
    pack_summaries,
    unpack_summaries,
)
from sophia.routing.bandit.policy import PolicyContext, Vector
from sophia.routing.pool import ModelPool

EXAMPLE_PROMPT_TOKENS, EXAMPLE_COMPLETION_TOKENS = 1000, 400
"""Size of the request that costs and times are given for."""


class ArmSummary(Struct, frozen=True, kw_only=True):
    """One arm: its expected quality, give or take `sd`, averaged over the requests until now.

    `cost_nano` and `performance` are of the example request; `timed_answers` is the number of
    answers that were timed.
    """

    arm: str
    quality: float
    sd: float
    cost_nano: float
    performance: PerformanceSummary
    timed_answers: int


async def load_current_policy(archive: PolicyArchive, store: Store) -> OnlinePolicy:
    """Return the policy in service with the lessons since its snapshot. Raises BrokenSnapshot."""
    policy = archive.load_active()
    # A ledger from which old decisions were removed teaches as much as it can.
    with suppress(LookupError):
        await catch_up(policy, store)
    return policy


def summarize_arms(policy: OnlinePolicy, pool: ModelPool, key_id: str = "") -> list[ArmSummary]:
    """Return the arms of the pool; call modes other than the plain one only once they were used.

    With `key_id` the qualities are those that this key's feedback led to.
    """
    policy.add_models([entry.id for entry in pool.models])
    learned = policy.assign(0.0, requested=True)
    if learned is None:
        return []
    count = policy.learner.task_count
    tasks = np.full(count, 1.0 / count) if learned.task_shares is None else learned.task_shares
    names = [format_arm(entry.id, kind) for kind in CALL_KINDS for entry in pool.models]
    timed = {name: policy.performance.count_timed(name) for name in names}
    arms = [name for name in names if timed[name] or name == strip_call_mode(name)]
    context = PolicyContext(tasks, tenant="" if policy.shared else key_id)
    ratings = policy.learner.rate(context, arms)
    forecast = policy.performance.forecast(
        arms, tasks, np.full(len(arms), float(EXAMPLE_COMPLETION_TOKENS))
    )
    prompt, completion = _token_prices(pool, arms)
    completion_cost = completion * forecast.length_ratio * EXAMPLE_COMPLETION_TOKENS
    cost = prompt * EXAMPLE_PROMPT_TOKENS + completion_cost
    performance = unpack_summaries(pack_summaries(forecast, completion_cost))
    return [
        ArmSummary(
            arm=arm,
            quality=float(ratings.quality[row]),
            sd=float(ratings.sd[row]),
            cost_nano=float(cost[row]),
            performance=performance[row],
            timed_answers=timed[arm],
        )
        for row, arm in enumerate(arms)
    ]


def _token_prices(pool: ModelPool, arms: list[str]) -> tuple[Vector, Vector]:
    """Return nano-dollars per prompt token and per completion token, shape (A,) each."""
    tiers = [pool.by_id[strip_call_mode(arm)].base_prices for arm in arms]
    prompt = np.array([tier.prompt for tier in tiers], np.float64)
    completion = np.array([tier.completion for tier in tiers], np.float64)
    return prompt / TOKENS_PER_PRICE_UNIT, completion / TOKENS_PER_PRICE_UNIT
