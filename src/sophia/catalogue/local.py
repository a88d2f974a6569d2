"""Models that an upstream of one's own serves, as entries of the catalogue."""

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from sophia.catalogue.model import Model
from sophia.catalogue.prices import Prices, PriceTier
from sophia.catalogue.snapshot import parse_models
from sophia.config import UpstreamModelSettings
from sophia.core.money import nano_from_usd


def build_local_model(model: UpstreamModelSettings, modalities: Sequence[str]) -> Model:
    """Return the catalogue's entry of a model, with the listing that `GET /models` shows.

    `modalities` is what a prompt may hold.
    """
    outbound = "text" if model.kind == "chat" else "embeddings"
    prompt, completion = model.prompt_usd_per_mtok, model.completion_usd_per_mtok
    listing = {
        "id": model.id,
        "canonical_slug": model.id,
        "name": model.id,
        "created": 0,
        "pricing": {"prompt": f"{prompt / 1e6:.12f}", "completion": f"{completion / 1e6:.12f}"},
        "context_length": model.context_length,
        "architecture": {
            "modality": f"{'+'.join(modalities)}->{outbound}",
            "input_modalities": modalities,
            "output_modalities": [outbound],
            "tokenizer": "Other",
            "instruct_type": None,
        },
        "top_provider": {
            "is_moderated": False,
            "context_length": model.context_length,
            "max_completion_tokens": model.max_output_tokens,
        },
        "per_request_limits": None,
        "supported_parameters": [],
        "default_parameters": None,
        "supported_voices": None,
        "links": {"details": f"/v1/models/{model.id}"},
    }
    [parsed] = parse_models(msgspec.json.encode({"data": [listing]}))
    # The listing rounds a price to a thousandth of a nano-dollar per token.
    tier = PriceTier(prompt=nano_from_usd(prompt), completion=nano_from_usd(completion))
    return replace(parsed, prices=Prices((tier,)))
