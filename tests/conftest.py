"""Fixtures of everything that talks to a running Sophia."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings

from gateway import NO_TIMERS, Gateway, ServerKind, prepare, running
from sophia.adapters.store.migrate import migrate
from sophia.config import Settings
from sophia.testing import ScriptedUpstream

settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")

Start = Callable[..., AbstractAsyncContextManager[Gateway]]


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that has the current schema and no rows."""
    path = tmp_path_factory.mktemp("template") / "sophia.db"
    migrate(path)
    return path


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
    """A function that runs a Sophia with other settings; a second call restarts it."""
    folder = tmp_path / "data"

    def begin(**settings: Any) -> AbstractAsyncContextManager[Gateway]:
        if not folder.exists():
            prepare(folder, migrated)
        wanted = msgspec.structs.replace(
            Settings(data_dir=str(folder), catalogue=NO_TIMERS), **settings
        )
        return running(folder, server, wanted, up)

    return begin


@pytest.fixture
async def sophia(start: Start) -> AsyncIterator[Gateway]:
    async with start() as gateway:
        yield gateway
