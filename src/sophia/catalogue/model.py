"""One model as OpenRouter lists it, with Sophia's profile of it."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta, Struct

from sophia.catalogue.prices import Prices

UNBOUNDED = 2**31 - 1
"""Context length of a model whose listing names no limit, such as a router."""


class ModelProfile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Role and expected speed of a model, used until its answers have been measured.

    `latency_ms` is the time to the first token, `tokens_per_second` the speed after it. When `id`
    is no longer listed, the first listed one of `successors` takes the profile over. A model that
    is better at the kinds of work in `skills` and costs no more may take it over, if its id matches
    one of the patterns in `candidates` and its context is long enough.
    """

    id: str
    role: str
    latency_ms: Annotated[int, Meta(ge=1)]
    tokens_per_second: Annotated[int, Meta(ge=1)]
    successors: tuple[str, ...] = ()
    skills: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ("*",)
    min_context: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that can be requested by `id`. Lengths are in tokens."""

    id: str
    name: str
    context_length: int
    max_output_tokens: int | None = None
    prices: Prices
    input_modalities: frozenset[str] = frozenset({"text"})
    output_modalities: frozenset[str] = frozenset({"text"})
    supported_parameters: frozenset[str] = frozenset()
    kind: str = "chat"
    expires_on: str | None = None
    alias_of: str | None = None
    profile: ModelProfile | None = None
    listing_json: bytes = b"{}"
    canonical_slug: str | None = None

    def supports(self, parameter: str) -> bool:
        """Return whether the model takes `parameter`; True if its listing names no parameters."""
        return not self.supported_parameters or parameter in self.supported_parameters
