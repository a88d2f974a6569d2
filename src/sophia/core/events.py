"""What the serving layer tells the sinks when a request is over."""

from typing import NamedTuple

from sophia.core.rows import Outcome


class Settled(NamedTuple):
    """One finished request. `duration_s` and `first_content_s` are seconds from its arrival.

    `expected_tokens` were expected of all choices together; `mode` is how models were called.
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
    attempts: tuple[Outcome, ...] = ()
    expected_tokens: int = 0
    mode: str = ""
