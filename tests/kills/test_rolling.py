"""Workers replaced again and again under load, while streams of a minute run."""

import asyncio
import signal
from collections import Counter
from pathlib import Path

import httptools
import pytest

from gateway import CODER, MINI, Answer, Client, chat
from processes import Installation, Served
from sophia.sandbox import ScriptedUpstream, ScriptStep

pytestmark = [pytest.mark.kills, pytest.mark.timeout(300)]
WORKERS, ROLLS = 4, 3
STREAMS = 16
"""Streams that begin before each replacement."""
CALLERS = 8
"""Callers of whole answers with a connection for each request, and as many that keep theirs."""
STREAM_SECONDS = 60


class Load:
    """Callers of whole answers, and the results."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.results: Counter[str] = Counter()
        self._stop = asyncio.Event()
        callers = [self._call, self._call_on_kept_connection] * CALLERS
        self._tasks = [asyncio.create_task(call()) for call in callers]

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.wait_for(asyncio.gather(*self._tasks), 30)

    def _count(self, answer: Answer) -> None:
        is_whole = answer.status == 200 and answer.complete
        self.results["whole" if is_whole else f"status {answer.status}"] += 1

    async def _call(self) -> None:
        while not self._stop.is_set():
            self._count(await self._client.chat())
            await asyncio.sleep(0.05)

    async def _call_on_kept_connection(self) -> None:
        """Open another connection only after an answer with `Connection: close`."""
        request = self._client.request(chat(MINI))
        while not self._stop.is_set():
            reader, writer = await asyncio.open_connection("127.0.0.1", self._client.port)
            self.results["connections"] += 1
            must_close = False
            while not (must_close or self._stop.is_set()):
                writer.write(request)
                answer = Answer()
                parser = httptools.HttpResponseParser(answer)
                while not answer.complete and (some := await reader.read(65536)):
                    parser.feed_data(some)
                    answer.status = parser.get_status_code()
                self._count(answer)
                must_close = not answer.complete or answer.headers.get("connection") == "close"
                await asyncio.sleep(0.05)
            writer.transport.abort()


async def list_pids(served: Served) -> set[int]:
    """Return the processes that answer now."""
    health = (await served.client.get("/health")).json
    return {worker["pid"] for worker in health["workers"]}


async def wait_until_rolled(installation: Installation, times: int) -> None:
    """Wait until the supervisor has replaced all workers so many times."""
    async with asyncio.timeout(45):
        while (installation.folder / "log").read_bytes().count(b"all workers are rep") < times:
            await asyncio.sleep(0.1)


async def test_rolling_restarts_fail_no_request_and_cut_no_stream(
    tmp_path: Path, migrated: Path, up: ScriptedUpstream
) -> None:
    """Streams go on in workers of every earlier generation until they end by themselves."""
    installation = Installation(tmp_path / "data", migrated, up)
    step = ScriptStep(text="word " * (STREAM_SECONDS + 1), chunk_delay=1.0)
    up.script(CODER, step, times=None)
    streams: list[asyncio.Task[Answer]] = []
    loop = asyncio.get_running_loop()
    async with installation.served(SOPHIA_SERVER_WORKERS=str(WORKERS)) as served:
        load = Load(served.client)
        pids = await list_pids(served)
        for number in range(1, ROLLS + 1):
            some = [served.client.chat(CODER, stream=True) for _ in range(STREAMS)]
            streams += map(asyncio.create_task, some)
            began = loop.time()
            await asyncio.sleep(3)
            served.process.send_signal(signal.SIGHUP)
            await wait_until_rolled(installation, number)
            print(f"\nreplaced {WORKERS} workers in {loop.time() - began - 3:.1f} s")
        assert not any(stream.done() for stream in streams), "all of them saw a replacement"
        assert len(await list_pids(served) - pids) >= WORKERS
        answers = await asyncio.wait_for(asyncio.gather(*streams), 2 * STREAM_SECONDS)
        assert loop.time() - began >= STREAM_SECONDS
        async with asyncio.timeout(20):
            while len(await list_pids(served)) > WORKERS:
                await asyncio.sleep(0.1)
        await load.stop()
        served.process.send_signal(signal.SIGTERM)
        assert await served.ended(30) == 0
    print(f"{len(answers)} streams, {dict(load.results)}")
    check(installation, up, load, answers)


def check(
    installation: Installation, up: ScriptedUpstream, load: Load, answers: list[Answer]
) -> None:
    """No caller saw a fault, nothing is open, and the ledger equals the upstream's bill."""
    assert {answer.status for answer in answers} == {200}
    assert all(answer.done and answer.complete for answer in answers)
    assert {answer.text.count("word") for answer in answers} == {STREAM_SECONDS + 1}
    connections = load.results.pop("connections")
    assert set(load.results) == {"whole"} and load.results["whole"] > 1000, load.results
    assert CALLERS < connections < load.results["whole"] / 10, "kept connections moved"
    rows = installation.outcomes()
    assert len(rows) == load.results["whole"] + len(answers)
    assert {row.attempt_id for row in rows} == {
        row["attempt_id"] for row in installation.rows("intents")
    }
    assert {(row.state, row.cost_source) for row in rows} == {("settled", "upstream")}
    bills = {bill.generation_id: bill.cost for bill in up.bill.rows}
    assert {row.generation_id: row.cost_nano for row in rows} == bills
    (key,) = [row for row in installation.rows("accounts") if row["window"]]
    money = key["spent_nano"], key["held_nano"], key["leased_nano"]
    assert money == (up.bill.total, 0, 0) and not installation.rows("leases")
