"""The learned policy: exact, shared across arms, apart between tenants, and honest when unsure."""

import numpy as np
import pytest

from sophia.routing.policies.hierarchical import Hierarchical, Projection, Shape
from sophia.routing.policies.joint import Joint
from sophia.routing.policies.policy import Lesson, Prior, Sight, Vector
from sophia.routing.policies.widths import Settings

SHAPE = Shape(tasks=3, embedding=4, features=2)
PROJECTION = Projection(np.eye(4)[:, :2], np.zeros(2))
ARMS = ("a", "b", "c")


def _policy(settings: Settings | None = None, sd: float = 0.1) -> Hierarchical:
    priors = {arm: Prior(np.full(3, 0.7), np.full(3, sd)) for arm in ARMS}
    return Hierarchical(SHAPE, settings, priors, PROJECTION)


def _sight(task: int = 0, *, tenant: str = "", novelty: float = 0.0, axis: int = 0) -> Sight:
    return Sight(np.eye(3)[task], np.eye(4)[axis], np.zeros(2), novelty, tenant)


def _teach(policy: Hierarchical, arm: str, quality: float, count: int, sight: Sight) -> None:
    for _ in range(count):
        policy.learn_one(Lesson(sight, arm, quality))


def test_the_posterior_is_the_one_that_a_single_large_regression_has() -> None:
    """Nothing is approximated: one line and all deviations, solved together, agree."""
    rng = np.random.default_rng(0)
    shared, own = rng.uniform(0.1, 1.0, 5), rng.uniform(0.1, 1.0, (4, 3))
    joint = Joint(shared, 3)
    for variance in own:
        joint.add(variance)
    precision = np.diag(np.concatenate([1 / shared, 1 / own.ravel()]))
    pull = np.zeros(len(precision))
    for _ in range(60):
        row, phi, psi = int(rng.integers(4)), rng.normal(size=5), rng.normal(size=3)
        value = float(rng.normal())
        joint.learn(row, phi, psi, value, 0.2)
        whole = _whole(row, phi, psi)
        precision += np.outer(whole, whole) / 0.2
        pull += whole * value / 0.2
    cov = np.linalg.inv(precision)
    mean = cov @ pull
    phi, psi = rng.normal(size=5), rng.normal(size=3)
    means = joint.expect(phi, psi)
    for row in range(4):
        whole = _whole(row, phi, psi)
        assert means.mean[row] == pytest.approx(whole @ mean)
        assert joint.at(row, phi, psi) == pytest.approx((whole @ mean, whole @ cov @ whole))
        place = slice(5 + 3 * row, 8 + 3 * row)
        terms, variances = joint.deviation(row)
        assert terms == pytest.approx(mean[place])
        assert variances == pytest.approx(np.diag(cov)[place])


def test_learning_one_by_one_and_all_at_once_agree() -> None:
    """With constant noise and unchanged widths, fit is the sum of its lessons."""
    settings = Settings(calm=0.25, noise_weight=1e9, steadiness=1e9)
    rng = np.random.default_rng(1)
    lessons = [
        Lesson(
            Sight(rng.dirichlet(np.ones(3)), np.eye(4)[int(rng.integers(4))], rng.uniform(size=2)),
            ARMS[int(rng.integers(3))],
            float(rng.uniform()),
            float(rng.uniform(0.5, 1.5)),
        )
        for _ in range(80)
    ]
    slow, quick = _policy(settings), _policy(settings)
    for lesson in lessons:
        slow.learn_one(lesson)
    quick.fit(lessons)
    for lesson in lessons[:5]:
        one, other = slow.rate(lesson.sight, ARMS), quick.rate(lesson.sight, ARMS)
        assert one.quality == pytest.approx(other.quality, abs=1e-6)
        assert one.sd == pytest.approx(other.sd, abs=1e-6)


def test_one_arms_failures_say_that_a_task_is_hard_for_all() -> None:
    policy = _policy()
    _teach(policy, "a", 0.0, 40, _sight(1))
    quality = policy.rate(_sight(1), ARMS).quality
    assert quality[0] < quality[1] == pytest.approx(quality[2])
    assert quality[1] < 0.45
    assert (policy.rate(_sight(2), ARMS).quality > quality[1]).all()


def test_an_arm_that_differs_on_one_task_is_told_apart_there() -> None:
    policy = _policy()
    for _ in range(60):
        policy.learn_one(Lesson(_sight(0), "a", 1.0))
        policy.learn_one(Lesson(_sight(0), "b", 0.4))
        policy.learn_one(Lesson(_sight(1), "a", 0.5))
        policy.learn_one(Lesson(_sight(1), "b", 0.5))
    here, there = policy.rate(_sight(0), ARMS).quality, policy.rate(_sight(1), ARMS).quality
    assert here[0] - here[1] > 0.25
    assert abs(there[0] - there[1]) < 0.5 * (here[0] - here[1])


