"""The pool: the roles and models that the settings name, less what they deny or find too dear."""

import json

import pytest

from sophia.catalogue.catalogue import Catalogue
from sophia.catalogue.model import ModelProfile
from sophia.catalogue.profiles import ModelProfiles
from sophia.catalogue.snapshot import parse_models
from sophia.config import PoolSettings
from sophia.routing.pool import build_pool

PRICES = {
    "acme/big": (3.0, 15.0),
    "acme/small": (0.2, 0.8),
    "acme/small:free": (0.0, 0.0),
    "other/coder": (0.5, 1.5),
    "other/coder:batch": (0.25, 0.75),
    "other/plain": (0.4, 1.2),
    "other/faulty": (0.1, 9.0),
}
ROLES = {
    "acme/big": "complex reasoning",
    "acme/small": "fast",
    "other/coder": "code specialist",
    "acme/small:free": "free",
}
USUAL = ["acme/big", "acme/small", "other/coder"]


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    rows: list[dict[str, object]] = [
        {
            "id": id,
            "pricing": {"prompt": str(prompt / 10**6), "completion": str(completion / 10**6)},
        }
        for id, (prompt, completion) in PRICES.items()
    ]
    rows.append({"id": "other/unpriced"})
    rows.append(rows[0] | {"id": "~acme/latest", "alias_target": {"slug": "acme/big"}})
    profiles = ModelProfiles(
        tuple(
            ModelProfile(id=id, role=role, latency_ms=1, tokens_per_second=1)
            for id, role in ROLES.items()
        )
    )
    return Catalogue(parse_models(json.dumps({"data": rows}).encode()), profiles, "d", "test")


def chosen(catalogue: Catalogue, **settings: object) -> list[str]:
    """Return the ids of a pool, in their order."""
    pool = build_pool(catalogue, PoolSettings(**settings), lambda _: {})  # type: ignore[arg-type]  # each test names its own
    assert pool.by_id.keys() == {entry.id for entry in pool.models}
    return [entry.id for entry in pool.models]


def test_the_pool_holds_the_models_of_the_roles_and_nothing_free(catalogue: Catalogue) -> None:
    """A free variant allows twenty requests a minute: nobody is sent there unasked."""
    assert chosen(catalogue) == USUAL


@pytest.mark.parametrize(
    ("roles", "found"),
    [
        (("fast",), ["acme/small"]),
        (("code*", "complex ?easoning"), ["acme/big", "other/coder"]),
        (("free",), []),
        (("nothing",), []),
        ((), []),
    ],
)
def test_roles_are_chosen_by_patterns(
    catalogue: Catalogue, roles: tuple[str, ...], found: list[str]
) -> None:
    assert chosen(catalogue, roles=roles) == found


def test_further_models_are_named_or_found_by_a_pattern(catalogue: Catalogue) -> None:
    """Nothing comes twice; the name of an alias adds the model that it stands for."""
    assert chosen(catalogue, models=("other/plain",)) == [*USUAL, "other/plain"]
    assert chosen(catalogue, models=("plain", "acme/small", "other/plain")) == [
        *USUAL,
        "other/plain",
    ]
    assert chosen(catalogue, models=("other/pl?in",)) == [*USUAL, "other/plain"]
    assert chosen(catalogue, roles=(), models=("other/*", "acme/small")) == [
        "other/coder",
        "other/plain",
        "acme/small",
    ]
    assert chosen(catalogue, roles=(), models=("~acme/latest",)) == ["acme/big"]


@pytest.mark.parametrize("pattern", ["*", "*:free", "*:batch", "*faulty", "*unpriced", "~*"])
def test_no_pattern_finds_a_limited_variant_or_a_model_without_a_sure_price(
    catalogue: Catalogue, pattern: str
) -> None:
    every = [*USUAL, "other/plain"] if pattern == "*" else []
    assert sorted(chosen(catalogue, roles=(), models=(pattern,))) == sorted(every)


@pytest.mark.parametrize("name", ["acme/small:free", "other/coder:batch", "other/faulty"])
def test_a_limited_variant_and_a_doubtful_price_are_in_the_pool_where_they_are_named(
    catalogue: Catalogue, name: str
) -> None:
    assert chosen(catalogue, models=(name,)) == [*USUAL, name]


def test_a_named_free_model_keeps_its_role(catalogue: Catalogue) -> None:
    pool = build_pool(catalogue, PoolSettings(models=("acme/small:free",)), lambda _: {})
    assert pool.by_id["acme/small:free"].role == "free"


def test_what_is_denied_is_in_no_pool(catalogue: Catalogue) -> None:
    """Whatever else brought it in: its role, its name or a pattern."""
    assert chosen(catalogue, deny=("acme/*",)) == ["other/coder"]
    named = ("other/plain", "acme/*")
    assert chosen(catalogue, models=named, deny=("*/plain", "acme/big")) == USUAL[1:]
    assert chosen(catalogue, deny=("*",)) == []


def test_no_model_above_the_highest_prices_is_in_the_pool(catalogue: Catalogue) -> None:
    """A price as high as the highest is allowed; each of the two limits counts by itself."""
    assert chosen(catalogue, max_prompt_usd_per_mtok=0.5) == USUAL[1:]
    assert chosen(catalogue, max_prompt_usd_per_mtok=0.49) == ["acme/small"]
    assert chosen(catalogue, max_completion_usd_per_mtok=1.5) == USUAL[1:]
    assert chosen(catalogue, max_completion_usd_per_mtok=1.49) == ["acme/small"]
    limits = {"max_prompt_usd_per_mtok": 0.5, "max_completion_usd_per_mtok": 1.4}
    assert chosen(catalogue, models=("other/plain", "other/faulty"), **limits) == [
        "acme/small",
        "other/plain",
    ]
    assert chosen(catalogue, max_completion_usd_per_mtok=0.0) == []
