"""The catalogue: names, variants, successors, profiles, and what a model may be chosen for."""

import json

import pytest

from sophia.catalogue.catalogue import Catalogue
from sophia.catalogue.model import Model
from sophia.catalogue.prices import Prices, PriceTier
from sophia.catalogue.profiles import CatalogueError, ModelProfiles, parse_profiles
from sophia.catalogue.snapshot import load_bundled_catalogue, load_bundled_profiles, parse_models

PLAN_ROLES = [
    "complex reasoning",
    "fast",
    "code",
    "code specialist",
    "long context",
    "creative",
    "european",
    "fallback",
    "free",
]
PAID = {"prompt": "0.000001", "completion": "0.000002"}


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_bundled_catalogue()


def listed(*ids: str, **fields: object) -> Catalogue:
    """A small catalogue without profiles, read as a body would be."""
    rows = [{"id": id, "pricing": PAID, **fields} for id in ids]
    models = parse_models(json.dumps({"data": rows}).encode())
    return Catalogue(models, ModelProfiles(), "2026-11-10", "test")


def served(catalogue: Catalogue, name: str) -> tuple[str, str]:
    resolved = catalogue.resolve(name)
    assert resolved is not None, name
    return resolved.model.id, resolved.upstream_id


def by_role(catalogue: Catalogue, role: str) -> Model | None:
    models = {model.profile.role: model for model in catalogue.profiled_models if model.profile}
    return models.get(role)


def test_the_nine_profiles_are_listed_and_stand_in_file_order(catalogue: Catalogue) -> None:
    assert [
        model.profile.role for model in catalogue.profiled_models if model.profile
    ] == PLAN_ROLES
    assert not [warning for warning in catalogue.warnings if "is not listed" in warning]
    assert all(model.prices.known for model in catalogue.profiled_models)


def test_the_profile_for_long_context_has_the_window_that_its_role_promises(
    catalogue: Catalogue,
) -> None:
    kimi = by_role(catalogue, "long context")
    assert kimi is not None
    assert kimi.context_length > 200_000


def test_every_successor_in_the_shipped_file_is_listed(catalogue: Catalogue) -> None:
    profiles = load_bundled_profiles()
    successors = {id for profile in profiles.profiles for id in profile.successors}
    successors |= {replacement.successor for replacement in profiles.retired.values()}
    assert [id for id in sorted(successors) if catalogue.get(id) is None] == []
    assert [old for old in profiles.retired if catalogue.get(old) is not None] == []


def test_a_free_name_never_leads_to_a_paid_model(catalogue: Catalogue) -> None:
    for old in load_bundled_profiles().retired:
        resolved = catalogue.resolve(old)
        assert resolved is not None
        if old.endswith(":free"):
            assert resolved.model.prices.cost(1_000_000, 1_000_000) == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("openai/gpt-4o-mini", ("openai/gpt-4o-mini", "openai/gpt-4o-mini")),
        ("OpenAI/GPT-4o-Mini", ("openai/gpt-4o-mini", "openai/gpt-4o-mini")),
        ("gpt-4o-mini", ("openai/gpt-4o-mini", "openai/gpt-4o-mini")),
        ("gpt-4o-mini:nitro", ("openai/gpt-4o-mini", "openai/gpt-4o-mini:nitro")),
        ("openai/gpt-4o-mini:FLOOR", ("openai/gpt-4o-mini", "openai/gpt-4o-mini:floor")),
        (
            "anthropic/claude-4.5-sonnet-20250929",
            ("anthropic/claude-sonnet-4.5", "anthropic/claude-sonnet-4.5"),
        ),
        (
            "google/gemma-4-31b-it:free",
            ("google/gemma-4-31b-it:free", "google/gemma-4-31b-it:free"),
        ),
        ("openrouter/auto", ("openrouter/auto", "openrouter/auto")),
        ("@preset/mine", ("@preset/mine", "@preset/mine")),
        ("gpt-4o-mini@preset/mine", ("openai/gpt-4o-mini", "openai/gpt-4o-mini@preset/mine")),
    ],
)
def test_a_model_is_found_by_every_name_that_callers_use(
    catalogue: Catalogue, name: str, expected: tuple[str, str]
) -> None:
    assert served(catalogue, name) == expected


