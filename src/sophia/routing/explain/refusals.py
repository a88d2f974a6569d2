"""Errors of a decision: each names the obstacle and a remedy."""

from collections.abc import Iterable

from msgspec.structs import asdict

from sophia.core.errors import (
    BudgetExceeded,
    ContextLengthExceeded,
    IncapableModel,
    NoCandidate,
    SophiaError,
)
from sophia.routing.quotes import BUDGET_SOURCE, MAX_COST_SOURCE, PER_REQUEST_SOURCE, SpendLimit
from sophia.routing.types import ExcludedModel

BELOW_MIN_QUALITY = "min_quality"
"""Note of a plan whose first model is not expected to reach the minimum quality."""

_INCAPABLE = frozenset({"wrong_kind", "expired"})
_BUDGET_REMEDIES = {
    PER_REQUEST_SOURCE: (
        "Raise it with `sophia keys update ID --per-request-usd N`, or shorten the prompt."
    ),
    BUDGET_SOURCE: (
        "Raise it with `sophia keys update ID --daily-budget-usd N`, shorten the prompt, or wait "
        "for the next day (UTC)."
    ),
    MAX_COST_SOURCE: "Raise max_cost_usd, or shorten the prompt.",
}


def build_exclusion_error(exclusion: ExcludedModel, limit: SpendLimit) -> SophiaError:
    """Return the error for a named model that `exclusion` rules out."""
    if exclusion.code == "too_expensive":
        return build_over_limit_error(limit, [exclusion])
    message = f"{exclusion.model} cannot answer this request. {exclusion.cause}"
    details: dict[str, object] = {"excluded": [asdict(exclusion)]}
    if exclusion.code == "context_length_exceeded":
        return ContextLengthExceeded(message, param="messages", details=details)
    if exclusion.code.startswith("unsupported_") or exclusion.code in _INCAPABLE:
        return IncapableModel(message, param="model", details=details)
    return NoCandidate(message, param="model", details=details)


def build_over_limit_error(limit: SpendLimit, exclusions: Iterable[ExcludedModel]) -> SophiaError:
    """Return the error for a limit that covers no minimal answer of any able model."""
    excluded = list(exclusions)
    first = next(each for each in excluded if each.code == "too_expensive")
    message = f"{first.model}: {first.cause} {_BUDGET_REMEDIES[limit.source]}"
    details: dict[str, object] = {"excluded": [asdict(exclusion) for exclusion in excluded]}
    if limit.source == MAX_COST_SOURCE:
        return NoCandidate(message, param="max_cost_usd", details=details)
    return BudgetExceeded(message, details=details)


def build_no_candidate_error(limit: SpendLimit, excluded: Iterable[ExcludedModel]) -> SophiaError:
    """Return the error for a request that no model of the pool can answer."""
    causes = tuple(excluded)
    codes = {cause.code for cause in causes}
    if "too_expensive" in codes:
        return build_over_limit_error(limit, causes)
    message = "No model can answer this request under its constraints."
    if causes:
        message += f" The first of {len(causes)}: {causes[0].model}: {causes[0].cause}"
    details: dict[str, object] = {"excluded": [asdict(cause) for cause in causes]}
    if codes == {"context_length_exceeded"}:
        return ContextLengthExceeded(message, param="messages", details=details)
    return NoCandidate(message, details=details)


def format_below_minimum(min_quality: float, closest: float) -> str:
    """Return the reason for the model of quality `closest` when none reaches `min_quality`."""
    return (
        f"No model is expected to reach a quality of {min_quality:.2f}; "
        f"this one comes closest ({closest:.2f})."
    )


def build_below_minimum_error(min_quality: float, reason: str) -> NoCandidate:
    """Return the error for a minimum quality that no model is expected to reach."""
    message = f"{reason} Lower min_quality, or leave out strict to get the best there is."
    return NoCandidate(message, param="min_quality", details={"min_quality": min_quality})
