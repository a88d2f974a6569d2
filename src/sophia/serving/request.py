"""One request and the decision about it, as every step of serving sees them."""

from collections.abc import Mapping
from typing import Any

from msgspec import Raw, Struct, json

from sophia.core.calls import Endpoint, Fields
from sophia.routing.rank import RoutingContext
from sophia.routing.types import Hints, Plan, Prompt
from sophia.tenants.keys import Principal

_MAX_JUDGEABLE_BYTES = 256 * 1024


class Request(Struct, frozen=True, kw_only=True):
    """A parsed request; `model` may name a route, `fallback_models` are the caller's substitutes.

    `arrived_at` is in monotonic seconds, `deadline` in seconds from arrival (None: as configured).
    `fields` are the caller's own top-level fields, untouched; `warning` says what was changed in
    them, as the caller allowed.
    """

    id: int
    endpoint: Endpoint
    principal: Principal
    arrived_at: float
    model: str
    fallback_models: tuple[str, ...]
    stream: bool
    fields: Fields
    prompt: Prompt
    hints: Hints
    max_tokens_field: str = "max_tokens"
    annotate: bool = True
    include_usage: bool | None = None
    deadline: float | None = None
    warning: str | None = None


class Decision(Struct, frozen=True):
    """A plan, the upstream ids of models asked for under another name, and a warning.

    `context` is the request as the learned policy sees it; None where it did not look.
    """

    plan: Plan
    upstream_ids: Mapping[str, str]
    warning: str | None = None
    context: RoutingContext | None = None


def read_request_field(fields: Fields, name: str) -> Any:
    """Return the value of a field, None without it. Raises msgspec.DecodeError."""
    value = fields.get(name)
    return json.decode(value) if isinstance(value, Raw) else value


def may_judge_text(prompt: Prompt) -> bool:
    """Return whether an answer to `prompt` can be judged from its text alone."""
    media = prompt.images or prompt.files or prompt.audio
    return not media and prompt.choice_count == 1 and prompt.body_bytes <= _MAX_JUDGEABLE_BYTES
