"""The pages that the sandbox serves by GET: models, endpoints, generations and the key."""

from collections.abc import Mapping
from urllib.parse import parse_qs, unquote

from sophia.sandbox.api.bill import SandboxBill
from sophia.sandbox.api.errors import SandboxError
from sophia.sandbox.api.listing import ListedModel, ModelListing
from sophia.sandbox.api.shapes import PROVIDER, JsonObject

MAX_LIMIT = 1000


def answer_get_request(
    path: str, query: str, listing: ModelListing, bill: SandboxBill
) -> JsonObject:
    """Return the body of a GET of `path`, such as `/v1/models`.

    Raises SandboxError if there is no such page, model or generation.
    """
    parameters = {name: values[-1] for name, values in parse_qs(query).items()}
    match unquote(path).strip("/").split("/"):
        case ["v1", "models"]:
            return _models_page(listing, parameters)
        case ["v1", "models" | "model", *parts, "endpoints"]:
            return {"data": _endpoints_page(listing.find("/".join(parts)))}
        case ["v1", "models" | "model", *parts]:
            return {"data": listing.find("/".join(parts)).listing}
        case ["v1", "generation"]:
            return {"data": bill.render_generation(parameters.get("id", ""))}
        case ["v1", "key"] | ["v1", "auth", "key"]:
            return {"data": bill.render_key()}
        case _:
            raise SandboxError(404, f"No route GET {path}")


def _models_page(listing: ModelListing, parameters: Mapping[str, str]) -> JsonObject:
    bodies = [model.listing for model in listing.models.values()]
    start = _parse_number(parameters.get("offset", "0"))
    # Without a limit OpenRouter sends the whole list: paging is opt-in.
    end, next_page = len(bodies), None
    if "limit" in parameters:
        size = min(_parse_number(parameters["limit"]), MAX_LIMIT)
        end = start + size
        if end < len(bodies):
            next_page = f"/api/v1/models?offset={end}&limit={size}"
    return {"data": bodies[start:end], "total_count": len(bodies), "links": {"next": next_page}}


def _endpoints_page(model: ListedModel) -> JsonObject:
    endpoint = {
        "name": f"{PROVIDER} | {model.id}",
        "model_id": model.id,
        "model_name": model.listing.get("name", model.id),
        "provider_name": PROVIDER,
        "tag": PROVIDER.lower(),
        "pricing": model.listing.get("pricing"),
        "context_length": model.context_length,
        "max_completion_tokens": model.max_output_tokens,
        "max_prompt_tokens": None,
        "quantization": "unknown",
        "supported_parameters": sorted(model.supported_parameters),
        "supports_implicit_caching": False,
        "latency_last_30m": None,
        "throughput_last_30m": None,
        "status": 0,
        "uptime_last_5m": 100.0,
        "uptime_last_30m": 100.0,
        "uptime_last_1d": 100.0,
    }
    head = {name: model.listing.get(name) for name in ("id", "name", "created", "architecture")}
    return {**head, "description": model.listing.get("description", ""), "endpoints": [endpoint]}


def _parse_number(text: str) -> int:
    if not text.isdigit():
        raise SandboxError(400, "offset and limit are whole numbers")
    return int(text)
