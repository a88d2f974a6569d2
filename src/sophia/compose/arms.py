"""What was learned of every arm, as the snapshot in service has it."""

from pathlib import Path

import numpy as np
from msgspec import Struct

from sophia.compose import catalogue_of, data_folder
from sophia.compose.learning import first_steps, history_of, pace_in, restored
from sophia.compose.listing import knowledge_from
from sophia.compose.priors import shelf_of
from sophia.config import Settings
from sophia.core.money import TOKENS_PER_PRICE_UNIT
from sophia.learning.live import Live
from sophia.learning.snapshots import current
from sophia.routing.arms import CALLS, arm_of, model_of
from sophia.routing.forecast import Asked
from sophia.routing.policies.policy import Sight, Vector
from sophia.routing.pool import Pool
from sophia.routing.usual import Usual, pack_usual, usual_of

PROMPT_TOKENS, ANSWER_TOKENS = 1000, 400
"""The request that costs and times are told of; answers differ by what was learned of lengths."""


class Known(Struct, frozen=True):
    """One arm: its expected quality, give or take `sd`, on requests as they came until now.

    `cost_nano` and `usual` are of a request of a thousand tokens whose answer is expected to have
    four hundred; `answers` is how many were timed.
    """

    arm: str
    quality: float
    sd: float
    cost_nano: float
    usual: Usual
    answers: int


def known_arms(settings: Settings, key_id: str = "") -> list[Known]:
    """Return what is known of the arms of the pool; of ways of calling, those that were seen.

    `key_id` is the key whose outcomes count; without one, what is believed of anybody's requests.

    Raises:
        BrokenSnapshot: what was learned cannot be read.
    """
    data = data_folder(settings)
    pool = knowledge_from(settings, catalogue_of(settings)).pool
    live = _live(settings, data, pool)
    learned = live.learned(0.0, asked=True)
    if learned is None:
        return []
    count = live.learner.tasks
    tasks = np.full(count, 1.0 / count) if learned.shares is None else learned.shares
    arms = [arm_of(seat.id, call) for call in CALLS for seat in pool.seats]
    arms = [arm for arm in arms if arm == model_of(arm) or live.habits.seen(arm)]
    tenant = "" if settings.learning.share_keys else key_id
    nothing = np.zeros(0)
    ratings = live.learner.rate(Sight(tasks, nothing, nothing, 0.0, tenant), arms)
    forecast = live.habits.forecast(arms, Asked(tasks, np.full(len(arms), float(ANSWER_TOKENS))))
    prompt, completion = _prices(pool, arms)
    answer = completion * forecast.length * ANSWER_TOKENS
    cost = (prompt * PROMPT_TOKENS + answer).tolist()
    usual = usual_of(pack_usual(forecast, answer))
    return [
        Known(arm, float(ratings.quality[at]), float(ratings.sd[at]), cost[at], usual[at], seen)
        for at, (arm, seen) in enumerate((arm, live.habits.seen(arm)) for arm in arms)
    ]


def _live(settings: Settings, data: Path, pool: Pool) -> Live:
    live, _ = first_steps(
        settings.learning, lambda model: pace_in(pool, model), shelf_of(data)
    )
    id = current(history_of(data))
    if id is not None:
        live.adopt(restored(settings.learning, data, id)[0])
    live.know([seat.id for seat in pool.seats])
    return live


def _prices(pool: Pool, arms: list[str]) -> tuple[Vector, Vector]:
    """Return nano-dollars for each token of prompt and answer, (A,) each."""
    tiers = [pool.by_id[model_of(arm)].base for arm in arms]
    prompt = np.array([tier.prompt for tier in tiers], np.float64)
    completion = np.array([tier.completion for tier in tiers], np.float64)
    return prompt / TOKENS_PER_PRICE_UNIT, completion / TOKENS_PER_PRICE_UNIT