@pytest.mark.parametrize(
    "name",
    [
        "",
        "nope",
        "a" * 10_000,
        ":nitro",
        "@preset/",
        "nope@preset/x",
        "openai/gpt-4o-mini:free",
        "openai/gpt-4o-mini:what",
        "openai/gpt-4o-mini:nitro:floor",
        "mistralai/mistral-nemo:batch",
    ],
)
def test_an_unknown_name_is_nothing(catalogue: Catalogue, name: str) -> None:
    assert catalogue.resolve(name) is None


def test_a_price_is_unknown_where_the_listing_is_no_ceiling(catalogue: Catalogue) -> None:
    for name in ("openrouter/auto", "@preset/x", "gpt-4o-mini@preset/x", "gpt-4o-mini:online"):
        resolved = catalogue.resolve(name)
        assert resolved is not None
        assert not resolved.model.prices.known


@pytest.mark.parametrize(
    ("name", "successor"),
    [
        ("anthropic/claude-3-5-sonnet", "anthropic/claude-sonnet-4.5"),
        ("deepseek/deepseek-v3.1", "deepseek/deepseek-chat-v3.1"),
        ("moonshot/kimi-k2", "moonshotai/kimi-k2"),
        ("x-ai/Grok-4", "x-ai/grok-4.3"),
        ("x-ai/grok-4:nitro", "x-ai/grok-4.3:nitro"),
        ("google/gemini-2.0-flash:free", "google/gemma-4-31b-it:free"),
    ],
)
def test_a_retired_name_is_served_by_its_successor_with_a_warning(
    catalogue: Catalogue, name: str, successor: str
) -> None:
    resolved = catalogue.resolve(name)
    assert resolved is not None
    assert resolved.upstream_id == successor
    assert resolved.warning is not None
    assert successor.partition(":")[0] in resolved.warning


def test_an_alias_stands_for_its_target_when_that_is_listed() -> None:
    rows = [
        {"id": "a/b-2", "pricing": PAID},
        {"id": "~a/b-latest", "pricing": PAID, "alias_target": {"slug": "a/b-2", "name": "B 2"}},
        {"id": "~a/c-latest", "pricing": PAID, "alias_target": {"slug": "a/c-9", "name": "C 9"}},
    ]
    models = parse_models(json.dumps({"data": rows}).encode())
    small = Catalogue(models, ModelProfiles(), "2026-11-10", "test")
    assert served(small, "~a/b-latest") == ("a/b-2", "a/b-2")
    assert served(small, "~a/c-latest") == ("~a/c-latest", "~a/c-latest")


def test_a_name_without_author_that_two_models_have_is_nothing() -> None:
    small = listed("a/twin", "b/twin", "a/single")
    assert small.resolve("twin") is None
    assert served(small, "single")[0] == "a/single"


def test_retired_names_that_point_in_a_circle_are_nothing() -> None:
    text = "profiles: []\nretired: {x/a: {successor: x/b, reason: r}, x/b: {successor: x/a, reason: r}}"
    models = listed("a/b").models
    assert Catalogue(models, parse_profiles(text), "2026-11-10", "test").resolve("x/a") is None


def test_a_retired_name_is_followed_over_several_steps() -> None:
    text = "profiles: []\nretired: {x/a: {successor: x/b, reason: r}, x/b: {successor: a/b, reason: s}}"
    chained = Catalogue(listed("a/b").models, parse_profiles(text), "2026-11-10", "test")
    assert served(chained, "x/a")[0] == "a/b"


