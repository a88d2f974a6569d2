"""Priors from benchmark tables: as far off on tables not seen as they say they are."""

from importlib.resources import files

import numpy as np
import pytest
import yaml

from sophia.learning.benchmarks import decode_cells, read_names
from sophia.learning.factor import Cells, fit, share
from sophia.learning.held_out import Held, held_out, spread_of
from sophia.learning.priors import (
    LEAST_SD,
    STRANGER_SD,
    book,
    decode,
    encode,
    prior,
    standing,
)

SHIPPED = files("sophia.routing").joinpath("data/priors.json").read_bytes()


@pytest.fixture(scope="module")
def tables() -> Cells:
    """The joined tables that the shipped priors were made from."""
    return decode_cells(files("sophia.routing").joinpath("data/benchmarks.json").read_bytes())


def made(seed: int, arms: int = 40) -> tuple[Cells, np.ndarray]:
    """Tables drawn from the model itself: three sources, overlapping arms, three families."""
    rng = np.random.default_rng(seed)
    family = np.arange(arms) % 3
    ability = rng.normal(size=3)[family] * 0.6 + rng.normal(size=arms) * 0.8
    sources = [name for name in "abc" for _ in range(8)]
    local = {name: ability + rng.normal(scale=0.4, size=arms) for name in "abc"}
    score = np.empty((24, arms))
    for task, name in enumerate(sources):
        odds = rng.normal() + rng.normal(1, 0.1) * local[name] + rng.normal(scale=0.25, size=arms)
        score[task] = rng.binomial(400, share(odds)) / 400
        score[task, rng.random(arms) < 0.2] = np.nan
        if name != "a":
            score[task, {"b": slice(0, 15), "c": slice(25, 40)}[name]] = np.nan
    error = np.sqrt(np.maximum(score * (1 - score), 0.001) / 400)
    names = tuple(f"{'xyz'[kin]}/{at}" for at, kin in enumerate(family))
    kin = tuple("xyz"[at] for at in family)
    tasks = tuple(f"{name}:{at}" for at, name in enumerate(sources))
    return Cells(tasks, tuple(sources), names, kin, (np.nan,) * arms, score, error), ability


def error(told: list[Held]) -> float:
    return float(np.sqrt(np.mean([(one.foretold - one.score) ** 2 for one in told])))


def plain(told: list[Held]) -> float:
    return float(np.sqrt(np.mean([(one.baseline - one.score) ** 2 for one in told])))


def variance(told: list[Held]) -> float:
    return float(np.mean([one.z**2 for one in told]))


def test_abilities_are_recovered() -> None:
    for seed in range(3):
        cells, ability = made(seed)
        found = fit(cells)
        assert np.corrcoef(found.ability, ability)[0, 1] > 0.9
        off = (found.ability - (ability - ability.mean()) / ability.std()) / np.sqrt(found.unsure)
        assert 0.3 < np.mean(off**2) < 2
        assert found.drift < 0.4


def test_held_out_cells_of_made_tables_are_as_far_off_as_said() -> None:
    told = [one for seed in range(2) for one in held_out(made(seed)[0], parts=8)]
    assert 0.75 < variance(told) < 1.35
    alone = held_out(made(5)[0], parts=8, whole=False)
    assert 0.75 < variance(alone) < 1.35
    assert error(alone) < 0.6 * plain(alone)


def test_held_out_cells_of_real_tables_are_foretold_better_than_by_their_task(
    tables: Cells,
) -> None:
    """A cell from the others of its table: much nearer than the task's mean."""
    told = held_out(tables, parts=6, whole=False)
    assert len(told) > 800
    assert error(told) < 0.10
    assert error(told) < 0.60 * plain(told)
    assert 0.8 < variance(told) < 1.45


def test_an_unseen_table_is_foretold_with_an_honest_spread(tables: Cells) -> None:
    """All cells of an arm in a table hidden at once, as when the traffic is a table of its own."""
    told = held_out(tables, parts=8, seed=1)
    assert error(told) < 0.90 * plain(told)
    assert 0.7 < variance(told) / decode(SHIPPED).spread < 1.4
    known = [one for one in told if one.known]
    assert error(known) < 0.95 * plain(known)


