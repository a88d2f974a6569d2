"""Cost of an attempt: the upstream's own figure, else priced tokens, else an estimate."""

from msgspec import Struct
from msgspec.structs import replace

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
    usage: Usage | None,
    prices: Prices,
    prompt_tokens: int,
    answer_bytes: int,
    *,
    is_partial: bool = False,
) -> Cost:
    """Return the cost of an attempt with the reported `usage`.

    Without a report, the usage is estimated: `prompt_tokens` of the prompt, and the received bytes
    of generated text. So is a report that counts none of the text, or with `is_partial` not all.
    """
    is_estimated = usage is None or is_partial
    if usage is None:
        usage = Usage()
    elif answer_bytes and not (usage.completion_tokens or usage.cost_nano):
        is_estimated = True
    if is_estimated:
        written = -(-answer_bytes // BYTES_PER_TOKEN)
        usage = replace(
            usage,
            prompt_tokens=usage.prompt_tokens or prompt_tokens,
            completion_tokens=max(usage.completion_tokens, written),
        )
    priced = prices.cost(
        usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.cache_write_tokens
    )
    if is_estimated:
        return Cost(max(priced, usage.cost_nano or 0), "estimated", priced, usage)
    if usage.cost_nano is not None:
        return Cost(usage.cost_nano, "upstream", priced, usage)
    return Cost(priced, "priced", priced, usage)
