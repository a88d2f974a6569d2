"""A plan in words and JSON: what was seen, who was left out, what others would have cost."""

from collections.abc import Sequence

import numpy as np

from sophia.core.money import about_usd, format_usd, usd
from sophia.routing.evidence import from_bytes, unpack
from sophia.routing.nouns import Attempt, Candidate, Evidence, Features, Plan, Rated
from sophia.routing.policies.policy import Vector
from sophia.routing.usual import Usual, usual_of

_TASKS_TOLD = 3


def sentence(plan: Plan) -> str:
    """Return the decision in one line, for headers and terminals."""
    chosen = plan.attempts[0]
    text = f"{chosen.model}: {plan.reason} About {about_usd(chosen.expected_nano)}"
    if chosen.max_tokens is not None:
        text += f", the answer limited to {chosen.max_tokens:,} tokens"
    return text + "."


def explain(plan: Plan, classes: Sequence[str] = ()) -> dict[str, object]:
    """Return the decision as JSON-able data; it holds no text of the prompt.

    `classes` names the tasks that learned policies tell apart.
    """
    chosen = plan.attempts[0]
    own = next(
        (candidate for candidate in plan.candidates if candidate.model == chosen.model), None
    )
    told = {} if plan.evidence is None else _told(plan.evidence)
    return {
        "model": chosen.model,
        "policy": plan.policy,
        "rule": plan.rule,
        "reason": plan.reason,
        "sentence": sentence(plan),
        "propensity": plan.propensity,
        "features": _features(plan.features),
        "attempts": [_attempt(attempt) for attempt in plan.attempts],
        "candidates": [
            _candidate(candidate, chosen, own) | told.get(candidate.model, {})
            for candidate in plan.candidates
        ],
        "learned": None if plan.evidence is None else _evidence(plan, plan.evidence, classes),
        "excluded": [
            {"model": excluded.model, "cause": excluded.cause, "code": excluded.code}
            for excluded in plan.excluded
        ],
        "notes": list(plan.notes),
    }


def counterfactual(candidate: Candidate, chosen: Attempt, own: Candidate | None) -> str:
    """Return what `candidate` would have meant instead: `+$0.0113, 11.2x, quality +0.09`."""
    difference = candidate.expected_nano - chosen.expected_nano
    sign = "-" if difference < 0 else "+"
    parts = [f"{sign}{format_usd(abs(difference))}"]
    if chosen.expected_nano > 0:
        parts.append(f"{candidate.expected_nano / chosen.expected_nano:.1f}x")
    if own is not None:
        parts.append(f"quality {candidate.quality - own.quality:+.2f}")
    return ", ".join(parts)


def _candidate(candidate: Candidate, chosen: Attempt, own: Candidate | None) -> dict[str, object]:
    fact: dict[str, object] = {
        "model": candidate.model,
        "quality": candidate.quality,
        "latency_ms": candidate.latency_ms,
        "expected_usd": usd(candidate.expected_nano),
        "worst_usd": usd(candidate.worst_nano),
    }
    if candidate.model != chosen.model:
        fact["instead"] = counterfactual(candidate, chosen, own)
    return fact


def _told(evidence: Evidence) -> dict[str, dict[str, object]]:
    """Return what the learned policy made of each candidate, and how it usually answers."""
    told = {one.arm: _learned(one) for one in evidence.rated}
    for one, usual in zip(evidence.rated, usual_of(evidence.usual), strict=False):
        told[one.arm] |= _usually(usual)
    return told


def _learned(rated: Rated) -> dict[str, object]:
    return {
        "sd": rated.sd,
        "cost_usd": usd(round(rated.cost_nano)),
        "late": rated.late,
        "fail": rated.fail,
        "utility": rated.utility,
        "propensity": rated.propensity,
    }


def _usually(usual: Usual) -> dict[str, object]:
    return {
        "cost_sd_usd": usd(round(usual.cost_sd_nano)),
        "p50_ms": round(usual.p50_ms),
        "p50_range_ms": [round(edge) for edge in usual.p50_range_ms],
        "p95_ms": round(usual.p95_ms),
        "failure_range": [round(edge, 4) for edge in usual.failure_range],
    }


def _evidence(plan: Plan, evidence: Evidence, classes: Sequence[str]) -> dict[str, object]:
    """Return what the learned policy saw, and what decided among the arms it rated."""
    chances = unpack(evidence.sight).tasks
    told: dict[str, object] = {
        "state": evidence.state,
        "mode": evidence.mode,
        "tasks": _likely(chances, classes),
        "told_by": _sources(plan, evidence, chances, classes),
    }
    if evidence.taste:
        price, reference, lateness, switching, *failing = evidence.taste
        told |= {
            "draw": evidence.draw,
            "price": price,
            "reference_usd": usd(round(reference)),
            "lateness": lateness,
            "switching": switching,
            "failing": failing[0] if failing else 0.0,
            "exploration": evidence.exploration[0],
        }
    return told


def _sources(
    plan: Plan, evidence: Evidence, chances: Vector, classes: Sequence[str]
) -> dict[str, object]:
    """Return what the chances of the tasks were made of: the text, the caller, earlier requests."""
    sources = evidence.sources
    if sources is None:
        return {"text": _likely(chances, classes), "declared": None, "system_prompt": None}
    prompt = None
    if sources.earlier:
        counts = from_bytes(sources.history)
        prompt = {
            "requests": sources.earlier,
            "believed": round(sources.trust, 4),
            "tasks": _likely(counts / max(float(counts.sum()), 1e-12), classes),
        }
    return {
        "text": _likely(from_bytes(sources.text), classes),
        "declared": plan.features.task_type if sources.declared else None,
        "system_prompt": prompt,
    }


def _likely(chances: Vector, classes: Sequence[str]) -> dict[str, float]:
    """Return the likeliest tasks with their chances."""
    return {
        classes[at] if at < len(classes) else str(at): round(float(chances[at]), 4)
        for at in (int(one) for one in np.argsort(-chances)[:_TASKS_TOLD])
    }


def _attempt(attempt: Attempt) -> dict[str, object]:
    return {
        "model": attempt.model,
        "reason": attempt.reason,
        "expected_usd": usd(attempt.expected_nano),
        "held_usd": usd(attempt.held_nano),
        "max_tokens": attempt.max_tokens,
    }


def _features(features: Features) -> dict[str, object]:
    return {
        "task_type": features.task_type,
        "task_confidence": features.task_confidence,
        "task_declared": features.task_declared,
        "complexity": features.complexity,
        "complexity_declared": features.complexity_declared,
        "chars": features.chars,
        "prompt_tokens": features.prompt_tokens,
        "max_prompt_tokens": features.max_prompt_tokens,
        "output_tokens": features.output_tokens,
        "turns": features.turns,
        "code": features.code,
        "maths": features.maths,
        "language": features.language,
        "max_latency_ms": features.max_latency_ms,
        "latency_declared": features.latency_declared,
        "cost_sensitive": features.cost_sensitive,
    }
