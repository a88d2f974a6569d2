"""A challenger of the learned policy looks on, serves a share and steps back, in a running Sophia."""

import asyncio
import time
from typing import Any

import pytest
from msgspec.structs import replace

from gateway import Gateway, ServerKind
from sophia.adapters.clock import SystemClock
from sophia.adapters.store.driver import sqlite
from sophia.cli import challengers
from sophia.compose.challenge import challenge_now, standings
from sophia.compose.learning import history_of, read_plan
from sophia.jobs.challenge import ChallengeLearned
from sophia.learning.challenge import Challenge, Pace
from sophia.learning.promotion import Stage, Transition, standing
from teaching import QUESTION, SOON, replayed

QUICK = Pace(first=100, look=20, again=20)


@pytest.fixture
def server() -> ServerKind:
    """Who challenges whom does not depend on the server."""
    return "native"


async def ask(gateway: Gateway, model: str = "sophia/auto", score: float = 0.8) -> dict[str, Any]:
    """Ask once and score the answer; return the account of the decision."""
    answer = await gateway.client.chat(model, text=QUESTION)
    assert answer.status == 200
    account = dict(answer.json["sophia"])
    verdict = {"decision_id": account["decision_id"], "score": score}
    assert (await gateway.client.post("/v1/feedback", verdict)).status == 200
    return account


async def looked(gateway: Gateway) -> Challenge | None:
    """Take the step that is due for the only key; return its challenge."""
    learner = gateway.sophia.learner
    assert learner is not None
    live = learner.insight.live
    store, clock = gateway.sophia.store, SystemClock()
    await ChallengeLearned(live, store, read_plan, learner.keeper.rule, clock, pace=QUICK)()
    return live.challengers.all.get(live.tenants[0])


async def begun(gateway: Gateway) -> Challenge:
    """Teach two models apart, and let a challenger look on."""
    for _ in range(55):
        await ask(gateway, "sophia/cheap", 0.9)
        await ask(gateway, "sophia/best", 0.2)
    challenge = await looked(gateway)
    assert challenge is not None
    return challenge


async def put(gateway: Gateway, stage: Stage) -> None:
    """Let the challenger be at a stage, as if it had come so far by itself."""
    learner = gateway.sophia.learner
    assert learner is not None

    def change(now: Challenge | None) -> Challenge | None:
        assert now is not None
        contest = now.contest
        evidence = standing(contest)
        step = Transition(int(time.time() * 1000), contest.stage, stage, "put there", evidence)
        return replace(now, contest=replace(contest, stage=stage, history=(step,)))

    await learner.keeper.rule(learner.insight.live.tenants[0], change, f"{stage} by hand")


async def decided(gateway: Gateway, policy: str) -> dict[str, Any]:
    """Ask until `policy` decides; return the explanation of that decision."""
    for _ in range(2000):
        account = await ask(gateway)
        if account["policy"] == policy:
            answer = await gateway.client.get(f"/v1/decisions/{account['decision_id']}")
            return dict(answer.json)
    raise AssertionError(f"{policy} never decided")


async def test_a_canary_serves_a_share_and_all_of_it_replays_bit_by_bit(start: Any) -> None:
    """Across a restart, too: the same challenger goes on serving its share."""
    async with start(learning=SOON) as gateway:
        await begun(gateway)
        await put(gateway, "canary")
        told = await decided(gateway, "residual")
        plain = await decided(gateway, "hierarchical")
        name = told["learned"]["state"].partition("~")[2]
        assert name and "~" not in plain["learned"]["state"]
        rated = [one for one in told["candidates"] if "propensity" in one]
        assert sum(one["propensity"] for one in rated) == pytest.approx(1.0)
    async with start(learning=SOON) as gateway:
        again = await decided(gateway, "residual")
        assert again["learned"]["state"].endswith(f"~{name}")
        result = await replayed(gateway)
        assert result.different == () and result.same > 2


async def test_a_decision_whose_correction_was_another_comes_out_differently(start: Any) -> None:
    """A replay that could not fail would prove nothing."""
    async with start(learning=SOON) as gateway:
        await begun(gateway)
        await put(gateway, "settled")
        await decided(gateway, "residual")
        assert (await replayed(gateway)).different == ()
    connection = sqlite().connect(str(gateway.folder / "sophia.db"), timeout=5)
    for id, plan in connection.execute("SELECT attempt_id, plan FROM intents").fetchall():
        head, mark, tail = bytes(plan or b"").partition(b"~")
        if mark:
            plain = head + tail[12:]
            connection.execute("UPDATE intents SET plan = ? WHERE attempt_id = ?", (plain, id))
    connection.commit()
    connection.close()
    async with start(learning=SOON) as gateway:
        assert (await replayed(gateway)).different


