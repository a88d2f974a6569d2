"""Priors of models: ranks that outcomes confirm, found by any spelling, wide where unknown."""

import numpy as np
import pytest

from sophia.learning.online.build import build_policy
from sophia.learning.online.packaged import load_taxonomy
from sophia.learning.priors.book import MIN_SD, UNKNOWN_SD, load_shipped_priors
from sophia.learning.priors.task_quality import build_quality_prior, build_skill_rating

STRONG, WEAK = "google/gemini-2.5-pro", "meta-llama/llama-3.1-8b-instruct"


def test_every_shipped_prior_is_a_score_with_an_honest_spread() -> None:
    table = load_shipped_priors().table
    assert table.sources[0].startswith("Arena")
    assert len(table.arms) > 400
    for prior in (*table.arms.values(), *(prior for _, prior in table.by_size)):
        assert len(prior.mean) == len(prior.sd) == len(table.kinds)
        assert all(0 < mean < 1 for mean in prior.mean)
        assert all(MIN_SD <= sd <= UNKNOWN_SD for sd in prior.sd)


def test_a_stronger_model_is_expected_to_be_better_at_everything() -> None:
    book = load_shipped_priors()
    strong, weak = book.find(STRONG), book.find(WEAK)
    assert strong is not None
    assert weak is not None
    assert all(a > b for a, b in zip(strong.mean, weak.mean, strict=True))


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("google/gemini-2.5-flash:nitro", "google/gemini-2.5-flash"),
        ("gemini-2.5-flash", "google/gemini-2.5-flash"),
        ("llama3.1:8b", "meta-llama/llama-3.1-8b-instruct"),
        ("Claude 4.5 Sonnet (20250929)", "anthropic/claude-sonnet-4.5"),
        ("GPT-5 mini (2025-08-07) (medium reasoning)", "openai/gpt-5-mini"),
    ],
)
def test_a_prior_is_found_by_any_spelling(name: str, same: str) -> None:
    book = load_shipped_priors()
    assert book.find(name) == book.find(same) is not None


def test_a_successor_starts_near_its_predecessor_and_wider() -> None:
    book = load_shipped_priors()
    old, new = book.find("anthropic/claude-haiku-4.5"), book.find("anthropic/claude-haiku-5.5")
    assert old is not None
    assert new is not None
    assert (old.basis, new.basis) == ("rated", "successor")
    assert np.mean(old.mean) < np.mean(new.mean) < np.mean(old.mean) + 0.1
    assert min(new.sd) > min(old.sd)


def test_an_unknown_model_starts_at_the_level_of_its_pool() -> None:
    """A small one lower, since the name tells its size."""
    policy = build_policy()
    policy.add_models(["nobody/new", STRONG, WEAK, "nobody/new-7b"])
    unknown, strong, weak = (policy.prior(arm) for arm in ("nobody/new", STRONG, WEAK))
    assert np.all(unknown.mean < strong.mean)
    assert np.all(unknown.mean > weak.mean)
    assert np.all(unknown.sd == UNKNOWN_SD)
    assert policy.prior("nobody/new-7b").mean.mean() < weak.mean.mean()


def test_a_taxonomy_is_served_by_the_kinds_that_it_is_like() -> None:
    book, arm = load_shipped_priors(), "openai/gpt-4o-mini"
    known = book.find(arm)
    told = book.build_prior(arm, [["maths"], ["maths", "code"], [], ["poetry"]])
    assert known is not None
    assert told is not None
    at = {kind: place for place, kind in enumerate(book.table.kinds)}
    assert told.mean[0] == known.mean[at["maths"]]
    assert told.sd[0] == known.sd[at["maths"]]
    assert told.mean[1] == pytest.approx((known.mean[at["maths"]] + known.mean[at["code"]]) / 2)
    assert told.mean[2] == told.mean[3] == pytest.approx(np.mean(known.mean))
    assert told.sd[2] > np.sqrt(np.mean(np.square(known.sd)))


def test_quality_by_task_and_by_skill_come_from_the_same_priors() -> None:
    quality = build_quality_prior(load_shipped_priors, load_taxonomy())
    rate = build_skill_rating(load_shipped_priors)
    assert quality("nobody/new") == {}
    assert rate("nobody/new", ("code",)) is None
    assert rate("nobody/new-7b", ("code",)) is None
    assert quality(STRONG)["coding"] > quality(WEAK)["coding"]
    assert rate(STRONG, ("code",)) > rate(WEAK, ("code",))
