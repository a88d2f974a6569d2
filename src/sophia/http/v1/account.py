"""`GET /v1/key` and `GET /v1/generation`: the spending of a key, and the cost of a call."""

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

from sophia.core.errors import BadRequest, NotFound
from sophia.core.ids import decode_id
from sophia.core.money import nano_to_usd
from sophia.core.rows import AttemptOutcome
from sophia.http.app import App
from sophia.http.wire import HttpRequest, ResponseWriter, send_json

_ABSENT_FIELDS = (
    "app_id cache_discount upstream_inference_cost moderation_latency service_tier"
    " num_media_prompt num_input_audio_prompt num_media_completion num_search_results"
    " num_fetches web_search_engine external_user preset_id router provider_responses"
    " user_agent http_referer data_region workspace_id native_tokens_completion_images"
)


async def get_key_usage(app: App, incoming: HttpRequest, reply: ResponseWriter) -> None:
    """Answer `GET /v1/key` in OpenRouter's shape; the daily budget is the limit. US dollars."""
    principal = incoming.require_principal()
    ledger = app.runtime.ledger
    scope = ledger.budget_scope(principal, app.runtime.limits)
    limit = scope.daily_limit
    today = datetime.fromtimestamp(ledger.clock.wall(), UTC).date()
    monday, first = today - timedelta(days=today.weekday()), today.replace(day=1)
    since = {"": "", "_daily": scope.window, "_weekly": str(monday), "_monthly": str(first)}
    usage = {
        name: await ledger.store.spend_since(principal.key_id, day) for name, day in since.items()
    }
    # What is held is read last: a call that ends meanwhile must not count twice.
    account = await ledger.store.account(principal.key_id, scope.window)
    held = account.held_nano + ledger.leases.in_flight(principal.key_id, scope.window)
    left = None if limit is None else max(limit - account.spent_nano - held, 0)
    data: dict[str, object] = {
        "label": f"sk-sph-{principal.key_id}...",
        "name": principal.name,
        "limit": None if limit is None else nano_to_usd(limit),
        "limit_remaining": None if left is None else nano_to_usd(left),
        "limit_reset": "daily",
        "held": nano_to_usd(held),
        "include_byok_in_limit": False,
        "is_free_tier": False,
        "is_management_key": False,
        "is_provisioning_key": False,
        **dict.fromkeys(("creator_user_id", "organization_id", "workspace_id", "expires_at")),
        "allowed_data_regions": [],
        "budgets": [],
        "effective_budget": None,
        "free_model_daily_requests": {"limit": 0, "used": 0, "remaining": 0},
        "rate_limit": {"requests": -1, "interval": "1h", "note": "Sophia limits money, not calls."},
    }
    for name, nano in usage.items():
        data[f"usage{name}"] = nano_to_usd(nano)
        data[f"byok_usage{name}"] = 0
    await send_json(reply, {"data": data})


async def get_generation(app: App, incoming: HttpRequest, reply: ResponseWriter) -> None:
    """Answer `GET /v1/generation?id=` by an answer's id, a request id or a decision id."""
    principal = incoming.require_principal()
    id = parse_qs(incoming.query.decode("latin-1")).get("id", [""])[0]
    if not id:
        raise BadRequest("`id` is missing: /v1/generation?id=gen-…", param="id")
    store = app.runtime.ledger.store
    number = decode_id("req", id) or decode_id("dec", id)
    if number is not None:
        outcomes = await store.attempts(number)
        outcome = outcomes[-1] if outcomes else None
    else:
        outcome = await store.outcome_by_generation(id)
    # Another key's generation does not exist for this one.
    if outcome is None or outcome.key_id != principal.key_id:
        raise NotFound(f"There is no generation {id[:100]!r} of this key.")
    await send_json(reply, {"data": _render_generation(id, outcome)})


def _render_generation(id: str, outcome: AttemptOutcome) -> dict[str, object]:
    return dict.fromkeys(_ABSENT_FIELDS.split()) | {
        "id": outcome.generation_id or id,
        "upstream_id": outcome.generation_id,
        "total_cost": nano_to_usd(outcome.cost_nano),
        "usage": nano_to_usd(outcome.cost_nano),
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
            "estimate_usd": nano_to_usd(outcome.estimate_nano),
            "failure": outcome.failure,
        },
    }
