"""Prices of a model in integer nano-dollars per million tokens, with tiers by prompt length."""

from dataclasses import dataclass

from sophia.core.money import settle_cost, token_cost


@dataclass(frozen=True, slots=True)
class Tier:
    """Prices that hold from `min_prompt_tokens` on; nano-dollars per million tokens."""

    min_prompt_tokens: int
    prompt: int
    completion: int
    cache_read: int | None = None
    cache_write: int | None = None


@dataclass(frozen=True, slots=True)
class Prices:
    """What a model costs: the base tier first, dearer tiers by rising prompt length.

    `request` is a flat price per call in nano-dollars. `known` is False for routers and models
    whose price the catalogue does not say: such a model cannot be promised a ceiling.
    """

    tiers: tuple[Tier, ...]
    request: int = 0
    known: bool = True

    @classmethod
    def unknown(cls) -> "Prices":
        """Return the prices of a model of which nobody can say what it costs."""
        return cls((Tier(0, 0, 0),), known=False)

    def tier(self, prompt_tokens: int) -> Tier:
        """Return the tier in force for a prompt of `prompt_tokens`."""
        found = self.tiers[0]
        for tier in self.tiers:
            if prompt_tokens < tier.min_prompt_tokens:
                break
            found = tier
        return found

    def cost(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> int:
        """Return the cost in nano-dollars; cached tokens are part of the prompt tokens."""
        tier = self.tier(prompt_tokens)
        cached = min(cached_tokens, prompt_tokens) if tier.cache_read is not None else 0
        scaled = token_cost(prompt_tokens - cached, tier.prompt)
        scaled += token_cost(completion_tokens, tier.completion)
        if cached:
            scaled += token_cost(cached, tier.cache_read or 0)
        return self.request + settle_cost(scaled)

    def ceiling(self, prompt_tokens: int) -> Tier:
        """Return the dearest prices that a prompt of up to `prompt_tokens` may meet."""
        met = [tier for tier in self.tiers if tier.min_prompt_tokens <= prompt_tokens]
        inbound = max(max(t.prompt, t.cache_write or 0, t.cache_read or 0) for t in met)
        return Tier(0, inbound, max(tier.completion for tier in met))
