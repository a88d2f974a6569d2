"""What each candidate may cost, what the purse pays, and whom to prefer for the money."""

from collections.abc import Sequence

from msgspec import Struct

from sophia.catalogue.prices import Tier
from sophia.core.money import TOKENS_PER_PRICE_UNIT, format_usd
from sophia.routing.nouns import Features, Hints, Prompt
from sophia.routing.pool import UNKNOWN_QUALITY, Seat

DEFAULT_MIN_QUALITY = 0.8
DEFAULT_PER_REQUEST_NANO = 100_000_000
MINIMAL_ANSWER = 16
MAX_COST_OWNER = "the request's max_cost_usd"
_UNIT = 100 * TOKENS_PER_PRICE_UNIT


class Purse(Struct, frozen=True):
    """The most one attempt may cost, in nano-dollars, and in words whose limit that is."""

    nano: int | None
    owner: str


class Bounds(Struct, frozen=True):
    """Sizes of a request in tokens; `choices` answers of at most `requested` tokens each."""

    prompt: int
    max_prompt: int
    output: int
    requested: int | None
    choices: int
    images: int
    headroom: int


class Offer(Struct, frozen=True):
    """A candidate with its costs in nano-dollars.

    `held` is the most that the attempt can cost after the answer was clamped to `max_tokens` (None:
    no clamp needed); it is None when the purse does not cover even a minimal answer. `pays` says
    whether it covers an answer of the expected length, which is `tokens` for all choices, at
    `completion` nano-dollars for a million.
    """

    seat: Seat
    quality: float
    expected: int
    held: int | None
    max_tokens: int | None
    pays: bool
    tokens: int = 0
    completion: int = 0


def purse_of(per_request: int | None, budget_left: int | None, max_cost: int | None) -> Purse:
    """Return the tightest of the limits in nano-dollars; None means no limit."""
    nano, owner = per_request, "the per-request limit"
    if budget_left is not None and (nano is None or budget_left < nano):
        nano, owner = budget_left, "what is left of the budget"
    if max_cost is not None and (nano is None or max_cost < nano):
        nano, owner = max_cost, MAX_COST_OWNER
    return Purse(nano if nano is None or nano > 0 else 0, owner)


def bounds_of(prompt: Prompt, features: Features, headroom: int) -> Bounds:
    """Return the sizes that costs are reckoned from; `headroom` percent is put on every price."""
    return Bounds(
        features.prompt_tokens,
        features.max_prompt_tokens,
        features.output_tokens,
        prompt.max_tokens,
        prompt.choices,
        prompt.images,
        100 + headroom,
    )


def clamp_max_tokens(
    prices: Tier, purse_nano: int, max_prompt_tokens: int, requested: int | None, model_max: int
) -> int | None:
    """Return the longest answer that the purse pays, or None when it pays all that may come.

    Args:
        prices: the dearest prices that may be met, headroom included.
        purse_nano: nano-dollars for prompt and answer together.
        max_prompt_tokens: a bound on the prompt's tokens.
        requested: the caller's own limit on the answer, if any.
        model_max: the longest answer that the model gives.

    The result may be zero or below a useful length: the caller decides what that means.
    """
    cap = model_max if requested is None or requested > model_max else requested
    room = purse_nano * TOKENS_PER_PRICE_UNIT - max_prompt_tokens * prices.prompt
    tokens = _longest(room, prices.completion, cap)
    return None if tokens >= cap else tokens


def _longest(room: int, completion: int, cap: int) -> int:
    """Return how many of `cap` tokens at `completion` each fit into `room`, in the same unit."""
    if room < 0:
        return 0
    if completion <= 0 or cap * completion <= room:
        return cap
    return room // completion


def quote(seat: Seat, task: str, bounds: Bounds, purse: Purse) -> Offer:
    """Return what `seat` may cost for a request of `bounds`, clamped to `purse`."""
    prompt, max_prompt = bounds.prompt, bounds.max_prompt
    requested, choices, percent = bounds.requested, bounds.choices, bounds.headroom
    tier, ceiling, model_max = seat.base, seat.ceiling, seat.output_bound
    if bounds.images:
        max_prompt += bounds.images * seat.image_surplus
    if max_prompt >= seat.dearer_from:
        tier = seat.model.prices.tier(prompt)
        ceiling = seat.model.prices.ceiling(max_prompt)
    cap = model_max if requested is None or requested > model_max else requested
    likely = bounds.output
    likely = min(likely, cap)
    quality = seat.quality.get(task, UNKNOWN_QUALITY)
    fixed = seat.request
    inbound, outbound = ceiling.prompt * percent, ceiling.completion * percent * choices
    expected = fixed - (
        -(prompt * tier.prompt + likely * choices * tier.completion) // TOKENS_PER_PRICE_UNIT
    )
    if fixed:
        fixed = -(-fixed * percent // 100)
    tokens, completion = likely * choices, tier.completion
    held = fixed - (-(max_prompt * inbound + cap * outbound) // _UNIT)
    if purse.nano is None or held <= purse.nano:
        return Offer(seat, quality, expected, held, None, True, tokens, completion)
    most = _longest((purse.nano - fixed) * _UNIT - max_prompt * inbound, outbound, cap)
    if most < MINIMAL_ANSWER and most < cap:
        return Offer(seat, quality, expected, None, None, False)
    held = fixed - (-(max_prompt * inbound + most * outbound) // _UNIT)
    if most < likely:
        expected = seat.request + _ceil(prompt * tier.prompt + most * choices * tier.completion)
    return Offer(seat, quality, expected, held, most, most >= likely, tokens, completion)


def wishes(hints: Hints) -> str:
    """Return the order that the caller wants: "cheap", "fast", "best", or "" for the policy's."""
    if hints.tradeoff != "balanced":
        return hints.tradeoff
    if hints.min_quality is not None or hints.max_cost_nano is not None or hints.cost_sensitive:
        return "cheap"
    return ""


def prefer(offers: Sequence[Offer], wish: str, floor: float) -> tuple[list[Offer], str]:
    """Return `offers` reordered by `wish` and why the first is; those under `floor` go last.

    Without a wish the order stands as it came. "cheap" and "fast" return nobody when nobody reaches
    the floor: then the fallback answers.
    """
    if not wish or not offers:
        return list(offers), ""
    good = [offer for offer in offers if offer.quality >= floor]
    if not good and wish != "best":
        return [], ""
    if wish == "best":
        ranked = sorted(offers, key=lambda offer: (-offer.quality, offer.expected))
        return ranked, f"the highest expected quality ({ranked[0].quality:.2f}) that the limits pay"
    poor = [offer for offer in offers if offer.quality < floor]
    if wish == "fast":
        good.sort(key=lambda offer: (offer.seat.latency_ms, offer.expected))
        return (
            good + poor,
            f"the fastest ({good[0].seat.latency_ms} ms) with a quality of at least {floor:.2f}",
        )
    good.sort(key=lambda offer: (offer.expected, -offer.quality))
    cost = format_usd(good[0].expected)
    return good + poor, f"the cheapest (about {cost}) with a quality of at least {floor:.2f}"


def too_dear(offer: Offer, purse: Purse) -> str:
    """Return the sentence that says why the purse does not pay this offer."""
    limit = format_usd(purse.nano or 0)
    if offer.held is None:
        return f"Not even a minimal answer fits into {purse.owner} ({limit})."
    return f"An answer of the expected length does not fit into {purse.owner} ({limit})."


def _ceil(scaled: int) -> int:
    return -(-scaled // TOKENS_PER_PRICE_UNIT)
