"""Shipped priors: honest about their spread, with an answer for every model and task class."""

import numpy as np
import pytest

from sophia.learning.priors.book import (
    MIN_SD,
    UNMEASURED_SD_RANGE,
    build_arm_prior,
    find_arm_prior,
    load_shipped_priors,
)


def test_the_shipped_book_says_honestly_how_much_it_knows() -> None:
    shipped = load_shipped_priors()
    assert set(shipped.sources) <= {
        "zeroeval",
        "mmlu_pro",
        "routellm",
        "paretobandit",
        "lineage_2025h1",
    }
    for stands in [*shipped.arms.values(), *shipped.families.values(), shipped.unknown_family]:
        assert len(stands.mean) == len(stands.sd) == len(shipped.kinds)
        assert all(0 < mean < 1 for mean in stands.mean)
        low = MIN_SD if stands.basis == "measured" else UNMEASURED_SD_RANGE[0]
        assert all(low <= sd <= UNMEASURED_SD_RANGE[1] for sd in stands.sd)
    assert find_arm_prior(shipped, "google/gemini-2.5-flash").basis == "measured"
    assert find_arm_prior(shipped, "anthropic/claude-sonnet-4.5").basis == "successor"
    weak, strong = (
        find_arm_prior(shipped, arm).mean
        for arm in ("meta-llama/llama-3.1-8b-instruct", "google/gemini-2.5-pro")
    )
    assert all(a < b for a, b in zip(weak, strong, strict=True))
    assert shipped.variance_inflation < 2


def test_a_stranger_stands_by_its_family_and_a_variant_by_its_model() -> None:
    shipped = load_shipped_priors()
    assert find_arm_prior(shipped, "google/gemma-99") == shipped.families["google"]
    assert find_arm_prior(shipped, "nobody/new") == shipped.unknown_family
    flash = shipped.arms["google/gemini-2.5-flash"]
    assert find_arm_prior(shipped, "google/gemini-2.5-flash:nitro") == flash
    assert find_arm_prior(shipped, "anthropic/claude-3.7-sonnet:thinking") != find_arm_prior(
        shipped, "anthropic/claude-3.7-sonnet"
    )


def test_a_taxonomy_is_served_by_the_kinds_that_it_is_like() -> None:
    shipped = load_shipped_priors()
    arm = "openai/gpt-4o-mini"
    stands = shipped.arms[arm]
    told = build_arm_prior(shipped, arm, [["maths"], ["maths", "code"], [], ["poetry"]])
    at = {kind: place for place, kind in enumerate(shipped.kinds)}
    assert told.mean[0] == stands.mean[at["maths"]]
    assert told.sd[0] == stands.sd[at["maths"]]
    assert told.mean[1] == pytest.approx((stands.mean[at["maths"]] + stands.mean[at["code"]]) / 2)
    assert told.mean[2] == told.mean[3] == pytest.approx(np.mean(stands.mean))
    assert told.sd[2] > np.sqrt(np.mean(np.square(stands.sd)))
