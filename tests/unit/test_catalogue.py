"""The catalogue: names, variants, successors, profiles, and what a model may be chosen for."""

import dataclasses
import datetime
import json

import pytest

from sophia.catalogue.catalogue import Catalogue, expired
from sophia.catalogue.profiles import CatalogueError, Profiles, parse_profiles
from sophia.catalogue.snapshot import bundled, bundled_profiles, parse_models

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
    return bundled()


def listed(*ids: str, **fields: object) -> Catalogue:
    """A small catalogue without profiles, read as a body would be."""
    rows = [{"id": id, "pricing": PAID, **fields} for id in ids]
    models = parse_models(json.dumps({"data": rows}).encode())
    return Catalogue(models, Profiles(), "2026-11-10")


def served(catalogue: Catalogue, name: str) -> tuple[str, str, str | None]:
    found = catalogue.resolve(name)
    assert found is not None, name
    return found.model.id, found.served_id, found.variant


def test_the_nine_profiles_are_listed_and_stand_in_file_order(catalogue: Catalogue) -> None:
    assert [model.profile.role for model in catalogue.profiles if model.profile] == PLAN_ROLES
    assert catalogue.warnings == ()
    assert all(model.prices.known for model in catalogue.profiles)


def test_the_profile_for_long_context_has_the_window_that_its_role_promises(
    catalogue: Catalogue,
) -> None:
    kimi = catalogue.by_role("long context")
    assert kimi is not None
    assert kimi.context_length > 200_000
    assert catalogue.by_role("no such role") is None


def test_every_successor_in_the_shipped_file_is_listed(catalogue: Catalogue) -> None:
    profiles = bundled_profiles()
    heirs = {heir for entry in profiles.entries for heir in entry.successors}
    heirs |= {retirement.successor for retirement in profiles.retired.values()}
    assert [heir for heir in sorted(heirs) if catalogue.get(heir) is None] == []
    assert [old for old in profiles.retired if catalogue.get(old) is not None] == []


