"""What another policy would have done is told of what a running Sophia really decided."""

import time
from typing import Any

import pytest
from msgspec.structs import replace

from gateway import Gateway, ServerKind
from sophia.compose import catalogue_of
from sophia.compose.learning import history_of, read_plan
from sophia.compose.what_if import Wish, told
from sophia.config import Judging, Settings
from sophia.core.ids import JUDGING, decode
from sophia.jobs.reload import pool_of
from sophia.learning.ledger_report import NothingLogged
from sophia.learning.logged import decisions_of
from sophia.learning.off_policy import Refused
from sophia.learning.targets import tabled
from sophia.learning.what_if import WhatIf
from teaching import SOON, taught


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
    return Settings(data_dir=str(gateway.folder), learning=SOON)


async def what_if_of(gateway: Gateway, *policies: str, since_ms: int = 0) -> WhatIf:
    settings = settings_of(gateway)
    wish = Wish(policies, since_ms)
    return await told(settings, catalogue_of(settings), wish, lambda step, share: None)


async def test_the_table_is_made_again_as_it_decides(start: Any) -> None:
    """For whatever was asked, cheap or best or as usual, it names the model that `route` names."""
    async with start(learning=SOON) as gateway:
        await taught(gateway, 22, other=0.8)
        asked = []
        for suffix in ("", ":cheap", ":best"):
            for text in TEXTS:
                chosen = (await gateway.client.chat(f"sophia/auto{suffix}", text=text)).json["sophia"]
                if chosen["policy"] == "hierarchical":
                    policy = f"sophia/{suffix[1:] or 'heuristic'}"
                    body = {"model": policy, "messages": [{"role": "user", "content": text}]}
                    plain = (await gateway.client.post("/v1/route", body)).json
                    asked.append((chosen["decision_id"], plain["attempts"][0]["model"]))
        store = gateway.sophia.store
        found = await decisions_of(store, read_plan, 0, shared=False)
        pool = pool_of(catalogue_of(settings_of(gateway)), ())
        known = {one.id: one for one in found.decisions}
        assert len(asked) >= 10
        for id, model in asked:
            one = known[decode("dec", id)]
            assert one.arms[int(tabled(one, pool).argmax())] == model
        assert len({model for _, model in asked}) >= 4


async def test_a_snapshot_is_judged_by_what_came_after_it(start: Any) -> None:
    async with start(learning=SOON) as gateway:
        await taught(gateway, 40, google=0.2, other=0.9)
    first = history_of(gateway.folder)[-1]
    async with start(learning=SOON) as gateway:
        await taught(gateway, 30, google=0.2, other=0.9)
        found = await what_if_of(gateway, first.id[:12], "learned", "hierarchical", "heuristic")
        as_it_was, snapshot, learned, anew, table = found.policies
        assert found.judged >= 35
        since = first.at_ms + 1
        after = await decisions_of(gateway.sophia.store, read_plan, since, shared=False)
        assert snapshot.whole.decisions == len(after.decisions) < found.judged
        assert "left out" in snapshot.note
        # By the ratings and the taste of then nothing would have been done otherwise.
        assert learned.whole.cost_usd == pytest.approx(as_it_was.whole.cost_usd)
        assert learned.agrees == pytest.approx(as_it_was.agrees)
        assert anew.whole.cost_usd > 0 and table.whole.cost_usd > 0
        billed = sum(row.cost_nano for row in await gateway.outcomes()) / 1e9
        assert found.billed_usd + found.others_billed_usd == pytest.approx(billed)
        assert found.judged + found.others == 70


async def test_what_judging_cost_is_no_part_of_what_answers_were_billed(start: Any) -> None:
    judge = Judging(share=1.0, models=("amazon/nova-lite-v1",))
    async with start(learning=replace(SOON, judge=judge)) as gateway:
        await taught(gateway, 25, other=0.9)
        await gateway.sophia.judge.close()
        rows = await gateway.settled(50)
        answers = [row.cost_nano for row in rows if row.attempt_id & 15 != JUDGING]
        assert sum(row.cost_nano for row in rows) > sum(answers)
        found = await what_if_of(gateway, "learned")
        assert found.billed_usd + found.others_billed_usd == pytest.approx(sum(answers) / 1e9)


async def test_a_snapshot_that_nothing_came_after_is_told_to_be_so(start: Any) -> None:
    async with start(learning=SOON) as gateway:
        await taught(gateway, 40, other=0.9)
    last = history_of(gateway.folder)[-1]
    async with start(learning=SOON) as gateway:
        _, snapshot = (await what_if_of(gateway, last.id[:12])).policies
        assert isinstance(snapshot.whole.verdict, Refused)
        assert snapshot.whole.verdict.reason == "there are no decisions to judge it by"


async def test_days_without_learned_decisions_tell_nothing(start: Any) -> None:
    async with start(learning=SOON) as gateway:
        await taught(gateway, 5, other=0.9)
        with pytest.raises(NothingLogged, match="5 were taken by the table"):
            await what_if_of(gateway, "learned")
        with pytest.raises(NothingLogged):
            await what_if_of(gateway, "learned", since_ms=int(time.time() * 1000) + 1000)
