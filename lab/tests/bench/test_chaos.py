"""Faults of the chaos benchmark, seen without a gateway between client and upstream."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest

from bench.chaos.client import Received, classify, exchange, write_request
from bench.chaos.faults import (
    AFTER_CONTENT,
    BEFORE_CONTENT,
    FALLBACK,
    PRIMARY,
    Phase,
    build_body,
    choose_fault,
    is_streamed,
    list_words,
)
from bench.chaos.upstream import ChaosUpstream
from sophia.sandbox.response.connection import ServerConnection

SEED = 3
PATH = "/api/v1/chat/completions"


@asynccontextmanager
async def upstream() -> AsyncIterator[int]:
    served, connections = ChaosUpstream(SEED), set[ServerConnection]()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: ServerConnection(served.serve, connections), "127.0.0.1", 0, backlog=500
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for connection in tuple(connections):
            connection.transport.abort()
        await asyncio.sleep(0.01)


async def find_outcomes(phase: Phase, numbers: Iterable[int]) -> dict[str, Counter[str]]:
    """Send requests straight to the upstream; return the outcomes by fault."""
    found: dict[str, Counter[str]] = {}

    async def send(port: int, number: int) -> None:
        fault = choose_fault(SEED, phase, number, 0, PRIMARY)
        request = write_request(PATH, (), {**build_body(phase, number, fault), "model": PRIMARY})
        received = await exchange(port, request, 3.0)
        text, streamed = "".join(list_words(phase, number)), is_streamed(phase, number)
        kind = fault.kind if fault else "none"
        found.setdefault(kind, Counter())[classify(received, text, streamed=streamed)] += 1

    async with upstream() as port, asyncio.TaskGroup() as group:
        for number in numbers:
            group.create_task(send(port, number))
    return found


def test_faults_follow_from_the_seed_and_spare_the_fallback() -> None:
    faults = [choose_fault(SEED, "faults", number, 0, PRIMARY) for number in range(5_000)]

    assert faults == [choose_fault(SEED, "faults", n, 0, PRIMARY) for n in range(5_000)]
    kinds = Counter(fault.kind for fault in faults if fault)
    assert set(kinds) == set(BEFORE_CONTENT) and 400 < kinds.total() < 600
    assert not any(choose_fault(SEED, "faults", n, 0, FALLBACK) for n in range(1_000))


@pytest.mark.parametrize("phase", ["faults", "cuts"])
def test_no_fault_looks_like_a_complete_answer(phase: Phase) -> None:
    faults = [choose_fault(SEED, phase, number, 0, PRIMARY) for number in range(2_000)]
    # The client names a closed port for a refused connection; here it asks the upstream.
    chosen = [number for number, fault in enumerate(faults) if fault and fault.kind != "refused"]

    found = asyncio.run(find_outcomes(phase, chosen[:200]))
    assert set(found) == set(AFTER_CONTENT if phase == "cuts" else BEFORE_CONTENT) - {"refused"}
    for kind, outcomes in found.items():
        assert not outcomes["complete"], kind
        assert not outcomes["silent"] or kind == "empty", kind


def test_without_a_fault_the_answer_is_complete() -> None:
    assert asyncio.run(find_outcomes("warm-up", range(20))) == {"none": Counter(complete=20)}


def test_an_answer_goes_on_from_the_text_in_the_request() -> None:
    async def ask() -> Received | None:
        words = list_words("cuts", 0)
        body = build_body("cuts", 0, None)
        messages = [*body["messages"], {"role": "assistant", "content": "".join(words[:5])}]  # type: ignore[misc]
        async with upstream() as port:
            await exchange(port, write_request(PATH, (), body), 0.3)
            return await exchange(
                port, write_request(PATH, (), {**body, "messages": messages}), 1.0
            )

    rest = "".join(list_words("cuts", 0)[5:])
    assert classify(asyncio.run(ask()), rest, streamed=True) == "complete"
