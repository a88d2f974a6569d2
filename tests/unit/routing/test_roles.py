"""Roles follow newer models: a better one that is no dearer, and fit for the role, takes it over."""

from types import EllipsisType
from typing import Any

import pytest

from sophia.catalogue.catalogue import Catalogue
from sophia.catalogue.model import Model, ModelProfile
from sophia.catalogue.prices import Prices, PriceTier
from sophia.catalogue.profiles import ModelProfiles
from sophia.catalogue.snapshot import load_bundled_catalogue, load_bundled_profiles
from sophia.core.money import nano_from_usd
from sophia.learning.priors.book import load_shipped_priors
from sophia.learning.priors.task_quality import build_skill_rating
from sophia.routing.roles import MIN_GAIN, RoleChange, follow_successors

OLD, NEW, NEWER = "acme/fast-1", "acme/fast-2", "acme/fast-3"
ROLE = ModelProfile(
    id=OLD,
    role="fast",
    latency_ms=400,
    tokens_per_second=90,
    skills=("chat", "code"),
    candidates=("*fast*",),
    min_context=100_000,
)
RATINGS = {OLD: 0.6, NEW: 0.7, NEWER: 0.8}


def price(prompt: float, completion: float, **more: Any) -> Prices:
    """Return prices in US dollars per million tokens."""
    tier = PriceTier(
        min_prompt_tokens=0, prompt=nano_from_usd(prompt), completion=nano_from_usd(completion)
    )
    return Prices((tier,), **more)


def model(id: str, **facts: Any) -> Model:
    """Return a model that is fit for the role, but for `facts`."""
    usual: dict[str, Any] = {
        "name": id,
        "context_length": 200_000,
        "prices": price(1.0, 4.0),
        "supported_parameters": frozenset({"tools"}),
    }
    return Model(id=id, **(usual | facts))


def follow(
    *models: Model,
    profiles: tuple[ModelProfile, ...] = (ROLE,),
    new: float | EllipsisType | None = ...,
) -> tuple[dict[str, str], tuple[RoleChange, ...]]:
    """Return the model of each role, and the changes; `new` replaces the rating of that model."""
    known = RATINGS if new is ... else RATINGS | {NEW: new}

    def rate(id: str, skills: tuple[str, ...]) -> float | None:
        assert skills == ROLE.skills
        return known.get(id)

    listed = Catalogue(models, ModelProfiles(), "2026-11-10", "test")
    followed, changes = follow_successors(listed, ModelProfiles(profiles), rate)
    holders = {one.profile.role: one.id for one in followed.profiled_models if one.profile}
    return holders, changes


def test_a_better_model_that_is_no_dearer_takes_a_role_over() -> None:
    """The change tells the role, both models, and both prices of a typical request."""
    holders, changes = follow(model(OLD, prices=price(2.0, 8.0)), model(NEW))
    assert holders == {"fast": NEW}
    (change,) = changes
    assert (change.role, change.before, change.after) == ("fast", OLD, NEW)
    assert "$1.75" in change.reason
    assert "$3.5" in change.reason


def test_the_new_holder_has_the_roles_profile_and_goes_back_when_it_vanishes() -> None:
    def rate(id: str, skills: tuple[str, ...]) -> float | None:
        return RATINGS.get(id)

    listed = Catalogue([model(OLD), model(NEW)], ModelProfiles(), "2026-11-10", "test")
    followed, _ = follow_successors(listed, ModelProfiles((ROLE,)), rate)
    (holder,) = followed.profiled_models
    assert holder.profile is not None
    assert (holder.profile.latency_ms, holder.profile.tokens_per_second) == (400, 90)
    (left,) = followed.with_models([model(OLD)], "2026-12-01", "refreshed").profiled_models
    assert left.id == OLD


def test_the_best_of_several_takes_over_and_the_cheaper_of_equals() -> None:
    assert follow(model(OLD), model(NEW), model(NEWER))[0] == {"fast": NEWER}
    cheaper = model(NEW, prices=price(1.0, 3.0))
    assert follow(model(OLD), cheaper, model(NEWER), new=RATINGS[NEWER])[0] == {"fast": NEW}