def test_outcomes_make_an_arm_less_uncertain_and_novelty_makes_all_more_so() -> None:
    policy = _policy()
    before = policy.rate(_sight(), ARMS).sd
    _teach(policy, "a", 0.7, 50, _sight())
    _teach(policy, "b", 0.7, 50, _sight())
    after = policy.rate(_sight(), ARMS).sd
    assert after[0] < 0.6 * before[0]
    assert after[2] > 0.9 * before[2]
    strange = policy.rate(_sight(novelty=1.0), ARMS).sd
    assert (strange >= np.hypot(after, 0.9 * Settings().novelty_sd)).all()


def test_a_strange_request_is_rated_without_regard_to_its_text() -> None:
    policy = _policy()
    _teach(policy, "a", 0.0, 40, _sight(axis=1))
    _teach(policy, "b", 1.0, 40, _sight(axis=0))
    familiar = [policy.rate(_sight(axis=axis), ARMS).quality for axis in (0, 1)]
    strange = [policy.rate(_sight(axis=axis, novelty=1.0), ARMS).quality for axis in (0, 1)]
    assert not np.allclose(*familiar)
    assert np.array_equal(*strange)


def test_a_tenant_departs_from_all_and_takes_nobody_along() -> None:
    """However much one tenant says, the others' ratings do not move by a bit."""
    policy = _policy()
    _teach(policy, "a", 0.9, 20, _sight())
    others = policy.rate(_sight(tenant="other"), ARMS)
    for _ in range(500):
        _teach(policy, "a", 0.0, 1, _sight(tenant="flood"))
        _teach(policy, "b", 0.9, 1, _sight(tenant="flood"))
    flood = policy.rate(_sight(tenant="flood"), ARMS).quality
    assert flood[0] < 0.2
    assert flood[1] > 0.7
    for tenant in ("other", ""):
        after = policy.rate(_sight(tenant=tenant), ARMS)
        assert np.array_equal(after.quality, others.quality)
        assert np.array_equal(after.sd, others.sd)


def test_a_new_tenant_begins_where_all_are_and_departs_as_it_is_heard() -> None:
    """Its first outcome changes little where much is known, and more where nothing is."""
    known, unknown = _policy(), _policy()
    for arm in ARMS:
        _teach(known, arm, 0.7, 200, _sight())
    moved = []
    for policy in (known, unknown):
        sight = _sight(tenant="fresh")
        before = policy.rate(sight, ARMS)
        assert np.array_equal(before.quality, policy.rate(_sight(), ARMS).quality)
        _teach(policy, "a", 0.0, 3, sight)
        after = policy.rate(sight, ARMS)
        moved.append(before.quality[0] - after.quality[0])
        _teach(policy, "a", 0.0, 300, sight)
        _teach(policy, "b", 0.7, 300, sight)
        late = policy.rate(sight, ARMS)
        assert late.quality[0] < 0.3
        assert late.sd[0] < 0.08
    assert 0.0 < moved[0] < 0.3 * moved[1]


def test_a_tenant_who_knows_every_arm_is_told_the_same_as_one_who_does_not() -> None:
    """Two ways lead to a rating, since the quicker one leaves out what the tenant replaces."""
    policy = _policy(Settings(voice=5.0))
    policy.add("c")
    for arm, quality in (("a", 0.2), ("b", 0.9), ("a", 0.4), ("b", 0.7)):
        for sight in (_sight(1), _sight(1, tenant="one"), _sight(2, tenant="one")):
            _teach(policy, arm, quality, 2, sight)
            known = policy.rate(_sight(1, tenant="one"), ["a", "b"])
            more = policy.rate(_sight(1, tenant="one"), ["a", "b", "c"])
            assert known.quality == pytest.approx(more.quality[:2], abs=1e-12)


def test_an_arm_in_more_particulars_begins_as_its_relative_and_departs_alone() -> None:
    for tenant in ("", "one"):
        sight, policy = _sight(1, tenant=tenant), _policy()
        _teach(policy, "a", 0.3, 10, sight)
        usual = policy.rate(sight, ["a"])
        apart = policy.rate(sight, ["a#@price"])
        assert apart.quality == pytest.approx(usual.quality)
        assert apart.sd[0] > usual.sd[0]
        _teach(policy, "a#@price", 0.9, 10, sight)
        gap = policy.rate(sight, ["a#@price", "b"]).quality @ [1.0, -1.0]
        assert gap > policy.rate(sight, ["a", "b"]).quality @ [1.0, -1.0] + 0.05
        kept = Hierarchical.restore(policy.snapshot())
        assert (kept.rate(sight, ["a#@price"]).sd == policy.rate(sight, ["a#@price"]).sd).all()


def test_no_more_particulars_are_told_apart_than_are_wanted() -> None:
    """One beyond them teaches the relative, lesson by lesson and all at once alike."""
    lessons = [Lesson(_sight(1), arm, 0.9) for arm in ("a#@price", "a#@fast", "a#@chosen", "a")]
    stepwise, at_once = _policy(Settings(variants=2)), _policy(Settings(variants=2))
    for lesson in lessons:
        stepwise.learn_one(lesson)
    at_once.fit(lessons)
    for policy in (stepwise, at_once):
        assert set(policy.arms) == {*ARMS, "a#@price", "a#@fast"}


