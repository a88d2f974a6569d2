"""Cost of an attempt: the upstream's own figure, else priced tokens, else an estimate."""

from msgspec import Struct

from sophia.catalogue.prices import Prices
from sophia.core.calls import Usage
from sophia.core.rows import CostSource

BYTES_PER_TOKEN = 3
"""Of an answer without reported usage: English has about 4, Chinese, Japanese and Korean 3."""


class Cost(Struct, frozen=True):
    """A cost in nano-dollars, its source, and Sophia's own price of the same tokens."""

    nano: int
    source: CostSource
    estimate_nano: int
    usage: Usage


def compute_cost(
    usage: Usage | None, prices: Prices, prompt_tokens: int, answer_bytes: int
) -> Cost:
    """Return the cost of an attempt with the reported `usage`.

    Without a report, the usage is estimated: `prompt_tokens` of the prompt, and the received bytes
    of generated text.
    """
    source: CostSource = "priced"
    if usage is None:
        usage, source = (
            Usage(
                prompt_tokens=prompt_tokens, completion_tokens=-(-answer_bytes // BYTES_PER_TOKEN)
            ),
            "estimated",
        )
    priced = prices.cost(
        usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.cache_write_tokens
    )
    if usage.cost_nano is not None:
        return Cost(usage.cost_nano, "upstream", priced, usage)
    return Cost(priced, source, priced, usage)