def test_a_free_name_never_leads_to_a_paid_model(catalogue: Catalogue) -> None:
    for old in bundled_profiles().retired:
        found = catalogue.resolve(old)
        assert found is not None
        if old.endswith(":free"):
            assert found.model.prices.cost(1_000_000, 1_000_000) == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("openai/gpt-4o-mini", ("openai/gpt-4o-mini", "openai/gpt-4o-mini", None)),
        ("OpenAI/GPT-4o-Mini", ("openai/gpt-4o-mini", "openai/gpt-4o-mini", None)),
        ("gpt-4o-mini", ("openai/gpt-4o-mini", "openai/gpt-4o-mini", None)),
        ("gpt-4o-mini:nitro", ("openai/gpt-4o-mini", "openai/gpt-4o-mini:nitro", "nitro")),
        ("openai/gpt-4o-mini:FLOOR", ("openai/gpt-4o-mini", "openai/gpt-4o-mini:floor", "floor")),
        (
            "anthropic/claude-4.5-sonnet-20250929",
            ("anthropic/claude-sonnet-4.5", "anthropic/claude-sonnet-4.5", None),
        ),
        (
            "google/gemma-4-31b-it:free",
            ("google/gemma-4-31b-it:free", "google/gemma-4-31b-it:free", "free"),
        ),
        ("openrouter/auto", ("openrouter/auto", "openrouter/auto", None)),
        ("@preset/mine", ("@preset/mine", "@preset/mine", None)),
        (
            "gpt-4o-mini@preset/mine",
            ("openai/gpt-4o-mini", "openai/gpt-4o-mini@preset/mine", None),
        ),
    ],
)
def test_a_model_is_found_by_every_name_that_callers_use(
    catalogue: Catalogue, name: str, expected: tuple[str, str, str | None]
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
        found = catalogue.resolve(name)
        assert found is not None
        assert not found.model.prices.known


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
    found = catalogue.resolve(name)
    assert found is not None
    assert found.served_id == successor
    assert found.warning is not None
    assert successor.partition(":")[0] in found.warning


def test_an_alias_stands_for_its_target_when_that_is_listed() -> None:
    rows = [
        {"id": "a/b-2", "pricing": PAID},
        {"id": "~a/b-latest", "pricing": PAID, "alias_target": {"slug": "a/b-2", "name": "B 2"}},
        {"id": "~a/c-latest", "pricing": PAID, "alias_target": {"slug": "a/c-9", "name": "C 9"}},
    ]
    models = parse_models(json.dumps({"data": rows}).encode())
    small = Catalogue(models, Profiles(), "2026-11-10")
    assert served(small, "~a/b-latest") == ("a/b-2", "a/b-2", None)
    assert served(small, "~a/c-latest") == ("~a/c-latest", "~a/c-latest", None)
    assert [model.id for model in small.routable()] == ["a/b-2"]


def test_a_name_without_author_that_two_models_have_is_nothing() -> None:
    small = listed("a/twin", "b/twin", "a/single")
    assert small.resolve("twin") is None
    assert served(small, "single")[0] == "a/single"


def test_retired_names_that_point_in_a_circle_are_nothing() -> None:
    text = "profiles: []\nretired: {x/a: {successor: x/b, reason: r}, x/b: {successor: x/a, reason: r}}"
    models = listed("a/b").models
    assert Catalogue(models, parse_profiles(text), "2026-11-10").resolve("x/a") is None


def test_a_retired_name_is_followed_over_several_steps() -> None:
    text = "profiles: []\nretired: {x/a: {successor: x/b, reason: r}, x/b: {successor: a/b, reason: s}}"
    chained = Catalogue(listed("a/b").models, parse_profiles(text), "2026-11-10")
    assert served(chained, "x/a")[0] == "a/b"


def test_the_nearest_names_help_after_a_slip(catalogue: Catalogue) -> None:
    assert "anthropic/claude-sonnet-4.5" in catalogue.nearest("anthropic/claude-sonet-4.5")
    assert "openai/gpt-4o-mini" in catalogue.nearest("gpt4o-mini")
    assert len(catalogue.nearest("openai/gpt", n=2)) == 2
    assert catalogue.nearest("#" * 100_000) == []


def test_sophia_chooses_only_single_models_whose_price_is_known(catalogue: Catalogue) -> None:
    ids = {model.id for model in catalogue.routable()}
    assert {model.id for model in catalogue.profiles} <= ids
    assert not any(id.startswith(("~", "openrouter/")) or id.endswith(":batch") for id in ids)
    assert all(model.prices.known for model in catalogue.routable())


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
    coder, fallback = left.by_role("code specialist"), left.by_role("fallback")
    assert coder is not None and coder.id == "qwen/qwen3-coder-next"
    assert fallback is not None and fallback.id == "openai/gpt-5.4-nano"
    assert len(left.warnings) == 2
    found = left.resolve("qwen/qwen3-coder")
    assert found is not None and found.warning is not None


def test_a_profile_without_any_model_is_dropped_with_a_warning(catalogue: Catalogue) -> None:
    left = catalogue.with_models(
        [model for model in catalogue.models if not model.id.startswith("mistralai/")], "d", "s"
    )
    assert left.by_role("european") is None
    assert len(left.profiles) == 8
    assert "mistralai/mistral-nemo" in left.warnings[0]


def test_two_profiles_never_share_one_model() -> None:
    quality = "{coding: 1, analysis: 1, creative: 1, general: 1}"
    entry = (
        f"name: N, quality: {quality}, latency_ms: 1, tokens_per_second: 1, successors: [a/b, a/c]"
    )
    text = f"profiles: [{{id: x/1, role: one, {entry}}}, {{id: x/2, role: two, {entry}}}]"
    cast = Catalogue(listed("a/b", "a/c").models, parse_profiles(text), "2026-11-10")
    assert [model.id for model in cast.profiles] == ["a/b", "a/c"]


def test_a_model_expires_after_its_last_day(catalogue: Catalogue) -> None:
    mini = catalogue.get("openai/gpt-4o-mini")
    assert mini is not None
    dated = dataclasses.replace(mini, expires="2026-11-20")
    assert not expired(mini, datetime.date(2030, 1, 1))
    assert not expired(dated, datetime.date(2026, 11, 20))
    assert expired(dated, datetime.date(2026, 11, 21))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "profiles: {",
        "profiles: 3",
        "profiles: [{id: a/b}]",
        "profiles: []\nunknown: 1",
        "when: 2026-99-99",
        "profiles: [{id: a/b, name: B, role: r, quality: {coding: 2}, latency_ms: 1, tokens_per_second: 1}]",
        "profiles: [{id: a/b, name: B, role: r, quality: {coding: 1, analysis: 1, creative: 1, general: 1}, latency_ms: 0, tokens_per_second: 1}]",
    ],
)
def test_a_broken_profiles_file_is_refused(text: str) -> None:
    with pytest.raises(CatalogueError, match="profile"):
        parse_profiles(text)
