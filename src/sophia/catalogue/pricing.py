"""Parse OpenRouter's decimal prices, in US dollars per token, into exact integers."""

import math
from dataclasses import replace
from decimal import Context, Decimal

import msgspec

from sophia.catalogue.prices import Prices, PriceTier

RawPrice = str | int | float | None

# A price of `"0.000003"` a token is 3,000,000,000 nano-dollars a million tokens: 15 places.
_NANO_PER_MTOK = Decimal(10**15)
_NANO_PER_USD = Decimal(10**9)
_DECIMAL_CONTEXT = Context(prec=120)
_MAX_PRICE_CHARS = 80
_MAX_OVERRIDES = 64
_ABSENT = msgspec.Raw()
# A thousand dollars a token is no price; the bound also keeps `1e999999` from filling the memory.
_MAX_PRICE = 1_000 * 10**15


class ConditionalPrice(msgspec.Struct, frozen=True, kw_only=True):
    """Prices under a condition; an absent price is the base price."""

    min_prompt_tokens: float | None = None
    utc_days: msgspec.Raw = _ABSENT
    utc_start: msgspec.Raw = _ABSENT
    utc_end: msgspec.Raw = _ABSENT
    prompt: RawPrice = None
    completion: RawPrice = None
    audio_output: RawPrice = None
    image_output: RawPrice = None
    internal_reasoning: RawPrice = None
    input_cache_read: RawPrice = None
    input_cache_write: RawPrice = None
    input_cache_write_1h: RawPrice = None

    @property
    def depends_on_time(self) -> bool:
        """Return whether these prices hold at certain times only."""
        conditions = (self.utc_days, self.utc_start, self.utc_end)
        return any(bytes(condition) not in (b"", b"null") for condition in conditions)

    @property
    def first_prompt_tokens(self) -> int:
        """Return the length of the shortest prompt to which these prices apply."""
        return 0 if self.min_prompt_tokens is None else max(int(self.min_prompt_tokens) + 1, 0)


class ListedPricing(ConditionalPrice, frozen=True, kw_only=True):
    """The `pricing` object of a listing; discounts are ignored: an upper bound must hold."""

    request: RawPrice = None
    overrides: list[ConditionalPrice] | None = None


def parse_pricing(pricing: ListedPricing) -> Prices:
    """Return the prices of a listing; `known` is False for unreadable ones and for a router's -1.

    A long-prompt price holds for prompts strictly longer than its threshold. A price that depends
    on the time of day counts as permanent when it is the higher one: an upper bound must hold at
    any hour.
    """
    overrides = pricing.overrides or []
    if pricing.prompt is None or pricing.completion is None or len(overrides) > _MAX_OVERRIDES:
        return Prices.unknown()
    try:
        base = _apply_override(PriceTier(prompt=0, completion=0), pricing)
        starts = {0, *(override.first_prompt_tokens for override in overrides)}
        tiers = [_effective_tier(base, overrides, start) for start in sorted(starts)]
        request = 0 if pricing.request is None else _parse_price(pricing.request, _NANO_PER_USD)
        return Prices(tuple(tiers), per_request=request)
    except (ArithmeticError, ValueError):
        return Prices.unknown()


def _parse_price(price: str | float, scale: Decimal = _NANO_PER_MTOK) -> int:
    """Return `price` times `scale`, rounded up once.

    Raises ArithmeticError or ValueError when it is no number, negative (a router's `"-1"`), not
    finite, or absurdly high.
    """
    text = str(price)
    scaled = _DECIMAL_CONTEXT.multiply(Decimal(text[:_MAX_PRICE_CHARS]), scale)
    if len(text) > _MAX_PRICE_CHARS or not 0 <= scaled <= _MAX_PRICE:
        raise ValueError(f"{text[:_MAX_PRICE_CHARS]!r} is not a price")
    return math.ceil(scaled)


def _highest(*prices: RawPrice) -> int | None:
    return max((_parse_price(price) for price in prices if price is not None), default=None)


def _apply_override(base: PriceTier, entry: ConditionalPrice) -> PriceTier:
    """Return `base` with the prices that `entry` states."""
    stated = {
        "prompt": _highest(entry.prompt),
        # Speech, pictures and reasoning count as completion tokens: the highest price holds.
        "completion": _highest(
            entry.completion, entry.audio_output, entry.image_output, entry.internal_reasoning
        ),
        "cache_read": _highest(entry.input_cache_read),
        "cache_write": _highest(entry.input_cache_write, entry.input_cache_write_1h),
    }
    return replace(base, **{name: nano for name, nano in stated.items() if nano is not None})


def _effective_tier(base: PriceTier, overrides: list[ConditionalPrice], start: int) -> PriceTier:
    """Return the prices at `start` prompt tokens: later overrides win, timed ones only raise."""
    tier = replace(base, min_prompt_tokens=start)
    # Stable: the permanent overrides first, each group in its order.
    for override in sorted(overrides, key=lambda override: override.depends_on_time):
        if override.first_prompt_tokens <= start:
            changed = _apply_override(tier, override)
            tier = _max_tier(tier, changed) if override.depends_on_time else changed
    return tier


def _max_tier(one: PriceTier, other: PriceTier) -> PriceTier:
    """Return the higher price of each kind; a cache-read price counts only where both have one."""
    reads = (one.cache_read, other.cache_read)
    return PriceTier(
        min_prompt_tokens=one.min_prompt_tokens,
        prompt=max(one.prompt, other.prompt),
        completion=max(one.completion, other.completion),
        cache_read=None if None in reads else max(one.cache_read or 0, other.cache_read or 0),
        cache_write=max(one.cache_write or 0, other.cache_write or 0) or None,
    )
