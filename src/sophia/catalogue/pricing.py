"""Read OpenRouter's decimal prices, in US dollars per token, into exact integers."""

from decimal import ROUND_CEILING, Context, Decimal, InvalidOperation

import msgspec

from sophia.catalogue.prices import Prices, Tier

Price = str | int | float | None

# A price of `"0.000003"` a token is 3,000,000,000 nano-dollars a million tokens: 15 places.
_NANO_PER_MTOK = Decimal(10**15)
_NANO = Decimal(10**9)
_EXACT = Context(prec=120)
_LONGEST_PRICE = 80
_MOST_OVERRIDES = 64
_ABSENT = msgspec.Raw()
# A thousand dollars a token is no price; the bound also keeps `1e999999` from filling the memory.
_DEAREST = 1_000 * 10**15


class Override(msgspec.Struct, frozen=True):
    """Prices under a condition; a price that is absent is the base price."""

    min_prompt_tokens: float | None = None
    utc_days: msgspec.Raw = _ABSENT
    utc_start: msgspec.Raw = _ABSENT
    utc_end: msgspec.Raw = _ABSENT
    prompt: Price = None
    completion: Price = None
    audio_output: Price = None
    image_output: Price = None
    internal_reasoning: Price = None
    input_cache_read: Price = None
    input_cache_write: Price = None
    input_cache_write_1h: Price = None

    @property
    def depends_on_time(self) -> bool:
        """Say whether the clock decides if these prices hold."""
        conditions = (self.utc_days, self.utc_start, self.utc_end)
        return any(bytes(condition) not in (b"", b"null") for condition in conditions)


class Pricing(Override, frozen=True):
    """The `pricing` object of a listing; a discount is not counted, for a ceiling must hold."""

    request: Price = None
    overrides: list[Override] | None = None


class UnreadablePrice(ValueError):
    """The price is not a decimal number that is zero or more."""


def exact(price: Price, scale: Decimal = _NANO_PER_MTOK) -> int | None:
    """Return `price` times `scale`, rounded up once; None stays None.

    Raises:
        UnreadablePrice: it is negative (a router's `"-1"`), not finite, or beyond all measure.
    """
    if price is None:
        return None
    text = str(price)
    try:
        scaled = _EXACT.multiply(Decimal(text[:_LONGEST_PRICE]), scale)
        if len(text) <= _LONGEST_PRICE and 0 <= scaled <= _DEAREST:
            return int(scaled.to_integral_value(ROUND_CEILING))
    except (InvalidOperation, ArithmeticError):
        pass
    raise UnreadablePrice(f"{text[:_LONGEST_PRICE]!r} is not a price")


def prices_of(pricing: Pricing) -> Prices:
    """Return the prices of a listing; `known` is False where they cannot be read or are a router's.

    A long-prompt price holds for prompts strictly longer than its threshold. Prices by the time of
    day count as if they always held when they are the dearer ones: a ceiling must hold at noon too.
    """
    try:
        base = _tier(0, pricing)
        if pricing.prompt is None or pricing.completion is None:
            return Prices.unknown()
        overrides = pricing.overrides or []
        if len(overrides) > _MOST_OVERRIDES:
            return Prices.unknown()
        timed = [entry for entry in overrides if entry.depends_on_time]
        always = [entry for entry in overrides if not entry.depends_on_time]
        starts = {_start(entry) for entry in overrides} - {0}
        tiers = [_in_force(base, always, timed, start) for start in sorted({0} | starts)]
        return Prices(tuple(tiers), request=exact(pricing.request, _NANO) or 0)
    except (UnreadablePrice, OverflowError, ValueError):
        return Prices.unknown()


def _start(entry: Override) -> int:
    """Return the shortest prompt to which `entry` applies."""
    if entry.min_prompt_tokens is None:
        return 0
    return max(int(entry.min_prompt_tokens) + 1, 0)


def _tier(start: int, entry: Override) -> Tier:
    """Return what `entry` itself says; -1 stands for a price that it leaves to the base."""
    # Speech, pictures and thoughts count as completion tokens: the dearest of them is the price.
    outbound = [
        exact(p)
        for p in (
            entry.completion,
            entry.audio_output,
            entry.image_output,
            entry.internal_reasoning,
        )
    ]
    writes = [exact(entry.input_cache_write), exact(entry.input_cache_write_1h)]
    prompt = exact(entry.prompt)
    return Tier(
        start,
        -1 if prompt is None else prompt,
        max((p for p in outbound if p is not None), default=-1),
        exact(entry.input_cache_read),
        max((p for p in writes if p is not None), default=None),
    )


def _in_force(base: Tier, always: list[Override], timed: list[Override], start: int) -> Tier:
    """Return the prices of a prompt of `start` tokens: later entries win, hours only raise."""
    found = Tier(start, base.prompt, base.completion, base.cache_read, base.cache_write)
    for entry in always:
        if _start(entry) <= start:
            found = _over(found, _tier(start, entry))
    for entry in timed:
        if _start(entry) <= start:
            found = _dearer(found, _over(found, _tier(start, entry)))
    return found


def _over(base: Tier, entry: Tier) -> Tier:
    """Return `entry` with what it does not say taken from `base`."""
    return Tier(
        base.min_prompt_tokens,
        base.prompt if entry.prompt < 0 else entry.prompt,
        base.completion if entry.completion < 0 else entry.completion,
        base.cache_read if entry.cache_read is None else entry.cache_read,
        base.cache_write if entry.cache_write is None else entry.cache_write,
    )


def _dearer(one: Tier, other: Tier) -> Tier:
    """Return the dearer price of each kind; a cache price counts only where both have one."""
    reads = (one.cache_read, other.cache_read)
    return Tier(
        one.min_prompt_tokens,
        max(one.prompt, other.prompt),
        max(one.completion, other.completion),
        None if None in reads else max(one.cache_read or 0, other.cache_read or 0),
        max(one.cache_write or 0, other.cache_write or 0) or None,
    )