def test_no_ability_is_read_off_a_single_arm_s_tables() -> None:
    """Nothing measured at all: the family's mean, and no surer than arms of a family differ."""
    cells, _ = made(1)
    hidden = np.zeros(cells.score.shape, dtype=bool)
    hidden[:, 3] = True
    found = fit(cells.without(hidden))
    middle, loose = found.family["x"]
    assert found.ability[3] == pytest.approx(middle, abs=1e-3)
    assert found.unsure[3] >= 0.9 * found.within
    assert loose > 0


def test_the_same_tables_give_the_same_book() -> None:
    cells, _ = made(2, 20)
    kinds = {task: "ab"[at % 2] for at, task in enumerate(cells.tasks)}
    heirs = {"x/new": ("x/0", 1), "x/alias": ("x/0", 0), "y/new": ("y/none", 1)}
    pairs = [("x/0", "x/3"), ("x/3", "x/6"), ("x/0", "nobody")]
    one = book(cells, kinds, heirs, pairs, {"x/0", "x/3"}, parts=4)
    assert encode(one) == encode(book(cells, kinds, heirs, pairs, {"x/3", "x/0"}, parts=4))
    assert decode(encode(one)) == one
    assert one.kinds == ("a", "b")
    assert one.sources == ("a", "b", "c")
    assert one.arms["x/alias"] == one.arms["x/0"]
    assert "y/new" not in one.arms
    heir = one.arms["x/new"]
    assert (heir.basis, heir.of) == ("heir", ("x/0",))
    assert all(STRANGER_SD[0] <= sd <= STRANGER_SD[1] for sd in heir.sd)
    fit_gain = np.mean([b - a for a, b in gains(cells)])
    assert np.sign(np.mean(heir.mean) - np.mean(one.arms["x/0"].mean)) == np.sign(fit_gain)


def gains(cells: Cells) -> list[tuple[float, float]]:
    ability = dict(zip(cells.arms, fit(cells).ability, strict=True))
    return [(ability["x/0"], ability["x/3"]), (ability["x/3"], ability["x/6"])]


def test_a_standing_holds_on_a_table_that_nobody_measured() -> None:
    """The end of the chain: mean and sd of measured arms, against a fresh source of the same kind."""
    z = []
    for seed in range(4):
        cells, _ = made(seed)
        fresh = np.array([source == "b" for source in cells.sources])
        measured = np.isfinite(cells.score[~fresh]).any(axis=0)
        hidden = np.zeros(cells.score.shape, dtype=bool)
        hidden[fresh] = True
        hidden[:, ::2] = False
        one = book(cells.without(hidden), dict.fromkeys(cells.tasks, "k"), {}, [], (), parts=3)
        found = fit(cells.without(hidden))
        usual = share(np.median(found.intercept) + np.median(found.loading) * found.ability)
        for at in np.flatnonzero(measured & np.isfinite(cells.score[fresh]).any(axis=0)):
            if at % 2:
                # How hard the fresh tasks are is no matter of the arm's: it is taken off.
                hard = share(found.intercept[fresh] + found.loading[fresh] * found.ability[at])
                true = usual[at] + np.nanmean(cells.score[fresh, at] - hard)
                stands = one.arms[cells.arms[at]]
                z.append((true - stands.mean[0]) / stands.sd[0])
    assert len(z) > 30
    assert 0.3 < np.mean(np.square(z)) < 1.5


