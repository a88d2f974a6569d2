"""Reading listings: the bundled one, odd ones, and newer ones that may be refused."""

import json
import runpy
from decimal import Decimal
from pathlib import Path

import pytest

from shapes import MODEL_FIELDS
from sophia.catalogue.catalogue import Catalogue
from sophia.catalogue.model import UNBOUNDED, Model
from sophia.catalogue.prices import PriceTier
from sophia.catalogue.profiles import CatalogueError
from sophia.catalogue.refresh import CatalogueChanges, diff_catalogues, refresh_catalogue
from sophia.catalogue.snapshot import load_bundled_catalogue, parse_models

SCRIPT = Path(__file__).parents[2] / "scripts/build_catalogue.py"


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_bundled_catalogue()


def read(**fields: object) -> Model:
    (model,) = parse_models(json.dumps({"data": [{"id": "a/b", **fields}]}).encode())
    return model


def tiers(**pricing: object) -> tuple[PriceTier, ...]:
    prices = read(pricing={"prompt": "0.000001", "completion": "0.000002", **pricing}).prices
    assert prices.known
    return prices.tiers


def body(models: tuple[Model, ...]) -> bytes:
    return b'{"data":[' + b",".join(model.listing_json for model in models) + b"]}"


def test_the_bundled_models_have_every_field_that_openrouter_requires(catalogue: Catalogue) -> None:
    assert catalogue.date == "2026-11-10"
    assert len(catalogue.models) > 400
    for model in catalogue.models:
        listing = json.loads(model.listing_json)
        assert listing.keys() >= MODEL_FIELDS
        assert listing["id"] == model.id
        assert {"prompt", "completion"} <= listing["pricing"].keys()


def test_the_bundled_prices_are_exact(catalogue: Catalogue) -> None:
    for model in catalogue.models:
        prompt = json.loads(model.listing_json)["pricing"]["prompt"]
        if model.prices.known:
            assert model.prices.tiers[0].prompt == Decimal(prompt).scaleb(15)
        else:
            assert prompt == "-1"


def test_a_price_for_long_prompts_holds_beyond_its_threshold(catalogue: Catalogue) -> None:
    """OpenRouter: the entry applies when the prompt is strictly longer than the threshold."""
    sonnet = catalogue.get("anthropic/claude-sonnet-4.5")
    assert sonnet is not None
    assert sonnet.prices.cost(200_000, 0) == 600_000_000
    assert sonnet.prices.cost(200_001, 0) == 1_200_006_000


def test_a_model_of_which_only_some_parameters_are_known_is_left_to_the_upstream(
    catalogue: Catalogue,
) -> None:
    partial, whole = catalogue.get("anthropic/claude-sonnet-5.5"), catalogue.get("x-ai/grok-4.3")
    assert partial is not None and whole is not None
    assert partial.supports("response_format")
    assert "tools" in json.loads(partial.listing_json)["supported_parameters"]
    assert whole.supports("response_format")
    assert not whole.supports("logit_bias")


def test_a_listing_is_kept_as_it_came() -> None:
    row = '{"id": "a/b",  "shape": {"new": [1, 2.50]}, "name": "\\u00e9"}'
    (model,) = parse_models(f'{{"data": [{row}]}}'.encode())
    assert model.listing_json == row.encode()
    assert model.name == "é"


def test_a_listing_that_says_nothing_is_a_text_model_of_unknown_price() -> None:
    model = read(context_length=None, top_provider=None, architecture=None)
    assert (model.kind, model.context_length, model.max_output_tokens) == ("chat", UNBOUNDED, None)
    assert not model.prices.known
    assert read(top_provider={"context_length": 9}).context_length == 9


@pytest.mark.parametrize(
    ("outbound", "kind"),
    [(["text"], "chat"), (["text", "image"], "chat"), (["image"], "image"), ([], "chat")],
)
def test_a_model_is_of_the_kind_of_what_it_makes(outbound: list[str], kind: str) -> None:
    assert read(architecture={"output_modalities": outbound}).kind == kind


@pytest.mark.parametrize(
    ("written", "expected"),
    [("2026-12-31", "2026-12-31"), ("2026-12-31T08:00:00Z", "2026-12-31"), ("soon", None)],
)
def test_an_expiry_is_a_date(written: str, expected: str | None) -> None:
    assert read(expiration_date=written).expires_on == expected


