"""What an attempt costs: the upstream's own figure, else priced tokens, else an estimate."""

from msgspec import Struct

from sophia.catalogue.prices import Prices
from sophia.core.calls import Usage
from sophia.core.rows import CostSource

CHARS_PER_TOKEN = 4


class Cost(Struct, frozen=True):
    """A bill in nano-dollars, where it comes from, and Sophia's own price of the same tokens."""

    nano: int
    source: CostSource
    estimate_nano: int
    usage: Usage


def settle(usage: Usage | None, prices: Prices, prompt_tokens: int, answer_chars: int) -> Cost:
    """Return the bill of an attempt.

    Args:
        usage: what the upstream reported, if it did.
        prices: the model's catalogue prices.
        prompt_tokens: Sophia's estimate of the prompt, used when nothing was reported.
        answer_chars: characters of generated text that arrived.
    """
    if usage is None:
        guess = Usage(prompt_tokens, -(-answer_chars // CHARS_PER_TOKEN))
        priced = prices.cost(guess.prompt_tokens, guess.completion_tokens)
        return Cost(priced, "estimated", priced, guess)
    priced = prices.cost(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)
    if usage.cost_nano is not None:
        return Cost(usage.cost_nano, "upstream", priced, usage)
    return Cost(priced, "priced", priced, usage)
