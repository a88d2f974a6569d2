"""What OpenRouter tells about the past: one generation, and the key that paid for all of them."""

from collections.abc import Mapping
from datetime import UTC, datetime

from sophia.testing.bill import Bill, BillRow
from sophia.testing.refusal import Refusal
from sophia.testing.shapes import NANO_PER_USD, PROVIDER, Json

# Required by strict clients, unknown to a sandbox.
UNKNOWN_OF_A_GENERATION: Mapping[str, object] = dict.fromkeys(
    (
        "upstream_id",
        "app_id",
        "latency",
        "moderation_latency",
        "generation_time",
        "service_tier",
        "native_tokens_completion_images",
        "num_media_prompt",
        "num_input_audio_prompt",
        "num_media_completion",
        "num_search_results",
        "num_fetches",
        "web_search_engine",
        "external_user",
        "preset_id",
        "router",
        "provider_responses",
        "user_agent",
        "http_referer",
        "workspace_id",
        "upstream_inference_cost",
        "cache_discount",
    )
)
SPENDS = ("usage", "usage_daily", "usage_weekly", "usage_monthly")
NEVER_SPENT = ("byok_usage", "byok_usage_daily", "byok_usage_weekly", "byok_usage_monthly")
NO_LIMITS = ("limit", "limit_remaining", "limit_reset", "creator_user_id", "expires_at")
NOT_SO = ("is_free_tier", "is_management_key", "is_provisioning_key", "include_byok_in_limit")


def generation(bill: Bill, generation_id: str) -> Json:
    """Return the cost and token counts of one generation.

    Raises:
        Refusal: nothing was booked under that id (404).
    """
    row = bill.find(generation_id)
    if row is None:
        raise Refusal(404, "not_found", f"Generation {generation_id} not found")
    return {
        "id": row.generation_id,
        "model": row.model,
        "provider_name": PROVIDER,
        "created_at": datetime.fromtimestamp(row.created, UTC).isoformat(),
        "total_cost": row.cost / NANO_PER_USD,
        "usage": row.cost / NANO_PER_USD,
        "streamed": row.streamed,
        "cancelled": row.aborted,
        "is_byok": False,
        "finish_reason": row.finish_reason,
        "native_finish_reason": row.finish_reason,
        "origin": "",
        "api_type": "completions",
        "data_region": "global",
        **_token_counts(row),
        **UNKNOWN_OF_A_GENERATION,
    }


def key(bill: Bill) -> Json:
    """Return what the key has spent; a sandbox knows no limits and no calendar."""
    return {
        "label": "sandbox",
        **dict.fromkeys(SPENDS, bill.total / NANO_PER_USD),
        **dict.fromkeys(NEVER_SPENT, 0.0),
        **dict.fromkeys(NO_LIMITS),
        **dict.fromkeys(NOT_SO, False),
        "rate_limit": {"requests": -1, "interval": "10s", "note": "The sandbox has no limit."},
    }


def _token_counts(row: BillRow) -> Json:
    return {
        "tokens_prompt": row.prompt_tokens,
        "tokens_completion": row.completion_tokens,
        "native_tokens_prompt": row.prompt_tokens,
        "native_tokens_completion": row.completion_tokens,
        "native_tokens_reasoning": row.reasoning_tokens,
        "native_tokens_cached": 0,
    }