async def test_a_challenger_looks_on_and_steps_back_when_nothing_is_proved(start: Any) -> None:
    async with start(learning=SOON) as gateway:
        challenge = await begun(gateway)
        assert (challenge.contest.stage, challenge.contest.looks) == ("shadow", 0)
        assert (await ask(gateway))["policy"] != "residual"
        for _ in range(25):
            await ask(gateway)
        after = await looked(gateway)
        assert after is not None and after.contest.looks == 1
        assert after.last is not None and after.last.trial.since_ms == challenge.contest.seen_ms
        assert (await looked(gateway)) == after, "the next look is not due yet"
        assert (await replayed(gateway)).different == ()
        reasons = [step.reason for step in history_of(gateway.folder)]
        assert reasons[-2:] == ["a challenger looks on", "a challenger was looked at"]


async def test_live_scores_count_for_the_side_that_decided(start: Any) -> None:
    """And a challenger that stepped back serves nothing from then on."""
    async with start(learning=SOON) as gateway:
        await begun(gateway)
        await put(gateway, "champion")
        policies = [(await ask(gateway, score=0.25))["policy"] for _ in range(60)]
        learner = gateway.sophia.learner
        assert learner is not None
        live = learner.insight.live
        contest = live.challengers.all[live.tenants[0]].contest
        assert contest.ours.count == policies.count("residual") > 30
        assert contest.theirs.count == policies.count("hierarchical")
        assert contest.ours.total == 0.25 * contest.ours.count
        await put(gateway, "retired")
        assert {(await ask(gateway))["policy"] for _ in range(30)} <= {"hierarchical", "heuristic"}
        assert (await replayed(gateway)).different == ()


async def test_the_command_line_tells_how_far_a_challenger_is(
    start: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    async with start(learning=SOON) as gateway:
        challenge = await begun(gateway)
        await put(gateway, "canary")
        (one,) = await standings(SOON, gateway.folder, gateway.sophia.store)
        assert (one.stage, one.share, one.looks) == ("canary", 0.05, 0)
        assert one.challenger == challenge.contest.challenger
        assert one.history[-1].reason == "put there"
        taken = await challenge_now(SOON, gateway.folder, gateway.sophia.store)
        assert [each.stage for each in taken] == ["canary"], "no step is due"
        page = (await gateway.client.get("/metrics", headers={})).body.decode()
        assert "sophia_challengers_serving 1.0" in page
    for machine in (False, True):
        await asyncio.to_thread(challengers.show, machine, None, str(gateway.folder), now=False)
    told = capsys.readouterr().out
    assert "canary" in told and "put there" in told and '"lessons_left": ' in told


async def test_keys_that_learned_before_the_team_are_not_challenged_any_more(start: Any) -> None:
    """Nobody would ever be dealt to their challengers."""
    async with start(learning=SOON) as gateway:
        for _ in range(55):
            await ask(gateway, "sophia/cheap", 0.9)
            await ask(gateway, "sophia/best", 0.2)
    async with start(learning=replace(SOON, share_keys=True)) as gateway:
        learner = gateway.sophia.learner
        assert learner is not None and learner.insight.live.tenants != ("",)
        assert await looked(gateway) is None
        assert not learner.insight.live.challengers.all
        for _ in range(55):
            await ask(gateway, "sophia/cheap", 0.9)
            await ask(gateway, "sophia/best", 0.2)
        await looked(gateway)
        assert set(learner.insight.live.challengers.all) == {""}


async def test_a_challenger_that_somebody_else_put_there_meanwhile_stays(start: Any) -> None:
    """The server and `sophia learn --challenge` may find the same step due."""
    async with start(learning=SOON) as gateway:
        learner = gateway.sophia.learner
        assert learner is not None
        keep, first = learner.keeper.rule, list[Challenge | None]()

        async def late(tenant: str, change: Any, reason: str) -> None:
            await keep(tenant, change, reason)
            first.append(learner.insight.live.challengers.all.get(tenant))
            # The same again, as if by another who had begun before this one was kept.
            await keep(tenant, change, reason)

        for _ in range(55):
            await ask(gateway, "sophia/cheap", 0.9)
            await ask(gateway, "sophia/best", 0.2)
        store, live = gateway.sophia.store, learner.insight.live
        await ChallengeLearned(live, store, read_plan, late, SystemClock(), pace=QUICK)()
        assert first[0] is not None
        assert live.challengers.all[live.tenants[0]] == first[0]