@pytest.mark.parametrize(
    "price", ["-1", "", "free", "NaN", "Infinity", "1e999999999", "9" * 200, None, -0.5]
)
def test_a_price_that_is_no_price_makes_the_model_unpriced(price: object) -> None:
    assert not read(pricing={"prompt": price, "completion": "0.000001"}).prices.known
    assert not read(pricing={"prompt": "0.000001", "completion": price}).prices.known


@pytest.mark.parametrize(
    ("price", "nano_per_mtok"),
    [
        ("0.000003", 3_000_000_000),
        ("3e-06", 3_000_000_000),
        (3e-06, 3_000_000_000),
        (0, 0),
        ("0.00000008333333333333334", 83_333_334),
        ("1e-30", 1),
    ],
)
def test_a_price_is_rounded_up_to_a_nano_dollar_a_million_tokens(
    price: object, nano_per_mtok: int
) -> None:
    assert tiers(prompt=price)[0].prompt == nano_per_mtok


def test_later_overrides_win_and_inherit_what_they_leave_out() -> None:
    prices = tiers(
        input_cache_read="0.0000001",
        overrides=[
            {"min_prompt_tokens": 1000, "prompt": "0.000003"},
            {"min_prompt_tokens": 2000, "prompt": "0.000005", "completion": "0.000009"},
            {"min_prompt_tokens": 1000, "completion": "0.000004"},
        ],
    )
    assert prices == (
        PriceTier(min_prompt_tokens=0, prompt=10**9, completion=2 * 10**9, cache_read=10**8),
        PriceTier(min_prompt_tokens=1001, prompt=3 * 10**9, completion=4 * 10**9, cache_read=10**8),
        PriceTier(min_prompt_tokens=2001, prompt=5 * 10**9, completion=4 * 10**9, cache_read=10**8),
    )


def test_prices_by_the_hour_count_only_when_they_are_higher() -> None:
    night = {"utc_start": 2200, "utc_end": 400}
    assert tiers(overrides=[{**night, "prompt": "0.0000001"}])[0].prompt == 10**9
    assert tiers(overrides=[{**night, "prompt": "0.000007"}])[0].prompt == 7 * 10**9
    weekend = {"utc_days": [0, 6], "min_prompt_tokens": 1000, "prompt": "0.000007"}
    assert [tier.prompt for tier in tiers(overrides=[weekend])] == [10**9, 7 * 10**9]


def test_too_many_overrides_make_the_model_unpriced() -> None:
    overrides = [{"min_prompt_tokens": n, "prompt": "0.000001"} for n in range(1000)]
    assert not read(pricing={"prompt": "0", "completion": "0", "overrides": overrides}).prices.known


def test_the_highest_price_of_any_output_is_the_price_of_the_completion() -> None:
    assert tiers(image_output="0.00003")[0].completion == 30 * 10**9
    assert tiers(internal_reasoning="0")[0].completion == 2 * 10**9


def test_the_higher_of_two_cache_write_prices_is_kept() -> None:
    prices = tiers(input_cache_write="0.00000125", input_cache_write_1h="0.000002")
    assert prices[0].cache_write == 2 * 10**9


def test_one_row_that_cannot_be_read_does_not_cost_the_others() -> None:
    rows = [
        7,
        {"id": 3},
        {"id": ""},
        {"id": "a/b", "name": "first"},
        {"id": "a/b", "name": "second"},
    ]
    (model,) = parse_models(json.dumps({"data": rows}).encode())
    assert model.name == "first"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[]",
        b'{"data":{}}',
        b'{"data":[]}',
        b'{"data":[1]}',
        b"<html>",
        b"\xff",
        b"[" * 99_999,
    ],
    ids=["empty", "object", "list", "no-list", "no-rows", "no-row", "html", "no-utf8", "deep"],
)
def test_a_broken_body_is_refused(text: bytes) -> None:
    with pytest.raises(CatalogueError, match="models"):
        parse_models(text)


