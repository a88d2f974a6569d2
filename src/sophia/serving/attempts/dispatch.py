"""Parts that an upstream attempt needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sophia.core.ports import Sink, Upstream
from sophia.routing.types import Plan
from sophia.serving.attempts.reconcile import Reconciler
from sophia.serving.attempts.reservation import Ledger, RuntimeLimits


@dataclass(frozen=True, slots=True)
class UpstreamsByModel:
    """The upstream of each model: `default`, unless `by_model` names another one."""

    default: Upstream
    by_model: Mapping[str, tuple[Upstream, str]] = field(default_factory=dict)

    def for_model(self, model: str) -> tuple[Upstream, str]:
        """Return the upstream of a model and the model's id there."""
        return self.by_model.get(model) or (self.default, model)


@dataclass(slots=True, kw_only=True)
class AttemptDependencies:
    """Upstreams, money and limits; `encode_plan` turns a plan into JSON bytes for the ledger."""

    upstreams: UpstreamsByModel
    ledger: Ledger
    limits: RuntimeLimits
    reconciler: Reconciler
    encode_plan: Callable[[Plan], bytes]
    sinks: tuple[Sink, ...] = ()
