"""The world of the failure table's cases, and their list."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from stage import asked, check_books, check_clean

from gateway import MINI, NEMO, SHORT, Answer, Gateway, Start
from sophia.config import UpstreamModelSettings, UpstreamSettings
from sophia.sandbox import ScriptedUpstream, ScriptStep

GONE = "own/gone"
Case = Callable[["World", bool], Awaitable[None]]
CASES: dict[int, Case] = {}
STREAMS_ONLY = {5, 7, 10}
"""Rows of failures that only a stream can have."""


class World:
    """What a case needs: a way to start a Sophia, and where its files are."""

    def __init__(self, start: Start, tmp_path: Path, migrated: Path, up: ScriptedUpstream) -> None:
        self.start, self.folder, self.migrated, self.up = start, tmp_path, migrated, up

    @asynccontextmanager
    async def gateway(self, **settings: Any) -> AsyncIterator[Gateway]:
        async with self.start(**{"deadlines": SHORT, **settings}) as gateway:
            yield gateway


def row(number: int) -> Callable[[Case], Case]:
    def register(case: Case) -> Case:
        CASES[number] = case
        return case

    return register


def told(answer: Answer, stream: bool) -> dict[str, Any]:
    """Return what the answer says of itself."""
    body = answer.chunks[-1] if stream else answer.json
    return dict(body["sophia"])


def check_broken(answer: Answer, cause: str) -> None:
    """A stream ended with an error that names the cause, and not as if it were complete."""
    assert answer.status == 200 and answer.complete and not answer.done
    last = answer.chunks[-1]
    assert last["error"]["metadata"]["cause"] == cause
    assert last["choices"][0]["finish_reason"] == "error"


async def check_next(
    world: World, stream: bool, step: ScriptStep, *, state: str, cause: str, times: int = 1
) -> None:
    """The next model answers, and the failed attempt is booked as `state`."""
    async with world.gateway() as gateway:
        gateway.up.script(MINI, step, times=times)
        check_clean(await asked(gateway, stream))
        first, second = await check_books(gateway, state, "settled")
        assert (first.model, first.failure) == (MINI, cause)
        assert (second.model, second.failure) == (NEMO, None)
        assert (first.cost_nano == 0) == (state == "released")


async def check_ejected(world: World, stream: bool, step: ScriptStep) -> None:
    """The model is not asked again by the next request."""
    async with world.gateway() as gateway:
        gateway.up.script(MINI, step, times=None)
        check_clean(await asked(gateway, stream), NEMO, 2)
        check_clean(await asked(gateway, stream), NEMO, 1)


async def check_told(world: World, stream: bool, step: ScriptStep) -> None:
    """The caller is told with the upstream's status and words; one call, no charge, no blame."""
    async with world.gateway() as gateway:
        gateway.up.script(MINI, step, times=None)
        before = len(gateway.up.requests)
        for _ in range(7):
            answer = await asked(gateway, stream)
            assert answer.status == step.status and step.message in answer.error["message"]
        data = (await gateway.client.get("/v1/models/health")).json["data"]
        assert all(each["state"] == "healthy" for each in data)
        assert len(gateway.up.requests) == before + 7
        assert {each.state for each in (await gateway.settled(before + 7))[before:]} == {"released"}


@asynccontextmanager
async def own_upstream(world: World, port: int) -> AsyncIterator[Gateway]:
    models = (UpstreamModelSettings(id=GONE, completion_usd_per_mtok=1.0),)
    place = UpstreamSettings(name="own", base_url=f"http://127.0.0.1:{port}", models=models)
    async with world.gateway(upstreams=(place,)) as gateway:
        yield gateway
