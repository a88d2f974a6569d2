"""Compare routing policies on the ledger: expected cost and score of the logged requests."""

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from sophia.core.ids import first_id_at
from sophia.core.ports import Store
from sophia.learning.evaluation.compare import (
    CounterfactualPolicy,
    CounterfactualReport,
    RateArms,
    build_counterfactual_report,
    cross_fit_ratings,
)
from sophia.learning.evaluation.logged import LoggedDecision, read_decisions
from sophia.learning.evaluation.targets import (
    fixed_model_propensities,
    heuristic_propensities,
    rating_propensities,
)
from sophia.learning.online.archive import PolicyArchive
from sophia.learning.online.packaged import load_task_names
from sophia.routing.bandit.arms import strip_call_mode
from sophia.routing.bandit.choose import QUALITY_BIAS_PRESETS, cost_weight
from sophia.routing.bandit.policy import ArmRatings, Lesson
from sophia.routing.bandit.quality.hierarchical import HierarchicalPolicy
from sophia.routing.pool import ModelPool

HEURISTIC, HIERARCHICAL, LEARNED, MODEL_PREFIX = "heuristic", "hierarchical", "learned", "model:"
_NAMES = (HEURISTIC, HIERARCHICAL, LEARNED, *QUALITY_BIAS_PRESETS)
POLICY_NAMES = ", ".join((*_NAMES, f"{MODEL_PREFIX}ID", "a snapshot's id"))
"""Values of `sophia policy compare --policy`."""

_MIN_ID_LENGTH = 4
_Decisions = Sequence[LoggedDecision]


class UnknownPolicy(ValueError):
    """The name is no policy's, or the policy does not take this quality bias or these models."""


class ComparisonRequest(Struct, frozen=True, kw_only=True):
    """Policies by name, compared on the decisions since `since_ms`.

    `quality_bias` is a number from 0 to 10 or a preset, as callers set it; without `models` all
    models may be chosen.
    """

    policies: Sequence[str]
    since_ms: int
    quality_bias: str | None = None
    models: frozenset[str] = frozenset()


async def compare_policies(  # noqa: PLR0913 - three sources, the request, and two callables
    archive: PolicyArchive,
    store: Store,
    pool: ModelPool,
    request: ComparisonRequest,
    read_costs: Callable[[int], Mapping[int, int]],
    report: Callable[[str], None],
) -> CounterfactualReport:
    """Return the expected cost and score of each policy.

    The heuristic chooses among `pool`; `read_costs` returns the cost in nano-dollars of every
    request from an id on; `report` is called with the name of each step as it begins.

    Raises:
        UnknownPolicy: a policy or quality bias is invalid.
        NothingLogged: the ledger holds no decisions to compare on.
        BrokenSnapshot: a snapshot cannot be read.
    """
    builder = _PolicyBuilder(archive, pool, request)
    for name in request.policies:
        builder.check(name)
    decisions, others = await read_decisions(store, request.since_ms, shared=archive.shared)
    policies = []
    for name in request.policies:
        report(name)
        policies.append(builder.build(name, decisions))
    report("estimating")
    costs = read_costs(first_id_at(request.since_ms))
    return build_counterfactual_report(decisions, others, policies, costs, load_task_names())


