"""The learned policy: exact, shared across arms, separate between tenants, and honest when unsure."""

from collections.abc import Sequence

import numpy as np
import pytest
from msgspec import msgpack

from sophia.routing.bandit.policy import Lesson, PolicyContext, Prior, Vector
from sophia.routing.bandit.quality.batch import LessonBatch
from sophia.routing.bandit.quality.hierarchical import MAX_VARIANTS, NOVELTY_SD, HierarchicalPolicy
from sophia.routing.bandit.quality.posterior import QualityPosterior, build_design_matrix
from sophia.routing.bandit.quality.tenants import MAX_TENANT_ARMS

TASKS = 3
ARMS = ("a", "b", "c")


def _policy(sd: float = 0.1) -> HierarchicalPolicy:
    return HierarchicalPolicy(
        TASKS, {arm: Prior(np.full(TASKS, 0.7), np.full(TASKS, sd)) for arm in ARMS}
    )


def _context(task: int = 0, *, tenant: str = "", novelty: float = 0.0) -> PolicyContext:
    return PolicyContext(np.eye(TASKS)[task], novelty, tenant)


def _teach(
    policy: HierarchicalPolicy, arm: str, quality: float, count: int, context: PolicyContext
) -> None:
    for _ in range(count):
        policy.learn_one(Lesson(context, arm, quality))


def test_the_posterior_is_the_one_of_a_single_large_regression() -> None:
    """Nothing is approximated: one line and all deviations, solved together, agree."""
    rng = np.random.default_rng(0)
    shared, own = rng.uniform(0.1, 1.0, 3), rng.uniform(0.1, 1.0, (4, 3))
    posterior = _prior(shared, own)
    precision = np.diag(np.concatenate([1 / shared, 1 / own.ravel()]))
    pull = np.zeros(len(precision))
    for _ in range(60):
        row, design, value = int(rng.integers(4)), rng.normal(size=3), float(rng.normal())
        posterior.update(row, design, value, 0.2)
        whole = _whole(row, design)
        precision += np.outer(whole, whole) / 0.2
        pull += whole * value / 0.2
    cov = np.linalg.inv(precision)
    mean = cov @ pull
    design = rng.normal(size=3)
    moments = posterior.predict(design)
    for row in range(4):
        whole = _whole(row, design)
        assert moments.mean[row] == pytest.approx(whole @ mean)
        assert posterior.predict_arm(row, design) == pytest.approx(
            (whole @ mean, whole @ cov @ whole)
        )
        place = slice(3 + 3 * row, 6 + 3 * row)
        terms, variances = posterior.deviation_moments(row)
        assert terms == pytest.approx(mean[place])
        assert variances == pytest.approx(np.diag(cov)[place])


def test_outcomes_one_by_one_and_all_at_once_give_the_same_posterior() -> None:
    rng = np.random.default_rng(1)
    lessons = [
        Lesson(
            PolicyContext(rng.dirichlet(np.ones(TASKS))),
            ARMS[int(rng.integers(3))],
            float(rng.uniform()),
            float(rng.uniform(0.5, 1.5)),
        )
        for _ in range(80)
    ]
    rows = {arm: row for row, arm in enumerate(ARMS)}
    batch = LessonBatch(lessons, rows, np.full((3, TASKS), 0.7))
    # At an expectation of 0.5 one plain outcome has a noise variance of 0.9 * 0.25.
    statistics = batch.summarize([np.full(len(row), 0.5) for row in batch._rows], 0.9)
    shared, own = rng.uniform(0.1, 1.0, 4), rng.uniform(0.1, 1.0, (3, 4))
    at_once, stepwise = statistics.posterior(shared, own), _prior(shared, own)
    for lesson in lessons:
        residual, noise = lesson.quality - 0.7, 0.9 * 0.25 / lesson.weight
        stepwise.update(rows[lesson.arm], build_design_matrix(lesson.context), residual, noise)
    for one, other in zip(at_once.arrays, stepwise.arrays, strict=True):
        assert one == pytest.approx(other, abs=1e-9)


