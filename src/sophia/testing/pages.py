"""What the sandbox answers besides text: models, one generation, the key, embeddings."""

from collections.abc import Mapping
from urllib.parse import parse_qs, unquote

from sophia.testing import records, vectors
from sophia.testing.bill import Bill
from sophia.testing.listing import Listed, Listing
from sophia.testing.refusal import Refusal
from sophia.testing.shapes import NANO_PER_USD, PROVIDER, Json

DEFAULT_LIMIT = 500
MAX_LIMIT = 1000
MAX_DIMENSIONS = 4096


def page(path: str, query: str, listing: Listing, bill: Bill) -> Json:
    """Return the body of a GET of `path`, such as `/v1/models`.

    Raises:
        Refusal: there is no such page, model or generation.
    """
    asked = {name: values[-1] for name, values in parse_qs(query).items()}
    match unquote(path).strip("/").split("/"):
        case ["v1", "models"]:
            return _models(listing, asked)
        case ["v1", "models" | "model", *parts, "endpoints"]:
            return {"data": _endpoints(listing.find("/".join(parts)))}
        case ["v1", "models" | "model", *parts]:
            return {"data": listing.find("/".join(parts)).body}
        case ["v1", "generation"]:
            return {"data": records.generation(bill, asked.get("id", ""))}
        case ["v1", "key"] | ["v1", "auth", "key"]:
            return {"data": records.key(bill)}
        case _:
            raise Refusal(404, "not_found", f"No route GET {path}")


def embeddings(body: Mapping[str, object], model: Listed) -> tuple[Json, int]:
    """Return the answer to an embeddings request and the tokens it took.

    Raises:
        Refusal: there is no input, or the dimensions are no positive number (400).
    """
    given = body.get("input")
    texts = given if isinstance(given, list) and not _is_tokens(given) else [given]
    if not texts or any(not isinstance(text, (str, list)) or not text for text in texts):
        raise Refusal(400, "invalid_request", "input: expected text, or a list of texts")
    dimensions = body.get("dimensions") or vectors.DIMENSIONS
    if not isinstance(dimensions, int) or not 0 < dimensions <= MAX_DIMENSIONS:
        raise Refusal(400, "invalid_request", f"dimensions: expected 1 to {MAX_DIMENSIONS}")
    rows: list[Json] = []
    for index, text in enumerate(texts):
        vector = vectors.embed(text if isinstance(text, str) else repr(text), dimensions)
        coded = vectors.encode(vector) if body.get("encoding_format") == "base64" else vector
        rows.append({"object": "embedding", "embedding": coded, "index": index})
    tokens = sum(map(_tokens, texts))
    cost = model.cost(tokens, 0) / NANO_PER_USD
    usage = {"prompt_tokens": tokens, "total_tokens": tokens, "cost": cost}
    return {"object": "list", "data": rows, "model": model.id, "usage": usage}, tokens


def _tokens(text: object) -> int:
    if isinstance(text, str):
        return -(-len(text.encode()) // 4)
    return len(text) if isinstance(text, list) else 0


def _is_tokens(given: list[object]) -> bool:
    return bool(given) and all(isinstance(item, int) for item in given)


def _models(listing: Listing, asked: Mapping[str, str]) -> Json:
    bodies = [model.body for model in listing.models.values()]
    start = _number(asked.get("offset"), 0)
    size = min(_number(asked.get("limit"), DEFAULT_LIMIT), MAX_LIMIT)
    following = None
    if "limit" in asked and start + size < len(bodies):
        following = f"/api/v1/models?offset={start + size}&limit={size}"
    # Without a limit OpenRouter sends the whole list: paging is for those who ask for it.
    shown = bodies[start : start + size] if "limit" in asked else bodies[start:]
    return {"data": shown, "total_count": len(bodies), "links": {"next": following}}


def _endpoints(model: Listed) -> Json:
    health = {
        "status": 0,
        "uptime_last_5m": 100.0,
        "uptime_last_30m": 100.0,
        "uptime_last_1d": 100.0,
    }
    endpoint = {
        "name": f"{PROVIDER} | {model.id}",
        "model_id": model.id,
        "model_name": model.body.get("name", model.id),
        "provider_name": PROVIDER,
        "tag": PROVIDER.lower(),
        "pricing": model.body.get("pricing"),
        "context_length": model.context_length,
        "max_completion_tokens": model.max_output,
        "max_prompt_tokens": None,
        "quantization": "unknown",
        "supported_parameters": sorted(model.parameters),
        "supports_implicit_caching": False,
        "latency_last_30m": None,
        "throughput_last_30m": None,
        **health,
    }
    kept = {name: model.body.get(name) for name in ("id", "name", "created", "architecture")}
    return {**kept, "description": model.body.get("description", ""), "endpoints": [endpoint]}


def _number(text: str | None, default: int) -> int:
    if text is None:
        return default
    if not text.isdigit():
        raise Refusal(400, "invalid_request", "offset and limit are whole numbers")
    return int(text)
