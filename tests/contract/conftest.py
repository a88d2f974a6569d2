"""Fixtures of the adapters' tests; the HTTP/1.1 client runs on both event loops."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import uvloop

from postgres_server import PostgresServer


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.path.name.startswith("test_http1"):
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture(params=["sqlite", "postgres"])
def any_folder(request: pytest.FixtureRequest) -> Path:
    """A data folder whose store is empty, in each database."""
    folder: Path = request.getfixturevalue(
        "folder" if request.param == "sqlite" else "server_folder"
    )
    return folder


@pytest.fixture
def server_folder(tmp_path: Path, postgres: PostgresServer) -> Path:
    """A data folder that names a new database of the server."""
    (tmp_path / "store.url").write_text(postgres.create_database())
    return tmp_path


@pytest.fixture
def folder(tmp_path: Path, migrated: Path) -> Path:
    (tmp_path / "sophia.db").write_bytes(migrated.read_bytes())
    return tmp_path
