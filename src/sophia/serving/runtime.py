"""Parts that serve requests, built once at start."""

from dataclasses import dataclass

from sophia.routing.bandit.performance.latency import SpeedPrior
from sophia.serving.admission import Admission
from sophia.serving.attempts.observer import ObserverFactory
from sophia.serving.attempts.targets.dispatch import AttemptDependencies
from sophia.serving.cascade_config import NO_CHECKS, CascadeConfig
from sophia.serving.knowledge import Knowledge
from sophia.serving.learned.routing import LearnedRouting


@dataclass(slots=True, kw_only=True)
class Runtime(AttemptDependencies):
    """Everything that the pipeline needs; `knowledge` and `limits` are replaced whole.

    `learned_routing` is None without learning, `observe` when nothing observes answers.
    """

    knowledge: Knowledge
    learned_routing: LearnedRouting | None = None
    cascade: CascadeConfig = NO_CHECKS
    observe: ObserverFactory | None = None
    admission: Admission

    def speed_prior(self, model: str) -> SpeedPrior:
        """Return the prior speed of a model in the pool, which every refresh replaces."""
        return self.knowledge.pool.speed_prior(model)
