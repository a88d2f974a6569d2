"""Fixtures of the tests with a running Sophia."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings

from gateway import (
    KNOWN_POOL,
    NO_TIMERS,
    RECONCILE_DELAYS,
    Gateway,
    ServerKind,
    Start,
    prepare,
    running,
)
from postgres_server import PostgresServer, run_postgres
from sophia.adapters.store.migrate import migrate
from sophia.config import RoutingSettings, Settings
from sophia.core.ports import Clock
from sophia.sandbox import ScriptedUpstream

settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")


_SELECTED_ONLY = ("clients", "packaging", "kills")
"""Markers of tests that need environments of their own, or long: `make test-clients`, `kill-test`."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip those tests unless their marker is selected."""
    for marker in _SELECTED_ONLY:
        if marker in str(config.option.markexpr):
            continue
        skip = pytest.mark.skip(reason=f"a target of the Makefile runs `-m {marker}`")
        for item in items:
            if item.get_closest_marker(marker):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that has the current schema and no rows."""
    path = tmp_path_factory.mktemp("template") / "sophia.db"
    migrate(path)
    return path


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server of this process of the tests."""
    with run_postgres() as server:
        yield server


@pytest.fixture(params=["native", "asgi"])
def server(request: pytest.FixtureRequest) -> ServerKind:
    """Both servers must pass the same tests."""
    kind: ServerKind = request.param
    return kind


@pytest.fixture
async def up() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
def start(tmp_path: Path, migrated: Path, server: ServerKind, up: ScriptedUpstream) -> Start:
    """Return a function that runs a Sophia with changed settings; a second call restarts it."""
    folder = tmp_path / "data"

    def begin(
        *,
        reconcile_delays: Sequence[float] = RECONCILE_DELAYS,
        clock: Clock | None = None,
        **settings: Any,
    ) -> AbstractAsyncContextManager[Gateway]:
        if not folder.exists():
            prepare(folder, migrated)
        changed = msgspec.structs.replace(
            Settings(
                data_dir=str(folder), catalogue=NO_TIMERS, routing=RoutingSettings(pool=KNOWN_POOL)
            ),
            **settings,
        )
        return running(folder, server, changed, up, clock, reconcile_delays)

    return begin


@pytest.fixture
async def sophia(start: Start) -> AsyncIterator[Gateway]:
    async with start() as gateway:
        yield gateway
