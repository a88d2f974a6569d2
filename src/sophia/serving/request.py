"""One request as serving sees it: who asks, what for, and the untouched rest."""

from msgspec import Struct

from sophia.core.calls import Endpoint, Fields
from sophia.routing.nouns import Hints, Prompt
from sophia.tenants.keys import Principal

_READABLE_BYTES = 256 * 1024


class Request(Struct, frozen=True):
    """A request that was understood. `arrived` is in monotonic seconds.

    `model` is what the caller wrote; `others` are the substitutes that the caller allows.
    `deadline` is in seconds from arrival, None for the configured one.
    """

    id: int
    endpoint: Endpoint
    principal: Principal
    arrived: float
    model: str
    others: tuple[str, ...]
    stream: bool
    fields: Fields
    prompt: Prompt
    hints: Hints
    max_tokens_field: str = "max_tokens"
    annotate: bool = True
    include_usage: bool = True
    deadline: float | None = None


def readable(prompt: Prompt) -> bool:
    """Say whether somebody who reads text alone can judge an answer to `prompt`."""
    media = prompt.images or prompt.files or prompt.audio
    return not media and prompt.choices == 1 and prompt.body_bytes <= _READABLE_BYTES
