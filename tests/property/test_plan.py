"""Laws of the decision that hold for every request, catalogue and budget."""

import sys
from pathlib import Path

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from routing_world import EVERYTHING, MODELS, QUALITY, TODAY, ask

from sophia.catalogue.model import Model, ModelProfile
from sophia.catalogue.prices import Prices, PriceTier
from sophia.core.errors import SophiaError
from sophia.routing.plan import build_plan, plan_named
from sophia.routing.pool import PoolModel
from sophia.routing.quotes import build_spend_limit
from sophia.routing.request import KeyLimits, RouteRequest
from sophia.routing.rules.model import Condition, Rule, RuleBook
from sophia.routing.rules.parse import RuleBookError, parse_rules
from sophia.routing.types import TASK_TYPES, Hints, Prompt

PRICE = st.integers(0, 100_000_000_000)
NAMES = [f"maker/model-{number}" for number in range(6)]


@st.composite
def models(draw: st.DrawFn, name: str) -> Model:
    starts = sorted({0, *draw(st.lists(st.integers(1, 300_000), max_size=2))})
    cache = st.none() | PRICE
    tiers = tuple(
        PriceTier(
            min_prompt_tokens=start,
            prompt=draw(PRICE),
            completion=draw(PRICE),
            cache_read=draw(cache),
            cache_write=draw(cache),
        )
        for start in starts
    )
    QUALITY[name] = {task: draw(st.floats(0, 1)) for task in TASK_TYPES}
    role = draw(
        st.sampled_from(["fast", "code", "fallback", "creative", "european", "complex reasoning"])
    )
    return Model(
        id=name,
        name=name,
        context_length=draw(st.integers(100, 2_000_000)),
        max_output_tokens=draw(st.none() | st.integers(1, 100_000)),
        prices=Prices(tiers, draw(st.integers(0, 10_000_000)), draw(st.booleans())),
        input_modalities=frozenset(draw(st.sampled_from([("text",), ("text", "image")]))),
        output_modalities=frozenset({"text"}),
        supported_parameters=draw(
            st.sampled_from([EVERYTHING, frozenset({"max_tokens"}), frozenset()])
        ),
        expires_on=draw(st.sampled_from([None, None, "2026-01-01", "2030-01-01"])),
        profile=draw(
            st.just(None)
            | st.just(
                ModelProfile(
                    id=name, role=role, latency_ms=draw(st.integers(1, 5000)), tokens_per_second=50
                )
            )
        ),
    )


@st.composite
def prompts(draw: st.DrawFn) -> Prompt:
    chars = draw(st.integers(0, 400_000))
    return Prompt(
        text=draw(st.text(max_size=60)),
        system=draw(st.text(max_size=10)),
        chars=chars,
        utf8_bytes=chars + draw(st.integers(0, 3 * chars)),
        turns=draw(st.integers(1, 40)),
        images=draw(st.integers(0, 2)),
        tools=draw(st.integers(0, 60)),
        schema=draw(st.booleans()),
        reasoning=draw(st.booleans()),
        max_tokens=draw(st.none() | st.integers(1, 200_000)),
        choice_count=draw(st.integers(1, 4)),
    )


MONEY = st.none() | st.integers(-10, 1_000_000_000)
HINTS = st.builds(
    Hints,
    task_type=st.none() | st.sampled_from(TASK_TYPES),
    complexity=st.none() | st.floats(0, 1),
    max_latency_ms=st.none() | st.integers(1, 6000),
    cost_sensitive=st.none() | st.booleans(),
    min_quality=st.none() | st.floats(0, 1),
    strict=st.booleans(),
    max_cost_nano=st.none() | st.integers(0, 1_000_000_000),
    models=st.lists(st.sampled_from([*NAMES, "no/such"]), max_size=2).map(tuple),
    tradeoff=st.sampled_from(["balanced", "cheap", "fast", "best"]),
    rule=st.sampled_from([None, None, None, "mine"]),
    policy=st.sampled_from([None, None, None, "cheap", "heuristic"]),
)
LIMITS = st.builds(
    KeyLimits,
    per_request_nano=MONEY,
    budget_left_nano=MONEY,
    max_attempts=st.integers(1, 6),
    price_margin=st.integers(0, 50),
)
BOOKS = st.builds(
    lambda preferred, fallback: RuleBook(
        (
            Rule(
                name="mine",
                conditions=(Condition("turns", ">=", 2),),
                preferred_models=preferred,
                fallback=fallback,
            ),
        )
    ),
    st.lists(st.sampled_from([*NAMES, MODELS[0].id]), min_size=1, max_size=3, unique=True).map(
        tuple
    ),
    st.none() | st.sampled_from(NAMES),
)


