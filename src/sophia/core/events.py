"""Events that the serving layer emits to the sinks."""

from msgspec import Struct

from sophia.core.rows import AttemptOutcome


class Settled(Struct, frozen=True, kw_only=True, gc=False):
    """One finished request. `duration_s` and `first_content_s` are seconds from its arrival.

    `expected_tokens` is the estimate for all choices together; `mode` is the call mode; `user` and
    `metadata` are the caller's own fields, as JSON.
    """

    request_id: int
    endpoint: str
    requested_model: str
    model: str
    provider: str | None
    upstream: str
    policy: str
    task_type: str
    stream: bool
    status: int
    finish_reason: str | None
    error_type: str | None
    cost_nano: int
    prompt_tokens: int
    completion_tokens: int
    duration_s: float
    first_content_s: float | None
    attempts: tuple[AttemptOutcome, ...] = ()
    expected_tokens: int = 0
    mode: str = ""
    key_id: str = ""
    user: object = None
    metadata: object = None
