"""One model as OpenRouter lists it, with Sophia's profile of it."""

from dataclasses import dataclass

from sophia.catalogue.prices import Prices

UNBOUNDED = 2**31 - 1
"""The context length of a model whose listing names no limit, such as a router."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What Sophia believes about a model before it has seen it work.

    `quality` is 0 to 1 by coarse task type (`coding`, `analysis`, `creative`, `general`), a prior
    that outcomes will replace. `latency_ms` is the time to the first token, `tokens_per_second`
    the speed after it.
    """

    name: str
    role: str
    tags: tuple[str, ...]
    quality: dict[str, float]
    latency_ms: int
    tokens_per_second: int


@dataclass(frozen=True, slots=True)
class Model:
    """A model that can be asked for by `id`. Lengths are in tokens; `created` in Unix seconds."""

    id: str
    name: str
    context_length: int
    max_output_tokens: int | None
    prices: Prices
    input_modalities: frozenset[str]
    output_modalities: frozenset[str]
    parameters: frozenset[str]
    kind: str = "chat"
    created: int = 0
    expires: str | None = None
    alias_of: str | None = None
    profile: Profile | None = None
    listing: bytes = b"{}"
    canonical_slug: str | None = None

    def can(self, parameter: str) -> bool:
        """Say whether the model takes `parameter`; a listing without parameters says nothing."""
        return not self.parameters or parameter in self.parameters
