"""Priors from benchmark tables: their errors on held-out tables match their variances."""

from importlib.resources import files

import numpy as np
import pytest
import yaml
from msgspec import json

from lab.priors.benchmarks import DATA, decode_matrix, parse_names
from lab.priors.factor_model import BenchmarkMatrix, fit_factors, from_log_odds
from lab.priors.fit import encode_book, fit_prior_book
from lab.priors.held_out import HeldOutCell, predict_held_out, variance_inflation
from sophia.learning.priors.book import UNMEASURED_SD_RANGE, PriorTable, load_shipped_priors


@pytest.fixture(scope="module")
def tables() -> BenchmarkMatrix:
    """The joined tables behind the shipped priors."""
    return decode_matrix((DATA / "benchmarks.json").read_bytes())


def simulate(seed: int, arms: int = 40) -> tuple[BenchmarkMatrix, np.ndarray]:
    """Return tables simulated from the model: three sources, overlapping arms, three families."""
    rng = np.random.default_rng(seed)
    family = np.arange(arms) % 3
    ability = rng.normal(size=3)[family] * 0.6 + rng.normal(size=arms) * 0.8
    sources = [name for name in "abc" for _ in range(8)]
    local = {name: ability + rng.normal(scale=0.4, size=arms) for name in "abc"}
    score = np.empty((24, arms))
    for task, name in enumerate(sources):
        odds = rng.normal() + rng.normal(1, 0.1) * local[name] + rng.normal(scale=0.25, size=arms)
        score[task] = rng.binomial(400, from_log_odds(odds)) / 400
        score[task, rng.random(arms) < 0.2] = np.nan
        if name != "a":
            score[task, {"b": slice(0, 15), "c": slice(25, 40)}[name]] = np.nan
    error = np.sqrt(np.maximum(score * (1 - score), 0.001) / 400)
    names = tuple(f"{'xyz'[family_index]}/{at}" for at, family_index in enumerate(family))
    family_index = tuple("xyz"[at] for at in family)
    tasks = tuple(f"{name}:{at}" for at, name in enumerate(sources))
    return BenchmarkMatrix(
        tasks, tuple(sources), names, family_index, (np.nan,) * arms, score, error
    ), ability


def rms_error(cells: list[HeldOutCell]) -> float:
    return float(np.sqrt(np.mean([(one.predicted - one.observed) ** 2 for one in cells])))


def baseline_rms_error(cells: list[HeldOutCell]) -> float:
    return float(np.sqrt(np.mean([(one.baseline - one.observed) ** 2 for one in cells])))


def z_variance(cells: list[HeldOutCell]) -> float:
    return float(np.mean([one.z_score**2 for one in cells]))


def test_abilities_are_recovered() -> None:
    for seed in range(3):
        cells, ability = simulate(seed)
        found = fit_factors(cells)
        assert np.corrcoef(found.ability, ability)[0, 1] > 0.9
        off = (found.ability - (ability - ability.mean()) / ability.std()) / np.sqrt(
            found.ability_variance
        )
        assert 0.3 < np.mean(off**2) < 2
        assert found.source_variance < 0.4


def test_errors_on_simulated_tables_match_the_predicted_variance() -> None:
    predicted = [one for seed in range(2) for one in predict_held_out(simulate(seed)[0], folds=8)]
    assert 0.75 < z_variance(predicted) < 1.35
    alone = predict_held_out(simulate(5)[0], folds=8, by_source=False)
    assert 0.75 < z_variance(alone) < 1.35
    assert rms_error(alone) < 0.6 * baseline_rms_error(alone)


def test_held_out_cells_of_real_tables_are_predicted_better_than_by_the_task_mean(
    tables: BenchmarkMatrix,
) -> None:
    """Predictions from the other cells are much closer than the task's mean."""
    predicted = predict_held_out(tables, folds=6, by_source=False)
    assert len(predicted) > 800
    assert rms_error(predicted) < 0.10
    assert rms_error(predicted) < 0.60 * baseline_rms_error(predicted)
    assert 0.8 < z_variance(predicted) < 1.45


def test_an_unseen_table_is_predicted_with_a_calibrated_variance(tables: BenchmarkMatrix) -> None:
    """All cells of an arm in a table are held out at once, as for unknown traffic."""
    predicted = predict_held_out(tables, folds=8, seed=1)
    assert rms_error(predicted) < 0.90 * baseline_rms_error(predicted)
    assert 0.7 < z_variance(predicted) / load_shipped_priors().variance_inflation < 1.4
    known = [one for one in predicted if one.measured_elsewhere]
    assert rms_error(known) < 0.95 * baseline_rms_error(known)


def test_an_unmeasured_arm_gets_its_family_mean() -> None:
    """Its variance is at least that within the family."""
    cells, _ = simulate(1)
    hidden = np.zeros(cells.score.shape, dtype=bool)
    hidden[:, 3] = True
    found = fit_factors(cells.mask(hidden))
    middle, loose = found.family["x"]
    assert found.ability[3] == pytest.approx(middle, abs=1e-3)
    assert found.ability_variance[3] >= 0.9 * found.within_family_variance
    assert loose > 0