@pytest.mark.parametrize(
    "facts",
    [
        {"prices": price(1.0, 4.1)},
        {"prices": price(1.1, 4.0)},
        {"prices": price(0.1, 1.7)},
        {"prices": price(0.0, 0.0)},
        {"prices": price(0.5, 1.0, known=False)},
        {"supported_parameters": frozenset({"temperature"})},
        {"context_length": 99_999},
        {"kind": "embedding"},
        {"input_modalities": frozenset({"image"})},
        {"output_modalities": frozenset({"image"})},
        {"expires_on": "2027-01-01"},
        {"alias_of": OLD},
    ],
    ids=[
        "dearer answers",
        "dearer prompts",
        "implausible price",
        "free",
        "unknown price",
        "no tools",
        "short context",
        "embedding",
        "no text in",
        "no text out",
        "expires",
        "alias",
    ],
)
def test_a_better_model_that_is_dearer_or_unfit_does_not_take_a_role_over(
    facts: dict[str, Any],
) -> None:
    assert follow(model(OLD), model(NEW, **facts)) == ({"fast": OLD}, ())


@pytest.mark.parametrize("rating", [None, 0.5, 0.6, 0.6 + 0.9 * MIN_GAIN])
def test_a_model_that_is_unrated_or_hardly_better_does_not_take_a_role_over(
    rating: float | None,
) -> None:
    assert follow(model(OLD), model(NEW), new=rating) == ({"fast": OLD}, ())
    assert follow(model(OLD), model(NEW), new=0.6 + 1.1 * MIN_GAIN)[0] == {"fast": NEW}


@pytest.mark.parametrize("id", ["acme/slow-2", "acme/fast-2:free", "~acme/fast-latest"])
def test_a_model_of_another_line_and_a_variant_do_not_take_a_role_over(id: str) -> None:
    """Only ids that match the role's patterns do, and of these no variant and no pointer."""
    better = {OLD: 0.6, id: 0.9}
    listed = Catalogue([model(OLD), model(id)], ModelProfiles(), "2026-11-10", "test")
    followed, changes = follow_successors(
        listed, ModelProfiles((ROLE,)), lambda name, _: better.get(name)
    )
    assert [one.id for one in followed.profiled_models] == [OLD]
    assert changes == ()


def test_no_model_takes_two_roles() -> None:
    """The first role in the file gets the best, the second the next; a holder stays where it is."""
    other = ModelProfile(
        id="acme/fast-0", role="fallback", latency_ms=1, tokens_per_second=1, skills=ROLE.skills
    )
    models = [model(OLD), model("acme/fast-0"), model(NEW), model(NEWER)]
    holders, changes = follow(*models, profiles=(ROLE, other))
    assert holders == {"fast": NEWER, "fallback": NEW}
    assert [change.role for change in changes] == ["fast", "fallback"]
    holders, _ = follow(*models[:2], model(NEWER), profiles=(ROLE, other))
    assert holders == {"fast": NEWER, "fallback": "acme/fast-0"}


def test_a_role_without_skills_stays_with_its_model() -> None:
    fixed = ModelProfile(id=OLD, role="fast", latency_ms=1, tokens_per_second=1)
    assert follow(model(OLD), model(NEWER), profiles=(fixed,)) == ({"fast": OLD}, ())


def test_a_role_whose_model_vanished_is_compared_with_what_replaced_it() -> None:
    """Its listed successor holds the role, so a better one must be no dearer than that."""
    profile = ModelProfile(
        id="acme/fast-0",
        role="fast",
        latency_ms=1,
        tokens_per_second=1,
        successors=(OLD,),
        skills=ROLE.skills,
    )
    holders, changes = follow(model(OLD), model(NEW), profiles=(profile,))
    assert (holders, changes[0].before) == ({"fast": NEW}, OLD)
    dearer = model(NEW, prices=price(1.1, 4.0))
    assert follow(model(OLD), dearer, profiles=(profile,)) == ({"fast": OLD}, ())


def test_every_bundled_role_has_a_model_of_its_own_that_is_no_dearer_than_its_profiles() -> None:
    """Whatever the catalogue lists today, with the ratings as shipped."""
    catalogue, profiles = load_bundled_catalogue(), load_bundled_profiles()
    followed, changes = follow_successors(
        catalogue, profiles, build_skill_rating(load_shipped_priors)
    )
    holders = {one.profile.role: one for one in followed.profiled_models if one.profile}
    assert list(holders) == [profile.role for profile in profiles.profiles]
    assert len({one.id for one in holders.values()}) == len(holders)
    before = {profile.role: profile.id for profile in profiles.profiles}
    for change in changes:
        assert change.before == before[change.role]
        assert holders[change.role].id == change.after != change.before
        costs = [
            found.prices.cost(3_000_000, 1_000_000)
            for found in map(catalogue.get, (change.after, change.before))
            if found is not None
        ]
        assert costs[0] <= costs[1]
