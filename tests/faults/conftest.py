"""The gateway is tried on the event loop that it serves with."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import uvloop

from gateway import SHORT, Start


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def gateway(start: Start) -> Any:
    """A gateway whose clocks run out soon."""
    async with start(deadlines=SHORT) as running:
        yield running
