"""Several processes behind one address: watched, replaced one by one, with one truth."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway import MINI, Answer
from processes import Installation, Served
from sophia.compose.keys import create_key
from sophia.compose.offline import open_store
from sophia.config import Settings
from sophia.core.money import nano_from_usd
from sophia.sandbox import ScriptedUpstream, ScriptStep

WORKERS = {"SOPHIA_SERVER_WORKERS": "2"}


@pytest.fixture
def installation(tmp_path: Path, migrated: Path, up: ScriptedUpstream) -> Installation:
    return Installation(tmp_path / "data", migrated, up)


@pytest.fixture
async def served(installation: Installation) -> AsyncIterator[Served]:
    async with installation.served(**WORKERS) as served:
        yield served


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def workers(served: Served) -> list[dict[str, Any]]:
    health = (await served.client.get("/health")).json
    found: list[dict[str, Any]] = health["workers"]
    return found


async def until_workers(
    served: Served, condition: Callable[[list[dict[str, Any]]], bool], seconds: float = 15.0
) -> list[dict[str, Any]]:
    """Return the workers once `condition` holds for them."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                if condition(found := await workers(served)):
                    return found
            except (ConnectionError, ValueError):
                pass
            await asyncio.sleep(0.05)


async def spread(served: Served, count: int = 40) -> list[Answer]:
    """Ask on connections of their own, which all workers take."""
    return await asyncio.gather(*(served.client.chat() for _ in range(count)))


def check_ledger(installation: Installation, up: ScriptedUpstream) -> None:
    """The ledger has what the upstream billed, and nothing is held or leased."""
    rows = installation.outcomes()
    assert sum(row.spent_nano for row in rows) == up.bill.total
    spent = {row["account"]: row for row in installation.rows("accounts")}
    key = next(row for row in spent.values() if row["window"])
    assert (key["spent_nano"], key["held_nano"], key["leased_nano"]) == (up.bill.total, 0, 0)
    assert not installation.rows("leases")


async def test_all_workers_serve_and_are_seen_together(
    served: Served, installation: Installation, up: ScriptedUpstream
) -> None:
    assert {answer.status for answer in await spread(served)} == {200}
    both = await workers(served)
    assert [each["worker"] for each in both] == [0, 1]
    assert [each["leader"] for each in both].count(True) == 1
    assert len({each["pid"] for each in both} | {served.process.pid}) == 3
    await asyncio.sleep(0.5)
    page = (await served.client.get("/metrics")).body.decode()
    lines = [line for line in page.splitlines() if line.startswith("openrouter_requests_total{")]
    assert sum(float(line.rsplit(" ", 1)[1]) for line in lines) == 40
    assert {line.split('worker="')[1][0] for line in lines} == {"0", "1"}, "both got some"
    (cost,) = [line for line in page.splitlines() if line.startswith("openrouter_cost_dollars{")]
    assert float(cost.rsplit(" ", 1)[1]) == pytest.approx(up.bill.total / 1e9)
    assert page.count("# TYPE openrouter_requests_total ") == 1
    served.process.send_signal(signal.SIGTERM)
    assert await served.ended() == 0
    check_ledger(installation, up)


async def test_a_killed_worker_is_replaced_and_loses_nothing(
    served: Served, installation: Installation, up: ScriptedUpstream
) -> None:
    await spread(served, 10)
    victim, other = await workers(served)
    os.kill(victim["pid"], signal.SIGKILL)
    assert {answer.status for answer in await spread(served)} == {200}
    pids = {victim["pid"], other["pid"]}
    await until_workers(served, lambda found: len(found) == 2 and not all(
        each["pid"] in pids for each in found))  # fmt: skip
    served.process.send_signal(signal.SIGTERM)
    assert await served.ended() == 0
    check_ledger(installation, up)


async def test_a_worker_that_hangs_is_killed(installation: Installation) -> None:
    async with installation.served(**WORKERS) as served:
        victim, _ = await workers(served)
        os.kill(victim["pid"], signal.SIGSTOP)
        await until_workers(
            served,
            lambda found: len(found) == 2 and victim["pid"] not in {one["pid"] for one in found},
            seconds=30,
        )


async def test_workers_are_replaced_one_by_one_without_a_failed_request(
    served: Served, installation: Installation, up: ScriptedUpstream
) -> None:
    """Streams that run longer than any drain go on to their end."""
    up.script(MINI, ScriptStep(text="word " * 60, chunk_delay=0.1), times=12)
    streams = [asyncio.create_task(served.client.chat(stream=True)) for _ in range(12)]
    async with asyncio.timeout(5):
        while len(up.requests) < 12:
            await asyncio.sleep(0.01)
    before = {each["pid"] for each in await workers(served)}
    answers: list[Answer] = []
    stop = asyncio.Event()

    async def ask() -> None:
        while not stop.is_set():
            answers.append(await served.client.chat())

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    served.process.send_signal(signal.SIGHUP)
    after = await until_workers(
        served,
        lambda found: len(found) >= 2 and not before & {each["pid"] for each in found},
        seconds=30,
    )
    stop.set()
    await asyncio.gather(*asking)
    assert len(after) == 2 and len(answers) > 20
    assert {answer.status for answer in answers} == {200}
    for stream in await asyncio.gather(*streams):
        assert stream.status == 200 and stream.done and stream.complete
    served.process.send_signal(signal.SIGTERM)
    assert await served.ended() == 0
    check_ledger(installation, up)


