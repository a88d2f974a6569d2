"""Reports on tables of outcomes: right where the truth is known, and blind to what they judge."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from outcome_tables import ARMS, table, write
from sophia.learning.figures import draw
from sophia.learning.forecasts import POLICIES, expect, told_task
from sophia.learning.reliability import Bin, reliability
from sophia.learning.report import Line, TableReport, TooSmall, report, window
from sophia.learning.table_sights import Fold, fold_of, projection_of, prompt_of, read_texts
from sophia.learning.tables import Question, read_table
from sophia.learning.task_training import Texts


@pytest.fixture(scope="module")
def whole() -> TableReport:
    """All policies that are quick on one small table."""
    return report(table(), ["task_mean", "hierarchical", "knn"])


def test_who_knows_the_task_beats_every_single_arm(whole: TableReport) -> None:
    """Sums go to the cheap arm, verse to the dear one: better than the best arm, for less."""
    for judged in (whole.told_task, *whole.policies):
        value = {name: one.value for name, one in judged.measures.items()}
        assert value["gap"] is not None and value["gap"] > 0.5, judged.policy
        assert value["c100"] is not None and value["c100"] < 0.5
        assert value["peak_gain"] is not None and value["peak_gain"] > 10
        assert judged.auc.value is not None and judged.auc.value > 0.6


def test_the_lines_beside_the_policies_are_those_of_the_table(whole: TableReport) -> None:
    made = table()
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
    for judged in whole.policies:
        for one in judged.measures.values():
            if None not in (one.value, one.low, one.high):
                assert one.low <= one.value <= one.high  # type: ignore[operator]


def test_a_report_is_the_same_every_time(whole: TableReport) -> None:
    """And a policy's figures do not depend on which others stand beside it."""
    again = report(table(), ["task_mean"])
    assert msgspec.structs.replace(whole, policies=whole.policies[:1]) == again


@pytest.fixture(scope="module")
def texts() -> Texts:
    return read_texts(table(60))


@pytest.fixture(scope="module")
def fold(texts: Texts) -> Fold:
    """The first of five folds of a table of sixty questions."""
    made = table(60)
    return fold_of(made, texts, made.folds(5) != 0)


@pytest.mark.parametrize("policy", POLICIES)
def test_no_policy_sees_what_it_is_judged_by(policy: str, fold: Fold) -> None:
    """Whatever came of the questions of a fold, what is expected of them stays the same."""
    made = table(60)
    turned = made.quality.copy()
    turned[~fold.train] = 1.0 - turned[~fold.train]

    known = expect(made, fold, policy)

    assert known.shape == (int((~fold.train).sum()), len(ARMS))
    assert np.array_equal(known, expect(replace(made, quality=turned), fold, policy))
    flipped = replace(made, quality=1.0 - made.quality)
    assert not np.array_equal(known, expect(flipped, fold, policy))


def test_costs_are_foretold_from_other_questions(texts: Texts, fold: Fold) -> None:
    made = table(60)
    assert made.cost is not None
    dear = made.cost.copy()
    dear[~fold.train] *= 100
    assert np.array_equal(fold_of(replace(made, cost=dear), texts, fold.train).costs, fold.costs)
    assert fold.costs == pytest.approx(np.tile(made.cost.mean(axis=0), (60, 1)), rel=0.1)


def test_who_is_told_the_task_is_told_nothing_else(fold: Fold) -> None:
    """One expectation per task, near its mean on the other questions."""
    made = table(60)
    quality, cost = told_task(made, fold.train)
    codes = made.task_codes()
    for task in range(2):
        rows = quality[codes[~fold.train] == task]
        there = made.quality[fold.train & (codes == task)].mean(axis=0)
        assert np.ptp(rows, axis=0) == pytest.approx(0)
        assert rows[0] == pytest.approx(there, abs=0.12)
    assert cost.shape == quality.shape


def test_the_task_of_a_question_is_not_told_to_who_judges_it(texts: Texts, fold: Fold) -> None:
    """Other tasks in the fold that is judged change nothing of what is seen there."""
    made = table(60)
    train = fold.train
    first, second = made.tasks
    swapped = tuple(
        question
        if learned
        else replace(question, task=first if question.task == second else second)
        for question, learned in zip(made.questions, train, strict=True)
    )

    seen = fold.sights
    other = fold_of(replace(made, questions=swapped), texts, train).sights

    for row in np.flatnonzero(~train):
        assert np.array_equal(seen[row].tasks, other[row].tasks)


@pytest.fixture(scope="module")
def free() -> tuple[TableReport, list[tuple[str, float]]]:
    """A report without costs, and what was told while it was made."""
    heard: list[tuple[str, float]] = []
    made = replace(table(60), cost=None)
    return report(made, ["task_mean"], tell=lambda *step: heard.append(step)), heard


def test_without_costs_only_quality_is_judged(free: tuple[TableReport, object]) -> None:
    found, _ = free
    assert found.hull is None and found.oracle is None and window(found) is None
    assert set(found.policies[0].measures) == {"peak_gain"}
    assert found.policies[0].curve is None
    assert found.singles[0].cost_usd is None
    assert "No costs" in found.notes[0]