@st.composite
def requests(draw: st.DrawFn) -> RouteRequest:
    return ask(
        draw(prompts()),
        draw(HINTS),
        models=[draw(models(name)) for name in NAMES[: draw(st.integers(0, 6))]],
        limits=draw(LIMITS),
        rulebook=draw(BOOKS),
        fallbacks=tuple(draw(st.lists(st.sampled_from(NAMES), max_size=2))),
    )


@settings(max_examples=150, deadline=None)
@given(requests(), st.data())
def test_every_plan_keeps_the_laws(request: RouteRequest, data: st.DataObject) -> None:
    """Able models only, each once; reservations cover every cost within bounds; limits are respected."""
    try:
        decided = build_plan(request)
    except SophiaError:
        return
    assert decided == build_plan(request)
    tried = [attempt.model for attempt in decided.attempts]
    assert 1 <= len(tried) <= request.limits.max_attempts
    assert len(set(tried)) == len(tried)
    assert not set(tried) & {cause.model for cause in decided.excluded}
    assert set(tried) <= {candidate.model for candidate in decided.candidates}
    limits, prompt = request.limits, request.prompt
    limit = build_spend_limit(
        limits.per_request_nano, limits.budget_left_nano, request.hints.max_cost_nano
    ).limit_nano
    for attempt in decided.attempts:
        assert attempt.expected_nano <= attempt.held_nano
        assert limit is None or attempt.held_nano <= limit
        model = request.find_model(attempt.model)
        assert model is not None
        longest = model.max_output_tokens
        longest = min(longest, prompt.max_tokens or longest, attempt.max_tokens or longest)
        sent = data.draw(st.integers(0, decided.features.max_prompt_tokens))
        received = data.draw(st.integers(0, longest * prompt.choice_count))
        assert model.model.prices.cost(sent, received) <= attempt.held_nano


@settings(max_examples=100, deadline=None)
@given(models(NAMES[0]), models(NAMES[1]), prompts(), LIMITS)
def test_a_direct_plan_keeps_the_limit(
    model: Model, other: Model, prompt: Prompt, limits: KeyLimits
) -> None:
    """Only models that were named are tried, and nothing is held beyond the limits."""
    try:
        models = [PoolModel.from_model(named, {}) for named in (model, other, model)]
        decided = plan_named(models, prompt, limits, today=TODAY)
    except SophiaError:
        return
    assert {attempt.model for attempt in decided.attempts} <= {model.id, other.id}
    assert len({attempt.model for attempt in decided.attempts}) == len(decided.attempts)
    limit = build_spend_limit(limits.per_request_nano, limits.budget_left_nano, None).limit_nano
    assert all(limit is None or attempt.held_nano <= limit for attempt in decided.attempts)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_a_rule_book_or_a_named_mistake(text: str) -> None:
    """Whatever stands in the file, the server keeps its last good rules and says what is wrong."""
    try:
        parse_rules(text, lambda name: name)
    except RuleBookError as error:
        assert error.errors


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 10**9) | st.floats(allow_nan=False) | st.text(max_size=8)
    | st.sampled_from([">0.7", "<1000ms", ">=5", "coding", "de"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["name", "conditions", "task_type", "complexity", "rules"]), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["name", "conditions", "preferred_models", "fallback"]), VALUES
        )
    )
)
def test_any_shape_of_rules_is_read_or_refused(rules: list[object]) -> None:
    """Wrong types anywhere are mistakes with a line, never a crash."""
    try:
        parse_rules(yaml.safe_dump({"rules": rules}), lambda name: name)
    except RuleBookError as error:
        assert all(mistake.line >= 1 for mistake in error.errors)
