"""A challenger rises by itself where it is better, nowhere else, and steps back when it is worse."""

from collections.abc import Sequence
from dataclasses import replace as changed

import numpy as np
import pytest
from bench.routing.challenger import KEY, Run, made_up
from msgspec.structs import replace

from sophia.learning.challenge import (
    PLAIN,
    Challenge,
    Hearing,
    Pace,
    challenged,
    chances,
    drawn,
    heard,
    judged,
    lessons_until,
    look,
    rival_of,
)
from sophia.learning.correction import Fitted
from sophia.learning.live import Live
from sophia.learning.logged import Logged
from sophia.learning.off_policy import Comparison, Refused
from sophia.learning.promotion import Contest, Gate, Trial
from sophia.learning.settings import Settings
from sophia.routing.policies.residual import Correction, Rival

QUICK = Pace(first=1500, look=1500, again=1500)
SETTINGS = Settings(challenge=Gate(decisions=1000, outcomes=50, canary=0.1, patience=2500))


def run(kind: str, seed: int = 0) -> Run:
    rng = np.random.default_rng([seed, 5])
    return Run(made_up(kind, rng), rng, SETTINGS, QUICK)


def fitted(shift: float = 0.1, arms: tuple[str, ...] = ("a/first", "b/second")) -> Fitted:
    """A correction that prefers the first arm by twice `shift`, whatever is asked."""
    weights = np.zeros((3, 10))
    weights[0, 0], weights[1, 0] = shift, -shift
    places = {arm: row for row, arm in enumerate(arms)}
    frame = Correction(places, np.zeros(9), np.zeros(9), weights, np.zeros((3, 10)))
    return Fitted(frame, 1000, 2, 0.2, 0.1, 0.1, 0.1)


def fresh(stage: str = "shadow", **more: object) -> Challenge:
    made = challenged(None, fitted(), 1000, 5000)
    return replace(made, contest=replace(made.contest, stage=stage), **more)  # type: ignore[arg-type]


def looked(challenge: Challenge, decisions: Sequence[Logged]) -> Trial:
    rival = rival_of(challenge)
    return look(challenge, [judged(one, rival) for one in decisions], 10**9)


@pytest.fixture(scope="module")
def risen() -> Run:
    """A run until its challenger is champion."""
    found = run("hidden")
    for _ in range(120):
        found.ask(100)
        if found.challenge is not None and found.challenge.contest.stage == "champion":
            return found
    raise AssertionError("nobody rose")


def test_what_the_hierarchy_cannot_express_is_found_proved_and_served(risen: Run) -> None:
    challenge = risen.challenge
    assert challenge is not None
    assert [step.after for step in challenge.contest.history] == ["canary", "champion"]
    assert challenge.contest.incumbent == PLAIN
    assert risen.looks[-1].true > 0.03
    lots = np.arange(200) / 200
    assert sum(bool(risen.live.challengers.drawn(KEY, lot)) for lot in lots) == 190


def test_each_look_takes_later_decisions_only(risen: Run) -> None:
    rulings = [one.ruling for one in risen.looks]
    assert rulings[0].trial.since_ms > risen.taken[QUICK.first - 1].at_ms
    for one, other in zip(rulings, rulings[1:], strict=False):
        assert one.trial.until_ms == other.trial.since_ms
        assert other.error < one.error
    for one in rulings:
        assert isinstance(one.trial.gain, Comparison)
        inside = [
            told
            for told in risen.taken
            if one.trial.since_ms <= told.at_ms < one.trial.until_ms and not told.rated_by
        ]
        assert one.trial.gain.support.decisions == len(inside)


def test_its_state_is_written_down_and_goes_on_the_same(risen: Run) -> None:
    live = risen.live
    again = Live(live.learner, "x", lambda arm: risen.world.priors[arm], SETTINGS)
    again.restore(live.snapshot(), "x")
    assert again.snapshot() == live.snapshot()
    assert again.challengers.all == live.challengers.all
    sight, arms = risen.world.sights[0], risen.world.arms
    name = live.challengers.drawn(KEY, 0.0)
    assert name and again.challengers.drawn(KEY, 0.0) == name
    rated = [one.challengers.policy(one.learner, KEY, name).rate(sight, arms) for one in (live, again)]
    assert rated[0] is not None and rated[1] is not None
    assert np.array_equal(rated[0].quality, rated[1].quality)


def test_one_that_becomes_worse_steps_back_by_itself(risen: Run) -> None:
    """Every arm does what the other did: the plain policy serves again, from the next lesson on."""
    rng = np.random.default_rng(1)
    world = made_up("hidden", rng)
    clear = np.array([one.tasks.max() > 0.6 for one in world.sights], dtype=float)
    turned = changed(world, quality=np.stack([1 - clear, clear, 0 * clear], axis=1))
    watchful = replace(SETTINGS, challenge=replace(SETTINGS.challenge, holdback=0.2))
    run = Run(turned, rng, watchful, QUICK, risen.at_ms)
    run.live.restore(risen.live.snapshot(), "")
    while run.challenge is not None and run.challenge.contest.stage == "champion":
        run.ask(20)
        assert len(run.taken) < 2000
    assert run.challenge is not None
    assert run.challenge.contest.history[-1].reason == "worse than the incumbent live"
    assert {run.live.challengers.drawn(KEY, lot) for lot in (0.0, 0.5, 0.99)} == {""}
    before = run.served["residual"]
    run.ask(50)
    assert run.served["residual"] == before


