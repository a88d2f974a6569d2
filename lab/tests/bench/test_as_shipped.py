"""The bench of the shipped router: what is judged was left out of every fit."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from bench.routing import as_shipped
from bench.routing.as_shipped import AsShipped, judge, measure_first_day
from outcome_tables import make_table, write_table

STRONG, WEAK, UNKNOWN = "gemini-2.5-pro", "llama-3.1-8b-instruct", "nobody/unheard-of"


@pytest.fixture(scope="module")
def shipped() -> AsShipped:
    return AsShipped()


def test_a_folder_of_tables_is_judged_and_written(tmp_path: Path) -> None:
    table = replace(make_table(80), arms=(WEAK, STRONG, UNKNOWN))
    write_table(tmp_path / "own", table)
    results = as_shipped.run(tmp_path, ["own"], 1, Console(quiet=True))
    as_shipped.write(tmp_path / "out.json", results)
    (row,) = json.loads((tmp_path / "out.json").read_text())["sources"].values()
    assert row["arms"] == 3
    assert row["known_arms"] == 2
    assert set(row["first_day"]["chosen"]) <= {WEAK, STRONG, UNKNOWN}
    assert all(np.isfinite(row[name]) for name in ("online", "gap", "left_out_least"))


def test_the_first_choice_is_the_better_model_where_prices_are_equal(shipped: AsShipped) -> None:
    table = make_table(60)
    same = replace(table, arms=(WEAK, STRONG, UNKNOWN), cost=np.full_like(table.quality, 0.01))
    learner = shipped.build_learner(same.arms, shipped.fit("own"))
    first = measure_first_day(judge(same), learner)
    assert max(first.chosen, key=lambda arm: first.chosen[arm]) == STRONG


@pytest.mark.parametrize("source", ["zeroeval", "mix", "mmlu_pro"])
def test_a_source_and_a_model_leave_no_trace_in_the_priors(shipped: AsShipped, source: str) -> None:
    table = shipped.fit(source, "gpt-4o-mini-2024-07-18").table
    parts = {"zeroeval", "bfcl"} if source == "mix" else {source}
    assert not parts & set(table.sources)
    assert not any(parts & set(prior.derived_from) for prior in table.arms.values())
    assert shipped.fit(source).find("gpt-4o-mini-2024-07-18") is not None
    assert shipped.fit(source, "gpt-4o-mini-2024-07-18").find("openai/gpt-4o-mini") is None


def test_the_call_mode_of_a_table_is_no_part_of_the_model(shipped: AsShipped) -> None:
    assert shipped.resolve("mistral-large-2407-FC-Any") == "mistral-large-2407"
