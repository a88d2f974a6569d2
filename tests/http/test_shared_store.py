"""A Sophia whose store is on a PostgreSQL server."""

import asyncio
import shutil
from pathlib import Path

import pytest

from gateway import MINI, Start
from postgres_server import PostgresServer
from sophia.config import StoreSettings
from sophia.core.errors import ConfigError


@pytest.fixture
def store(postgres: PostgresServer) -> StoreSettings:
    return StoreSettings(postgres.create_database(empty=True))


async def test_requests_are_charged_and_survive_a_restart(
    start: Start, store: StoreSettings
) -> None:
    """The first start creates the tables."""
    async with start(store=store) as gateway:
        answer = await gateway.client.chat(MINI)
        assert answer.status == 200
        spent, held = await gateway.standing()
        assert spent > 0 and held == 0
    async with start(store=store) as gateway:
        assert await gateway.standing() == (spent, 0)


async def test_requests_go_on_while_the_server_is_away(
    start: Start, store: StoreSettings, postgres: PostgresServer
) -> None:
    """Inside the lease; what they cost is in the store once it is back."""
    async with start(store=store) as gateway:
        assert (await gateway.client.chat(MINI)).status == 200
        once, _ = await gateway.standing()
        postgres.stop()
        try:
            for _ in range(3):
                assert (await gateway.client.chat(MINI)).status == 200
            assert (await gateway.client.get("/health/ready")).status == 200
        finally:
            postgres.start()
        async with asyncio.timeout(10):
            while gateway.sophia.store.depth:
                await asyncio.sleep(0.05)
        assert (await gateway.standing())[0] == pytest.approx(4 * once)


async def test_a_worker_that_others_took_for_dead_refuses_requests(
    start: Start, store: StoreSettings, postgres: PostgresServer
) -> None:
    async with start(store=store) as gateway:
        postgres.execute("UPDATE workers SET token = ''", store.url.rpartition("/")[2])
        assert not await gateway.sophia.store.beat()
        answer = await gateway.client.chat(MINI)
        assert answer.status == 503 and "took it for dead" in answer.error["message"]
        assert (await gateway.client.get("/health/ready")).status == 503
        assert not gateway.up.requests


async def test_keys_of_another_data_folder_need_its_secret(
    start: Start, store: StoreSettings, tmp_path: Path
) -> None:
    """Otherwise every key would be refused, without a reason."""
    async with start(store=store):
        pass
    shutil.move(tmp_path / "data" / "pepper", tmp_path / "pepper")
    with pytest.raises(ConfigError, match="copy the file `pepper`"):
        async with start(store=store):
            pass
