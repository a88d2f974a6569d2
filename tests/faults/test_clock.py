"""A clock that was set back: no attempt takes the id of an earlier one."""

import time

import pytest

from gateway import Start
from sophia.core.ids import extract_timestamp_ms


class SetBackClock:
    """A clock whose wall time begins anew with each process."""

    monotonic = staticmethod(time.monotonic)

    def __init__(self, wall: float) -> None:
        self._start = time.monotonic()
        self._wall = wall

    def wall(self) -> float:
        # Twenty thousand times slower, so that the same milliseconds come again.
        return self._wall + (time.monotonic() - self._start) / 20_000


@pytest.mark.parametrize("server", ["native"])
async def test_a_clock_that_was_set_back_loses_no_bill(start: Start) -> None:
    """A process that starts then begins behind the newest id that its number has made."""
    began = time.time()
    for wall in (began, began, began - 60):
        async with start(clock=SetBackClock(wall)) as gateway:
            for _ in range(5):
                assert (await gateway.client.chat()).status == 200
            rows, up = await gateway.outcomes(), gateway.up
    assert len(rows) == 15
    assert sum(row.cost_nano for row in rows) == up.bill.total
    times = [extract_timestamp_ms(row.attempt_id) for row in rows]
    assert max(times) - min(times) < 1000