def test_an_arm_that_is_better_at_one_kind_is_expected_to_be() -> None:
    """What an arm does on a kind beyond its ability carries over in part, and is surer."""
    cells, _ = made(4, 30)
    kinds = {task: "ab"[at % 2] for at, task in enumerate(cells.tasks)}
    odd = np.array([kinds[task] == "a" for task in cells.tasks])
    score = cells.score.copy()
    score[odd, 20] = share(np.log(score[odd, 20] / (1 - score[odd, 20])) + 1.0)
    lifted = Cells(cells.tasks, cells.sources, cells.arms, cells.families, cells.released, score, cells.error)
    before, after = (
        book(one, kinds, {}, [], (), parts=2).arms[cells.arms[20]] for one in (cells, lifted)
    )
    gain = np.subtract(after.mean, before.mean)
    assert 0.08 < gain[0] < 0.25
    assert gain[1] < 0.6 * gain[0]
    only_b = np.zeros(score.shape, dtype=bool)
    only_b[odd, 20] = True
    half = book(cells.without(only_b), kinds, {}, [], (), parts=2).arms[cells.arms[20]]
    assert half.sd[0] > before.sd[0]
    unsure = book(cells, kinds, {"x/n": ("x/0", 1)}, [("x/0", "x/3"), ("x/3", "x/6")], (), parts=2)
    assert np.mean(unsure.arms["x/n"].sd) > np.mean(unsure.arms["x/0"].sd)


def test_every_class_of_the_taxonomy_is_like_kinds_that_were_measured() -> None:
    shipped = decode(SHIPPED)
    data = files("sophia.routing").joinpath("data")
    taxonomy = yaml.safe_load(data.joinpath("taxonomy.yaml").read_text())
    names = read_names(data.joinpath("priors.yaml").read_text())
    for name, described in taxonomy.items():
        assert set(described["kinds"]) & set(shipped.kinds), name
        assert set(described["kinds"]) <= set(names.told), name


def test_the_shipped_book_says_honestly_how_much_it_knows() -> None:
    shipped = decode(SHIPPED)
    assert set(shipped.sources) <= {"zeroeval", "mmlu_pro", "routellm", "paretobandit", "lineage_2025h1"}
    for stands in [*shipped.arms.values(), *shipped.families.values(), shipped.stranger]:
        assert len(stands.mean) == len(stands.sd) == len(shipped.kinds)
        assert all(0 < mean < 1 for mean in stands.mean)
        low = LEAST_SD if stands.basis == "measured" else STRANGER_SD[0]
        assert all(low <= sd <= STRANGER_SD[1] for sd in stands.sd)
    assert standing(shipped, "google/gemini-2.5-flash").basis == "measured"
    assert standing(shipped, "anthropic/claude-sonnet-4.5").basis == "heir"
    weak, strong = (
        standing(shipped, arm).mean
        for arm in ("meta-llama/llama-3.1-8b-instruct", "google/gemini-2.5-pro")
    )
    assert all(a < b for a, b in zip(weak, strong, strict=True))
    assert shipped.spread < 2


def test_a_stranger_stands_by_its_family_and_a_variant_by_its_model() -> None:
    shipped = decode(SHIPPED)
    assert standing(shipped, "google/gemma-99") == shipped.families["google"]
    assert standing(shipped, "nobody/new") == shipped.stranger
    flash = shipped.arms["google/gemini-2.5-flash"]
    assert standing(shipped, "google/gemini-2.5-flash:nitro") == flash
    assert standing(shipped, "anthropic/claude-3.7-sonnet:thinking") != standing(
        shipped, "anthropic/claude-3.7-sonnet"
    )


def test_a_taxonomy_is_served_by_the_kinds_that_it_is_like() -> None:
    shipped = decode(SHIPPED)
    arm = "openai/gpt-4o-mini"
    stands = shipped.arms[arm]
    told = prior(shipped, arm, [["maths"], ["maths", "code"], [], ["poetry"]])
    at = {kind: place for place, kind in enumerate(shipped.kinds)}
    assert told.mean[0] == stands.mean[at["maths"]]
    assert told.sd[0] == stands.sd[at["maths"]]
    assert told.mean[1] == pytest.approx((stands.mean[at["maths"]] + stands.mean[at["code"]]) / 2)
    assert told.mean[2] == told.mean[3] == pytest.approx(np.mean(stands.mean))
    assert told.sd[2] > np.sqrt(np.mean(np.square(stands.sd)))


def test_without_anything_held_out_nothing_is_widened() -> None:
    assert spread_of([]) == 1
    one = Held("t", "a", True, 0.5, 0.5, 0.5, 0.1)
    assert spread_of([one]) == 1
    assert spread_of([Held("t", "a", True, 0.5, 0.9, 0.5, 2.0)]) == 4
