"""The borders that stop our own mistakes: the request and the job."""

import asyncio
import logging

import pytest

from gateway import BrokenUpstream, Gateway
from sophia.core.events import Settled
from sophia.jobs.timer import run_every
from sophia.serving.attempts.targets.dispatch import UpstreamsByModel


class _Broken:
    def emit(self, event: Settled) -> None:
        raise RuntimeError(f"no sink for {event.model}")


async def test_our_own_mistake_is_a_clean_500_and_a_full_log(
    sophia: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller gets an id to report, the log the traceback, and the next request its answer."""
    runtime = sophia.sophia.app.runtime
    sinks, runtime.sinks = runtime.sinks, (_Broken(),)
    answer = await sophia.client.chat()
    assert answer.status == 500 and answer.error["metadata"]["fault"] == "sophia"
    request_id = answer.error["metadata"]["request_id"]
    (record,) = [record for record in caplog.records if record.name == "sophia.http"]
    assert record.levelno == logging.ERROR and record.exc_info is not None
    assert vars(record)["request_id"] == request_id
    assert "no sink" not in answer.body.decode()
    runtime.sinks = sinks
    assert (await sophia.client.chat()).status == 200


async def test_an_attempt_that_fails_by_our_own_mistake_is_closed(sophia: Gateway) -> None:
    """The upstream may bill it, so its row says that the cost is unknown and it stays charged."""
    sophia.sophia.app.runtime.upstreams = UpstreamsByModel(BrokenUpstream())
    answer = await sophia.client.chat()
    assert answer.status == 500 and answer.error["metadata"]["fault"] == "sophia"
    (row,) = await sophia.settled(1)
    assert (row.state, row.failure) == ("unknown", "internal")
    assert await sophia.standing() == (0.0, row.cost_nano / 1e9)


async def test_a_job_that_fails_comes_again(caplog: pytest.LogCaptureFixture) -> None:
    """One bad turn of a timer is logged and does not end it."""
    turns = asyncio.Queue[int]()
    done: list[int] = []

    async def work() -> None:
        done.append(1)
        turns.put_nowait(len(done))
        if len(done) == 1:
            raise RuntimeError("not today")

    timer = asyncio.create_task(run_every(0.001, "the job", work))
    assert [await turns.get(), await turns.get()] == [1, 2]
    timer.cancel()
    await asyncio.gather(timer, return_exceptions=True)
    assert "the job failed" in caplog.text and "not today" in caplog.text
