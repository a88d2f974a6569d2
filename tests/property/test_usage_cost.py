"""What an attempt costs: the upstream's figure first, then priced tokens, then an estimate."""

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from sophia.adapters.upstreams import shapes
from sophia.catalogue.prices import Prices, PriceTier
from sophia.core.calls import Usage
from sophia.ledger.cost import compute_cost

TOKENS = st.integers(0, 2_000_000)
NANO = st.integers(0, 10**12)
PRICES = st.builds(
    lambda prompt, completion, cached: Prices(
        (PriceTier(min_prompt_tokens=0, prompt=prompt, completion=completion, cache_read=cached),)
    ),
    NANO,
    NANO,
    st.none() | NANO,
)
ANY = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just([])
USAGE = st.dictionaries(
    st.sampled_from(
        [
            "prompt_tokens",
            "completion_tokens",
            "total_tokens",
            "cost",
            "prompt_tokens_details",
            "completion_tokens_details",
        ]
    ),
    ANY | TOKENS | st.dictionaries(st.sampled_from(["cached_tokens", "reasoning_tokens"]), ANY),
)


@given(USAGE | ANY)
def test_any_usage_is_read_or_ignored(value: Any) -> None:
    try:
        value = msgspec.json.decode(json.dumps(value, allow_nan=False))
    except ValueError:
        return
    usage = shapes.parse_usage(value)
    if usage is None:
        return
    assert usage.prompt_tokens >= 0 and usage.completion_tokens >= 0
    assert usage.cached_tokens >= 0 and usage.reasoning_tokens >= 0
    assert usage.cost_nano is None or usage.cost_nano >= 0
    raw = json.loads(usage.raw)
    assert raw["total_tokens"] == raw["prompt_tokens"] + raw["completion_tokens"]


@given(st.integers(0, 10**15 - 1))
def test_a_cost_keeps_its_nano_dollars(nano: int) -> None:
    """A binary fraction near a whole nano-dollar is that nano-dollar, not one more."""
    body = {"prompt_tokens": 1, "completion_tokens": 1, "cost": nano / 1e9}
    usage = shapes.parse_usage(json.loads(json.dumps(body)))
    assert usage is not None and usage.cost_nano is not None
    assert abs(usage.cost_nano - nano) <= max(nano >> 52, 0 if nano < 10**12 else 1)


@given(TOKENS, TOKENS, PRICES, NANO, TOKENS)
def test_the_upstreams_own_figure_wins(
    prompt: int, completion: int, prices: Prices, cost: int, chars: int
) -> None:
    bill = compute_cost(
        Usage(prompt_tokens=prompt, completion_tokens=completion, cost_nano=cost), prices, 7, chars
    )
    assert (bill.nano, bill.source) == (cost, "upstream")
    assert bill.estimate_nano == prices.cost(prompt, completion)


@given(TOKENS, TOKENS, PRICES)
def test_tokens_without_a_cost_are_priced(prompt: int, completion: int, prices: Prices) -> None:
    bill = compute_cost(Usage(prompt_tokens=prompt, completion_tokens=completion), prices, 7, 0)
    assert (bill.nano, bill.source) == (bill.estimate_nano, "priced")
    exact = prompt * prices.tiers[0].prompt + completion * prices.tiers[0].completion
    assert exact <= bill.nano * 1_000_000 < exact + 1_000_000


@given(TOKENS, st.integers(0, 10**6), PRICES)
def test_without_usage_the_text_is_counted(prompt: int, chars: int, prices: Prices) -> None:
    bill = compute_cost(None, prices, prompt, chars)
    assert bill.source == "estimated" and bill.usage.prompt_tokens == prompt
    assert bill.usage.completion_tokens == -(-chars // 3)
    assert bill.nano == bill.estimate_nano == prices.cost(prompt, bill.usage.completion_tokens)


@given(TOKENS, TOKENS, TOKENS, PRICES)
def test_cached_tokens_never_cost_more_than_listed(
    prompt: int, completion: int, cached: int, prices: Prices
) -> None:
    bill = compute_cost(
        Usage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached),
        prices,
        0,
        0,
    )
    assert bill.nano == prices.cost(prompt, completion, cached)
    tier = prices.tiers[0]
    dearest = max(tier.prompt, tier.cache_read or 0)
    assert bill.nano <= Prices(
        (PriceTier(min_prompt_tokens=0, prompt=dearest, completion=tier.completion),)
    ).cost(prompt, completion)


def test_cached_tokens_are_billed_at_their_own_price() -> None:
    """A million each: one fresh at $3, one cached at $0.30, one of the answer at $15."""
    tier = PriceTier(prompt=3 * 10**9, completion=15 * 10**9, cache_read=3 * 10**8)
    usage = Usage(prompt_tokens=2_000_000, completion_tokens=1_000_000, cached_tokens=1_000_000)
    bill = compute_cost(usage, Prices((tier,)), 7, 7)
    assert (bill.nano, bill.source) == (18_300_000_000, "priced")
