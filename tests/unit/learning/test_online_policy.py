"""Priors decide until there are outcomes, and a restored policy goes on as if never interrupted."""

import numpy as np
import pytest

from sophia.learning.online.policy import OnlinePolicy, OnlineSettings
from sophia.learning.online.probed import TaskKindWeights, update_prior_from_probes
from sophia.learning.online.tenant_status import LoggedLesson
from sophia.learning.priors.probe_prior import ProbeWins
from sophia.routing.bandit.policy import Lesson, Policy, PolicyContext, Prior
from sophia.routing.bandit.quality.hierarchical import HierarchicalPolicy

TASKS, MODELS = 3, ("a/one", "b/two")


def prior(_: str) -> Prior:
    return Prior(np.full(TASKS, 0.8), np.full(TASKS, 0.1))


def new_policy(*, shared: bool = False) -> OnlinePolicy:
    return OnlinePolicy(HierarchicalPolicy(TASKS), prior, OnlineSettings(10), shared=shared)


def lesson(
    number: int, tenant: str, quality: float, decided_by: str = "hierarchical"
) -> LoggedLesson:
    tasks = np.eye(TASKS)[number % TASKS]
    outcome = Lesson(PolicyContext(tasks, tenant=tenant), MODELS[number % 2], quality, 1.0)
    return LoggedLesson(lesson=outcome, decided_by=decided_by, at_ms=number)


def expected(policy: Policy, tenant: str = "key") -> list[float]:
    ratings = policy.rate(PolicyContext(np.eye(TASKS)[0], tenant=tenant), MODELS)
    assert ratings is not None
    return ratings.quality.tolist()


def test_the_priors_decide_for_a_key_until_it_has_enough_outcomes() -> None:
    """From then on a twentieth of its requests stays with them, for comparison."""
    policy = new_policy()
    policy.add_models(MODELS)
    for number in range(10):
        assert {policy.assign(draw / 20, "key").name for draw in range(20)} == {"priors"}
        policy.learn(lesson(number, "key", 0.0, "priors"))
    assigned = [policy.assign((draw + 0.5) / 20, "key") for draw in range(20)]
    assert [one.name for one in assigned] == ["hierarchical"] * 19 + ["priors"]
    assert (assigned[0].outcomes, assigned[-1].outcomes) == (10, None)
    assert policy.assign(0.0, "another key").name == "priors"


def test_what_was_learned_decides_at_once_for_a_team_and_where_it_is_asked_for() -> None:
    team = new_policy(shared=True)
    assert (team.assign(0.99).name, team.assign(0.99).outcomes) == ("hierarchical", 0)
    alone = new_policy()
    named = alone.assign(0.99, "key", requested=True)
    assert (named.name, named.outcomes) == ("hierarchical", 0)


def test_what_is_worse_than_the_priors_leaves_the_choice_to_them() -> None:
    """Until there are many more outcomes; who asks for it by name gets it all the same."""
    policy = new_policy()
    policy.add_models(MODELS)
    for number in range(400):
        learned = number % 2
        policy.learn(lesson(number, "key", float(not learned), ("priors", "hierarchical")[learned]))
    rollout = policy.status("key").rollout
    assert rollout is not None and rollout.stage == "retired"
    assert {policy.assign(draw / 20, "key").name for draw in range(20)} == {"priors"}
    assert policy.assign(0.0, "key", requested=True).name == "hierarchical"


def test_the_priors_know_every_arm_and_no_outcome() -> None:
    """Models that are added and probed later, too, and after a restart."""
    policy = new_policy()
    policy.add_models(MODELS[:1])
    policy.assign(0.0, "key")
    policy.add_models(MODELS)
    before = expected(policy.assign(0.0, "key").policy)
    assert before == [0.8, 0.8]
    policy.set_probe_prior(MODELS[1], Prior(np.full(TASKS, 0.6), np.full(TASKS, 0.1)))
    assert expected(policy.assign(0.0, "key").policy) == [0.8, 0.6]
    for number in range(40):
        policy.learn(lesson(number, "key", 0.0))
    held_back, learned = policy.assign(0.99, "key"), policy.assign(0.0, "key")
    assert (held_back.name, learned.name) == ("priors", "hierarchical")
    assert expected(held_back.policy) == [0.8, 0.6]
    assert all(one < 0.6 for one in expected(learned.policy))
    restored = new_policy()
    restored.restore(policy.snapshot(), "base")
    assert expected(restored.assign(0.99, "key").policy) == [0.8, 0.6]


def test_an_arm_of_which_nothing_is_known_starts_at_the_mean_of_the_others() -> None:
    """Whatever the order in which they are added."""
    known = {"a/one": 0.9, "b/two": 0.7}

    def find(arm: str) -> Prior | None:
        mean = known.get(arm)
        return None if mean is None else Prior(np.full(TASKS, mean), np.full(TASKS, 0.1))

    for models in (["c/three", *MODELS], [*MODELS, "c/three"]):
        policy = OnlinePolicy(HierarchicalPolicy(TASKS), find)
        policy.add_models(models)
        (quality,) = policy.learner.rate(PolicyContext(np.eye(TASKS)[0]), ["c/three"]).quality
        assert quality == pytest.approx(0.8)


def test_probes_of_a_model_that_nothing_is_known_of_do_not_move_its_starting_point() -> None:
    """Probing again with the same answers gives the same prior; it is no second evidence."""

    def find(arm: str) -> Prior | None:
        return None if arm.startswith("c/three") else prior(arm)

    policy = OnlinePolicy(HierarchicalPolicy(TASKS), find)
    policy.add_models([*MODELS, "c/three"])
    kinds = TaskKindWeights(("code",), np.ones((TASKS, 1)))
    lost = {"code": ProbeWins(count=40, losses=30)}
    first, second = [
        update_prior_from_probes(policy, "c/three", MODELS, lost, kinds) for _ in range(2)
    ]
    assert first.posterior is not None and second.posterior is not None
    assert first.posterior.quality < first.prior.quality - 0.01
    assert second.prior.quality == pytest.approx(first.prior.quality)
    assert second.posterior.quality == pytest.approx(first.posterior.quality)
    assert policy.unprobed_prior("c/three").mean == pytest.approx(0.8)


def test_a_restored_policy_goes_on_bit_by_bit() -> None:
    """Drift detectors too: an alarm must come at the same lesson."""
    original = new_policy()
    original.add_models(MODELS)
    for number in range(60):
        original.learn(lesson(number, f"key-{number % 7}", float(number % 5 > 1)))
    restored, adopted = new_policy(), new_policy()
    restored.restore(original.snapshot(), "base")
    copy = new_policy()
    copy.restore(original.snapshot(), "base")
    adopted.replace_with(copy)
    for number in range(60, 120):
        for policy in (original, restored, adopted):
            policy.learn(lesson(number, f"key-{number % 3}", 0.0))
    assert restored.snapshot() == original.snapshot() == adopted.snapshot()


def test_tenants_without_evidence_of_drift_take_no_space() -> None:
    """Ten thousand keys whose models do well need no drift state."""
    satisfied, upset = new_policy(), new_policy()
    for policy, quality in ((satisfied, 1.0), (upset, 0.0)):
        policy.add_models(MODELS)
        for number in range(40):
            policy.learn(lesson(number, f"key-{number}", quality))
    assert b"key-7\0" not in satisfied.snapshot()
    assert b"key-7\0" in upset.snapshot()
