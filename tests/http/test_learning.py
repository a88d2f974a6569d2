"""Sophia learns from feedback which model does what well, and nobody can make it unlearn for others."""

import asyncio
from typing import Any

import pytest

from feedback_traffic import (
    QUESTION,
    SOON,
    archive,
    qualities,
    read_history,
    replayed,
    rolled_back,
    taught,
)
from gateway import MINI, ServerKind, Start
from sophia.adapters.store.driver import load_sqlite
from sophia.cli.commands import policy
from sophia.config import LearningSettings
from sophia.core.errors import ConfigError
from sophia.learning.operations.retrain import retrain_policy
from sophia.tenants.keys import parse_key_id


@pytest.fixture
def server() -> ServerKind:
    """What is learned does not depend on the server; the other files try both."""
    return "native"


async def test_the_priors_decide_until_enough_was_learned(start: Start) -> None:
    """A few requests stay with them afterwards, to compare; each reason tells what decided."""
    async with start(learning=LearningSettings(after=20, explore=False)) as gateway:
        told = await taught(gateway, 40, other=0.8)
        policies = [one["policy"] for one in told]
        assert set(policies[:20]) == {"priors"}
        assert policies[20:].count("hierarchical") >= 15
        assert set(policies) == {"priors", "hierarchical"}
        for outcomes, one in enumerate(told):
            by = "public ratings and benchmarks"
            by = by if one["policy"] == "priors" else f"{outcomes} outcomes"
            assert one["reason"].startswith(f"Best quality for its price by {by}: ")


async def test_what_the_priors_decide_no_outcome_of_the_key_moves(start: Start) -> None:
    """The first few say little, and a comparison needs a side that stands still."""
    body = {"model": "sophia/auto", "messages": [{"role": "user", "content": QUESTION}]}

    async def expected() -> dict[str, float]:
        told = (await gateway.client.post("/v1/route", body)).json
        assert told["policy"] == "priors"
        return {one["model"]: one["quality"] for one in told["candidates"]}

    async with start(learning=SOON) as gateway:
        before = await expected()
        assert before == await qualities(gateway)
        await taught(gateway, 19, other=0.0)
        assert await expected() == before != await qualities(gateway)


async def test_a_teams_outcomes_count_from_the_first_on(start: Start) -> None:
    team = LearningSettings(after=20, share_keys=True, explore=False)
    async with start(learning=team) as gateway:
        told = await taught(gateway, 5, other=0.8)
        assert [one["policy"] for one in told] == ["hierarchical"] * 5
        ratings = "public ratings and benchmarks"
        assert told[0]["reason"].startswith(f"Best quality for its price by {ratings}: ")
        assert told[4]["reason"].startswith("Best quality for its price by 4 outcomes: ")


