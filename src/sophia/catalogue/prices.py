"""Prices of a model in integer nano-dollars per million tokens, with tiers by prompt length."""

from dataclasses import dataclass

from sophia.core.money import TOKENS_PER_PRICE_UNIT

MAX_PRICE_RATIO = 16
"""Answer tokens cost 1 to 14 times as much as prompt tokens in listings that agree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTier:
    """Prices from `min_prompt_tokens` on, in nano-dollars per million tokens."""

    min_prompt_tokens: int = 0
    prompt: int
    completion: int
    cache_read: int | None = None
    cache_write: int | None = None


@dataclass(frozen=True, slots=True)
class Prices:
    """The tiers of a model by rising prompt length, and its flat `per_request` price.

    `known` is False for routers and models without a listed price; no upper bound on the cost can
    be given for them.
    """

    tiers: tuple[PriceTier, ...]
    per_request: int = 0
    known: bool = True

    @property
    def plausible(self) -> bool:
        """Whether no answer token costs far more than a prompt token, as in a faulty listing."""
        return all(
            tier.completion <= MAX_PRICE_RATIO * tier.prompt for tier in self.tiers if tier.prompt
        )

    @classmethod
    def unknown(cls) -> "Prices":
        """Return the prices of a model that has none in its listing."""
        return cls((PriceTier(prompt=0, completion=0),), known=False)

    def tier_for(self, prompt_tokens: int) -> PriceTier:
        """Return the tier in force for a prompt of `prompt_tokens`."""
        current = self.tiers[0]
        for tier in self.tiers:
            if prompt_tokens < tier.min_prompt_tokens:
                break
            current = tier
        return current

    def cost(
        self,
        prompt_tokens: int,
        completion_tokens: int,
        cached_tokens: int = 0,
        cache_write_tokens: int = 0,
    ) -> int:
        """Return the cost in nano-dollars, rounded up.

        The prompt contains the tokens that were read from a cache and those written to one.
        """
        tier = self.tier_for(prompt_tokens)
        cached = min(cached_tokens, prompt_tokens) if tier.cache_read is not None else 0
        plain = prompt_tokens - cached
        written = min(cache_write_tokens, plain) if tier.cache_write is not None else 0
        scaled = (plain - written) * tier.prompt + completion_tokens * tier.completion
        scaled += cached * (tier.cache_read or 0) + written * (tier.cache_write or 0)
        return self.per_request - (-scaled // TOKENS_PER_PRICE_UNIT)

    def ceiling(self, prompt_tokens: int) -> PriceTier:
        """Return the highest prices that apply to any prompt of up to `prompt_tokens`."""
        tiers = [tier for tier in self.tiers if tier.min_prompt_tokens <= prompt_tokens]
        inbound = max(max(t.prompt, t.cache_write or 0, t.cache_read or 0) for t in tiers)
        return PriceTier(prompt=inbound, completion=max(tier.completion for tier in tiers))