def test_one_arms_failures_show_that_a_task_is_hard_for_all() -> None:
    policy = _policy()
    _teach(policy, "a", 0.0, 40, _context(1))
    quality = policy.rate(_context(1), ARMS).quality
    assert quality[0] < quality[1] == pytest.approx(quality[2])
    assert quality[1] < 0.45
    assert (policy.rate(_context(2), ARMS).quality > quality[1]).all()


def test_an_arm_that_differs_on_one_task_is_rated_differently_there() -> None:
    policy = _policy()
    for _ in range(60):
        policy.learn_one(Lesson(_context(0), "a", 1.0))
        policy.learn_one(Lesson(_context(0), "b", 0.4))
        policy.learn_one(Lesson(_context(1), "a", 0.5))
        policy.learn_one(Lesson(_context(1), "b", 0.5))
    here, there = policy.rate(_context(0), ARMS).quality, policy.rate(_context(1), ARMS).quality
    assert here[0] - here[1] > 0.25
    assert abs(there[0] - there[1]) < 0.5 * (here[0] - here[1])


def test_outcomes_make_an_arm_less_uncertain_and_novelty_makes_all_more_so() -> None:
    policy = _policy()
    before = policy.rate(_context(), ARMS).sd
    _teach(policy, "a", 0.7, 50, _context())
    _teach(policy, "b", 0.7, 50, _context())
    after = policy.rate(_context(), ARMS).sd
    assert after[0] < 0.6 * before[0]
    assert after[2] > 0.9 * before[2]
    strange = policy.rate(_context(novelty=1.0), ARMS).sd
    assert (strange >= np.hypot(after, 0.9 * NOVELTY_SD)).all()


def test_a_tenant_departs_from_all_and_changes_no_other() -> None:
    """However many outcomes one tenant has, the others' ratings do not change by a bit."""
    policy = _policy()
    _teach(policy, "a", 0.9, 20, _context())
    others = policy.rate(_context(tenant="other"), ARMS)
    for _ in range(500):
        _teach(policy, "a", 0.0, 1, _context(tenant="flood"))
        _teach(policy, "b", 0.9, 1, _context(tenant="flood"))
    flood = policy.rate(_context(tenant="flood"), ARMS).quality
    assert flood[0] < 0.2
    assert flood[1] > 0.7
    for tenant in ("other", ""):
        after = policy.rate(_context(tenant=tenant), ARMS)
        assert np.array_equal(after.quality, others.quality)
        assert np.array_equal(after.sd, others.sd)


def test_a_new_tenant_begins_at_the_shared_ratings_and_departs_with_its_outcomes() -> None:
    """Its first outcome changes little where much is known, and more where nothing is."""
    known, unknown = _policy(), _policy()
    for arm in ARMS:
        _teach(known, arm, 0.7, 200, _context())
    moved = []
    for policy in (known, unknown):
        context = _context(tenant="fresh")
        before = policy.rate(context, ARMS)
        assert np.array_equal(before.quality, policy.rate(_context(), ARMS).quality)
        _teach(policy, "a", 0.0, 3, context)
        after = policy.rate(context, ARMS)
        moved.append(before.quality[0] - after.quality[0])
        _teach(policy, "a", 0.0, 300, context)
        _teach(policy, "b", 0.7, 300, context)
        late = policy.rate(context, ARMS)
        assert late.quality[0] < 0.3
        assert late.sd[0] < 0.08
    assert 0.0 < moved[0] < 0.3 * moved[1]