async def test_a_model_that_disappoints_is_left_for_one_that_does_not(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        first = (await taught(gateway, 20, other=0.0))[0]["model"]
        maker = first.partition("/")[0].partition("-")[0]
        later = await taught(gateway, 60, **{maker: 0.0}, other=1.0)
        assert sum(one["model"] == first for one in later[-20:]) <= 6


async def test_every_learned_decision_comes_out_the_same_bit_by_bit(start: Start) -> None:
    """Also across a restart, a new model and lessons that were learned in between."""
    async with start(learning=SOON) as gateway:
        await taught(gateway, 35, google=0.2, other=0.9)
    async with start(learning=SOON) as gateway:
        await taught(gateway, 15, google=0.2, other=0.9)
        decided = [one["policy"] for one in await gateway.rows("lessons")]
        assert set(decided) == {"priors", "hierarchical"}
        result = await replayed(gateway)
        assert (result.identical, result.skipped) == (50, 0)
        assert result.different == ()


async def test_a_decision_whose_lessons_were_changed_comes_out_differently(start: Start) -> None:
    """A replay that could not fail would prove nothing."""
    async with start(learning=SOON) as gateway:
        await taught(gateway, 30, other=0.9)
        connection = load_sqlite().connect(str(gateway.folder / "sophia.db"), timeout=5)
        connection.execute("UPDATE lessons SET quality = 0.1 WHERE number = 5")
        connection.commit()
        connection.close()
        assert (await replayed(gateway)).different


async def test_what_was_learned_outlives_the_process(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        await taught(gateway, 30, google=0.0, other=1.0)
        before = await qualities(gateway)
    async with start(learning=SOON) as gateway:
        assert await qualities(gateway) == before


async def test_the_explanation_tells_chances_costs_and_the_task(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        learned = [
            one for one in await taught(gateway, 30, other=0.7) if one["policy"] == "hierarchical"
        ]
        account = learned[-1]
        told = (await gateway.client.get(f"/v1/decisions/{account['decision_id']}")).json
        rated = [one for one in told["candidates"] if "propensity" in one]
        assert sum(one["propensity"] for one in rated) == pytest.approx(1.0)
        assert all(one["sd"] > 0 for one in rated)
        chosen = next(one for one in rated if one["model"] == told["attempts"][0]["model"])
        assert told["propensity"] == chosen["propensity"]
        assert 0.0 < sum(told["learned"]["tasks"].values()) <= 1.001
        assert told["learned"]["state"].count("+") == 1


async def test_without_exploring_the_best_is_always_taken(start: Start) -> None:
    async with start(learning=LearningSettings(after=5, explore=False)) as gateway:
        for account in (await taught(gateway, 20, other=0.7))[5:]:
            told = (await gateway.client.get(f"/v1/decisions/{account['decision_id']}")).json
            assert told["propensity"] == 1.0


async def test_a_request_or_a_key_may_have_no_part_in_exploring(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        await taught(gateway, 10, other=0.7)
        careful = await gateway.new_key("careful", explores=False)
        await gateway.catch_up()
        usual = {"model": "sophia/learned", "messages": [{"role": "user", "content": QUESTION}]}
        for body, key, mode in (
            (usual, None, "thompson"),
            ({**usual, "sophia": {"explore": False}}, None, "off"),
            (usual, careful, "off"),
        ):
            told = (await gateway.client.post("/v1/route", body, key=key)).json
            assert told["learned"]["exploration"] == mode
            assert (told["propensity"] == 1.0) == (mode == "off")


async def test_switched_off_nothing_is_looked_at_or_learned(start: Start) -> None:
    async with start(learning=LearningSettings(enabled=False)) as gateway:
        account = (await taught(gateway, 3, other=0.0))[-1]
        told = (await gateway.client.get(f"/v1/decisions/{account['decision_id']}")).json
        assert told["learned"] is None and not await gateway.rows("lessons")


async def test_no_flood_of_feedback_moves_what_another_key_gets(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        flooding = await gateway.new_key()
        await gateway.catch_up()
        await taught(gateway, 22, other=0.8)
        before = await qualities(gateway)
        own = await qualities(gateway, flooding)
        await taught(gateway, 40, flooding, other=0.0)
        assert await qualities(gateway) == before
        assert await qualities(gateway, flooding) != own


async def test_repeated_feedback_counts_once(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        account = (await taught(gateway, 1, other=0.0))[0]
        again = {"decision_id": account["decision_id"], "score": 0.0}
        replay = [(await gateway.client.post("/v1/feedback", again)).json for _ in range(5)]
        assert not any(one["stored"] for one in replay)
        assert len(await gateway.rows("lessons")) == 1


async def test_what_says_nothing_of_quality_takes_no_score_its_turn(start: Start) -> None:
    """A label without a score, or a channel of the caller's own, is kept and not learned from."""
    async with start(learning=SOON) as gateway:
        told = (await gateway.client.chat("sophia/auto", text=QUESTION)).json["sophia"][
            "decision_id"
        ]
        said = (
            {"label": "odd"},
            {"score": 0.1, "channel": "mood"},
            {"score": 0.9},
            {"thumbs": "up"},
        )
        for number, word in enumerate(said):
            body = {"decision_id": told, "idempotency_key": str(number), **word}
            assert (await gateway.client.post("/v1/feedback", body)).json["stored"]
        lessons = await gateway.rows("lessons")
        assert [(one["channel"], one["first"]) for one in lessons] == [("score", 1), ("thumb", 0)]
        assert lessons[0]["quality"] == 0.9


async def test_a_decision_is_learned_from_once_by_each_channel(start: Start) -> None:
    """However many idempotency keys somebody makes up."""
    async with start(learning=SOON) as gateway:
        account = (await taught(gateway, 1, other=0.0))[0]
        verdict = {"decision_id": account["decision_id"], "score": 1.0}
        for number in range(20):
            await asyncio.sleep(0.001)
            more = {"idempotency_key": str(number), "channel": "edit" if number == 7 else "score"}
            await gateway.client.post("/v1/feedback", {**verdict, **more})
        assert len(await gateway.rows("lessons")) == 2


async def test_a_keys_voice_in_a_team_has_its_bound(start: Start) -> None:
    async with start(learning=LearningSettings(after=1000, share_keys=True)) as gateway:
        await taught(gateway, 60, among=(MINI,), other=0.0)
        weights = [one["weight"] for one in await gateway.rows("lessons")]
        assert weights[-1] < 0.97 * weights[0]


async def test_another_keys_decision_cannot_be_judged(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        stranger = await gateway.new_key()
        await gateway.catch_up()
        account = (await taught(gateway, 1, other=1.0))[0]
        verdict = {"decision_id": account["decision_id"], "score": 0.0, "idempotency_key": "x"}
        assert (await gateway.client.post("/v1/feedback", verdict, key=stranger)).status == 404
        assert len(await gateway.rows("lessons")) == 1


async def test_going_back_forgets_what_came_after(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        await taught(gateway, 25, other=0.9)
        good = await qualities(gateway)
    (kept,) = [step.id for step in read_history(gateway)][-1:]
    async with start(learning=SOON) as gateway:
        await taught(gateway, 25, other=0.0)
        assert await qualities(gateway) != good
        await rolled_back(gateway, kept[:12])
        await gateway.sophia.learning.snapshots()
        assert await qualities(gateway) == good
        await taught(gateway, 5, other=0.9)
        assert (await replayed(gateway)).different == ()


async def test_learning_anew_is_judged_by_lessons_it_has_not_seen(start: Start) -> None:
    team = LearningSettings(after=20, share_keys=True)
    async with start(learning=team) as gateway:
        await taught(gateway, 60, google=0.1, other=0.9)
        arms = gateway.sophia.learning.routing.policy.learner.arms
        judged, id = await retrain_policy(archive(gateway, team), gateway.sophia.store, 1)
        assert judged.lessons == 60 and judged.held_out_lessons == 12
        assert judged.current_mse != judged.refit_mse and (id is not None) == judged.better
        await gateway.sophia.learning.snapshots()
        assert set(gateway.sophia.learning.routing.policy.learner.arms) == set(arms)


async def test_keys_that_learn_alone_have_nothing_to_learn_anew(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        with pytest.raises(ValueError, match="share_keys"):
            await retrain_policy(archive(gateway), gateway.sophia.store, 1)


async def test_a_verdict_whose_caller_hangs_up_is_learned_all_the_same(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        await taught(gateway, 22, other=0.9)
        account = (await gateway.client.chat("sophia/auto", text=QUESTION)).json["sophia"]
        body = {"decision_id": account["decision_id"], "score": 0.1}
        for _ in range(3):
            async with gateway.client.connection(gateway.client.request(body, "/v1/feedback")):
                await asyncio.sleep(0.002)
        await taught(gateway, 8, other=0.9)
        assert (
            len(await gateway.rows("lessons"))
            == gateway.sophia.learning.routing.policy.lesson_count
        )
        assert (await replayed(gateway)).different == ()


async def test_going_back_holds_when_the_server_stops_at_once(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        await taught(gateway, 25, other=0.9)
        good = await qualities(gateway)
    async with start(learning=SOON) as gateway:
        await taught(gateway, 25, other=0.0)
        before = [step.id for step in read_history(gateway)][-1]
        await rolled_back(gateway, before)
    async with start(learning=SOON) as gateway:
        assert await qualities(gateway) == good


async def test_what_cannot_be_read_is_named_with_the_way_out(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        await taught(gateway, 3, other=0.9)
    for path in (gateway.folder / "learned").glob("*.snapshot"):
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ConfigError, match="sophia policy rollback"):
        async with start(learning=SOON):
            pass


async def test_a_folder_is_served_by_one_sophia_alone(start: Start) -> None:
    async with start(learning=SOON):
        with pytest.raises(ConfigError, match="another Sophia"):
            async with start(learning=SOON):
                pass


async def test_one_keys_verdicts_do_not_put_the_learned_policy_out_for_another(
    start: Start,
) -> None:
    async with start(learning=SOON) as gateway:
        stranger = await gateway.new_key()
        await gateway.catch_up()
        await taught(gateway, 25, other=0.9)
        live = gateway.sophia.learning.routing.policy
        key_id = parse_key_id(gateway.client.key.encode())
        assert key_id is not None
        before = live.status(key_id)
        await taught(gateway, 40, stranger, other=0.0)
        assert before.lessons and live.status(key_id) == before


async def test_the_command_line_tells_what_was_in_service(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    async with start(learning=SOON) as gateway:
        await taught(gateway, 3, other=0.5)
    policy.list_active_snapshots(data_dir=str(gateway.folder))
    told = capsys.readouterr().out
    assert "priors alone" in told and "stopped" in told and "no longer kept" not in told
    assert "Priors of new models: shipped." in told


async def test_a_tool_loop_stays_with_the_model_that_called_the_tools(start: Start) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    asked = [{"role": "user", "content": QUESTION}]
    back = [
        *asked,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "They are red. " * 40},
    ]
    async with start(learning=SOON) as gateway:
        first = await gateway.client.chat("sophia/auto:best", messages=asked, tools=[tool])
        began = first.json["sophia"]["model"]
        then = await gateway.client.chat("sophia/auto:cheap", messages=back, tools=[tool])
        assert (then.json["sophia"]["model"], then.json["sophia"]["policy"]) == (began, "pinned")
        alone = await gateway.client.chat(
            "sophia/auto:cheap",
            messages=[{"role": "user", "content": "Else."}, *back[1:]],
            tools=[tool],
        )
        assert alone.json["sophia"]["policy"] != "pinned"


async def test_how_a_model_does_with_tools_is_learned_apart(start: Start) -> None:
    """One and the same model may fail in one way of calling it and shine in another."""
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    async with start(learning=SOON) as gateway:
        answer = await gateway.client.chat("sophia/auto", text=QUESTION, tools=[tool])
        account = answer.json["sophia"]
        verdict = {"decision_id": account["decision_id"], "score": 0.0}
        await gateway.client.post("/v1/feedback", verdict)
        await taught(gateway, 1, other=1.0)
        arms = [row["arm"] for row in await gateway.rows("lessons")]
        assert arms[0] == f"{account['model']}#tools" and "#" not in arms[1]


async def test_an_effort_and_a_choice_of_providers_are_arms_of_their_own(start: Start) -> None:
    """They begin where the model stands, depart with their own outcomes, and move nobody else."""
    manner = {"reasoning": {"effort": "high"}, "provider": {"sort": "price"}}
    body = {"model": "sophia/learned", "messages": [{"role": "user", "content": QUESTION}]}

    def lead(told: Any, model: str) -> float:
        found = {one["model"]: one["quality"] for one in told.json["candidates"]}
        return float(found.pop(model) - sum(found.values()) / len(found))

    async with start(learning=SOON) as gateway:
        usual = await gateway.client.post("/v1/route", {**body, "reasoning": {}})
        answer = await gateway.client.chat("sophia/learned", text=QUESTION, **manner)
        model = answer.json["sophia"]["model"]
        begun = lead(await gateway.client.post("/v1/route", {**body, **manner}), model)
        assert begun == pytest.approx(lead(usual, model), abs=1e-6)
        for number in range(8):
            asked = {**manner, "sophia": {"models": [model]}}
            answer = await gateway.client.chat(
                "sophia/learned", text=f"{number} {QUESTION}", **asked
            )
            verdict = {"decision_id": answer.json["sophia"]["decision_id"], "score": 0.3}
            assert (await gateway.client.post("/v1/feedback", verdict)).status == 200
        arms = {row["arm"] for row in await gateway.rows("lessons")}
        assert arms == {f"{model}#reasoning:high@price"}
        told = await gateway.client.post("/v1/route", {**body, **manner})
        assert lead(told, model) < begun - 0.01
        usual = await gateway.client.post("/v1/route", {**body, "reasoning": {}})
        assert lead(usual, model) == pytest.approx(begun, abs=0.005)
        result = await replayed(gateway)
        assert result.identical == 9 and result.different == ()


async def test_the_dial_says_what_money_is_worth(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        chosen = {}
        for dial in (0, 10):
            body = {"model": "sophia/learned", "messages": [{"role": "user", "content": QUESTION}]}
            told = (
                await gateway.client.post("/v1/route", {**body, "sophia": {"quality_bias": dial}})
            ).json
            chosen[dial] = (told["learned"]["price"], told["candidates"])
        assert chosen[0][0] == pytest.approx(1.0) and chosen[10][0] == pytest.approx(0.01)
        likely = [
            max(rated, key=lambda one: one["propensity"])["expected_usd"]
            for _, rated in chosen.values()
        ]
        assert likely[0] < likely[1]
