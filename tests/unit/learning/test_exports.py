"""Benchmark files of others: their scores are read, their prices never, and bad ones are refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outcome_tables import table, write
from sophia.learning.benchmarks import Score, decode_cells, encode_cells, joined
from sophia.learning.exports import Source, read_scores
from sophia.learning.tables import Unreadable

MODELS = ("openai/gpt-4o", "anthropic/claude-sonnet-4.5", "mistralai/mistral-nemo")
PRICING = {"prompt": "0.000003", "completion": "0.000015"}


def index_of(model: str, level: float, **more: object) -> dict[str, object]:
    """A row of Artificial Analysis as `GET /benchmarks` has it."""
    return {
        "source": "artificial-analysis", "model_permaslug": model, "display_name": model,
        "intelligence_index": level, "coding_index": level + 5, "agentic_index": None,
        "pricing": PRICING, **more,
    }  # fmt: skip


def run_of(model: str, accuracy: float, **more: object) -> dict[str, object]:
    """A row of OpenRouter's own benchmarks."""
    return {
        "source": "openrouter", "model_permaslug": model, "display_name": model,
        "benchmark_type": "gpqa_diamond", "accuracy": accuracy, "accuracy_stddev": None,
        "avg_cost_per_task": 0.002, "total_tasks": 198,
        "last_run_timestamp": "2026-06-03T12:00:00Z", **more,
    }  # fmt: skip


def read(path: Path, whole: Any) -> tuple[Source, dict[tuple[str, str, str], Score]]:
    path.write_text(whole if isinstance(whole, str) else json.dumps(whole))
    source, scores = read_scores(path, lambda name: name)
    return source, {(one.source, one.task, one.arm): one for one in scores}


def test_the_benchmarks_that_openrouter_answers_with_are_read(tmp_path: Path) -> None:
    """Indexes as shares, accuracies by their answers, arenas by what was won."""
    rows = [index_of(model, 40 + 10 * at) for at, model in enumerate(MODELS)]
    rows += [run_of(model, 0.5 + 0.1 * at) for at, model in enumerate(MODELS)]
    rows += [
        {
            "source": "design-arena", "model_permaslug": model, "arena": "models",
            "category": "website", "elo": 1300.0, "win_rate": 60.0 - at, "pricing": PRICING,
            "tournament_stats": {"total": 50},
        }
        for at, model in enumerate(MODELS)
    ]  # fmt: skip
    meta = {"as_of": "2026-06-03T12:00:00Z", "citation": "Source: somebody", "version": "v1"}
    source, told = read(tmp_path / "b.json", {"data": rows, "meta": meta})
    assert source.as_of == "2026-06-03" and source.credit == "Source: somebody"
    assert source.tasks == ("coding_index", "gpqa_diamond", "intelligence_index", "website")
    assert source.arms == 3
    place = "artificial-analysis 2026-06-03", "coding_index", MODELS[1]
    assert told[place].mean == pytest.approx(0.55)
    run = told["openrouter 2026-06-03", "gpqa_diamond", MODELS[0]]
    assert (run.mean, run.answers) == (0.5, 198)
    assert told["design-arena 2026-06-03", "website", MODELS[2]].mean == pytest.approx(0.58)
    assert not any("agentic" in task for _, task, _ in told)


def test_the_leaderboards_export_is_pooled_over_providers(tmp_path: Path) -> None:
    """As JSON with its date and licence, and as CSV, whose name has the date."""
    rows = [
        {"benchmark": "gpqa-diamond", "model": model, "provider": provider, "accuracy": score,
         "tasks": tasks, "avg_cost_per_task": 0.1}
        for model in MODELS
        for provider, score, tasks in (("one", 0.8, 300), ("two", 0.5, 100))
    ]  # fmt: skip
    head = {
        "dataset": "benchmark-leaderboard", "schema_version": "v1",
        "snapshot_date": "2026-11-07", "attribution": "Source: OpenRouter, CC BY 4.0",
    }  # fmt: skip
    source, told = read(tmp_path / "latest.json", {**head, "data": rows})
    one = told["openrouter 2026-11-07", "gpqa-diamond", MODELS[0]]
    assert (one.mean, one.answers) == (pytest.approx(0.725), 400)
    assert source.credit == "Source: OpenRouter, CC BY 4.0"
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    dated, again = read(tmp_path / "2026-11-07.csv", "\n".join(lines))
    assert dated.as_of == "2026-11-07"
    assert again == told