async def test_workers_stay_when_the_new_ones_do_not_start(
    installation: Installation, tmp_path: Path
) -> None:
    settings = tmp_path / "sophia.yaml"
    settings.write_text("server: {workers: 2}\n")
    async with installation.served(SOPHIA_CONFIG=str(settings)) as served:
        before = {each["pid"] for each in await workers(served)}
        settings.write_text("server: {workers: many}\n")
        served.process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(15):
            while b"did not become ready" not in (installation.folder / "log").read_bytes():
                await asyncio.sleep(0.05)
        assert {each["pid"] for each in await workers(served)} == before
        assert {answer.status for answer in await spread(served)} == {200}


async def test_workers_end_with_their_supervisor(served: Served) -> None:
    pids = [each["pid"] for each in await workers(served)]
    served.process.send_signal(signal.SIGKILL)
    async with asyncio.timeout(10):
        while any(is_alive(pid) for pid in pids):
            await asyncio.sleep(0.05)


async def test_a_second_supervisor_is_refused(served: Served, installation: Installation) -> None:
    with pytest.raises(AssertionError, match="ended before it served"):
        async with installation.served(**WORKERS):
            pass
    assert b"another Sophia serves from" in (installation.folder / "log").read_bytes()
    assert {answer.status for answer in await spread(served)} == {200}


async def test_a_first_worker_that_cannot_start_ends_the_supervisor(
    installation: Installation,
) -> None:
    rules = {"SOPHIA_ROUTING_RULES": str(installation.folder / "absent.yaml")}
    with pytest.raises(AssertionError, match="ended before it served"):
        async with installation.served(**WORKERS, **rules):
            pass


async def test_a_budget_over_two_workers_is_exact(
    installation: Installation, up: ScriptedUpstream
) -> None:
    """It is used up to the last request that fits, and not beyond."""
    async with installation.served() as served:
        answer = await served.client.chat(max_tokens=20)
        cost = nano_from_usd(answer.json["usage"]["cost"])
        served.process.send_signal(signal.SIGINT)
        await served.ended()
    held = installation.rows("intents")[0]["held_nano"]
    limit = cost + 30 * cost + held
    budget = {"SOPHIA_BUDGET_DAILY_USD": str(limit / 1e9)}
    async with installation.served(**WORKERS, **budget) as served:
        statuses = [(await served.client.chat(max_tokens=20)).status for _ in range(80)]
        assert statuses.index(402) >= 30 and set(statuses[statuses.index(402) :]) == {402}
        await asyncio.sleep(0.5)
        assert limit - held < up.bill.total <= limit
        served.process.send_signal(signal.SIGINT)
        assert await served.ended() == 0
    check_ledger(installation, up)


async def test_keys_are_known_and_revoked_everywhere_within_a_second(
    served: Served, installation: Installation
) -> None:
    token, row = create_key(installation.folder, "second")
    async with open_store(Settings(data_dir=str(installation.folder))) as store:
        await store.add_key(row)
        answers = await asyncio.gather(*(served.client.chat(key=token) for _ in range(20)))
        assert {answer.status for answer in answers} == {200}
        await store.revoke_key(row.id, 1)
    await asyncio.sleep(1.0)
    answers = await asyncio.gather(*(served.client.chat(key=token) for _ in range(20)))
    assert {answer.status for answer in answers} == {401}


async def test_all_workers_learn_the_same(installation: Installation) -> None:
    """Whatever worker decided and whatever worker was told: one order, one state."""
    async with installation.served(**WORKERS, SOPHIA_LEARNING_ENABLED="true") as served:
        (before,) = {each["learned"] for each in await workers(served)}

        async def teach(number: int) -> None:
            answer = await served.client.chat("sophia/auto", text=f"Add {number} and {number}.")
            body = {"decision_id": answer.json["sophia"]["decision_id"], "score": number % 3 / 2}
            assert (await served.client.post("/v1/feedback", body)).status in (200, 201, 202)

        await asyncio.gather(*map(teach, range(30)))
        found = await until_workers(
            served,
            lambda found: (
                found[0]["lessons"] == found[1]["lessons"] >= 30
                and found[0]["learned"] == found[1]["learned"]
            ),
        )
        assert found[0]["learned"] != before
        served.process.send_signal(signal.SIGINT)
        assert await served.ended() == 0
    replay = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sophia", "decisions", "verify", "--json",
        "--data-dir", str(installation.folder), env=installation.environment,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await replay.communicate()
    told = json.loads(out)
    assert told["same"] == 30 and not told["different"], told


async def test_the_port_is_free_again_at_once(installation: Installation) -> None:
    """The end of a connection that the server closed first stays in the kernel for a minute."""
    port = 0
    for _ in range(2):
        async with installation.served(port, **WORKERS) as served:
            port = served.client.port
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            served.process.send_signal(signal.SIGINT)
            assert await served.ended() == 0
            await reader.read()
            writer.close()
