"""Money: what a candidate may cost, how far a purse reaches, which offer a wish prefers."""

import pytest
from msgspec.structs import replace
from routing_world import (
    BY_ID,
    DEEPSEEK,
    FLASH,
    GEMMA,
    MINI,
    MODELS,
    SONNET,
    asked,
    nano,
    quality_prior,
)

from sophia.routing.features.extract import extract_features
from sophia.routing.pool import PoolModel
from sophia.routing.quotes import (
    Quote,
    SpendLimit,
    build_spend_limit,
    order_by_tradeoff,
    quote_model,
    resolve_tradeoff,
)
from sophia.routing.types import Hints, Prompt


def offered(id: str, prompt: Prompt, purse: int | None = None, headroom: int = 0) -> Quote:
    features = extract_features(prompt, Hints())
    return quote_model(
        PoolModel.from_model(BY_ID[id], quality_prior(id)),
        prompt,
        features,
        SpendLimit(purse, "a test"),
        headroom,
    )


def test_a_purse_that_pays_exactly_the_worst_case_clamps_nothing() -> None:
    """One nano-dollar less and the answer is clamped."""
    free = offered(SONNET, asked(max_tokens=1000))
    assert free.held_nano is not None
    exact = offered(SONNET, asked(max_tokens=1000), free.held_nano)
    assert (exact.max_tokens, exact.held_nano) == (None, free.held_nano)
    less = offered(SONNET, asked(max_tokens=1000), free.held_nano - 1)
    assert less.max_tokens == 999


def test_a_hold_is_clamped_to_the_purse_and_still_covers_its_own_answer() -> None:
    """What is held never exceeds the purse."""
    offer = offered(SONNET, asked(), 100_000_000)
    assert offer.max_tokens is not None
    assert offer.held_nano is not None
    assert offer.expected_nano <= offer.held_nano <= 100_000_000
    assert offer.covers_expected


def test_headroom_and_choices_raise_the_hold() -> None:
    """Twenty per cent above the list, and every choice counted."""
    plain = offered(MINI, asked("x", max_tokens=100)).held_nano
    wary = offered(MINI, asked("x", max_tokens=100), headroom=20).held_nano
    thrice = offered(MINI, asked("x", max_tokens=100, choice_count=3)).held_nano
    assert plain is not None
    assert wary is not None
    assert thrice is not None
    assert plain * 1.19 < wary <= plain * 1.2 + 1
    assert thrice > 2.5 * plain


def test_a_long_prompt_is_held_at_the_dearer_tier() -> None:
    """The bound of the prompt picks the tier, not its estimate."""
    short, long = (
        offered(SONNET, asked("x", max_tokens=1)),
        Prompt(text="x", system="", chars=60_000, utf8_bytes=250_000, max_tokens=1),
    )
    held = offered(SONNET, long).held_nano
    assert held is not None
    assert held >= 250_000 * nano(6) // 1_000_000
    assert short.held_nano is not None


def test_a_purse_that_pays_no_minimal_answer_makes_no_offer() -> None:
    """Sixteen tokens are the least that is worth a call."""
    assert offered(SONNET, asked(), 1000).held_nano is None


@pytest.mark.parametrize(("tokens", "paid"), [(15, False), (16, True)])
def test_the_minimal_answer_is_sixteen_tokens(tokens: int, paid: bool) -> None:
    """A limit that pays exactly one token less pays nothing."""
    exact = offered(SONNET, asked(max_tokens=tokens)).held_nano
    assert exact is not None
    offer = offered(SONNET, asked(max_tokens=1000), exact)
    assert (offer.held_nano, offer.max_tokens) == ((exact, tokens) if paid else (None, None))
    # What the caller wants to be shorter is not too short.
    assert offered(SONNET, asked(max_tokens=tokens), exact).held_nano == exact


def test_an_offer_tells_whether_it_covers_an_answer_of_the_expected_length() -> None:
    """The heuristic and the learned policy pass over one that does not."""
    length = offered(SONNET, asked()).expected_tokens
    for tokens, covers in ((length, True), (length - 1, False)):
        exact = offered(SONNET, asked(max_tokens=tokens)).held_nano
        offer = offered(SONNET, asked(), exact)
        assert (offer.max_tokens, offer.covers_expected) == (tokens, covers)


@pytest.mark.parametrize(
    ("limits", "nano_left", "owner"),
    [
        ((100, None, None), 100, "the per-request limit"),
        ((100, 50, None), 50, "what is left of the budget"),
        ((100, 50, 20), 20, "the request's max_cost_usd"),
        ((100, -5, None), 0, "what is left of the budget"),
    ],
)
def test_the_tightest_limit_is_the_purse(
    limits: tuple[int | None, int | None, int | None], nano_left: int, owner: str
) -> None:
    """And it is named, so that the caller knows what to raise."""
    assert build_spend_limit(*limits) == SpendLimit(nano_left, owner)


@pytest.mark.parametrize(
    ("hints", "wish"),
    [
        (Hints(), ""),
        (Hints(cost_sensitive=True), "cheap"),
        (Hints(cost_sensitive=False), ""),
        (Hints(min_quality=0.9), "cheap"),
        (Hints(max_cost_nano=1), "cheap"),
        (Hints(tradeoff="fast", min_quality=0.9), "fast"),
        (Hints(tradeoff="best"), "best"),
    ],
)
def test_only_a_declared_wish_reorders(hints: Hints, wish: str) -> None:
    """Otherwise the policy's order stands."""
    assert resolve_tradeoff(hints) == wish


@pytest.mark.parametrize(
    ("wish", "floor", "first"),
    [("cheap", 0.0, GEMMA), ("cheap", 0.8, DEEPSEEK), ("fast", 0.8, FLASH), ("best", 0.0, SONNET)],
)
def test_a_wish_picks_its_candidate(wish: str, floor: float, first: str) -> None:
    """Cheapest and fastest above the floor, best of all."""
    offers = [offered(model.id, asked()) for model in MODELS]
    ordered, why = order_by_tradeoff(offers, wish, floor)
    assert ordered[0].pool_model.id == first
    assert why


@pytest.mark.parametrize(("wish", "first"), [("cheap", MINI), ("fast", FLASH)])
def test_without_a_floor_the_best_model_sets_it(wish: str, first: str) -> None:
    """In a pool of weak models the most expensive is not the only one that is good enough."""
    qualities = {SONNET: 0.62, FLASH: 0.55, MINI: 0.53, GEMMA: 0.4}
    quotes = [replace(offered(id, asked()), quality=good) for id, good in qualities.items()]
    ordered, _ = order_by_tradeoff(quotes, wish, None)
    assert ordered[0].pool_model.id == first
    assert ordered[-1].pool_model.id == GEMMA


def test_of_two_models_of_equal_quality_the_cheaper_is_best() -> None:
    """A higher price must buy a higher quality."""
    quotes = [replace(offered(id, asked()), quality=0.9) for id in (SONNET, DEEPSEEK)]
    ordered, _ = order_by_tradeoff(quotes, "best", 0.0)
    assert [quote.pool_model.id for quote in ordered] == [DEEPSEEK, SONNET]


def test_nobody_above_the_floor_is_no_choice() -> None:
    """Then the named fallback answers."""
    assert order_by_tradeoff([offered(MINI, asked())], "cheap", 0.99) == ([], "")