def test_the_nearest_names_help_after_a_slip(catalogue: Catalogue) -> None:
    assert "anthropic/claude-sonnet-4.5" in catalogue.similar_ids("anthropic/claude-sonet-4.5")
    assert "openai/gpt-4o-mini" in catalogue.similar_ids("gpt4o-mini")
    assert len(catalogue.similar_ids("openai/gpt")) == 3
    assert catalogue.similar_ids("#" * 100_000) == []


def test_models_with_a_profile_have_known_prices(catalogue: Catalogue) -> None:
    assert catalogue.profiled_models
    assert all(model.prices.known for model in catalogue.profiled_models)


def test_get_takes_ids_only(catalogue: Catalogue) -> None:
    assert catalogue.get("openai/gpt-4o-mini") is not None
    assert catalogue.get("gpt-4o-mini") is None


def test_a_profile_whose_model_vanished_goes_to_its_first_listed_successor(
    catalogue: Catalogue,
) -> None:
    gone = {"qwen/qwen3-coder", "openai/gpt-4o-mini", "openai/gpt-4.1-nano"}
    left = catalogue.with_models(
        [model for model in catalogue.models if model.id not in gone], "2026-12-01", "refreshed"
    )
    coder, fallback = by_role(left, "code specialist"), by_role(left, "fallback")
    assert coder is not None and coder.id == "qwen/qwen3-coder-next"
    assert fallback is not None and fallback.id == "openai/gpt-5.4-nano"
    assert len([warning for warning in left.warnings if "is not listed" in warning]) == 2
    resolved = left.resolve("qwen/qwen3-coder")
    assert resolved is not None and resolved.warning is not None


@pytest.mark.parametrize(
    ("pricing", "plausible"),
    [
        ({"prompt": "0.000001", "completion": "0.000016"}, True),
        ({"prompt": "0.000001", "completion": "0.000017"}, False),
        ({"prompt": "0", "completion": "0.000001"}, True),
        ({"prompt": "0", "completion": "0"}, True),
    ],
)
def test_a_model_whose_prices_cannot_be_right_is_named_in_a_warning(
    pricing: dict[str, str], plausible: bool
) -> None:
    """Where answer tokens cost far more than prompt tokens, a listing has mixed up its units."""
    small = listed("a/b", pricing=pricing)
    (model,) = small.models
    assert model.prices.plausible is plausible
    assert small.warnings == ()
    assert small.doubtful_prices == (() if plausible else ("a/b",))


def test_prices_must_be_right_at_every_length_of_prompt() -> None:
    right, wrong = (
        PriceTier(min_prompt_tokens=start, prompt=10, completion=completion)
        for start, completion in ((0, 20), (200_000, 200))
    )
    assert Prices((right,)).plausible
    assert not Prices((right, wrong)).plausible


def test_a_profile_without_any_model_is_dropped_with_a_warning(catalogue: Catalogue) -> None:
    left = catalogue.with_models(
        [model for model in catalogue.models if not model.id.startswith("mistralai/")], "d", "s"
    )
    assert by_role(left, "european") is None
    assert len(left.profiled_models) == 8
    assert "mistralai/mistral-nemo" in left.warnings[0]


def test_two_profiles_never_share_one_model() -> None:
    entry = "latency_ms: 1, tokens_per_second: 1, successors: [a/b, a/c]"
    text = f"profiles: [{{id: x/1, role: one, {entry}}}, {{id: x/2, role: two, {entry}}}]"
    small = Catalogue(listed("a/b", "a/c").models, parse_profiles(text), "2026-11-10", "test")
    assert [model.id for model in small.profiled_models] == ["a/b", "a/c"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "profiles: {",
        "profiles: 3",
        "profiles: [{id: a/b}]",
        "profiles: []\nunknown: 1",
        "when: 2026-99-99",
        "profiles: [{id: a/b, role: r, latency_ms: 1.5, tokens_per_second: 1}]",
        "profiles: [{id: a/b, role: r, latency_ms: 0, tokens_per_second: 1}]",
    ],
)
def test_a_broken_profiles_file_is_refused(text: str) -> None:
    with pytest.raises(CatalogueError, match="profile"):
        parse_profiles(text)
