"""The errors of a decision: each says what stands in the way and what would help."""

from collections.abc import Iterable

from sophia.core.errors import (
    BudgetExceeded,
    ContextLengthExceeded,
    IncapableModel,
    NoCandidate,
    SophiaError,
)
from sophia.routing.nouns import Excluded
from sophia.routing.optimizer import MAX_COST_OWNER, Purse

_INCAPABLE = frozenset({"wrong_kind", "expired"})


def refusal(cause: Excluded, purse: Purse) -> SophiaError:
    """Return the error for a named model that `cause` rules out."""
    if cause.code == "too_dear":
        return unpaid(purse, [cause])
    message = f"{cause.model} cannot answer this request. {cause.cause}"
    details: dict[str, object] = {"excluded": _listed([cause])}
    if cause.code == "context_length_exceeded":
        return ContextLengthExceeded(message, param="messages", details=details)
    if cause.code.startswith("unsupported_") or cause.code in _INCAPABLE:
        return IncapableModel(message, param="model", details=details)
    return NoCandidate(message, param="model", details=details)


def unpaid(purse: Purse, causes: Iterable[Excluded]) -> SophiaError:
    """Return the error for a purse that does not pay a minimal answer of any able model."""
    message = f"Not even a minimal answer fits into {purse.owner}: raise it, or shorten the prompt."
    details: dict[str, object] = {"excluded": _listed(causes)}
    if purse.owner == MAX_COST_OWNER:
        return NoCandidate(message, param="max_cost_usd", details=details)
    return BudgetExceeded(message, details=details)


def nobody(purse: Purse, excluded: Iterable[Excluded]) -> SophiaError:
    """Return the error for a request that no model of the pool can answer."""
    causes = tuple(excluded)
    codes = {cause.code for cause in causes}
    if "too_dear" in codes:
        return unpaid(purse, causes)
    message = "No model can answer this request under its constraints."
    if causes:
        message += f" The first of {len(causes)}: {causes[0].model}: {causes[0].cause}"
    details: dict[str, object] = {"excluded": _listed(causes)}
    if codes == {"context_length_exceeded"}:
        return ContextLengthExceeded(message, param="messages", details=details)
    return NoCandidate(message, details=details)


def _listed(causes: Iterable[Excluded]) -> list[dict[str, str]]:
    return [{"model": cause.model, "cause": cause.cause, "code": cause.code} for cause in causes]