class _PolicyBuilder:
    """Target policies by name."""

    def __init__(self, archive: PolicyArchive, pool: ModelPool, request: ComparisonRequest) -> None:
        self._archive = archive
        self._pool = pool
        self._request = request
        bias = request.quality_bias
        self._cost_weight = None if bias is None else _parse_quality_bias(bias)

    def check(self, name: str) -> None:
        """Raise UnknownPolicy unless `name` is a policy that takes the request's options."""
        if name == HEURISTIC or name.startswith(MODEL_PREFIX):
            if self._cost_weight is not None or self._request.models:
                raise UnknownPolicy(f"{name} takes neither --quality-bias nor --models.")
        elif name in QUALITY_BIAS_PRESETS and self._cost_weight is not None:
            raise UnknownPolicy(f"{name} is a quality bias itself; `learned` takes another.")
        elif name not in _NAMES:
            self._resolve_snapshot(name)

    def build(self, name: str, decisions: _Decisions) -> CounterfactualPolicy:
        """Return the choices of the policy with that name."""
        if name == HEURISTIC:
            rows = [heuristic_propensities(decision, self._pool) for decision in decisions]
            return CounterfactualPolicy(name, rows)
        if name.startswith(MODEL_PREFIX):
            return _build_fixed_policy(name, decisions)
        if name == LEARNED or name in QUALITY_BIAS_PRESETS:
            preset = QUALITY_BIAS_PRESETS.get(name)
            weight = self._cost_weight if preset is None else cost_weight(preset)
            logged = [decision.options.ratings for decision in decisions]
            return self._from_ratings(name, decisions, logged, weight)
        _check_task_count(name, decisions)
        if name == HIERARCHICAL:
            ratings = self._cross_fit_ratings(decisions)
            return self._from_ratings(name, decisions, ratings, self._cost_weight)
        return self._from_snapshot(name, decisions)

    def _from_ratings(
        self, name: str, decisions: _Decisions, ratings: Sequence[ArmRatings], weight: float | None
    ) -> CounterfactualPolicy:
        models = self._request.models
        rows = [
            rating_propensities(decision, rated, weight, models)
            for decision, rated in zip(decisions, ratings, strict=True)
        ]
        unchanged = sum(
            bool(models) and models.isdisjoint(map(strip_call_mode, decision.arms))
            for decision in decisions
        )
        note = _format_unchanged_note("none of these models", unchanged, len(decisions))
        label = [name]
        if self._request.quality_bias is not None:
            label.append(f"quality bias {self._request.quality_bias}")
        if models:
            label.append("of " + ", ".join(sorted(models)))
        return CounterfactualPolicy(", ".join(label), rows, note=note)

    def _cross_fit_ratings(self, decisions: _Decisions) -> list[ArmRatings]:
        """Return ratings by learners that learned from all folds but the rated one.

        They start from the policy that was in service when these days began, or without lessons.
        """
        since_ms = self._request.since_ms
        before = [step for step in self._archive.read_history() if step.at_ms <= since_ms]
        if before and not before[-1].expired:
            policy, _ = self._archive.load(before[-1].id)
        else:
            policy = self._archive.new_policy()
        arms = (arm for decision in decisions for arm in decision.arms)
        policy.add_models(dict.fromkeys(map(strip_call_mode, arms)))
        start = policy.learner.snapshot()

        def train(lessons: Sequence[Lesson]) -> RateArms:
            learner = HierarchicalPolicy.restore(start)
            for lesson in lessons:
                learner.learn_one(lesson)
            return learner.rate

        return cross_fit_ratings(train, decisions)

    def _from_snapshot(self, name: str, decisions: _Decisions) -> CounterfactualPolicy:
        policy, snapshot = self._archive.load(self._resolve_snapshot(name))
        before = sum(decision.at_ms <= snapshot.created_ms for decision in decisions)
        ratings = [
            policy.learner.rate(
                replace(decision.context, tenant="" if policy.shared else decision.key_id),
                decision.arms,
            )
            for decision in decisions
        ]
        target = self._from_ratings(name, decisions, ratings, self._cost_weight)
        note = (
            f"{before:,} decisions from before {policy.snapshot_id[:16]} are left out: it may know "
            "them."
        )
        return replace(target, since_ms=snapshot.created_ms, note=note if before else target.note)

    def _resolve_snapshot(self, name: str) -> str:
        """Return the id of the snapshot with the id prefix `name`."""
        history = self._archive.read_history()
        ids = {step.id for step in history if step.id.startswith(name) and not step.expired}
        if len(ids) != 1 or len(name) < _MIN_ID_LENGTH:
            raise UnknownPolicy(
                f"{name!r} is no policy, and {len(ids)} snapshots begin with it; use one of: "
                f"{POLICY_NAMES}."
            )
        return ids.pop()


def _check_task_count(name: str, decisions: _Decisions) -> None:
    """Raise UnknownPolicy when a decision was logged by a release with other tasks."""
    tasks = len(load_task_names())
    count = sum(len(decision.context.task_probabilities) != tasks for decision in decisions)
    if count:
        raise UnknownPolicy(
            f"{count:,} requests of these days were logged by a release with other tasks, which "
            f"{name} cannot rate: take fewer days (--days)."
        )


def _build_fixed_policy(name: str, decisions: _Decisions) -> CounterfactualPolicy:
    model = name.removeprefix(MODEL_PREFIX)
    candidates = [set(map(strip_call_mode, decision.arms)) for decision in decisions]
    if decisions and not any(model in models for models in candidates):
        raise UnknownPolicy(
            f"{model!r} was a candidate for no request of these days; the candidates were: "
            f"{', '.join(sorted(set().union(*candidates)))}."
        )
    unchanged = sum(model not in models for models in candidates)
    note = _format_unchanged_note(model, unchanged, len(decisions))
    rows = [fixed_model_propensities(decision, model) for decision in decisions]
    return CounterfactualPolicy(name, rows, note=note)


def _format_unchanged_note(target: str, count: int, total: int) -> str:
    if not count:
        return ""
    return f"{count:,} of {total:,} requests could go to {target}; these count as they were served."


def _parse_quality_bias(text: str) -> float:
    try:
        preset = QUALITY_BIAS_PRESETS.get(text)
        return cost_weight(float(text) if preset is None else preset)
    except ValueError:
        known = ", ".join(QUALITY_BIAS_PRESETS)
        raise UnknownPolicy(
            f"--quality-bias is a number from 0 to 10, or one of {known}; not {text!r}."
        ) from None
