"""What another policy would have done is told of what a running Sophia really decided."""

import time
from functools import partial

import pytest
from msgspec.structs import replace

from feedback_traffic import SOON, read_history, taught
from gateway import KNOWN_POOL, Gateway, ServerKind, Start
from sophia.adapters.store.databases.address import StoreAddress
from sophia.adapters.store.report import read_request_costs
from sophia.compose.offline import load_knowledge, open_data_folder
from sophia.config import JudgeSettings, RoutingSettings, Settings
from sophia.core.ids import JUDGE_ATTEMPT, decode_id
from sophia.learning.evaluation.compare import CounterfactualReport, NothingLogged
from sophia.learning.evaluation.logged import read_decisions
from sophia.learning.evaluation.off_policy import InsufficientData
from sophia.learning.evaluation.targets import heuristic_propensities
from sophia.learning.operations.compare import ComparisonRequest, compare_policies


@pytest.fixture
def server() -> ServerKind:
    """What is told does not depend on the server."""
    return "native"


TEXTS = (
    "Hello!",
    "Write a Python function that merges two sorted lists without using sort.",
    "Analyse the causes of the fall of Rome and weigh them against each other, step by step.",
    "Write a poem about a lighthouse in autumn.",
    "Prove that there are infinitely many primes and discuss the proof's constructive content.",
)


def settings_of(gateway: Gateway) -> Settings:
    routing = RoutingSettings(pool=KNOWN_POOL)
    return Settings(data_dir=str(gateway.folder), learning=SOON, routing=routing)


async def what_if_of(gateway: Gateway, *policies: str, since_ms: int = 0) -> CounterfactualReport:
    settings = settings_of(gateway)
    request = ComparisonRequest(policies=policies, since_ms=since_ms)
    async with open_data_folder(settings) as folder:
        pool = load_knowledge(settings).pool
        return await compare_policies(
            folder.archive,
            folder.store,
            pool,
            request,
            partial(read_request_costs, StoreAddress(gateway.folder / "sophia.db")),
            lambda step: None,
        )


async def test_the_table_is_made_again_as_it_decides(start: Start) -> None:
    """For whatever was asked, cheap or best or as usual, it names the model that `route` names."""
    async with start(learning=SOON) as gateway:
        await taught(gateway, 22, other=0.8)
        asked = []
        for suffix in ("", ":cheap", ":best"):
            for text in TEXTS:
                chosen = (await gateway.client.chat(f"sophia/auto{suffix}", text=text)).json[
                    "sophia"
                ]
                if chosen["policy"] == "hierarchical":
                    policy = f"sophia/{suffix[1:] or 'heuristic'}"
                    body = {"model": policy, "messages": [{"role": "user", "content": text}]}
                    plain = (await gateway.client.post("/v1/route", body)).json
                    asked.append((chosen["decision_id"], plain["attempts"][0]["model"]))
        store = gateway.sophia.store
        decisions, _ = await read_decisions(store, 0, shared=False)
        pool = load_knowledge(settings_of(gateway)).pool
        known = {one.id: one for one in decisions}
        assert len(asked) >= 10
        for id, model in asked:
            one = known[decode_id("dec", id)]
            assert one.arms[int(heuristic_propensities(one, pool).argmax())] == model
        assert len({model for _, model in asked}) >= 3


async def test_a_snapshot_is_judged_by_what_came_after_it(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        await taught(gateway, 40, google=0.2, other=0.9)
    first = read_history(gateway)[-1]
    async with start(learning=SOON) as gateway:
        await taught(gateway, 30, google=0.2, other=0.9)
        found = await what_if_of(gateway, first.id[:12], "learned", "hierarchical", "heuristic")
        as_it_was, snapshot, learned, anew, table = found.policies
        assert found.evaluated >= 35
        since = first.at_ms + 1
        after, _ = await read_decisions(gateway.sophia.store, since, shared=False)
        assert snapshot.overall.decisions == len(after) < found.evaluated
        assert "left out" in snapshot.note
        # By the ratings and the taste of then nothing would have been done otherwise.
        assert learned.overall.cost_usd == pytest.approx(as_it_was.overall.cost_usd)
        assert learned.agreement == pytest.approx(as_it_was.agreement)
        assert anew.overall.cost_usd > 0 and table.overall.cost_usd > 0
        billed = sum(row.cost_nano for row in await gateway.outcomes()) / 1e9
        assert found.billed_usd + found.deterministic_billed_usd == pytest.approx(billed)
        assert found.evaluated + found.deterministic == 70


async def test_what_judging_cost_is_no_part_of_what_answers_were_billed(start: Start) -> None:
    judge = JudgeSettings(share=1.0, models=("amazon/nova-lite-v1",))
    async with start(learning=replace(SOON, judge=judge)) as gateway:
        await taught(gateway, 25, other=0.9)
        await gateway.sophia.judge.close()
        rows = await gateway.settled(50)
        answers = [row.cost_nano for row in rows if row.attempt_id & 15 != JUDGE_ATTEMPT]
        assert sum(row.cost_nano for row in rows) > sum(answers)
        found = await what_if_of(gateway, "learned")
        assert found.billed_usd + found.deterministic_billed_usd == pytest.approx(
            sum(answers) / 1e9
        )


async def test_a_snapshot_that_nothing_came_after_is_told_to_be_so(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        await taught(gateway, 40, other=0.9)
    last = read_history(gateway)[-1]
    async with start(learning=SOON) as gateway:
        _, snapshot = (await what_if_of(gateway, last.id[:12])).policies
        assert isinstance(snapshot.overall.estimate, InsufficientData)
        assert snapshot.overall.estimate.reason == "there are no decisions to estimate from"


async def test_days_without_learned_decisions_tell_nothing(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        for _ in range(5):
            account = (await gateway.client.chat("sophia/heuristic")).json["sophia"]
            verdict = {"decision_id": account["decision_id"], "score": 0.9}
            assert (await gateway.client.post("/v1/feedback", verdict)).json["stored"]
        with pytest.raises(NothingLogged, match="5 were made by the heuristic"):
            await what_if_of(gateway, "learned")
        with pytest.raises(NothingLogged):
            await what_if_of(gateway, "learned", since_ms=int(time.time() * 1000) + 1000)
