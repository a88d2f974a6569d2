"""Published benchmark files: scores are read, prices are ignored, and invalid files are refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.evaluation.tables import InvalidTable
from lab.priors.benchmarks import BenchmarkScore, decode_matrix, encode_matrix, merge_scores
from lab.priors.exports import read_scores
from outcome_tables import make_table, write_table
from sophia.learning.priors.book import BenchmarkSource

MODELS = ("openai/gpt-4o", "anthropic/claude-sonnet-4.5", "mistralai/mistral-nemo")
PRICING = {"prompt": "0.000003", "completion": "0.000015"}


def make_index_row(model: str, level: float, **more: object) -> dict[str, object]:
    """Return a row of Artificial Analysis as in `GET /benchmarks`."""
    return {
        "source": "artificial-analysis", "model_permaslug": model, "display_name": model,
        "intelligence_index": level, "coding_index": level + 5, "agentic_index": None,
        "pricing": PRICING, **more,
    }  # fmt: skip


def make_run_row(model: str, accuracy: float, **more: object) -> dict[str, object]:
    """Return a row of OpenRouter's own benchmarks."""
    return {
        "source": "openrouter", "model_permaslug": model, "display_name": model,
        "benchmark_type": "gpqa_diamond", "accuracy": accuracy, "accuracy_stddev": None,
        "avg_cost_per_task": 0.002, "total_tasks": 198,
        "last_run_timestamp": "2026-06-03T12:00:00Z", **more,
    }  # fmt: skip


def read(
    path: Path, whole: Any
) -> tuple[BenchmarkSource, dict[tuple[str, str, str], BenchmarkScore]]:
    path.write_text(whole if isinstance(whole, str) else json.dumps(whole))
    source, scores = read_scores(path, lambda name: name)
    return source, {(one.source, one.task, one.arm): one for one in scores}


def test_the_benchmarks_that_openrouter_answers_with_are_read(tmp_path: Path) -> None:
    """Indexes are read as shares, accuracies with their answers, arenas as win rates."""
    rows = [make_index_row(model, 40 + 10 * at) for at, model in enumerate(MODELS)]
    rows += [make_run_row(model, 0.5 + 0.1 * at) for at, model in enumerate(MODELS)]
    rows += [
        {
            "source": "design-arena", "model_permaslug": model, "arena": "models",
            "category": "website", "elo": 1300.0, "win_rate": 60.0 - at, "pricing": PRICING,
            "tournament_stats": {"total": 50},
        }
        for at, model in enumerate(MODELS)
    ]  # fmt: skip
    meta = {"as_of": "2026-06-03T12:00:00Z", "citation": "Source: example", "version": "v1"}
    source, scores_by_key = read(tmp_path / "b.json", {"data": rows, "meta": meta})
    assert source.as_of == "2026-06-03" and source.credit == "Source: example"
    assert source.tasks == ("coding_index", "gpqa_diamond", "intelligence_index", "website")
    assert source.arms == 3
    place = "artificial-analysis 2026-06-03", "coding_index", MODELS[1]
    assert scores_by_key[place].mean == pytest.approx(0.55)
    run = scores_by_key["openrouter 2026-06-03", "gpqa_diamond", MODELS[0]]
    assert (run.mean, run.answers) == (0.5, 198)
    assert scores_by_key["design-arena 2026-06-03", "website", MODELS[2]].mean == pytest.approx(
        0.58
    )
    assert not any("agentic" in task for _, task, _ in scores_by_key)


def test_the_leaderboards_export_is_pooled_over_providers(tmp_path: Path) -> None:
    """JSON has the date and licence; for CSV the date is in the file name."""
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
    source, scores_by_key = read(tmp_path / "latest.json", {**head, "data": rows})
    one = scores_by_key["openrouter 2026-11-07", "gpqa-diamond", MODELS[0]]
    assert (one.mean, one.answers) == (pytest.approx(0.725), 400)
    assert source.credit == "Source: OpenRouter, CC BY 4.0"
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    dated, again = read(tmp_path / "2026-11-07.csv", "\n".join(lines))
    assert dated.as_of == "2026-11-07"
    assert again == scores_by_key


def test_the_listing_of_models_has_scores_of_measured_models(tmp_path: Path) -> None:
    rows = [
        {"id": model, "pricing": PRICING, "benchmarks": {
            "artificial_analysis": {"intelligence_index": 50.0 + at, "coding_index": None},
            "design_arena": [{"arena": "models", "category": "svg", "win_rate": 40.0}]}}
        for at, model in enumerate(MODELS)
    ]  # fmt: skip
    rows.append({"id": "acme/new", "pricing": PRICING})
    source, scores_by_key = read(tmp_path / "models.json", {"data": rows})
    assert source.tasks == ("intelligence_index", "svg") and source.as_of == "undated"
    assert "acme/new" not in {arm for _, _, arm in scores_by_key}