def test_the_listing_of_models_tells_of_those_that_were_measured(tmp_path: Path) -> None:
    rows = [
        {"id": model, "pricing": PRICING, "benchmarks": {
            "artificial_analysis": {"intelligence_index": 50.0 + at, "coding_index": None},
            "design_arena": [{"arena": "models", "category": "svg", "win_rate": 40.0}]}}
        for at, model in enumerate(MODELS)
    ]  # fmt: skip
    rows.append({"id": "acme/new", "pricing": PRICING})
    source, told = read(tmp_path / "models.json", {"data": rows})
    assert source.tasks == ("intelligence_index", "svg") and source.as_of == "undated"
    assert "acme/new" not in {arm for _, _, arm in told}


def test_an_outcome_table_is_read_by_task(tmp_path: Path) -> None:
    made = table(80)
    source, scores = read_scores(write(tmp_path / "mine", made), str.upper)
    assert {one.source for one in scores} == {"mine"}
    assert source.arms == len(made.arms) and set(source.tasks) == set(made.tasks)
    one = scores[0]
    rows = np.array([question.task == one.task for question in made.questions])
    values = made.quality[rows, [arm.upper() for arm in made.arms].index(one.arm)]
    assert one.mean == pytest.approx(values.mean()) and one.answers == rows.sum()


def test_a_price_says_nothing(tmp_path: Path) -> None:
    """Whatever models cost, their scores are the same, to the last digit."""
    told = []
    for price in ("0.1", "0.000000001"):
        rows = [index_of(model, 50, pricing={"prompt": price}) for model in MODELS]
        rows += [run_of(model, 0.5, avg_cost_per_task=float(price)) for model in MODELS]
        told.append(read(tmp_path / "b.json", {"data": rows})[1])
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("whole", "said"),
    [
        ("{", "no JSON"),
        ("[1, 2]", "no list of rows"),
        ({"data": [1]}, "no list of rows"),
        ({"dataset": "rankings", "data": []}, "'benchmark-leaderboard'"),
        ({"data": [{"name": "x"}]}, "names no model"),
        ({"data": [{"model": "x", "elo": 1}]}, "it has model, elo"),
        ({"data": [run_of(model, 1.2) for model in MODELS]}, "not from 0 to 1"),
        ({"data": [run_of(model, float("nan")) for model in MODELS]}, "no JSON|not from 0 to 1"),
        ({"data": [run_of(model, 0.5) | {"accuracy": "good"} for model in MODELS]}, "no number"),
        ({"data": [index_of(model, 140) for model in MODELS]}, "not from 0 to 100"),
        ({"data": [run_of(model, 0.5) for model in MODELS[:2]]}, "3 models"),
        ({"data": [run_of(model, 0.5, total_tasks=9) for model in MODELS]}, "20 answers"),
        ({"data": []}, "3 models"),
        ("[" * 5000, "no JSON"),
        ({"dataset": ["rankings"], "data": []}, "'benchmark-leaderboard'"),
        ({"data": [{"model": ["x"]}]}, "names no model"),
        ({"data": [{"model": "x", "benchmark": {"slug": "y"}, "accuracy": 0.5}]}, "no columns"),
        ({"data": [run_of(model, 0.5) | {"accuracy": {"mean": 0.5}} for model in MODELS]}, "no num"),
        ({"data": [{"id": "x", "benchmarks": {"artificial_analysis": [1]}}]}, "3 models"),
        ({"data": [{"id": "x", "benchmarks": {"design_arena": ["y"]}}]}, "3 models"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(
    tmp_path: Path, whole: Any, said: str
) -> None:
    with pytest.raises(Unreadable, match=said):
        read(tmp_path / "b.json", whole)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="cannot be read"):
        read_scores(tmp_path / "none.json", str)
    with pytest.raises(Unreadable, match=r"no queries\.parquet"):
        read_scores(tmp_path, str)


@given(st.floats(0, 1), st.integers(1, 5000))
def test_a_mean_of_more_answers_is_surer(mean: float, answers: int) -> None:
    few, many = (Score("s", "t", "a", mean, count).error for count in (answers, 2 * answers))
    assert 0 < many < few


def test_tables_are_written_and_read_and_newer_scores_replace_older() -> None:
    cells = joined(None, [Score("s", "t", "a", 0.5, 40), Score("s", "u", "b", 1.0, 40)], {"a": 2024.5})
    assert np.isnan(cells.score[0, 1]) and cells.released[0] == 2024.5
    again = decode_cells(encode_cells(cells))
    assert (again.tasks, again.arms, again.families) == (cells.tasks, cells.arms, cells.families)
    np.testing.assert_allclose(again.score, cells.score, atol=1e-4)
    newer = joined(cells, [Score("s", "t", "a", 0.9, 40), Score("s", "t", "c", 0.2, 40)], {})
    assert newer.score[0].tolist()[::2] == [0.9, 0.2] and newer.released[0] == 2024.5
