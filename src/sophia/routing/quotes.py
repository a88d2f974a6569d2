"""Quotes: the expected and the worst-case cost of each candidate, and their order by trade-off."""

from collections.abc import Sequence

from msgspec import Struct

from sophia.core.money import TOKENS_PER_PRICE_UNIT, format_usd
from sophia.routing.pool import UNKNOWN_QUALITY, PoolModel
from sophia.routing.types import Features, Hints, Prompt

QUALITY_TOLERANCE = 0.1
"""How far below the best expected quality a cheap or fast model may be without a minimum."""
MIN_ANSWER_TOKENS = 16
PER_REQUEST_SOURCE = "the per-request limit"
BUDGET_SOURCE = "what is left of the budget"
MAX_COST_SOURCE = "the request's max_cost_usd"
_PERCENT_PRICE_UNIT = 100 * TOKENS_PER_PRICE_UNIT


class SpendLimit(Struct, frozen=True):
    """Greatest cost of one attempt in nano-dollars, and the limit's origin in words."""

    limit_nano: int | None
    source: str


class Quote(Struct, frozen=True, kw_only=True):
    """A candidate with its costs in nano-dollars.

    Attributes:
        held_nano: worst case, once the answer is clamped; None when the limit does not cover even
            a minimal answer, which costs up to `minimal_nano`.
        max_tokens: the clamp; None when none is needed.
        covers_expected: whether the limit covers an answer of the expected length.
        expected_tokens: expected tokens of all choices.
        completion_price: nano-dollars per million completion tokens.
    """

    pool_model: PoolModel
    quality: float
    expected_nano: int
    held_nano: int | None
    max_tokens: int | None = None
    covers_expected: bool = True
    expected_tokens: int = 0
    completion_price: int = 0
    minimal_nano: int = 0


def build_spend_limit(
    per_request_nano: int | None, budget_left_nano: int | None, max_cost_nano: int | None
) -> SpendLimit:
    """Return the tightest of the limits in nano-dollars; None means no limit."""
    limit, source = per_request_nano, PER_REQUEST_SOURCE
    if budget_left_nano is not None and (limit is None or budget_left_nano < limit):
        limit, source = budget_left_nano, BUDGET_SOURCE
    if max_cost_nano is not None and (limit is None or max_cost_nano < limit):
        limit, source = max_cost_nano, MAX_COST_SOURCE
    return SpendLimit(limit if limit is None or limit > 0 else 0, source)


def quote_model(
    pool_model: PoolModel, prompt: Prompt, features: Features, limit: SpendLimit, price_margin: int
) -> Quote:
    """Return the costs of `pool_model` for a request, its answer clamped to `limit`.

    `price_margin` is a percentage added to list prices for the worst case.
    """
    tokens, max_tokens_in = features.prompt_tokens, features.max_prompt_tokens
    requested, choices, percent = prompt.max_tokens, prompt.choice_count, 100 + price_margin
    tier, ceiling = pool_model.base_prices, pool_model.max_prices
    if prompt.images:
        max_tokens_in += prompt.images * pool_model.extra_image_tokens
    if max_tokens_in >= pool_model.next_tier_tokens:
        tier = pool_model.model.prices.tier_for(tokens)
        ceiling = pool_model.model.prices.ceiling(max_tokens_in)
    cap = pool_model.max_output_tokens
    if requested is not None and requested < cap:
        cap = requested
    answer = min(features.output_tokens, cap)
    quality = pool_model.quality.get(features.task_type, UNKNOWN_QUALITY)
    fixed = pool_model.request_price
    inbound, outbound = ceiling.prompt * percent, ceiling.completion * percent * choices
    scaled = tokens * tier.prompt + answer * choices * tier.completion
    expected = fixed - (-scaled // TOKENS_PER_PRICE_UNIT)
    if fixed:
        fixed = -(-fixed * percent // 100)
    held = fixed - (-(max_tokens_in * inbound + cap * outbound) // _PERCENT_PRICE_UNIT)
    max_tokens = None
    if limit.limit_nano is not None and held > limit.limit_nano:
        room = (limit.limit_nano - fixed) * _PERCENT_PRICE_UNIT - max_tokens_in * inbound
        # Below `cap`, since an answer of that length is over the limit.
        max_tokens = room // outbound if room >= 0 else 0
        if max_tokens < MIN_ANSWER_TOKENS:
            shortest = max_tokens_in * inbound + min(MIN_ANSWER_TOKENS, cap) * outbound
            return Quote(
                pool_model=pool_model,
                quality=quality,
                expected_nano=expected,
                held_nano=None,
                covers_expected=False,
                minimal_nano=fixed - (-shortest // _PERCENT_PRICE_UNIT),
            )
        held = fixed - (-(max_tokens_in * inbound + max_tokens * outbound) // _PERCENT_PRICE_UNIT)
        if max_tokens < answer:
            scaled = tokens * tier.prompt + max_tokens * choices * tier.completion
            expected = pool_model.request_price - (-scaled // TOKENS_PER_PRICE_UNIT)
    return Quote(
        pool_model=pool_model,
        quality=quality,
        expected_nano=expected,
        held_nano=held,
        max_tokens=max_tokens,
        covers_expected=max_tokens is None or max_tokens >= answer,
        expected_tokens=answer * choices,
        completion_price=tier.completion,
    )


def resolve_tradeoff(hints: Hints) -> str:
    """Return the trade-off that the caller wants: "cheap", "fast", "best", or "" for none."""
    if hints.tradeoff != "balanced":
        return hints.tradeoff
    if hints.min_quality is not None or hints.max_cost_nano is not None or hints.cost_sensitive:
        return "cheap"
    return ""


def order_by_tradeoff(
    quotes: Sequence[Quote], tradeoff: str, min_quality: float | None
) -> tuple[list[Quote], str]:
    """Return `quotes` ordered by `tradeoff` and the reason for the first.

    Quotes under `min_quality` go last; None: those more than QUALITY_TOLERANCE below the best.
    Without a trade-off the order stays. "cheap" and "fast" return nothing when no quote reaches the
    minimum.
    """
    if not tradeoff or not quotes:
        return list(quotes), ""
    if tradeoff == "best":
        ranked = sorted(quotes, key=lambda quote: (-quote.quality, quote.expected_nano))
        reason = f"the highest expected quality ({ranked[0].quality:.2f}) within the limits"
        return ranked, reason
    if min_quality is None:
        min_quality = round(max(quote.quality for quote in quotes) - QUALITY_TOLERANCE, 6)
    good = [quote for quote in quotes if quote.quality >= min_quality]
    if not good:
        return [], ""
    poor = [quote for quote in quotes if quote.quality < min_quality]
    if tradeoff == "fast":
        good.sort(key=lambda quote: (quote.pool_model.latency_ms, quote.expected_nano))
        value = f"the fastest ({good[0].pool_model.latency_ms} ms)"
    elif tradeoff != "cheap":
        raise ValueError(f"there is no trade-off {tradeoff!r}")
    else:
        good.sort(key=lambda quote: (quote.expected_nano, -quote.quality))
        value = f"the cheapest (about {format_usd(good[0].expected_nano)})"
    return good + poor, f"{value} with a quality of at least {min_quality:.2f}"
