"""`GET /v1/models`: all models in OpenRouter's shape, Sophia's own names first."""

from urllib.parse import parse_qs, unquote

from sophia.catalogue.catalogue import Catalogue
from sophia.catalogue.model import Model
from sophia.core.errors import BadRequest, UnknownModel
from sophia.http.app import App
from sophia.http.wire import JSON_HEADERS, HttpRequest, ResponseWriter, encode, send_json
from sophia.routing.model_name import AUTO_MODEL, MODEL_PREFIX, POLICIES
from sophia.serving.knowledge import Knowledge

_DESCRIPTIONS = {
    AUTO_MODEL: "Picks the model for each request by task, constraints, price and quality.",
    f"{AUTO_MODEL}:cheap": "The cheapest model that is expected to be good enough.",
    f"{AUTO_MODEL}:fast": "The model expected to answer first among those that are good enough.",
    f"{AUTO_MODEL}:best": "The model expected to answer best within the per-request limit.",
    f"{AUTO_MODEL}:balanced": "The same as sophia/auto.",
}


async def list_models(app: App, incoming: HttpRequest, reply: ResponseWriter) -> None:
    """Answer `GET /v1/models`, in pages when `limit` or `offset` asks for them."""
    query = parse_qs(incoming.query.decode("latin-1"))
    offset, limit = _parse_number(query, "offset", 0), _parse_number(query, "limit", 1000)
    knowledge = app.runtime.knowledge
    rows = [encode(row) for row in _sophia_models(knowledge)]
    rows += [_render_model(app, model) for model in knowledge.catalogue.models]
    after = offset + limit
    next_page = f"{incoming.path}?offset={after}&limit={limit}" if after < len(rows) else None
    body = b'{"object":"list","data":[%b],"total_count":%d,"links":{"next":%b}}' % (
        b",".join(rows[offset:after]),
        len(rows),
        encode(next_page),
    )
    await reply.send(200, JSON_HEADERS, body)


async def list_health(app: App, incoming: HttpRequest, reply: ResponseWriter) -> None:
    """Answer `GET /v1/models/health`: every target that was asked, the ejected ones first."""
    now = app.runtime.ledger.clock.monotonic()
    rows = [
        {
            "upstream": upstream,
            "model": model or None,
            "state": health.state(now),
            "success": round(health.success, 3),
            "attempts": health.attempts,
            "failures_in_a_row": health.failures_in_a_row,
            "cause": health.cause or None,
            "next_trial_s": health.seconds_to_trial(now),
        }
        for (upstream, model), health in app.runtime.health.items()
    ]
    rows.sort(key=lambda row: (row["state"] == "healthy", row["upstream"], row["model"] or ""))
    await send_json(reply, {"object": "list", "data": rows})


async def get_model(app: App, incoming: HttpRequest, reply: ResponseWriter) -> None:
    """Answer `GET /v1/models/{id}`; aliases, variants and retired names are resolved."""
    name = unquote(incoming.path.partition("/models/")[2])
    for row in _sophia_models(app.runtime.knowledge):
        if row["id"] == name:
            await send_json(reply, row)
            return
    catalogue = app.runtime.knowledge.catalogue
    resolved = catalogue.resolve(name)
    if resolved is None:
        near = ", ".join(catalogue.similar_ids(name))
        hint = f" Did you mean {near}?" if near else ""
        raise UnknownModel(f"There is no model {name[:200]!r}.{hint}", param="id")
    await reply.send(200, JSON_HEADERS, _render_model(app, resolved.model))


def _parse_number(query: dict[str, list[str]], name: str, default: int) -> int:
    text = query.get(name, [str(default)])[0]
    if not text.isdecimal() or len(text) > 9:
        raise BadRequest(f"`{name}` must be a whole number, 0 or more.", param=name)
    return int(text)


def _render_model(app: App, model: Model) -> bytes:
    author = model.id.lstrip("~").partition("/")[0]
    return b'%b,"object":"model","owned_by":%b,"health":%b}' % (
        model.listing_json[:-1],
        encode(author),
        encode(_describe_health(app, model.id)),
    )


def _describe_health(app: App, model: str) -> dict[str, object]:
    """Return whether a model is healthy: a request for it can be sent somewhere."""
    book, targets = app.runtime.health, app.runtime.upstreams.targets(model)
    now = app.runtime.ledger.clock.monotonic()
    if book.all_healthy or any(book.is_available(target, now) for target in targets):
        return {"state": "healthy"}
    return {"state": "ejected", "cause": book.describe(targets[0], now)}


def _sophia_models(knowledge: Knowledge) -> list[dict[str, object]]:
    names = [rule.name for rule in knowledge.rulebook.rules]
    descriptions = _DESCRIPTIONS | {
        **{f"{MODEL_PREFIX}{name}": f"Sophia's {name} policy." for name in POLICIES},
        **{f"{MODEL_PREFIX}{name}": f"The models of the rule {name}." for name in names},
    }
    return [_sophia_model(id, text, knowledge.catalogue) for id, text in descriptions.items()]


def _sophia_model(id: str, description: str, catalogue: Catalogue) -> dict[str, object]:
    """Return one of Sophia's names as a model object, with the abilities of all its models."""
    models = catalogue.profiled_models
    inputs = sorted({kind for model in models for kind in model.input_modalities})
    parameters = sorted({name for model in models for name in model.supported_parameters})
    return {
        "id": id,
        "canonical_slug": id,
        "name": f"Sophia: {id.removeprefix(MODEL_PREFIX).rpartition(':')[2]}",
        "created": 0,
        "description": description,
        "pricing": {"prompt": "-1", "completion": "-1"},
        "context_length": max((model.context_length for model in models), default=0),
        "architecture": {
            "modality": f"{'+'.join(inputs)}->text",
            "input_modalities": inputs,
            "output_modalities": ["text"],
            "tokenizer": "Router",
            "instruct_type": None,
        },
        "top_provider": {
            "is_moderated": False,
            "context_length": None,
            "max_completion_tokens": None,
        },
        "per_request_limits": None,
        "supported_parameters": parameters,
        "default_parameters": None,
        "supported_voices": None,
        "links": {"details": f"/v1/models/{id}"},
        "object": "model",
        "owned_by": "sophia",
    }
