"""Probe a new model beside known ones, and update the learned policy with the result."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from msgspec import Struct

from sophia.catalogue.model import Model
from sophia.core.errors import SophiaError
from sophia.core.events import Settled
from sophia.core.money import format_usd
from sophia.learning.online.archive import PolicyArchive
from sophia.learning.online.attempt_outcomes import measure_completed_answers
from sophia.learning.online.catch_up import catch_up
from sophia.learning.online.packaged import load_probes, load_task_kind_weights
from sophia.learning.online.policy import OnlinePolicy
from sophia.learning.online.probed import ProbeResult, has_outcomes, update_prior_from_probes
from sophia.learning.priors.probe_prior import ProbeWins, count_probe_wins
from sophia.learning.snapshots import SnapshotConflict
from sophia.serving.attempts.reservation import BudgetScope
from sophia.serving.judging.probe import (
    PROBE_ACCOUNT,
    ProbeOutcome,
    build_probe_calls,
    run_probe_calls,
)
from sophia.serving.knowledge import Knowledge
from sophia.serving.runtime import Runtime

_BASELINE_COUNT = 2


class ProbeNotAllowed(Exception):
    """The model cannot or need not be probed; the message gives the reason and the cost."""


class ProbeRequest(Struct, frozen=True):
    """Model to probe, its baselines (two of the pool if empty), and the limit in nano-dollars."""

    model: str
    baselines: Sequence[str]
    max_cost_nano: int


class ProbeEstimate(Struct, frozen=True, kw_only=True):
    """Number of requests and their cost in nano-dollars, expected and at most."""

    model: str
    baselines: Sequence[str]
    requests: int
    expected_nano: int
    max_nano: int


class ProbeReport(Struct, frozen=True, kw_only=True):
    """Result of a probe; `snapshot` is None when the policy did not change."""

    estimate: ProbeEstimate
    kinds: Sequence[str]
    grades: Sequence[ProbeOutcome]
    pairs: Mapping[str, ProbeWins]
    update: ProbeResult
    spent_nano: int
    snapshot: str | None


class _EventCollector(list[Settled]):
    def emit(self, event: Settled) -> None:
        """Keep the event."""
        self.append(event)


async def probe_model(
    runtime: Runtime,
    archive: PolicyArchive,
    request: ProbeRequest,
    on_estimate: Callable[[ProbeEstimate], None],
    on_grade: Callable[[ProbeOutcome], None],
) -> ProbeReport:
    """Ask all models the packaged questions, update the policy and put it into service.

    `on_estimate` is called before the first request, `on_grade` after each answer.

    Raises:
        ProbeNotAllowed: a model is unknown, cannot be asked, has feedback, or costs too much.
        BrokenSnapshot: the policy in service cannot be read.
    """
    events = _EventCollector()
    runtime.sinks = (*runtime.sinks, events)
    policy = await _load_policy(runtime, archive)
    model, baselines = _select_models(runtime.knowledge, policy, request)
    try:
        calls = build_probe_calls(runtime, [model, *baselines], load_probes())
    except SophiaError as error:
        raise ProbeNotAllowed(error.message) from error
    estimate = ProbeEstimate(
        model=model.id,
        baselines=tuple(baseline.id for baseline in baselines),
        requests=len(calls),
        expected_nano=sum(call.attempt.expected_nano for call in calls),
        max_nano=sum(call.attempt.held_nano for call in calls),
    )
    if estimate.expected_nano > request.max_cost_nano:
        raise ProbeNotAllowed(
            f"It would cost about {format_usd(estimate.expected_nano)}, more than the limit of "
            f"{format_usd(request.max_cost_nano)}. Raise --limit-usd or choose cheaper models."
        )
    on_estimate(estimate)
    window = runtime.ledger.window()
    account = await runtime.ledger.store.account(PROBE_ACCOUNT, window)
    used = account.spent_nano + account.held_nano
    scope = BudgetScope(
        key_id=PROBE_ACCOUNT, daily_limit=used + request.max_cost_nano, window=window
    )
    grades = await run_probe_calls(scope, calls, on_grade)
    return await _update_policy(runtime, archive, estimate, grades, events)


async def _load_policy(runtime: Runtime, archive: PolicyArchive) -> OnlinePolicy:
    policy = archive.load_active()
    await catch_up(policy, runtime.ledger.store)
    return policy


def _select_models(
    knowledge: Knowledge, policy: OnlinePolicy, request: ProbeRequest
) -> tuple[Model, list[Model]]:
    """Return the model to probe and its baselines."""
    model = _find_model(knowledge, request.model)
    if has_outcomes(policy, model.id):
        raise ProbeNotAllowed(
            f"{model.id} already has feedback from requests, which is better evidence than probes."
        )
    pool = [entry.id for entry in knowledge.pool.models]
    names = request.baselines or _most_certain_models(policy, pool, model.id)
    baselines = [found for name in names if (found := _find_model(knowledge, name)) != model]
    if not baselines:
        raise ProbeNotAllowed("There is no known model to compare with; name one with --against.")
    return model, baselines


def _most_certain_models(policy: OnlinePolicy, pool: Sequence[str], model: str) -> list[str]:
    """Return the models of the pool with the smallest prior spread."""
    sd = {name: float(np.mean(policy.unprobed_prior(name).sd)) for name in pool if name != model}
    return sorted(sd, key=lambda name: (sd[name], name))[:_BASELINE_COUNT]


def _find_model(knowledge: Knowledge, name: str) -> Model:
    model = knowledge.find(name)
    if model is None:
        near = ", ".join(knowledge.catalogue.similar_ids(name))
        hint = f" Did you mean {near}?" if near else ""
        raise ProbeNotAllowed(f"There is no model {name!r}.{hint}")
    return model


async def _update_policy(
    runtime: Runtime,
    archive: PolicyArchive,
    estimate: ProbeEstimate,
    grades: Sequence[ProbeOutcome],
    events: Sequence[Settled],
) -> ProbeReport:
    categories, pairs = load_task_kind_weights(), _build_pairs(estimate, grades)
    spent = sum(grade.cost_nano for grade in grades)
    while True:
        # A running server may have changed the policy meanwhile. The answers were paid for, so the
        # update is repeated on its latest snapshot until none comes in between.
        policy = await _load_policy(runtime, archive)
        pool = [entry.id for entry in runtime.knowledge.pool.models]
        policy.add_models([*pool, estimate.model, *estimate.baselines])
        if has_outcomes(policy, estimate.model):
            raise ProbeNotAllowed(
                f"{estimate.model} got feedback from requests meanwhile; nothing changed. "
                f"It cost {format_usd(spent)}."
            )
        update = update_prior_from_probes(
            policy, estimate.model, estimate.baselines, pairs, categories
        )
        snapshot = None
        if update.posterior is not None:
            for event in events:
                for answer in measure_completed_answers(event, None):
                    policy.record_answer(answer)
            now_ms = int(runtime.ledger.clock.wall() * 1000)
            try:
                snapshot = archive.publish(policy, now_ms, f"probed {estimate.model}")
            except SnapshotConflict:
                continue
        return ProbeReport(
            estimate=estimate,
            kinds=categories.names,
            grades=grades,
            pairs=pairs,
            update=update,
            spent_nano=spent,
            snapshot=snapshot,
        )


def _build_pairs(estimate: ProbeEstimate, grades: Sequence[ProbeOutcome]) -> dict[str, ProbeWins]:
    scores: dict[str, dict[str, float]] = {
        name: {} for name in (estimate.model, *estimate.baselines)
    }
    for grade in grades:
        if grade.correct is not None:
            scores[grade.model][grade.probe] = float(grade.correct)
    return count_probe_wins(
        scores[estimate.model],
        [scores[name] for name in estimate.baselines],
        {probe.id: probe.kind for probe in load_probes()},
    )
