"""Reports on tables of outcomes: correct on known data, without leakage of test outcomes."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from lab.evaluation.figures import write_figures
from lab.evaluation.forecasts import LEARNERS, predict_from_true_task
from lab.evaluation.reliability import CalibrationBin, bin_calibration
from lab.evaluation.report import PlotCurve, TableReport, TableTooSmall, evaluate_table, plot_window
from lab.evaluation.tables import Question, read_table
from lab.training.table_contexts import (
    Fold,
    build_fold,
    build_prompt,
    encode_questions,
    fit_projection,
)
from lab.training.task_training import EncodedTexts
from outcome_tables import ARMS, make_table, write_table


@pytest.fixture(scope="module")
def whole() -> TableReport:
    """A report of three fast policies on one small table."""
    return evaluate_table(make_table(), ["task_mean", "hierarchical", "knn"])


def test_policies_that_learn_the_task_beat_every_single_arm(whole: TableReport) -> None:
    """Sums go to the cheap arm, verse to the expensive one: better than the best arm, at less cost."""
    for result in (whole.true_task, *whole.policies):
        value = {name: one.value for name, one in result.measures.items()}
        assert value["gap"] is not None and value["gap"] > 0.5, result.policy
        assert value["c100"] is not None and value["c100"] < 0.5
        assert value["peak_gain"] is not None and value["peak_gain"] > 10
        assert result.auc.value is not None and result.auc.value > 0.6


def test_single_arms_and_oracle_are_those_of_the_table(whole: TableReport) -> None:
    made = make_table()
    assert made.cost is not None
    assert whole.oracle_quality == pytest.approx(made.quality.max(axis=1).mean())
    assert {one.arm for one in whole.singles} == set(ARMS)
    assert whole.best == ARMS[int(made.quality.mean(axis=0).argmax())] == whole.singles[0].arm
    assert [one.quality for one in whole.singles] == sorted(made.quality.mean(axis=0))[::-1]
    assert whole.hull is not None
    assert whole.hull.cost[0] == pytest.approx(made.cost.mean(axis=0).min())
    assert whole.hull.quality[-1] == pytest.approx(made.quality.mean(axis=0).max())
    assert whole.oracle is not None
    assert whole.oracle.quality[-1] == pytest.approx(whole.oracle_quality)


def test_every_measure_lies_in_its_interval(whole: TableReport) -> None:
    for result in whole.policies:
        for one in result.measures.values():
            if None not in (one.value, one.low, one.high):
                assert one.low <= one.value <= one.high  # type: ignore[operator]


def test_a_report_is_the_same_every_time(whole: TableReport) -> None:
    """A policy's results do not depend on the other policies of the report."""
    again = evaluate_table(make_table(), ["task_mean"])
    assert msgspec.structs.replace(whole, policies=whole.policies[:1]) == again


@pytest.fixture(scope="module")
def texts() -> EncodedTexts:
    return encode_questions(make_table(60).questions)


@pytest.fixture(scope="module")
def fold(texts: EncodedTexts) -> Fold:
    """The first of five folds of a table of sixty questions."""
    made = make_table(60)
    return build_fold(made, texts, made.assign_folds(5) != 0)


@pytest.mark.parametrize("policy", LEARNERS)
def test_no_policy_sees_its_test_outcomes(policy: str, fold: Fold) -> None:
    """Outcomes of held-out questions do not change their expectations."""
    made = make_table(60)
    turned = made.quality.copy()
    turned[~fold.train] = 1.0 - turned[~fold.train]

    forecast = LEARNERS[policy]
    known = forecast(fold, made)

    assert known.shape == (int((~fold.train).sum()), len(ARMS))
    assert np.array_equal(known, forecast(fold, replace(made, quality=turned)))
    flipped = replace(made, quality=1.0 - made.quality)
    assert not np.array_equal(known, forecast(fold, flipped))


def test_costs_are_predicted_from_other_questions(texts: EncodedTexts, fold: Fold) -> None:
    made = make_table(60)
    assert made.cost is not None
    raised = made.cost.copy()
    raised[~fold.train] *= 100
    assert np.array_equal(
        build_fold(replace(made, cost=raised), texts, fold.train).expected_costs,
        fold.expected_costs,
    )
    assert fold.expected_costs == pytest.approx(np.tile(made.cost.mean(axis=0), (60, 1)), rel=0.1)


def test_the_true_task_policy_knows_only_the_task(fold: Fold) -> None:
    """Each task has one expectation, near its mean on the other questions."""
    made = make_table(60)
    quality, cost = predict_from_true_task(made, fold.train)
    codes = made.task_codes()
    for task in range(2):
        rows = quality[codes[~fold.train] == task]
        there = made.quality[fold.train & (codes == task)].mean(axis=0)
        assert np.ptp(rows, axis=0) == pytest.approx(0)
        assert rows[0] == pytest.approx(there, abs=0.12)
    assert cost.shape == quality.shape


def test_the_tasks_of_held_out_questions_are_hidden(texts: EncodedTexts, fold: Fold) -> None:
    """Swapping the tasks of held-out questions does not change their contexts."""
    made = make_table(60)
    train = fold.train
    first, second = made.tasks
    swapped = tuple(
        question
        if learned
        else replace(question, task=first if question.task == second else second)
        for question, learned in zip(made.questions, train, strict=True)
    )

    seen = fold.contexts
    other = build_fold(replace(made, questions=swapped), texts, train).contexts

    for row in np.flatnonzero(~train):
        assert np.array_equal(seen[row].task_probabilities, other[row].task_probabilities)


