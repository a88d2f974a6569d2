"""Money: what a candidate may cost, how far a purse reaches, which offer a wish prefers."""

import pytest
from routing_world import BY_ID, DEEPSEEK, FLASH, GEMMA, MINI, MODELS, SONNET, asked, nano

from sophia.catalogue.prices import Tier
from sophia.routing.features import extract
from sophia.routing.nouns import Hints, Prompt
from sophia.routing.optimizer import (
    Offer,
    Purse,
    bounds_of,
    clamp_max_tokens,
    prefer,
    purse_of,
    quote,
    wishes,
)
from sophia.routing.pool import Seat

PRICES = Tier(0, nano(3), nano(15))


def offered(id: str, prompt: Prompt, purse: int | None = None, headroom: int = 0) -> Offer:
    features = extract(prompt, Hints())
    bounds = bounds_of(prompt, features, headroom)
    return quote(Seat.of(BY_ID[id]), features.task_type, bounds, Purse(purse, "a test"))


@pytest.mark.parametrize(
    ("purse", "prompt_tokens", "requested", "longest", "clamp"),
    [
        (nano(1), 0, 1000, 64_000, None),
        (15_000 * 1000, 0, 1000, 64_000, None),
        (15_000 * 1000 - 1, 0, 1000, 64_000, 999),
        (15_000 * 1000, 0, None, 64_000, 1000),
        (15_000 * 1000, 5000, None, 64_000, 0),
        (15_000 * 1000 + 3000 * 5000, 5000, None, 64_000, 1000),
        (nano(1), 0, 99_999, 100, None),
        (0, 0, 10, 100, 0),
    ],
)
def test_the_clamp_is_the_longest_answer_the_purse_pays(
    purse: int, prompt_tokens: int, requested: int | None, longest: int, clamp: int | None
) -> None:
    """To the token, and None when nothing needs to be clamped."""
    assert clamp_max_tokens(PRICES, purse, prompt_tokens, requested, longest) == clamp


def test_free_answers_need_no_clamp() -> None:
    """A price of zero never runs a purse dry."""
    assert clamp_max_tokens(Tier(0, 0, 0), 0, 10_000, None, 64_000) is None


def test_a_hold_is_clamped_to_the_purse_and_still_covers_its_own_answer() -> None:
    """What is held never exceeds the purse."""
    offer = offered(SONNET, asked(), 100_000_000)
    assert offer.max_tokens is not None
    assert offer.held is not None
    assert offer.expected <= offer.held <= 100_000_000
    assert offer.pays


def test_headroom_and_choices_raise_the_hold() -> None:
    """Twenty per cent above the list, and every choice counted."""
    plain = offered(MINI, asked("x", max_tokens=100)).held
    wary = offered(MINI, asked("x", max_tokens=100), headroom=20).held
    thrice = offered(MINI, asked("x", max_tokens=100, choices=3)).held
    assert plain is not None
    assert wary is not None
    assert thrice is not None
    assert plain * 1.19 < wary <= plain * 1.2 + 1
    assert thrice > 2.5 * plain


def test_a_long_prompt_is_held_at_the_dearer_tier() -> None:
    """The bound of the prompt picks the tier, not its estimate."""
    short, long = (
        offered(SONNET, asked("x", max_tokens=1)),
        Prompt("x", "", 60_000, 250_000, max_tokens=1),
    )
    held = offered(SONNET, long).held
    assert held is not None
    assert held >= 250_000 * nano(6) // 1_000_000
    assert short.held is not None


def test_a_purse_that_pays_no_minimal_answer_makes_no_offer() -> None:
    """Sixteen tokens are the least that is worth a call."""
    assert offered(SONNET, asked(), 1000).held is None


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
    assert purse_of(*limits) == Purse(nano_left, owner)


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
    assert wishes(hints) == wish


@pytest.mark.parametrize(
    ("wish", "floor", "first"),
    [("cheap", 0.0, GEMMA), ("cheap", 0.8, DEEPSEEK), ("fast", 0.8, FLASH), ("best", 0.0, SONNET)],
)
def test_a_wish_picks_its_candidate(wish: str, floor: float, first: str) -> None:
    """Cheapest and fastest above the floor, best of all."""
    offers = [offered(model.id, asked()) for model in MODELS]
    ordered, why = prefer(offers, wish, floor)
    assert ordered[0].seat.id == first
    assert why


def test_nobody_above_the_floor_is_no_choice() -> None:
    """Then the named fallback answers."""
    assert prefer([offered(MINI, asked())], "cheap", 0.99) == ([], "")