def test_a_tenant_with_a_voice_is_heard_for_so_many_outcomes_at_most() -> None:
    voiced = Settings(voice=3.0, calm=0.25, noise_weight=1e9)
    quiet, loud, trusted = _policy(voiced), _policy(voiced), _policy(voiced)
    _teach(quiet, "a", 0.0, 9, _sight(tenant="one"))
    _teach(loud, "a", 0.0, 3000, _sight(tenant="one"))
    _teach(trusted, "a", 0.0, 4, _sight())
    moved = [policy.rate(_sight(), ARMS).quality[0] for policy in (quiet, loud, trusted)]
    assert 0.7 > moved[0] > moved[1] > moved[2]


def test_the_tenants_longest_silent_are_forgotten_first() -> None:
    policy = _policy(Settings(tenant_blocks=2))
    for tenant in ("one", "two", "one", "three"):
        _teach(policy, "a", 0.0, 30, _sight(tenant=tenant))
    plain = policy.rate(_sight(), ARMS).quality[0]
    rated = {name: policy.rate(_sight(tenant=name), ARMS).quality[0] for name in ("one", "two")}
    assert rated["two"] == plain
    assert rated["one"] < plain


def test_arms_come_and_go_without_disturbing_the_others() -> None:
    policy = _policy()
    for number, arm in enumerate(ARMS):
        _teach(policy, arm, 0.3 * number, 20, _sight(tenant="t"))
        _teach(policy, arm, 0.3 * number, 20, _sight())
    sight = _sight(tenant="t")
    before = policy.rate(sight, ("b", "c"))
    policy.remove("a")
    policy.add("d", Prior(np.full(3, 0.9), np.full(3, 0.05)))
    after = policy.rate(sight, ("b", "c"))
    assert np.array_equal(before.quality, after.quality)
    assert policy.arms == ("b", "c", "d")
    better, like_others = policy.rate(_sight(), ("d", "e")).quality
    assert better > like_others + 0.1


def test_an_unknown_arm_is_rated_like_the_average_and_with_more_doubt() -> None:
    policy = _policy(sd=0.05)
    ratings = policy.rate(_sight(), ("a", "nobody"))
    assert ratings.quality[1] == pytest.approx(0.7)
    assert ratings.sd[1] > ratings.sd[0]
    assert policy.arms == ARMS


@pytest.mark.parametrize("task", [0, None])
def test_a_doubted_arm_is_judged_by_what_it_does_now(task: int | None) -> None:
    steady, doubting = _policy(), _policy()
    for policy in (steady, doubting):
        for arm in ARMS:
            _teach(policy, arm, 0.9, 150, _sight())
    doubting.widen("a", task, 4.0)
    assert doubting.rate(_sight(), ARMS).sd[0] > 2 * steady.rate(_sight(), ARMS).sd[0]
    for policy in (steady, doubting):
        _teach(policy, "a", 0.3, 15, _sight())
    slow, quick = steady.rate(_sight(), ARMS).quality, doubting.rate(_sight(), ARMS).quality
    assert quick[0] < slow[0] - 0.1
    assert quick[1] - quick[0] > slow[1] - slow[0]


def test_fit_reads_off_the_outcomes_how_much_arms_differ() -> None:
    """The same lessons about arms far apart are believed sooner than about arms alike."""
    rng = np.random.default_rng(4)

    def fitted(spread: float) -> Hierarchical:
        policy = Hierarchical(SHAPE, None, None, PROJECTION)
        for number in range(12):
            policy.add(str(number), Prior(np.full(3, 0.5), np.full(3, 0.1)))
        lessons = [
            Lesson(_sight(number % 3), str(arm), float(rng.uniform() < mean))
            for arm, mean in enumerate(np.linspace(0.5 - spread, 0.5 + spread, 12))
            for number in range(40)
        ]
        policy.fit([*lessons, Lesson(_sight(), "novice", 1.0)])
        return policy

    wide, narrow = fitted(0.4), fitted(0.0)
    doubts = [policy.rate(_sight(), ("novice",)).sd[0] for policy in (wide, narrow)]
    assert doubts[0] > 1.5 * doubts[1]


def test_a_weight_of_nothing_teaches_nothing_and_a_heavy_one_more() -> None:
    light, heavy, none = _policy(), _policy(), _policy()
    for policy, weight in ((light, 0.2), (heavy, 3.0), (none, 0.0)):
        policy.learn_one(Lesson(_sight(), "a", 0.0, weight))
    rated = [policy.rate(_sight(), ARMS).quality[0] for policy in (none, light, heavy)]
    assert rated[0] == 0.7 > rated[1] > rated[2]


def test_a_projection_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="dimension"):
        Hierarchical(SHAPE, None, None, Projection(np.eye(5), np.zeros(5)))


def _whole(row: int, phi: Vector, psi: Vector) -> Vector:
    whole = np.zeros(5 + 4 * 3)
    whole[:5] = phi
    whole[5 + 3 * row : 8 + 3 * row] = psi
    return whole
