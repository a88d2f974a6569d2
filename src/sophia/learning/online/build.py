"""Build the learned policy before its first lesson."""

from collections.abc import Callable

from sophia.learning.online.packaged import load_task_kinds
from sophia.learning.online.policy import OnlinePolicy, OnlineSettings
from sophia.learning.priors.book import PriorBook, load_shipped_priors
from sophia.routing.bandit.arms import strip_call_mode
from sophia.routing.bandit.performance.latency import DEFAULT_SPEED, SpeedPrior
from sophia.routing.bandit.policy import Prior
from sophia.routing.bandit.quality.hierarchical import HierarchicalPolicy

_VARIANT_SD_FACTOR = 1.5
"""No benchmark tells tools or reasoning apart: for these the model's prior is less certain."""


def build_policy(
    settings: OnlineSettings | None = None,
    *,
    shared: bool = False,
    get_priors: Callable[[], PriorBook] = load_shipped_priors,
    find_speed_prior: Callable[[str], SpeedPrior] = lambda _: DEFAULT_SPEED,
) -> OnlinePolicy:
    """Return a policy that has no lessons and no arms; with `shared` all keys learn together.

    `get_priors` is called whenever an arm is added; `find_speed_prior` returns a model's speed.
    """
    kinds = load_task_kinds()

    def get_prior(arm: str) -> Prior | None:
        model = strip_call_mode(arm)
        prior = get_priors().build_prior(model, kinds)
        if prior is None:
            return None
        return Prior(prior.mean, prior.sd * (1.0 if arm == model else _VARIANT_SD_FACTOR))

    learner = HierarchicalPolicy(len(kinds))
    return OnlinePolicy(learner, get_prior, settings, shared=shared, speed_prior=find_speed_prior)
