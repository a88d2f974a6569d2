"""What would have been: near the truth of a made-up world, told apart by day and task, or refused."""

from collections.abc import Sequence

import numpy as np
import pytest
from msgspec.structs import replace

from logged_decisions import ARMS, COSTS, TASKS, TRUTH
from sophia.learning.ledger_report import NothingLogged
from sophia.learning.logged import Found, Logged, Word
from sophia.learning.off_policy import Assessment, Comparison, Refused
from sophia.learning.targets import fixed, rechosen
from sophia.learning.what_if import AS_IT_WAS, WhatIf, Would, cross_fitted, what_if
from sophia.routing.policies.choose import Exploration, Options, Taste, price_of
from sophia.routing.policies.policy import Lesson, Ratings, Sight, Vector

DAY_MS = 86_400_000
CHANCES = np.array([0.45, 0.40, 0.15])
NAMES = ("sums", "verse")
BILL = 7_000


def decisions(count: int = 2400, seed: int = 0, days: int = 3) -> tuple[Logged, ...]:
    """Decisions that knew nothing of the task, spread over some days."""
    rng = np.random.default_rng(seed)
    options = Options(Ratings(np.full(3, 0.6), np.zeros(3)), COSTS, np.ones(3, bool), np.zeros(3))
    made = []
    for number in range(count):
        task, arm = int(rng.integers(2)), int(rng.choice(3, p=CHANCES))
        score = float(rng.random() < TRUTH[task, arm])
        word = Word(score, 1.0, ARMS[arm]) if rng.random() < 0.7 else None
        made.append(
            Logged(
                number * days * DAY_MS // count,
                Sight(TASKS[task], np.zeros(0), np.zeros(0)),
                ARMS,
                options,
                Taste(0.05, 3e6),
                Exploration("off"),
                CHANCES,
                arm,
                word,
                id=number * 16,
                key_id="k",
            )
        )
    return tuple(made)


def told_task(one: Logged) -> Vector:
    """The best arm of the likeliest task."""
    return fixed(one, ARMS[int(TRUTH[int(one.sight.tasks.argmax())].argmax())])


@pytest.fixture(scope="module")
def told() -> WhatIf:
    made = decisions()
    bills = {one.id: BILL for one in made} | {-16: 11}
    policies = [
        Would("oracle", [told_task(one) for one in made]),
        Would("cheap", [fixed(one, "a/cheap") for one in made]),
    ]
    return what_if(Found(made, 1, (-16,)), policies, bills, NAMES)


def test_the_truth_lies_within_what_is_told(told: WhatIf) -> None:
    wanted = {AS_IT_WAS: CHANCES @ TRUTH.mean(axis=0), "oracle": 0.9, "cheap": 0.75}
    for one in told.policies:
        if one.policy in wanted:
            verdict = one.whole.verdict
            assert isinstance(verdict, Assessment)
            assert verdict.dr.low <= wanted[one.policy] <= verdict.dr.high
    gain = told.policies[1].gain
    assert isinstance(gain, Comparison) and gain.difference.low > 0.1


def test_costs_are_sums_of_what_was_expected_and_of_what_was_billed(told: WhatIf) -> None:
    made = decisions()
    assert told.billed_usd == pytest.approx(len(made) * BILL / 1e9)
    assert (told.others, told.others_billed_usd) == (1, 11 / 1e9)
    cheap = told.policies[2]
    assert cheap.whole.cost_usd == pytest.approx(len(made) * COSTS[0] / 1e9)
    assert cheap.whole.done_usd == pytest.approx(len(made) * float(CHANCES @ COSTS) / 1e9)
    assert cheap.agrees == pytest.approx(CHANCES[0], abs=0.03)
    words = [one.word.score for one in made if one.word is not None]
    assert told.mean_score == pytest.approx(float(np.mean(words)))


def test_the_parts_make_the_whole(told: WhatIf) -> None:
    for one in told.policies:
        assert [part.name for part in one.days] == ["1970-01-01", "1970-01-02", "1970-01-03"]
        assert {part.name for part in one.tasks} == set(NAMES)
        for parts in (one.days, one.tasks):
            assert sum(part.decisions for part in parts) == one.whole.decisions == told.judged
            assert sum(part.scored for part in parts) == one.whole.scored == told.scored
            assert sum(part.cost_usd for part in parts) == pytest.approx(one.whole.cost_usd)
    by_task = {part.name: part for part in told.policies[2].tasks}
    for name, truth in zip(NAMES, TRUTH[:, 0], strict=True):
        verdict = by_task[name].verdict
        assert isinstance(verdict, Assessment)
        assert verdict.dr.value == pytest.approx(float(truth), abs=0.08)


def test_a_part_that_tells_too_little_is_refused_and_the_whole_is_not() -> None:
    made = decisions(1500, days=6)
    names = ("a/cheap", "c/weak")
    policies = [Would(name, [fixed(one, name) for one in made]) for name in names]
    _, cheap, weak = what_if(Found(made, 0), policies, {}, NAMES).policies
    assert isinstance(cheap.whole.verdict, Assessment)
    for part in cheap.days:
        assert isinstance(part.verdict, Refused) and "200 are needed" in part.verdict.reason
    assert isinstance(weak.whole.verdict, Refused) and isinstance(weak.gain, Refused)
    assert weak.whole.cost_usd > 0