def test_the_same_tables_give_the_same_book() -> None:
    cells, _ = simulate(2, 20)
    kinds = {task: "ab"[at % 2] for at, task in enumerate(cells.tasks)}
    successors = {"x/new": ("x/0", 1), "x/alias": ("x/0", 0), "y/new": ("y/none", 1)}
    pairs = [("x/0", "x/3"), ("x/3", "x/6"), ("x/0", "missing")]
    one = fit_prior_book(cells, kinds, successors, pairs, {"x/0", "x/3"}, folds=4)
    assert encode_book(one) == encode_book(
        fit_prior_book(cells, kinds, successors, pairs, {"x/3", "x/0"}, folds=4)
    )
    assert json.decode(encode_book(one), type=PriorTable) == one
    assert one.kinds == ("a", "b")
    assert one.sources == ("a", "b", "c")
    assert one.arms["x/alias"] == one.arms["x/0"]
    assert "y/new" not in one.arms
    successor = one.arms["x/new"]
    assert (successor.basis, successor.derived_from) == ("successor", ("x/0",))
    assert all(UNMEASURED_SD_RANGE[0] <= sd <= UNMEASURED_SD_RANGE[1] for sd in successor.sd)
    fit_gain = np.mean([b - a for a, b in gains(cells)])
    assert np.sign(np.mean(successor.mean) - np.mean(one.arms["x/0"].mean)) == np.sign(fit_gain)


def gains(cells: BenchmarkMatrix) -> list[tuple[float, float]]:
    ability = dict(zip(cells.arms, fit_factors(cells).ability, strict=True))
    return [(ability["x/0"], ability["x/3"]), (ability["x/3"], ability["x/6"])]


def test_a_prior_is_calibrated_on_an_unmeasured_table() -> None:
    """Mean and sd of measured arms are compared with a new source of the same kind."""
    z = []
    for seed in range(4):
        cells, _ = simulate(seed)
        fresh = np.array([source == "b" for source in cells.sources])
        measured = np.isfinite(cells.score[~fresh]).any(axis=0)
        hidden = np.zeros(cells.score.shape, dtype=bool)
        hidden[fresh] = True
        hidden[:, ::2] = False
        one = fit_prior_book(
            cells.mask(hidden), dict.fromkeys(cells.tasks, "k"), {}, [], (), folds=3
        )
        found = fit_factors(cells.mask(hidden))
        expected = from_log_odds(
            np.median(found.intercept) + np.median(found.loading) * found.ability
        )
        for at in np.flatnonzero(measured & np.isfinite(cells.score[fresh]).any(axis=0)):
            if at % 2:
                # The difficulty of the new tasks is independent of the arm and is subtracted.
                hard = from_log_odds(
                    found.intercept[fresh] + found.loading[fresh] * found.ability[at]
                )
                true = expected[at] + np.nanmean(cells.score[fresh, at] - hard)
                prior = one.arms[cells.arms[at]]
                z.append((true - prior.mean[0]) / prior.sd[0])
    assert len(z) > 30
    assert 0.3 < np.mean(np.square(z)) < 1.5


def test_an_arm_that_is_better_at_one_kind_is_expected_to_be() -> None:
    """An arm's deviation on a kind carries over in part and reduces the variance."""
    cells, _ = simulate(4, 30)
    kinds = {task: "ab"[at % 2] for at, task in enumerate(cells.tasks)}
    odd = np.array([kinds[task] == "a" for task in cells.tasks])
    score = cells.score.copy()
    score[odd, 20] = from_log_odds(np.log(score[odd, 20] / (1 - score[odd, 20])) + 1.0)
    lifted = BenchmarkMatrix(
        cells.tasks, cells.sources, cells.arms, cells.families, cells.released, score, cells.error
    )
    before, after = (
        fit_prior_book(one, kinds, {}, [], (), folds=2).arms[cells.arms[20]]
        for one in (cells, lifted)
    )
    gain = np.subtract(after.mean, before.mean)
    assert 0.08 < gain[0] < 0.25
    assert gain[1] < 0.6 * gain[0]
    only_b = np.zeros(score.shape, dtype=bool)
    only_b[odd, 20] = True
    half = fit_prior_book(cells.mask(only_b), kinds, {}, [], (), folds=2).arms[cells.arms[20]]
    assert half.sd[0] > before.sd[0]
    unsure = fit_prior_book(
        cells, kinds, {"x/n": ("x/0", 1)}, [("x/0", "x/3"), ("x/3", "x/6")], (), folds=2
    )
    assert np.mean(unsure.arms["x/n"].sd) > np.mean(unsure.arms["x/0"].sd)


def test_every_class_of_the_taxonomy_is_like_kinds_that_were_measured() -> None:
    shipped = load_shipped_priors()
    data = files("sophia.routing").joinpath("data")
    taxonomy = yaml.safe_load(data.joinpath("taxonomy.yaml").read_text())
    names = parse_names((DATA / "priors.yaml").read_text())
    for name, described in taxonomy.items():
        assert set(described["benchmark_kinds"]) & set(shipped.kinds), name
        assert set(described["benchmark_kinds"]) <= set(names.prior_kinds), name


def test_without_held_out_cells_variances_are_unchanged() -> None:
    assert variance_inflation([]) == 1
    one = HeldOutCell("t", "a", True, 0.5, 0.5, 0.5, 0.1)
    assert variance_inflation([one]) == 1
    assert variance_inflation([HeldOutCell("t", "a", True, 0.5, 0.9, 0.5, 2.0)]) == 4
