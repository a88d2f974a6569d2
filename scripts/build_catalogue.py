"""Build the bundled catalogue from an assembled listing, in the shape of OpenRouter's GET /models.

Usage: python scripts/build_catalogue.py LISTING.json [OUT.json]
"""

import json
import sys
from decimal import Decimal
from pathlib import Path

OUT = Path(__file__).parent.parent / "src/sophia/catalogue/data/models.json"
ROUTER_PRICE = "-1"
# The listing holds only chat models that take tools, so these are facts even of a partial row.
SURE_PARAMETERS = {"max_tokens", "tools", "tool_choice"}
# The listing has chat models only; these prices and windows stand in genai-prices 0.2.3 (MIT).
EMBEDDINGS = (
    ("openai/text-embedding-3-small", "OpenAI: Text Embedding 3 Small", 8192, "0.02"),
    ("openai/text-embedding-3-large", "OpenAI: Text Embedding 3 Large", 8192, "0.13"),
    ("google/gemini-embedding-001", "Google: Gemini Embedding 001", 2048, "0.15"),
    ("mistralai/mistral-embed-2312", "Mistral: Mistral Embed 2312", 8192, "0.10"),
)
PRICE_NAMES = {
    "prompt": "prompt",
    "completion": "completion",
    "cache_read": "input_cache_read",
    "cache_write": "input_cache_write",
}


def per_token(usd_per_mtok: Decimal) -> str:
    """Return a price per million tokens as an exact decimal string per token."""
    text = f"{usd_per_mtok.scaleb(-6):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def prices(row: dict) -> dict:
    """Return the row's prices under OpenRouter's names, without those that are not known."""
    return {
        theirs: per_token(Decimal(row[ours]))
        for ours, theirs in PRICE_NAMES.items()
        if row.get(ours) is not None
    }


def pricing(model: dict) -> dict:
    """Return the `pricing` object; a price missing, or nought without reason, is a router's."""
    row = model["pricing_usd_per_mtok"]
    free = model["id"].endswith(":free") or model["id"] == "openrouter/free"
    if row["prompt"] is None or (not row["prompt"] and not free):
        return {"prompt": ROUTER_PRICE, "completion": ROUTER_PRICE}
    found = prices(row)
    if row.get("tiers"):
        found["overrides"] = [
            {"min_prompt_tokens": tier["min_prompt_tokens"], **prices(tier)}
            for tier in row["tiers"]
        ]
    return found


def is_partial(model: dict) -> bool:
    """Say whether the source names only some of the parameters that the model takes."""
    return (model["source"]["supported_parameters"] or "partial").startswith("partial")


def listing(model: dict) -> dict:
    """Return one model object with every field that OpenRouter's schema requires."""
    slug = model["canonical_slug"] or model["id"].partition(":")[0]
    inbound, outbound = model["input_modalities"], model["output_modalities"]
    parameters = set(model["supported_parameters"] or ())
    if is_partial(model):
        parameters |= SURE_PARAMETERS
    return {
        "id": model["id"],
        "canonical_slug": slug,
        "name": model["name"],
        "created": model["created"] or 0,
        "context_length": model["context_length"],
        "architecture": {
            "modality": f"{'+'.join(inbound)}->{'+'.join(outbound)}",
            "input_modalities": inbound,
            "output_modalities": outbound,
            "tokenizer": model["tokenizer"] or "Other",
            "instruct_type": None,
        },
        "pricing": pricing(model),
        "top_provider": {
            "context_length": model["context_length"],
            "max_completion_tokens": model["max_output_tokens"],
            "is_moderated": False,
        },
        "per_request_limits": None,
        "supported_parameters": sorted(parameters),
        "default_parameters": None,
        "supported_voices": None,
        "links": {"details": f"/api/v1/models/{slug}/endpoints"},
    }


def embeddings() -> list[dict]:
    """Return the embedding models in the assembled listing's form."""
    return [
        {
            "id": id,
            "canonical_slug": id,
            "name": name,
            "kind": "embedding",
            "context_length": window,
            "max_output_tokens": None,
            "pricing_usd_per_mtok": {"prompt": Decimal(price), "completion": Decimal(0)},
            "input_modalities": ["text"],
            "output_modalities": ["embeddings"],
            "supported_parameters": ["dimensions", "encoding_format"],
            "created": 0,
            "tokenizer": None,
            "source": {"supported_parameters": "genai-prices-0.2.3"},
        }
        for id, name, window, price in EMBEDDINGS
    ]


def main(source: Path, out: Path) -> None:
    """Write `out` with one model a line, so that two snapshots can be compared by eye."""
    document = json.loads(source.read_text(), parse_float=Decimal)
    # An id without an author is the source's own abbreviation; OpenRouter lists none.
    rows = [m for m in document["models"] if m["kind"] == "chat" and "/" in m["id"]]
    rows += embeddings()
    rows.sort(key=lambda model: model["id"])
    sources = [
        {"name": s["name"], "date": s["date"], "licence": s["licence"], "used_for": s["used_for"]}
        for s in document["meta"]["sources"]
    ]
    snapshot = {
        "date": document["meta"]["listing_date"],
        "partial_parameters": [model["id"] for model in rows if is_partial(model)],
        "sources": sources,
    }

    def compact(value: object) -> str:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    lines = ",\n".join(compact(listing(model)) for model in rows)
    tail = f'"total_count":{len(rows)},"links":{{"next":null}},"snapshot":{compact(snapshot)}'
    out.write_text(f'{{"data":[\n{lines}\n],\n{tail}}}\n', encoding="utf-8")
    print(f"{len(rows)} models of {snapshot['date']} written to {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else OUT)
