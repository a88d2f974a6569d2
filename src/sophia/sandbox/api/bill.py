"""The sandbox's own bill, priced apart from Sophia's ledger, and the pages that show it."""

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from sophia.sandbox.api.errors import SandboxError
from sophia.sandbox.api.shapes import NANO_PER_USD, PROVIDER, JsonObject

MAX_ROWS = 100_000
# Strict clients require these fields; a sandbox has no values for them.
CONSTANT_GENERATION_FIELDS = msgspec.json.decode("""{
    "is_byok": false, "origin": "", "api_type": "completions", "data_region": "global",
    "native_tokens_cached": 0, "native_tokens_completion_images": null, "upstream_id": null,
    "app_id": null, "latency": null, "moderation_latency": null, "generation_time": null,
    "service_tier": null, "num_media_prompt": null, "num_input_audio_prompt": null,
    "num_media_completion": null, "num_search_results": null, "num_fetches": null,
    "web_search_engine": null, "external_user": null, "preset_id": null, "router": null,
    "provider_responses": null, "user_agent": null, "http_referer": null, "workspace_id": null,
    "upstream_inference_cost": null, "cache_discount": null
}""")
CONSTANT_KEY_FIELDS = msgspec.json.decode("""{
    "label": "sandbox", "limit": null, "limit_remaining": null, "limit_reset": null,
    "creator_user_id": null, "expires_at": null, "include_byok_in_limit": false,
    "is_free_tier": false, "is_management_key": false, "is_provisioning_key": false,
    "byok_usage": 0.0, "byok_usage_daily": 0.0, "byok_usage_weekly": 0.0, "byok_usage_monthly": 0.0,
    "rate_limit": {"requests": -1, "interval": "10s", "note": "The sandbox has no limit."}
}""")
SPEND_FIELDS = ("usage", "usage_daily", "usage_weekly", "usage_monthly")


@dataclass(frozen=True, slots=True, kw_only=True)
class BilledGeneration:
    """One generation; `cost` is in nano-dollars, `created` in Unix seconds.

    `aborted` means that the client disconnected before the end.
    """

    generation_id: str
    model: str
    prompt_tokens: int
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cost: int
    aborted: bool = False
    streamed: bool = False
    finish_reason: str | None
    created: int


class SandboxBill:
    """The newest rows, oldest first, and the `total` of all of them in nano-dollars."""

    def __init__(self) -> None:
        self.rows: deque[BilledGeneration] = deque(maxlen=MAX_ROWS)
        self.total = 0

    def book(self, row: BilledGeneration) -> None:
        """Add `row` and its cost."""
        self.rows.append(row)
        self.total += row.cost

    def render_generation(self, generation_id: str) -> JsonObject:
        """Return the cost and token counts of one generation. Raises SandboxError (404)."""
        row = next((row for row in reversed(self.rows) if row.generation_id == generation_id), None)
        if row is None:
            raise SandboxError(404, f"Generation {generation_id} not found")
        return {
            "id": row.generation_id,
            "model": row.model,
            "provider_name": PROVIDER,
            "created_at": datetime.fromtimestamp(row.created, UTC).isoformat(),
            "total_cost": row.cost / NANO_PER_USD,
            "usage": row.cost / NANO_PER_USD,
            "streamed": row.streamed,
            "cancelled": row.aborted,
            "finish_reason": row.finish_reason,
            "native_finish_reason": row.finish_reason,
            "tokens_prompt": row.prompt_tokens,
            "tokens_completion": row.completion_tokens,
            "native_tokens_prompt": row.prompt_tokens,
            "native_tokens_completion": row.completion_tokens,
            "native_tokens_reasoning": row.reasoning_tokens,
            **CONSTANT_GENERATION_FIELDS,
        }

    def render_key(self) -> JsonObject:
        """Return the spend of the key; the sandbox has no limits and no calendar."""
        return {**CONSTANT_KEY_FIELDS, **dict.fromkeys(SPEND_FIELDS, self.total / NANO_PER_USD)}
