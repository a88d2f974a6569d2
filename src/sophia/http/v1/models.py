"""`GET /v1/models`: every model there is, in OpenRouter's shape, Sophia's own first."""

from urllib.parse import parse_qs, unquote

import msgspec

from sophia.catalogue.catalogue import Catalogue
from sophia.catalogue.model import Model
from sophia.core.errors import BadRequest, UnknownModel
from sophia.http.front import Front
from sophia.http.wire import JSON, Incoming, Reply
from sophia.routing.plan import POLICIES
from sophia.routing.target import AUTO, PREFIX, TRADEOFFS
from sophia.serving.knowledge import Knowledge

encode = msgspec.json.Encoder().encode
_PAGE = 1000
_ABOUT = {
    AUTO: "Sophia picks the model for each request from its task, constraints, price and quality.",
    f"{AUTO}:cheap": "The cheapest model that is expected to be good enough.",
    f"{AUTO}:fast": "The model expected to answer first among those that are good enough.",
    f"{AUTO}:best": "The model expected to answer best within the per-request limit.",
    f"{AUTO}:balanced": "The same as sophia/auto.",
}


async def listing(front: Front, incoming: Incoming, reply: Reply) -> None:
    """Answer `GET /v1/models`, in pages when `limit` or `offset` asks for them."""
    await front.principal(incoming)
    query = parse_qs(incoming.query.decode("latin-1"))
    offset, limit = _number(query, "offset", 0), _number(query, "limit", _PAGE)
    rows = _rows(front.desk.knowledge)
    after = offset + limit
    following = f"{incoming.path}?offset={after}&limit={limit}" if after < len(rows) else None
    body = b'{"object":"list","data":[%b],"total_count":%d,"links":{"next":%b}}' % (
        b",".join(rows[offset:after]),
        len(rows),
        encode(following),
    )
    await reply.whole(200, JSON, body)


async def one(front: Front, incoming: Incoming, reply: Reply) -> None:
    """Answer `GET /v1/models/{id}`; aliases, variants and retired names are resolved."""
    await front.principal(incoming)
    name = unquote(incoming.path.partition("/models/")[2])
    own = {row["id"]: row for row in _own(front.desk.knowledge)}
    if name in own:
        await reply.whole(200, JSON, encode(own[name]))
        return
    found = front.desk.knowledge.catalogue.resolve(name)
    if found is None:
        near = front.desk.knowledge.catalogue.nearest(name)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise UnknownModel(f"There is no model {name[:200]!r}.{hint}", param="id")
    await reply.whole(200, JSON, _row(found.model))


def _number(query: dict[str, list[str]], name: str, default: int) -> int:
    text = query.get(name, [str(default)])[0]
    if not text.isdecimal() or len(text) > 9:
        raise BadRequest(f"`{name}` must be a whole number from 0 on.", param=name)
    return int(text)


def _rows(knowledge: Knowledge) -> list[bytes]:
    return [encode(row) for row in _own(knowledge)] + [_row(m) for m in knowledge.catalogue.models]


def _row(model: Model) -> bytes:
    author = model.id.lstrip("~").partition("/")[0]
    return model.listing[:-1] + b',"object":"model","owned_by":' + encode(author) + b"}"


def _own(knowledge: Knowledge) -> list[dict[str, object]]:
    about = dict(_ABOUT)
    about |= {f"{PREFIX}{name}": f"Sophia's {name} policy." for name in POLICIES}
    about |= {
        f"{PREFIX}{rule.name}": f"The models of the rule {rule.name}."
        for rule in knowledge.rulebook.rules
    }
    return [_own_row(id, text, knowledge.catalogue) for id, text in about.items()]


def _own_row(id: str, text: str, catalogue: Catalogue) -> dict[str, object]:
    """Return one of Sophia's names as a model object; it can what any of its models can."""
    models = catalogue.profiles
    inputs = sorted({kind for model in models for kind in model.input_modalities})
    parameters = sorted({name for model in models for name in model.parameters})
    tradeoff = id.partition(":")[2]
    return {
        "id": id,
        "canonical_slug": id,
        "name": f"Sophia: {tradeoff or id.partition('/')[2]}",
        "created": 0,
        "description": text if tradeoff in ("", *TRADEOFFS) else "",
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