def test_progress_is_told_step_by_step(
    free: tuple[TableReport, list[tuple[str, float]]],
) -> None:
    _, heard = free
    steps = list(dict.fromkeys(step for step, _ in heard))
    assert steps == ["reading the questions", "task_mean"]
    for name in steps:
        shares = [share for step, share in heard if step == name]
        assert shares == sorted(shares) and shares[-1] == 1.0


def test_costs_of_nothing_are_no_costs_and_fifty_questions_are_enough() -> None:
    made = table(50)
    found = report(replace(made, cost=np.zeros_like(made.quality)), ["task_mean"])
    assert found.questions == 50
    assert found.hull is None


def test_too_few_questions_are_refused() -> None:
    with pytest.raises(TooSmall, match="49 questions"):
        report(table(49), ["task_mean"])


def test_reliability_counts_every_answer_once() -> None:
    expected = np.array([[0.05, 0.91], [0.07, 1.0], [0.55, 0.95]])
    quality = np.array([[0.0, 1.0], [1.0, 1.0], [0.5, 0.0]])
    low, middle, high = reliability(expected, quality)
    assert low == Bin(pytest.approx(0.06), 0.5, pytest.approx(2 * 0.5 / 2**0.5), 2)  # type: ignore[arg-type]
    assert middle == Bin(0.55, 0.5, 0.0, 1)
    assert (high.answers, high.observed) == (3, pytest.approx(2 / 3))


def test_exact_chances_are_as_far_off_as_chance_alone(whole: TableReport) -> None:
    """Who knows the chances of a task has little more error than the floor."""
    floor, error = whole.told_task.ece_floor.value, whole.told_task.ece.value
    assert floor is not None and error is not None
    assert 0.01 < floor < 0.1
    assert error < 2.5 * floor


def test_between_two_points_money_is_mixed_not_its_logarithm() -> None:
    drawn = Line((0.001, 0.1), (0.2, 0.8)).dense()
    middle = int(np.searchsorted(drawn.cost, 0.0505))
    assert drawn.quality[middle] == pytest.approx(0.5, abs=0.01)
    assert len(drawn.cost) > 100
    assert (drawn.cost[0], drawn.cost[-1]) == (0.001, 0.1)
    assert Line((0.0, 0.1), (0.2, 0.8)).dense().cost == (0.0, 0.1)


def test_the_window_leaves_out_what_is_far_worse(whole: TableReport) -> None:
    """Twice the oracle's lead below the best arm, from the cost at which that is reached."""
    line = Line((1.0, 3.0), (0.0, 0.8))
    made = msgspec.structs.replace(whole, hull=line, oracle_quality=0.9)
    assert window(made) == ((pytest.approx(2.5), 3.0), (pytest.approx(0.6), 0.9))
    flat = msgspec.structs.replace(made, oracle_quality=0.8)
    assert window(flat) == ((1.0, 3.0), (0.0, 0.8))


def test_a_long_question_is_read_as_the_gateway_reads_it() -> None:
    prompt = prompt_of(Question("1", "a" * 3000 + "ü" * 3000, "t", tools=2, images=1, turns=3))
    assert prompt.text == "a" * 1000 + "ü" * 1000
    assert (prompt.chars, prompt.utf8_bytes) == (6000, 9000)
    assert (prompt.tools, prompt.images, prompt.turns) == (2, 1, 3)


def test_components_have_unit_variance_about_nothing() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 6)) * [3, 2, 1, 1, 1, 0] + 5
    made = projection_of(vectors)
    components = vectors @ made.matrix - made.centre
    assert components.shape == (300, 5)
    assert components.mean(axis=0) == pytest.approx(0, abs=1e-9)
    assert components.std(axis=0, ddof=1) == pytest.approx(1)


def test_pictures_are_the_same_every_time(whole: TableReport, tmp_path: Path) -> None:
    first, second = draw(whole, tmp_path / "a"), draw(whole, tmp_path / "b")
    assert [path.name for path in first] == [
        "small-curve.png", "small-curve.svg", "small-calibration.png", "small-calibration.svg",
    ]  # fmt: skip
    assert [one.read_bytes() for one in first] == [two.read_bytes() for two in second]
    curve = first[1].read_text()
    for line in ("oracle", "told the task", "single models", "task_mean", "hierarchical", "knn"):
        assert line in curve


def test_pictures_without_costs_show_calibration_alone(
    free: tuple[TableReport, object], tmp_path: Path
) -> None:
    assert [path.name for path in draw(free[0], tmp_path)] == [
        "small-calibration.png", "small-calibration.svg",
    ]  # fmt: skip


def test_the_written_table_is_read_back(tmp_path: Path) -> None:
    made = table(60)
    read = read_table(write(tmp_path / "small", made))
    assert read.questions == made.questions
    assert np.array_equal(read.quality, made.quality)
