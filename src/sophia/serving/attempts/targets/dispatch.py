"""Parts that an upstream attempt needs."""

from bisect import bisect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from msgspec import Struct

from sophia.core.ports import Sink, Upstream
from sophia.core.uniform import derive_uniform
from sophia.routing.types import Plan
from sophia.serving.attempts.reconcile import Reconciler
from sophia.serving.attempts.reservation import Ledger, RuntimeLimits
from sophia.serving.attempts.targets.health import HealthBook, RetryBudget, Target

DEPLOYMENT_STREAM = 7
CLIENT_GONE = 499
"""Status of a request whose caller left, as nginx logs it."""


class Deployment(Struct, frozen=True):
    """A model at one upstream, which calls it `served_as`."""

    upstream: Upstream
    served_as: str
    weight: int = 1


@dataclass(frozen=True, slots=True)
class UpstreamsByModel:
    """The deployments of each model: one at `default`, unless `by_model` names others."""

    default: Upstream
    by_model: Mapping[str, tuple[Deployment, ...]] = field(default_factory=dict)

    def targets(self, model: str) -> list[Target]:
        """Return the key of the health of each deployment of a model."""
        known = self.by_model.get(model) or (Deployment(self.default, model),)
        return [(deployment.upstream.name, model) for deployment in known]

    def deployments(self, model: str, request_id: int) -> tuple[Deployment, ...]:
        """Return where to ask for a model: one sampled by weight, then the others, rotated."""
        known = self.by_model.get(model)
        if known is None:
            return (Deployment(self.default, model),)
        if len(known) == 1:
            return known
        sums = tuple(accumulate(each.weight for each in known))
        first = bisect(sums, derive_uniform(request_id, DEPLOYMENT_STREAM) * sums[-1])
        return known[first:] + known[:first]


@dataclass(slots=True, kw_only=True)
class AttemptDependencies:
    """Upstreams and their health, money and limits.

    `encode_plan` turns a plan into JSON bytes for the ledger. `interrupted` is set when the process
    stops and ends the requests that still run.
    """

    upstreams: UpstreamsByModel
    ledger: Ledger
    limits: RuntimeLimits
    reconciler: Reconciler
    encode_plan: Callable[[Plan], bytes]
    sinks: tuple[Sink, ...] = ()
    health: HealthBook = field(default_factory=HealthBook)
    retries: RetryBudget = field(default_factory=RetryBudget)
    hedges: RetryBudget = field(default_factory=lambda: RetryBudget(share=0.05, floor=1.0))
    interrupted: bool = False

    @property
    def cancellation(self) -> tuple[int, str]:
        """Status and cause of a request that is cancelled now."""
        return (503, "shutdown") if self.interrupted else (CLIENT_GONE, "client_gone")