def test_an_outcome_table_is_read_by_task(tmp_path: Path) -> None:
    made = make_table(80)
    source, scores = read_scores(write_table(tmp_path / "mine", made), str.upper)
    assert {one.source for one in scores} == {"mine"}
    assert source.arms == len(made.arms) and set(source.tasks) == set(made.tasks)
    one = scores[0]
    rows = np.array([question.task == one.task for question in made.questions])
    values = made.quality[rows, [arm.upper() for arm in made.arms].index(one.arm)]
    assert one.mean == pytest.approx(values.mean()) and one.answers == rows.sum()


def test_prices_are_ignored(tmp_path: Path) -> None:
    """Scores are identical at any price."""
    scores_by_key = []
    for price in ("0.1", "0.000000001"):
        rows = [make_index_row(model, 50, pricing={"prompt": price}) for model in MODELS]
        rows += [make_run_row(model, 0.5, avg_cost_per_task=float(price)) for model in MODELS]
        scores_by_key.append(read(tmp_path / "b.json", {"data": rows})[1])
    assert scores_by_key[0] == scores_by_key[1]


@pytest.mark.parametrize(
    ("whole", "message"),
    [
        ("{", "not JSON"),
        ("[1, 2]", "no list of rows"),
        ({"data": [1]}, "no list of rows"),
        ({"dataset": "rankings", "data": []}, "'benchmark-leaderboard'"),
        ({"data": [{"name": "x"}]}, "row without a model"),
        ({"data": [{"model": "x", "elo": 1}]}, "it has model, elo"),
        ({"data": [make_run_row(model, 1.2) for model in MODELS]}, "not from 0 to 1"),
        (
            {"data": [make_run_row(model, float("nan")) for model in MODELS]},
            "not JSON|not from 0 to 1",
        ),
        (
            {"data": [make_run_row(model, 0.5) | {"accuracy": "good"} for model in MODELS]},
            "not a number",
        ),
        ({"data": [make_index_row(model, 140) for model in MODELS]}, "not from 0 to 100"),
        ({"data": [make_run_row(model, 0.5) for model in MODELS[:2]]}, "3 models"),
        ({"data": [make_run_row(model, 0.5, total_tasks=9) for model in MODELS]}, "20 answers"),
        ({"data": []}, "3 models"),
        ("[" * 5000, "not JSON"),
        ({"dataset": ["rankings"], "data": []}, "'benchmark-leaderboard'"),
        ({"data": [{"model": ["x"]}]}, "row without a model"),
        ({"data": [{"model": "x", "benchmark": {"slug": "y"}, "accuracy": 0.5}]}, "no columns"),
        (
            {"data": [make_run_row(model, 0.5) | {"accuracy": {"mean": 0.5}} for model in MODELS]},
            "not a num",
        ),
        ({"data": [{"id": "x", "benchmarks": {"artificial_analysis": [1]}}]}, "3 models"),
        ({"data": [{"id": "x", "benchmarks": {"design_arena": ["y"]}}]}, "3 models"),
    ],
)
def test_an_unusable_file_is_refused_with_the_reason(
    tmp_path: Path, whole: Any, message: str
) -> None:
    with pytest.raises(InvalidTable, match=message):
        read(tmp_path / "b.json", whole)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidTable, match="cannot be read"):
        read_scores(tmp_path / "none.json", str)
    with pytest.raises(InvalidTable, match=r"no queries\.parquet"):
        read_scores(tmp_path, str)


@given(st.floats(0, 1), st.integers(1, 5000))
def test_a_mean_of_more_answers_has_a_smaller_error(mean: float, answers: int) -> None:
    few, many = (
        BenchmarkScore("s", "t", "a", mean, count).standard_error
        for count in (answers, 2 * answers)
    )
    assert 0 < many < few


def test_tables_are_written_and_read_and_newer_scores_replace_older() -> None:
    cells = merge_scores(
        None,
        [BenchmarkScore("s", "t", "a", 0.5, 40), BenchmarkScore("s", "u", "b", 1.0, 40)],
        {"a": 2024.5},
    )
    assert np.isnan(cells.score[0, 1]) and cells.released[0] == 2024.5
    again = decode_matrix(encode_matrix(cells))
    assert (again.tasks, again.arms, again.families) == (cells.tasks, cells.arms, cells.families)
    np.testing.assert_allclose(again.score, cells.score, atol=1e-4)
    newer = merge_scores(
        cells, [BenchmarkScore("s", "t", "a", 0.9, 40), BenchmarkScore("s", "t", "c", 0.2, 40)], {}
    )
    assert newer.score[0].tolist()[::2] == [0.9, 0.2] and newer.released[0] == 2024.5
