"""The models that the sandbox plays, read from the body of OpenRouter's `GET /models`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from functools import cache
from importlib.resources import files
from pathlib import Path

import msgspec

from sophia.testing.refusal import Refusal

NANO_PER_USD = 1_000_000_000
EMBEDDING_PRICE = "0.00000002"


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices in US dollars per token that hold from `min_prompt_tokens` on, and per request."""

    min_prompt_tokens: int
    prompt: Decimal
    completion: Decimal
    request: Decimal


@dataclass(frozen=True, slots=True)
class Listed:
    """One model; `body` is the object as OpenRouter lists it. Lengths are in tokens."""

    id: str
    context_length: int
    max_output: int | None
    parameters: frozenset[str]
    rates: tuple[Rates, ...]
    body: Mapping[str, object]

    def cost(self, prompt_tokens: int, completion_tokens: int) -> int:
        """Return the price of a generation in nano-dollars, rounded up once."""
        rates = [r for r in self.rates if r.min_prompt_tokens <= prompt_tokens][-1]
        dollars = (
            prompt_tokens * rates.prompt + completion_tokens * rates.completion + rates.request
        )
        return int((dollars * NANO_PER_USD).to_integral_value(ROUND_CEILING))


class Listing:
    """The models by id, in the order of the list."""

    def __init__(self, bodies: Iterable[Mapping[str, object]]) -> None:
        self.models = {model.id: model for model in map(_listed, bodies)}

    def find(self, model_id: str) -> Listed:
        """Return the model that `model_id` names, with an alias answered by the model behind it.

        Raises:
            Refusal: no model has that id (400).
        """
        model = self.models.get(model_id) or self.models.get(model_id.partition(":")[0])
        if model is None:
            raise Refusal(400, "invalid_request", f"{model_id} is not a valid model ID")
        target = _table(model.body.get("alias_target")).get("slug")
        return self.models.get(str(target), model)

    def find_embedder(self, model_id: str) -> Listed:
        """Return an embedding model; snapshots list none, so any id that says `embed` will do."""
        if model_id not in self.models and "embed" in model_id:
            pricing = {"prompt": EMBEDDING_PRICE, "completion": "0"}
            return _listed({"id": model_id, "context_length": 8192, "pricing": pricing})
        return self.find(model_id)


@cache
def read_listing(path: Path | None = None) -> Listing:
    """Read the body of `GET /models` from `path`, by default from the snapshot that Sophia ships.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not such a body.
    """
    source = path or files("sophia.catalogue") / "data" / "models.json"
    decoded = msgspec.json.decode(source.read_bytes())
    if not isinstance(decoded, dict) or not isinstance(decoded.get("data"), list):
        raise ValueError(f"{source} is not the body of GET /models: no list named data")
    return Listing(decoded["data"])


def _listed(body: Mapping[str, object]) -> Listed:
    pricing = _table(body.get("pricing"))
    base = Rates(
        0, _price(pricing, "prompt"), _price(pricing, "completion"), _price(pricing, "request")
    )
    provider = _table(body.get("top_provider"))
    parameters = body.get("supported_parameters")
    return Listed(
        id=str(body["id"]),
        context_length=_count(body.get("context_length")) or 128_000,
        max_output=_count(provider.get("max_completion_tokens")),
        parameters=frozenset(map(str, parameters)) if isinstance(parameters, list) else frozenset(),
        rates=(base, *_dearer_rates(base, pricing.get("overrides"))),
        body=body,
    )


def _dearer_rates(base: Rates, overrides: object) -> list[Rates]:
    tiers = []
    for entry in overrides if isinstance(overrides, list) else []:
        if threshold := _count(_table(entry).get("min_prompt_tokens")):
            prices = {"prompt": base.prompt, "completion": base.completion, **_table(entry)}
            prompt, completion = _price(prices, "prompt"), _price(prices, "completion")
            tiers.append(Rates(threshold, prompt, completion, base.request))
    return sorted(tiers, key=lambda tier: tier.min_prompt_tokens)


def _price(pricing: Mapping[str, object], name: str) -> Decimal:
    # Routers are listed at "-1", for "it depends"; the sandbox gives them away.
    return max(Decimal(str(pricing.get(name) or 0)), Decimal(0))


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _table(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