def test_where_nothing_is_missed_nobody_rises() -> None:
    """Three worlds, two looks and more in each; the bench does so a hundred times."""
    rose = 0
    for seed in range(3):
        found = run("nothing", seed)
        found.ask(4600)
        challenge = found.challenge
        if challenge is not None:
            stages = [step.after for step in challenge.contest.history]
            rose += bool({"canary", "champion"} & {*stages, *(one.stage for one in challenge.past)})
    assert rose == 0


def test_exploring_follows_the_challenger_only_where_they_disagree(risen: Run) -> None:
    shadow = [one for one in risen.taken if one.at_ms > risen.looks[0].ruling.trial.since_ms]
    probed = [one for one in shadow if one.options.trial is not None]
    assert 0.1 < len(probed) / len(shadow) < 0.9
    for one in probed:
        assert one.options.trial is not None
        place, chance = one.options.trial
        assert chance == 0.05 <= one.chances[place]
    assert all(one.options.trial is None for one in risen.taken if one.rated_by)


def test_the_incumbent_is_judged_without_its_probes(risen: Run) -> None:
    probed = next(one for one in risen.taken if one.options.trial is not None)
    assert probed.options.trial is not None
    place, _ = probed.options.trial
    assert chances(probed, probed.options.ratings)[place] < probed.chances[place]


def test_a_challenger_that_changes_nothing_gains_nothing(risen: Run) -> None:
    challenge = challenged(None, fitted(0.0), 0, 0)
    trial = looked(challenge, [one for one in risen.taken if not one.rated_by][:1500])
    assert isinstance(trial.gain, Comparison)
    assert trial.gain.difference.value == pytest.approx(0.0, abs=1e-9)


def test_what_the_log_cannot_tell_is_refused(risen: Run) -> None:
    trial = looked(challenged(None, fitted(0.4), 0, 0), risen.taken[:300])
    assert isinstance(trial.gain, Refused)


@pytest.mark.parametrize(
    ("stage", "early", "late"),
    [("shadow", "", ""), ("canary", "new", ""), ("champion", "new", "new"), ("settled", "new", "new")],
)
def test_a_lot_of_its_own_deals_the_requests(stage: str, early: str, late: str) -> None:
    challenge = fresh(stage)
    name = {"new": challenge.contest.challenger, "": ""}
    assert drawn(challenge, 0.04) == name[early]
    assert drawn(challenge, 0.5) == name[late]


def test_only_what_was_dealt_in_this_stage_counts_and_for_its_own_side() -> None:
    canary = _canary()
    name = canary.contest.challenger
    tells = [
        (Hearing(6999, name, 1.0, 8000), (0, 0)),
        (Hearing(7000, name, 1.0, 8000), (1, 0)),
        (Hearing(7000, "", 1.0, 8000), (0, 1)),
        (Hearing(7000, "somebody else", 1.0, 8000), (0, 0)),
    ]
    for told, counts in tells:
        after = heard(canary, told, 2000).contest
        assert (after.ours.count, after.theirs.count) == counts


def _canary() -> Challenge:
    from sophia.learning.promotion import Standing, Transition, standing

    made = fresh("canary")
    evidence: Standing = standing(made.contest)
    step = Transition(7000, "shadow", "canary", "made so", evidence)
    return replace(made, contest=replace(made.contest, history=(step,)))


def test_the_next_challenger_meets_whoever_serves() -> None:
    """Whoever was beaten is met with a higher margin; whoever settled is the one to beat."""
    settled = _canary()
    settled = replace(settled, contest=replace(settled.contest, stage="settled"))
    after = challenged(settled, fitted(0.2), 9000, 9000)
    assert after.contest.incumbent == settled.contest.challenger
    assert after.before == settled.correction and after.contest.defeats == 0
    assert {drawn(after, lot) for lot in (0.0, 0.9)} == {settled.contest.challenger}
    retired = replace(settled, contest=replace(settled.contest, stage="retired"))
    after = challenged(retired, fitted(0.2), 9000, 9000)
    assert (after.contest.incumbent, after.contest.defeats, after.before) == (PLAIN, 1, b"")
    assert [one.stage for one in after.past] == ["retired"]


@pytest.mark.parametrize(
    ("stage", "defeats", "left"),
    [("shadow", 0, 3500), ("canary", 0, 3500), ("champion", 0, np.inf), ("settled", 0, 3500), ("retired", 1, 7500)],
)
def test_the_next_step_comes_after_so_many_lessons(stage: str, defeats: int, left: float) -> None:
    contest = Contest("new", PLAIN, 0, stage, defeats)  # type: ignore[arg-type]
    assert lessons_until(Challenge(contest, b"", 1000), 1500, Pace()) == left
    assert lessons_until(None, 1500, Pace()) == 2500


def test_a_rival_of_nobody_is_the_challenger_itself() -> None:
    one = fitted(0.1).correction
    assert Rival(one).instead_of is None
