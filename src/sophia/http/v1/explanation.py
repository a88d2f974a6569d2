"""The explanation of a plan in JSON: features, exclusions, and the cost of the alternatives."""

from collections.abc import Sequence

import numpy as np
from msgspec.structs import asdict

from sophia.core.money import format_approximate_usd, format_usd, nano_to_usd
from sophia.routing.bandit.performance.summary import unpack_summaries
from sophia.routing.bandit.policy import Vector
from sophia.routing.explain.trace import unpack_context, unpack_task_probabilities
from sophia.routing.types import Attempt, Candidate, DecisionTrace, Plan

_MAX_TASKS_SHOWN = 3


def summarize_plan(plan: Plan) -> str:
    """Return the decision in one line, for headers and terminals."""
    chosen = plan.attempts[0]
    text = f"{chosen.model}: {plan.reason} About {format_approximate_usd(chosen.expected_nano)}"
    if chosen.max_tokens is not None:
        text += f", the answer limited to {chosen.max_tokens:,} tokens"
    return text + "."


def explain_plan(plan: Plan, classes: Sequence[str] = ()) -> dict[str, object]:
    """Return the decision as JSON-able data; it holds no text of the prompt.

    `classes` are the names of the tasks.
    """
    chosen = plan.attempts[0]
    own = next(
        (candidate for candidate in plan.candidates if candidate.model == chosen.model), None
    )
    rated = {} if plan.trace is None else _render_rated_arms(plan.trace)
    return {
        "model": chosen.model,
        "policy": plan.policy,
        "rule": plan.rule,
        "reason": plan.reason,
        "sentence": summarize_plan(plan),
        "propensity": plan.propensity,
        "features": asdict(plan.features),
        "attempts": [_render_attempt(attempt) for attempt in plan.attempts],
        "candidates": [
            _render_candidate(candidate, chosen, own) | rated.get(candidate.model, {})
            for candidate in plan.candidates
        ],
        "learned": None if plan.trace is None else _render_trace(plan, plan.trace, classes),
        "excluded": [asdict(excluded) for excluded in plan.excluded],
        "notes": list(plan.notes),
    }


def _format_difference(
    candidate: Candidate, chosen: Attempt, chosen_candidate: Candidate | None
) -> str:
    """Return the difference that `candidate` would make: `+$0.0113, 11.2x, quality +0.09`."""
    difference = candidate.expected_nano - chosen.expected_nano
    sign = "-" if difference < 0 else "+"
    parts = [f"{sign}{format_usd(abs(difference))}"]
    if chosen.expected_nano > 0:
        parts.append(f"{candidate.expected_nano / chosen.expected_nano:.1f}x")
    if chosen_candidate is not None:
        parts.append(f"quality {candidate.quality - chosen_candidate.quality:+.2f}")
    return ", ".join(parts)


def _render_candidate(
    candidate: Candidate, chosen: Attempt, own: Candidate | None
) -> dict[str, object]:
    fact: dict[str, object] = {
        "model": candidate.model,
        "quality": candidate.quality,
        "latency_ms": candidate.latency_ms,
        "expected_usd": nano_to_usd(candidate.expected_nano),
        "worst_usd": nano_to_usd(candidate.worst_nano),
    }
    if candidate.model != chosen.model:
        fact["instead"] = _format_difference(candidate, chosen, own)
    return fact


def _render_rated_arms(trace: DecisionTrace) -> dict[str, dict[str, object]]:
    """Return the learned policy's rating of each candidate, and its expected performance."""
    rendered: dict[str, dict[str, object]] = {
        arm.model: {
            "sd": arm.sd,
            "cost_usd": nano_to_usd(round(arm.cost_nano)),
            "late": arm.late_probability,
            "fail": arm.failure_probability,
            "utility": arm.utility,
            "propensity": arm.propensity,
        }
        for arm in trace.rated_arms
    }
    # Older decisions have no summaries.
    summaries = unpack_summaries(trace.performance)
    for arm, summary in zip(trace.rated_arms, summaries, strict=False):
        rendered[arm.model] |= {
            "cost_sd_usd": nano_to_usd(round(summary.cost_sd_nano)),
            "p50_ms": round(summary.p50_ms),
            "p50_range_ms": [round(edge) for edge in summary.p50_range_ms],
            "p95_ms": round(summary.p95_ms),
            "failure_range": [round(edge, 4) for edge in summary.failure_range],
        }
    return rendered


def _render_trace(plan: Plan, trace: DecisionTrace, classes: Sequence[str]) -> dict[str, object]:
    """Return the context of the learned policy, and what decided among the arms it rated."""
    posterior = unpack_context(trace.context).task_probabilities
    rendered: dict[str, object] = {
        "state": trace.state,
        "mode": trace.call_mode,
        "tasks": _top_tasks(posterior, classes),
        "task_source": _render_task_sources(plan, trace, posterior, classes),
    }
    weights = trace.utility_weights
    if trace.rated_arms and weights is not None and trace.exploration is not None:
        rendered |= {
            "random_number": trace.uniform,
            "price": weights.cost,
            "reference_usd": nano_to_usd(round(weights.reference_cost)),
            "lateness": weights.lateness,
            "switching": weights.switching,
            "failing": weights.failure,
            "exploration": trace.exploration.mode,
        }
    return rendered


def _render_task_sources(
    plan: Plan, trace: DecisionTrace, posterior: Vector, classes: Sequence[str]
) -> dict[str, object]:
    """Return the sources of the task posterior: text, caller, and earlier requests."""
    sources = trace.task_sources
    if sources is None:
        return {"text": _top_tasks(posterior, classes), "declared": None, "system_prompt": None}
    history = None
    if sources.history_requests:
        counts = unpack_task_probabilities(sources.history_counts)
        history = {
            "requests": sources.history_requests,
            "believed": round(sources.history_probability, 4),
            "tasks": _top_tasks(counts / max(float(counts.sum()), 1e-12), classes),
        }
    return {
        "text": _top_tasks(unpack_task_probabilities(sources.text_probabilities), classes),
        "declared": plan.features.task_type if sources.task_declared else None,
        "system_prompt": history,
    }


def _top_tasks(probabilities: Vector, classes: Sequence[str]) -> dict[str, float]:
    """Return the most probable tasks."""
    return {
        classes[at] if at < len(classes) else str(at): round(float(probabilities[at]), 4)
        for at in np.argsort(-probabilities)[:_MAX_TASKS_SHOWN].tolist()
    }


def _render_attempt(attempt: Attempt) -> dict[str, object]:
    return {
        "model": attempt.model,
        "reason": attempt.reason,
        "expected_usd": nano_to_usd(attempt.expected_nano),
        "held_usd": nano_to_usd(attempt.held_nano),
        "max_tokens": attempt.max_tokens,
    }