def test_a_policy_is_judged_by_its_own_decisions_alone() -> None:
    """What a snapshot may have learned from does not count, for its score or for its cost."""
    made = decisions(1600)
    late = np.array([one.at_ms >= DAY_MS for one in made])
    spoiled = [
        one if judged or one.word is None else replace(one, word=replace(one.word, score=0.0))
        for one, judged in zip(made, late, strict=True)
    ]
    would = Would("cheap", [fixed(one, "a/cheap") for one in spoiled], late, "left out")
    report = what_if(Found(tuple(spoiled), 0), [would], {}, NAMES)
    cheap = report.policies[1]
    assert cheap.whole.decisions == int(late.sum()) and cheap.note == "left out"
    assert [part.name for part in cheap.days] == ["1970-01-02", "1970-01-03"]
    assert isinstance(cheap.whole.verdict, Assessment)
    assert cheap.whole.verdict.dr.value == pytest.approx(0.75, abs=0.05)


class Counting:
    """Rates an arm by how often it was seen to be good."""

    name = "counting"

    def __init__(self, lessons: Sequence[Lesson]) -> None:
        self.lessons = lessons

    def rate(self, sight: Sight, arms: Sequence[str]) -> Ratings:
        assert not any(lesson.sight is sight for lesson in self.lessons), "it knows this one"
        return Ratings(np.full(len(arms), len(self.lessons) / 1e6), np.zeros(len(arms)))


def test_nobody_is_judged_by_what_it_learned_from() -> None:
    """Each decision is rated by a policy that learned from all other parts, and only from them."""
    made = decisions(300)
    learned: list[Counting] = []

    def learn(lessons: Sequence[Lesson]) -> Counting:
        learned.append(Counting(lessons))
        return learned[-1]

    ratings = cross_fitted(learn, made, folds=3)
    assert len(learned) == 3 and all(one is not None for one in ratings)
    spoken = sum(one.word is not None for one in made)
    assert sum(len(one.lessons) for one in learned) == 2 * spoken


def test_a_cross_fitted_policy_finds_nothing_in_noise() -> None:
    """Where all arms are alike, what learned from other decisions does not look better."""
    rng = np.random.default_rng(5)
    made = [
        replace(one, word=Word(float(rng.random() < 0.5), 1.0, one.arms[one.chosen]))
        for one in decisions(1500)
    ]

    class Best:
        name = "best"

        def __init__(self, lessons: Sequence[Lesson]) -> None:
            self.mean = {
                arm: np.mean([one.quality for one in lessons if one.arm == arm]) for arm in ARMS
            }

        def rate(self, sight: Sight, arms: Sequence[str]) -> Ratings:
            return Ratings(np.array([self.mean[arm] for arm in arms]), np.zeros(len(arms)))

    ratings = cross_fitted(Best, made)
    would = Would("best", [rechosen(*pair) for pair in zip(made, ratings, strict=True)])
    verdict = what_if(Found(tuple(made), 0), [would], {}, NAMES).policies[1].whole.verdict
    assert isinstance(verdict, Assessment)
    assert verdict.dr.low <= 0.5 <= verdict.dr.high


def test_a_dial_and_a_choice_of_models_change_what_is_taken() -> None:
    one = decisions(1)[0]
    ratings = Ratings(np.array([0.7, 0.75, 0.2]), np.zeros(3))
    assert rechosen(one, ratings, price_of("cheap")).argmax() == 0
    assert rechosen(one, ratings, price_of("best")).argmax() == 1
    assert rechosen(one, ratings, price_of("cheap"), frozenset({"b/dear"})).tolist() == [0, 1, 0]
    for left in (rechosen(one, None), rechosen(one, ratings, None, frozenset({"x/none"}))):
        assert left.tolist() == CHANCES.tolist()


def test_an_arm_on_trial_or_in_use_stays_so_among_fewer_models() -> None:
    one = decisions(1)[0]
    ratings = Ratings(np.array([0.7, 0.71, 0.2]), np.zeros(3))
    options = replace(one.options, trial=(2, 0.25), current=1)
    busy = replace(one, options=options, taste=replace(one.taste, switching=0.5))
    chances = rechosen(busy, ratings, None, frozenset({"b/dear", "c/weak"}))
    assert chances == pytest.approx([0.0, 0.75, 0.25])
    without = rechosen(busy, ratings, None, frozenset({"a/cheap", "b/dear"}))
    assert without == pytest.approx([0.0, 1.0, 0.0])
    assert rechosen(busy, ratings, None, frozenset({"a/cheap"})) == pytest.approx([1.0, 0.0, 0.0])


def test_without_a_word_nothing_is_told() -> None:
    quiet = tuple(replace(one, word=None) for one in decisions(20))
    with pytest.raises(NothingLogged, match=r"20 decisions .* 3 were taken"):
        what_if(Found(quiet, 3), [], {}, NAMES)