def test_a_tenant_with_outcomes_of_every_arm_gets_the_same_quality_as_one_without() -> None:
    """There are two paths to a rating: the faster one omits what the tenant replaces."""
    policy = _policy()
    policy.add_arm("c")
    for arm, quality in (("a", 0.2), ("b", 0.9), ("a", 0.4), ("b", 0.7)):
        for context in (_context(1), _context(1, tenant="one"), _context(2, tenant="one")):
            _teach(policy, arm, quality, 2, context)
            known = policy.rate(_context(1, tenant="one"), ["a", "b"])
            more = policy.rate(_context(1, tenant="one"), ["a", "b", "c"])
            assert known.quality == pytest.approx(more.quality[:2], abs=1e-12)


def test_a_variant_begins_as_its_relative_and_departs_alone() -> None:
    for tenant in ("", "one"):
        context, policy = _context(1, tenant=tenant), _policy()
        _teach(policy, "a", 0.3, 10, context)
        usual = policy.rate(context, ["a"])
        apart = policy.rate(context, ["a#@price"])
        assert apart.quality == pytest.approx(usual.quality)
        assert apart.sd[0] > usual.sd[0]
        _teach(policy, "a#@price", 0.9, 10, context)
        gap = policy.rate(context, ["a#@price", "b"]).quality @ [1.0, -1.0]
        assert gap > policy.rate(context, ["a", "b"]).quality @ [1.0, -1.0] + 0.05
        kept = HierarchicalPolicy.restore(policy.snapshot())
        assert (kept.rate(context, ["a#@price"]).sd == policy.rate(context, ["a#@price"]).sd).all()


def test_the_number_of_variants_is_bounded() -> None:
    """One beyond the bound updates its relative, lesson by lesson and all at once alike."""
    variants = [f"a#@{number}" for number in range(MAX_VARIANTS + 3)]
    lessons = [Lesson(_context(1), arm, 0.9) for arm in (*variants, "a")]
    stepwise, at_once = _policy(), _policy()
    for lesson in lessons:
        stepwise.learn_one(lesson)
    at_once.fit(lessons)
    for policy in (stepwise, at_once):
        assert policy.arms == (*ARMS, *variants[:MAX_VARIANTS])


def test_the_tenants_idle_for_longest_are_forgotten_first() -> None:
    policy = _policy()
    for tenant in ("one", "two", "one"):
        _teach(policy, "a", 0.0, 30, _context(tenant=tenant))
    for number in range(MAX_TENANT_ARMS - 1):
        _teach(policy, "a", 0.5, 1, _context(tenant=f"tenant {number}"))
    plain = policy.rate(_context(), ARMS).quality[0]
    rated = {name: policy.rate(_context(tenant=name), ARMS).quality[0] for name in ("one", "two")}
    assert rated["two"] == plain
    assert rated["one"] < plain


def test_a_new_arm_leaves_the_others_unchanged() -> None:
    policy = _policy()
    for number, arm in enumerate(ARMS):
        _teach(policy, arm, 0.3 * number, 20, _context(tenant="t"))
        _teach(policy, arm, 0.3 * number, 20, _context())
    context = _context(tenant="t")
    before = policy.rate(context, ("b", "c"))
    policy.add_arm("d", Prior(np.full(TASKS, 0.9), np.full(TASKS, 0.05)))
    after = policy.rate(context, ("b", "c"))
    assert np.array_equal(before.quality, after.quality)
    assert policy.arms == (*ARMS, "d")
    better, like_others = policy.rate(_context(), ("d", "e")).quality
    assert better > like_others + 0.1


