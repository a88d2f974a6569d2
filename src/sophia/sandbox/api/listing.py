"""The models that the sandbox plays, read from the body of OpenRouter's `GET /models`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from functools import cache
from importlib.resources import files
from pathlib import Path

import msgspec

from sophia.sandbox.api.errors import SandboxError
from sophia.sandbox.api.shapes import NANO_PER_USD, as_list, as_mapping

EMBEDDING_PRICE = "0.00000002"


@dataclass(frozen=True, slots=True)
class ListedPriceTier:
    """US dollars per token for prompts of at least `min_prompt_tokens`, and per request."""

    min_prompt_tokens: int
    prompt: Decimal
    completion: Decimal
    request: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedModel:
    """One model; `listing` is the object as OpenRouter lists it. Lengths are in tokens."""

    id: str
    context_length: int
    max_output_tokens: int | None
    supported_parameters: frozenset[str]
    rates: tuple[ListedPriceTier, ...]
    listing: Mapping[str, object]

    def cost(self, prompt_tokens: int, completion_tokens: int) -> int:
        """Return the price of a generation in nano-dollars, rounded up once."""
        rates = [r for r in self.rates if r.min_prompt_tokens <= prompt_tokens][-1]
        dollars = (
            prompt_tokens * rates.prompt + completion_tokens * rates.completion + rates.request
        )
        return int((dollars * NANO_PER_USD).to_integral_value(ROUND_CEILING))


class ModelListing:
    """The models by id, in the order of the list."""

    def __init__(self, bodies: Iterable[Mapping[str, object]]) -> None:
        self.models = {model.id: model for model in map(_parse_model, bodies)}

    def find(self, model_id: str) -> ListedModel:
        """Return a model, for an alias its target. Raises SandboxError (400) if there is none."""
        model = self.models.get(model_id) or self.models.get(model_id.partition(":")[0])
        if model is None:
            raise SandboxError(400, f"{model_id} is not a valid model ID")
        target = as_mapping(model.listing.get("alias_target")).get("slug")
        return self.models.get(str(target), model)

    def find_embedding_model(self, model_id: str) -> ListedModel:
        """Return an embedding model. Snapshots list none, so any id with `embed` in it is valid."""
        if model_id not in self.models and "embed" in model_id:
            pricing = {"prompt": EMBEDDING_PRICE, "completion": "0"}
            return _parse_model({"id": model_id, "context_length": 8192, "pricing": pricing})
        return self.find(model_id)


@cache
def read_listing(path: Path | None = None) -> ModelListing:
    """Read the body of `GET /models` from `path`, by default from the snapshot that Sophia ships.

    Raises OSError if the file cannot be read, ValueError if it is not such a body.
    """
    source = path or files("sophia.catalogue") / "data" / "models.json"
    body = msgspec.json.decode(source.read_bytes())
    if not isinstance(body, dict) or not isinstance(body.get("data"), list):
        raise ValueError(f"{source} is not the body of GET /models: no list named data")
    return ModelListing(body["data"])


def _parse_model(body: Mapping[str, object]) -> ListedModel:
    pricing = as_mapping(body.get("pricing"))
    base = _parse_rates(0, pricing)
    tiers = [
        _parse_rates(threshold, {**pricing, **tier, "request": pricing.get("request")})
        for tier in map(as_mapping, as_list(pricing.get("overrides")))
        if (threshold := _positive_int(tier.get("min_prompt_tokens")))
    ]
    provider = as_mapping(body.get("top_provider"))
    return ListedModel(
        id=str(body["id"]),
        context_length=_positive_int(body.get("context_length")) or 128_000,
        max_output_tokens=_positive_int(provider.get("max_completion_tokens")),
        supported_parameters=frozenset(map(str, as_list(body.get("supported_parameters")))),
        rates=(base, *sorted(tiers, key=lambda tier: tier.min_prompt_tokens)),
        listing=body,
    )


def _parse_rates(min_prompt_tokens: int, pricing: Mapping[str, object]) -> ListedPriceTier:
    # Routers are listed at "-1", for "it depends"; the sandbox gives them away.
    prompt, completion, request = (
        max(Decimal(str(pricing.get(name) or 0)), Decimal(0))
        for name in ("prompt", "completion", "request")
    )
    return ListedPriceTier(min_prompt_tokens, prompt, completion, request)


def _positive_int(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