def test_a_refresh_keeps_the_profiles_and_names_what_changed(catalogue: Catalogue) -> None:
    rows = [json.loads(model.listing_json) for model in catalogue.models]
    rows = [row for row in rows if row["id"] != "x-ai/grok-4.3"]
    next(r for r in rows if r["id"] == "openai/gpt-4o-mini")["pricing"]["prompt"] = "0.0000002"
    rows.append({"id": "new/model", "pricing": {"prompt": "0", "completion": "0"}})
    after = refresh_catalogue(catalogue, json.dumps({"data": rows}).encode(), "2026-12-01")
    assert (after.date, after.source) == ("2026-12-01", "refreshed")
    assert diff_catalogues(catalogue, after) == CatalogueChanges(
        ["new/model"], ["x-ai/grok-4.3"], ["openai/gpt-4o-mini"]
    )
    assert [m.profile and m.profile.role for m in after.profiled_models] == [
        m.profile and m.profile.role for m in catalogue.profiled_models
    ]
    assert "x-ai/grok-4.20" in after.warnings[0]


def test_a_refresh_with_the_same_models_changes_nothing(catalogue: Catalogue) -> None:
    after = refresh_catalogue(catalogue, body(catalogue.models), "2026-12-01")
    assert not any(diff_catalogues(catalogue, after))


def test_a_refresh_that_would_lose_most_models_is_refused(catalogue: Catalogue) -> None:
    with pytest.raises(CatalogueError, match="incomplete"):
        refresh_catalogue(catalogue, body(catalogue.models[:150]), "2026-12-01")


def test_a_refresh_without_any_model_to_choose_among_is_refused(catalogue: Catalogue) -> None:
    rows = [{"id": f"new/model-{n}"} for n in range(400)]
    with pytest.raises(CatalogueError, match="chooses among"):
        refresh_catalogue(catalogue, json.dumps({"data": rows}).encode(), "2026-12-01")


def test_the_snapshot_is_built_in_openrouters_shape(tmp_path: Path) -> None:
    source = {
        "kind": "chat",
        "name": "M",
        "context_length": 1000,
        "max_output_tokens": None,
        "input_modalities": ["text"],
        "output_modalities": ["text"],
        "supported_parameters": ["seed"],
        "canonical_slug": None,
        "created": None,
        "tokenizer": None,
        "source": {"supported_parameters": "partial, from x"},
    }
    tier = {"min_prompt_tokens": 500, "prompt": 0.2, "completion": 1.0, "cache_read": None}
    price = {"prompt": 0.083333, "completion": 0.5, "cache_read": None, "tiers": [tier]}
    rows = [
        {**source, "id": "a/paid", "pricing_usd_per_mtok": price},
        {**source, "id": "a/unpriced", "pricing_usd_per_mtok": {"prompt": 0.0, "completion": 0.0}},
        {**source, "id": "a/m:free", "pricing_usd_per_mtok": {"prompt": 0.0, "completion": 0.0}},
        {**source, "id": "a/drawing", "kind": "image", "pricing_usd_per_mtok": price},
    ]
    listing, out = tmp_path / "listing.json", tmp_path / "models.json"
    listing.write_text(
        json.dumps({"meta": {"listing_date": "2026-01-02", "sources": []}, "models": rows})
    )
    runpy.run_path(str(SCRIPT))["main"](listing, out)
    models = {model.id: model for model in parse_models(out.read_bytes())}
    assert [id for id in models if id.startswith("a/")] == ["a/m:free", "a/paid", "a/unpriced"]
    embedders = [model for model in models.values() if model.kind == "embedding"]
    assert embedders and all(model.prices.known for model in embedders)
    assert models["a/paid"].prices.tiers == (
        PriceTier(min_prompt_tokens=0, prompt=83_333_000, completion=500_000_000),
        PriceTier(min_prompt_tokens=501, prompt=200_000_000, completion=1_000_000_000),
    )
    assert models["a/m:free"].prices.known
    assert not models["a/unpriced"].prices.known
    document = json.loads(out.read_text())
    assert document["total_count"] == 3 + len(embedders)
    assert document["snapshot"]["partial_parameters"] == ["a/m:free", "a/paid", "a/unpriced"]
    assert json.loads(models["a/paid"].listing_json).keys() >= MODEL_FIELDS
