"""Laws of prices: more never costs less, a ceiling holds, and nothing is rounded twice."""

import json
from decimal import ROUND_CEILING, Decimal

from hypothesis import given
from hypothesis import strategies as st

from sophia.catalogue.prices import Prices, PriceTier
from sophia.catalogue.profiles import CatalogueError
from sophia.catalogue.snapshot import parse_models

TOKENS = st.integers(0, 3_000_000)
PER_MTOK = st.integers(0, 10**12)
CACHE = st.none() | PER_MTOK


@st.composite
def any_prices(draw: st.DrawFn) -> Prices:
    starts = [0, *sorted(draw(st.sets(st.integers(1, 2_000_000), max_size=3)))]
    tiers = tuple(
        PriceTier(
            min_prompt_tokens=start,
            prompt=draw(PER_MTOK),
            completion=draw(PER_MTOK),
            cache_read=draw(CACHE),
            cache_write=draw(CACHE),
        )
        for start in starts
    )
    return Prices(tiers, per_request=draw(st.integers(0, 10**9)))


@st.composite
def rising_prices(draw: st.DrawFn) -> Prices:
    """Tiers as providers have them: each more expensive than the one before, cached tokens cheaper."""
    starts = [0, *sorted(draw(st.sets(st.integers(1, 2_000_000), max_size=3)))]
    prompts = sorted(draw(st.lists(PER_MTOK, min_size=len(starts), max_size=len(starts))))
    completions = sorted(draw(st.lists(PER_MTOK, min_size=len(starts), max_size=len(starts))))
    share = draw(st.none() | st.integers(0, 100))
    reads = [None if share is None else prompt * share // 100 for prompt in prompts]
    rows = zip(starts, prompts, completions, reads, strict=True)
    return Prices(
        tuple(
            PriceTier(
                min_prompt_tokens=start, prompt=prompt, completion=completion, cache_read=read
            )
            for start, prompt, completion, read in rows
        )
    )


@given(rising_prices(), TOKENS, TOKENS, st.integers(0, 100_000), st.integers(0, 100_000))
def test_more_tokens_never_cost_less(
    prices: Prices, prompt: int, completion: int, more_in: int, more_out: int
) -> None:
    before = prices.cost(prompt, completion)
    assert prices.cost(prompt + more_in, completion) >= before
    assert prices.cost(prompt, completion + more_out) >= before


@given(rising_prices(), TOKENS, TOKENS, st.data())
def test_cached_tokens_never_make_a_prompt_more_expensive(
    prices: Prices, prompt: int, completion: int, data: st.DataObject
) -> None:
    cached = data.draw(st.integers(0, prompt))
    assert prices.cost(prompt, completion, cached) <= prices.cost(prompt, completion)


@given(any_prices(), TOKENS, st.data())
def test_a_ceiling_holds_for_every_shorter_prompt_and_every_share_of_cached_tokens(
    prices: Prices, most: int, data: st.DataObject
) -> None:
    prompt = data.draw(st.integers(0, most))
    cached = data.draw(st.integers(0, prompt))
    completion = data.draw(TOKENS)
    ceiling = Prices((prices.ceiling(most),), per_request=prices.per_request)
    assert ceiling.cost(prompt, completion) >= prices.cost(prompt, completion, cached)


@given(any_prices(), TOKENS, TOKENS, st.integers(0, 4_000_000))
def test_a_cost_is_rounded_up_once(
    prices: Prices, prompt: int, completion: int, cached: int
) -> None:
    tier = prices.tier_for(prompt)
    read = min(cached, prompt) if tier.cache_read is not None else 0
    exact = (prompt - read) * Decimal(tier.prompt) + completion * Decimal(tier.completion)
    exact += read * Decimal(tier.cache_read or 0)
    rounded = (exact / 10**6).to_integral_value(ROUND_CEILING)
    assert prices.cost(prompt, completion, cached) == prices.per_request + rounded


@given(any_prices(), TOKENS)
def test_the_tier_in_force_is_the_last_that_has_begun(prices: Prices, prompt: int) -> None:
    begun = [tier for tier in prices.tiers if tier.min_prompt_tokens <= prompt]
    assert prices.tier_for(prompt) == begun[-1]


@given(st.decimals(0, 1, allow_nan=False, allow_infinity=False, places=24))
def test_a_listed_price_is_exact_or_one_nano_dollar_a_million_tokens_too_high(
    price: Decimal,
) -> None:
    row = {"id": "a/b", "pricing": {"prompt": f"{price:f}", "completion": "0"}}
    (model,) = parse_models(json.dumps({"data": [row]}).encode())
    over = model.prices.tiers[0].prompt - price.scaleb(15)
    assert model.prices.known
    assert 0 <= over < 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
PRICE = JSON | st.sampled_from(
    ["-1", "NaN", "Infinity", "-0", "1e999999999", "1e-999999999", "", "0x1", "1" * 500, "1_0", "٣"]
)
OVERRIDE = st.fixed_dictionaries(
    {},
    optional={"min_prompt_tokens": JSON, "utc_start": JSON, "prompt": PRICE, "completion": PRICE},
)
PRICING = st.fixed_dictionaries(
    {},
    optional={
        "prompt": PRICE,
        "completion": PRICE,
        "request": PRICE,
        "input_cache_read": PRICE,
        "overrides": JSON | st.lists(OVERRIDE, max_size=3),
    },
)
ROW = st.fixed_dictionaries(
    {},
    optional={
        "id": JSON | st.text(max_size=9),
        "name": JSON,
        "created": JSON,
        "context_length": JSON,
        "architecture": JSON,
        "pricing": JSON | PRICING,
        "top_provider": JSON,
        "expiration_date": JSON,
        "alias_target": JSON,
    },
)


@given(JSON | st.fixed_dictionaries({"data": JSON | st.lists(ROW | JSON, max_size=4)}))
def test_a_strange_body_is_read_or_refused_as_a_catalogue_error(body: object) -> None:
    """Guards the refresh: the caller catches CatalogueError and keeps its last good copy."""
    try:
        models = parse_models(json.dumps(body).encode())
    except CatalogueError:
        return
    for model in models:
        assert model.id
        assert model.context_length > 0
        assert all(min(tier.prompt, tier.completion) >= 0 for tier in model.prices.tiers)
        json.loads(model.listing_json)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_list_of_models_are_refused(body: bytes) -> None:
    try:
        parse_models(body)
    except CatalogueError as error:
        assert str(error)
    else:
        raise AssertionError("random bytes were read as models")