@pytest.fixture(scope="module")
def free() -> tuple[TableReport, list[tuple[str, float]]]:
    """A report without costs, and its progress calls."""
    calls: list[tuple[str, float]] = []
    made = replace(make_table(60), cost=None)
    return evaluate_table(
        made, ["task_mean"], report_progress=lambda *step: calls.append(step)
    ), calls


def test_without_costs_only_quality_is_evaluated(free: tuple[TableReport, object]) -> None:
    found, _ = free
    assert found.hull is None and found.oracle is None and plot_window(found) is None
    assert set(found.policies[0].measures) == {"peak_gain"}
    assert found.policies[0].curve is None
    assert found.singles[0].cost_usd is None
    assert "No costs" in found.notes[0]


def test_progress_is_reported_step_by_step(
    free: tuple[TableReport, list[tuple[str, float]]],
) -> None:
    _, calls = free
    steps = list(dict.fromkeys(step for step, _ in calls))
    assert steps == ["reading the questions", "task_mean"]
    for name in steps:
        shares = [share for step, share in calls if step == name]
        assert shares == sorted(shares) and shares[-1] == 1.0


def test_costs_of_nothing_are_no_costs_and_fifty_questions_are_enough() -> None:
    made = make_table(50)
    found = evaluate_table(replace(made, cost=np.zeros_like(made.quality)), ["task_mean"])
    assert found.questions == 50
    assert found.hull is None


def test_too_few_questions_are_refused() -> None:
    with pytest.raises(TableTooSmall, match="49 questions"):
        evaluate_table(make_table(49), ["task_mean"])


def test_reliability_counts_every_answer_once() -> None:
    expected = np.array([[0.05, 0.91], [0.07, 1.0], [0.55, 0.95]])
    quality = np.array([[0.0, 1.0], [1.0, 1.0], [0.5, 0.0]])
    low, middle, high = bin_calibration(expected, quality)
    assert low == CalibrationBin(pytest.approx(0.06), 0.5, pytest.approx(2 * 0.5 / 2**0.5), 2)  # type: ignore[arg-type]
    assert middle == CalibrationBin(0.55, 0.5, 0.0, 1)
    assert (high.count, high.observed) == (3, pytest.approx(2 / 3))


def test_exact_probabilities_show_only_the_floor_of_the_calibration_error(
    whole: TableReport,
) -> None:
    """The true-task policy has hardly more error than the floor."""
    floor, error = whole.true_task.ece_floor.value, whole.true_task.ece.value
    assert floor is not None and error is not None
    assert 0.01 < floor < 0.1
    assert error < 2.5 * floor


def test_between_two_points_money_is_mixed_not_its_logarithm() -> None:
    drawn = PlotCurve((0.001, 0.1), (0.2, 0.8)).resample()
    middle = int(np.searchsorted(drawn.cost, 0.0505))
    assert drawn.quality[middle] == pytest.approx(0.5, abs=0.01)
    assert len(drawn.cost) > 100
    assert (drawn.cost[0], drawn.cost[-1]) == (0.001, 0.1)
    assert PlotCurve((0.0, 0.1), (0.2, 0.8)).resample().cost == (0.0, 0.1)


def test_the_window_leaves_out_far_worse_qualities(whole: TableReport) -> None:
    """The window reaches twice the oracle's lead below the best arm."""
    line = PlotCurve((1.0, 3.0), (0.0, 0.8))
    made = msgspec.structs.replace(whole, hull=line, oracle_quality=0.9)
    assert plot_window(made) == ((pytest.approx(2.5), 3.0), (pytest.approx(0.6), 0.9))
    flat = msgspec.structs.replace(made, oracle_quality=0.8)
    assert plot_window(flat) == ((1.0, 3.0), (0.0, 0.8))


def test_a_long_question_is_read_as_the_gateway_reads_it() -> None:
    prompt = build_prompt(Question("1", "a" * 3000 + "ü" * 3000, "t", tools=2, images=1, turns=3))
    assert prompt.text == "a" * 1000 + "ü" * 1000
    assert (prompt.chars, prompt.utf8_bytes) == (6000, 9000)
    assert (prompt.tools, prompt.images, prompt.turns) == (2, 1, 3)


def test_components_have_mean_0_and_unit_variance() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 6)) * [3, 2, 1, 1, 1, 0] + 5
    made = fit_projection(vectors)
    components = vectors @ made.matrix - made.centre
    assert components.shape == (300, 5)
    assert components.mean(axis=0) == pytest.approx(0, abs=1e-9)
    assert components.std(axis=0, ddof=1) == pytest.approx(1)


def test_figures_are_the_same_every_time(whole: TableReport, tmp_path: Path) -> None:
    first, second = write_figures(whole, tmp_path / "a"), write_figures(whole, tmp_path / "b")
    assert [path.name for path in first] == [
        "small-curve.png", "small-curve.svg", "small-calibration.png", "small-calibration.svg",
    ]  # fmt: skip
    assert [one.read_bytes() for one in first] == [two.read_bytes() for two in second]
    curve = first[1].read_text()
    for line in ("oracle", "true task", "single models", "task_mean", "hierarchical", "knn"):
        assert line in curve


def test_figures_without_costs_show_calibration_alone(
    free: tuple[TableReport, object], tmp_path: Path
) -> None:
    assert [path.name for path in write_figures(free[0], tmp_path)] == [
        "small-calibration.png", "small-calibration.svg",
    ]  # fmt: skip


def test_the_written_table_is_read_back(tmp_path: Path) -> None:
    made = make_table(60)
    read = read_table(write_table(tmp_path / "small", made))
    assert read.questions == made.questions
    assert np.array_equal(read.quality, made.quality)