def test_a_snapshot_of_an_older_version_rates_and_learns_alike() -> None:
    """It also holds the former settings, empty term groups, and the tenants' weights."""
    policy = _policy()
    for tenant in ("", "t"):
        _teach(policy, "a", 0.2, 20, _context(tenant=tenant))
        _teach(policy, "b#@price", 0.9, 5, _context(1, tenant=tenant))
    state = msgpack.decode(policy.snapshot())
    state[0] = {"tasks": TASKS, "embedding": 0, "features": 0}
    state[1] = {"shared_bias_sd": 0.6, "voice": 0.0, "variants": 64}
    state[3][2] = [[2, 4], np.ones((2, 4)).tobytes()]
    tenants = msgpack.decode(state[6])
    for tenant in tenants:
        tenant[2] = [1.0] * len(tenant[1])
    state[6] = msgpack.encode(tenants)
    older = HierarchicalPolicy.restore(msgpack.encode(state))
    for tenant in ("", "t"):
        one, other = (each.rate(_context(tenant=tenant), ARMS) for each in (policy, older))
        assert np.array_equal(one.quality, other.quality) and np.array_equal(one.sd, other.sd)
        for each in (policy, older):
            _teach(each, "c", 0.4, 3, _context(2, tenant=tenant))
    assert older.snapshot() == policy.snapshot()


def test_an_unknown_arm_is_rated_like_the_average_with_a_wider_sd() -> None:
    policy = _policy(sd=0.05)
    ratings = policy.rate(_context(), ("a", "unknown"))
    assert ratings.quality[1] == pytest.approx(0.7)
    assert ratings.sd[1] > ratings.sd[0]
    assert policy.arms == ARMS


@pytest.mark.parametrize("task", [0, None])
def test_an_arm_with_inflated_variance_is_rated_by_its_latest_outcomes(task: int | None) -> None:
    steady, doubting = _policy(), _policy()
    for policy in (steady, doubting):
        for arm in ARMS:
            _teach(policy, arm, 0.9, 150, _context())
    doubting.inflate_variance("a", task, 4.0)
    assert doubting.rate(_context(), ARMS).sd[0] > 2 * steady.rate(_context(), ARMS).sd[0]
    for policy in (steady, doubting):
        _teach(policy, "a", 0.3, 15, _context())
    slow, quick = steady.rate(_context(), ARMS).quality, doubting.rate(_context(), ARMS).quality
    assert quick[0] < slow[0] - 0.1
    assert quick[1] - quick[0] > slow[1] - slow[0]


def test_fit_estimates_how_much_arms_differ() -> None:
    """One outcome moves a new arm further where the others are far apart."""
    rng = np.random.default_rng(4)

    def fitted(spread: float) -> HierarchicalPolicy:
        policy = HierarchicalPolicy(TASKS)
        for number in range(12):
            policy.add_arm(str(number), Prior(np.full(3, 0.5), np.full(3, 0.1)))
        lessons = [
            Lesson(_context(number % 3), str(arm), float(rng.uniform() < mean))
            for arm, mean in enumerate(np.linspace(0.5 - spread, 0.5 + spread, 12))
            for number in range(40)
        ]
        policy.fit([*lessons, Lesson(_context(), "novice", 1.0)])
        return policy

    wide, narrow = fitted(0.4), fitted(0.0)
    doubts = [policy.rate(_context(), ("novice",)).sd[0] for policy in (wide, narrow)]
    assert doubts[0] > 1.5 * doubts[1]


def test_a_weight_of_nothing_teaches_nothing_and_a_heavy_one_more() -> None:
    light, heavy, none = _policy(), _policy(), _policy()
    for policy, weight in ((light, 0.2), (heavy, 3.0), (none, 0.0)):
        policy.learn_one(Lesson(_context(), "a", 0.0, weight))
    rated = [policy.rate(_context(), ARMS).quality[0] for policy in (none, light, heavy)]
    assert rated[0] == 0.7 > rated[1] > rated[2]


def _prior(shared: Vector, own: Sequence[Vector]) -> QualityPosterior:
    posterior = QualityPosterior(np.diag(shared))
    for variance in own:
        posterior.add_arm(variance)
    return posterior


def _whole(row: int, design: Vector) -> Vector:
    """Return the design of the one large regression, line first, then each of four arms."""
    terms = len(design)
    whole = np.zeros(terms * 5)
    whole[:terms] = design
    whole[terms * (1 + row) : terms * (2 + row)] = design
    return whole
