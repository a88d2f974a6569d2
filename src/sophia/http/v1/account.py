"""`GET /v1/key` and `GET /v1/generation`: what a key may spend, and what a call cost."""

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

import msgspec

from sophia.core.errors import BadRequest, NotFound
from sophia.core.ids import decode as decode_id
from sophia.core.money import usd
from sophia.core.rows import Outcome
from sophia.http.front import Front
from sophia.http.wire import JSON, Incoming, Reply
from sophia.serving.pipeline import limit_of
from sophia.tenants.budget import Account, day_window

encode = msgspec.json.Encoder().encode


async def key(front: Front, incoming: Incoming, reply: Reply) -> None:
    """Answer `GET /v1/key` in OpenRouter's shape; the daily budget is the limit. US dollars."""
    principal = await front.principal(incoming)
    desk = front.desk
    limit = limit_of(desk, principal)
    window = day_window(desk.books.clock.wall())
    spent, held = desk.books.coordinator.standing(principal.key_id, window)
    left = Account(spent, held).left(limit)
    today = datetime.fromtimestamp(desk.books.clock.wall(), UTC).date()
    monday, first = today - timedelta(days=today.weekday()), today.replace(day=1)
    since = {"": "", "_daily": window, "_weekly": str(monday), "_monthly": str(first)}
    data: dict[str, object] = {
        "label": f"sk-sph-{principal.key_id}...",
        "name": principal.name,
        "limit": None if limit is None else usd(limit),
        "limit_remaining": None if left is None else usd(left),
        "limit_reset": "daily",
        "held": usd(held),
        "include_byok_in_limit": False,
        "is_free_tier": False,
        "is_management_key": False,
        "is_provisioning_key": False,
        "creator_user_id": None,
        "organization_id": None,
        "workspace_id": None,
        "expires_at": None,
        "allowed_data_regions": [],
        "budgets": [],
        "effective_budget": None,
        "free_model_daily_requests": {"limit": 0, "used": 0, "remaining": 0},
        "rate_limit": {"requests": -1, "interval": "1h", "note": "Sophia limits money, not calls."},
    }
    for name, day in since.items():
        data[f"usage{name}"] = usd(await desk.books.store.spent(principal.key_id, day))
        data[f"byok_usage{name}"] = 0
    await reply.whole(200, JSON, encode({"data": data}))


async def generation(front: Front, incoming: Incoming, reply: Reply) -> None:
    """Answer `GET /v1/generation?id=` by an answer's id, a request id or a decision id."""
    principal = await front.principal(incoming)
    id = parse_qs(incoming.query.decode("latin-1")).get("id", [""])[0]
    if not id:
        raise BadRequest("`id` is missing: /v1/generation?id=gen-…", param="id")
    store = front.desk.books.store
    number = decode_id("req", id) or decode_id("dec", id)
    if number is not None:
        outcomes = await store.attempts(number)
        found = outcomes[-1] if outcomes else None
    else:
        found = await store.by_generation(id)
    # Another key's generation does not exist for this one.
    if found is None or found.key_id != principal.key_id:
        raise NotFound(f"There is no generation {id[:100]!r} of this key.")
    await reply.whole(200, JSON, encode({"data": _generation(id, found)}))


def _generation(id: str, outcome: Outcome) -> dict[str, object]:
    absent = (
        "app_id cache_discount upstream_inference_cost moderation_latency service_tier"
        " num_media_prompt num_input_audio_prompt num_media_completion num_search_results"
        " num_fetches web_search_engine external_user preset_id router provider_responses"
        " user_agent http_referer data_region workspace_id native_tokens_completion_images"
    )
    data: dict[str, object] = dict.fromkeys(absent.split())
    return data | {
        "id": outcome.generation_id or id,
        "upstream_id": outcome.generation_id,
        "total_cost": usd(outcome.cost_nano),
        "usage": usd(outcome.cost_nano),
        "created_at": datetime.fromtimestamp(outcome.at_ms / 1000, UTC).isoformat(),
        "model": outcome.model,
        "streamed": None,
        "cancelled": outcome.failure == "client_gone",
        "provider_name": outcome.provider,
        "latency": outcome.first_content_ms,
        "generation_time": outcome.total_ms - (outcome.first_content_ms or 0.0),
        "finish_reason": outcome.finish_reason,
        "native_finish_reason": outcome.finish_reason,
        "tokens_prompt": outcome.prompt_tokens,
        "tokens_completion": outcome.completion_tokens,
        "native_tokens_prompt": outcome.prompt_tokens,
        "native_tokens_completion": outcome.completion_tokens,
        "native_tokens_reasoning": outcome.reasoning_tokens,
        "native_tokens_cached": outcome.cached_tokens,
        "origin": "",
        "is_byok": False,
        "api_type": "completions",
        "sophia": {
            "state": outcome.state,
            "cost_source": outcome.cost_source,
            "estimate_usd": usd(outcome.estimate_nano),
            "failure": outcome.failure,
        },
    }
