"""Whatever the OpenAPI document allows or forbids, no request makes the server fail."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from schemathesis.checks import CHECKS as KNOWN
from schemathesis.checks import load_all_checks

from gateway import NO_TIMERS, prepare, running
from sophia.config import BudgetSettings, Settings
from sophia.http.routes import DATA_PLANE, OPERATIONS
from sophia.http.v1.openapi import build_openapi_document
from sophia.sandbox import ScriptedUpstream

DOCUMENT = build_openapi_document(DATA_PLANE, OPERATIONS)
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
BY_LABEL = {result.ok().label: result.ok() for result in SCHEMA.get_all_operations()}
load_all_checks()
CHECKS = KNOWN.get_by_names(
    ["not_a_server_error", "status_code_conformance", "response_schema_conformance"]
)


class Running(threading.Thread):
    """A Sophia on a loop of its own, because the fuzzer waits for its answers."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self._folder = folder
        self.ready = threading.Event()
        self.base_url = self.key = ""

    def run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        options = Settings(
            data_dir=str(self._folder), catalogue=NO_TIMERS, budget=BudgetSettings(daily_usd=None)
        )
        async with (
            ScriptedUpstream() as up,
            running(self._folder, "native", options, up) as gateway,
        ):
            self.base_url = f"http://127.0.0.1:{gateway.client.port}"
            self.key = gateway.client.key
            self.ready.set()
            await self._over.wait()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self.join(10)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("fuzz") / "data"
    prepare(folder, migrated)
    thread = Running(folder)
    thread.start()
    assert thread.ready.wait(10)
    yield thread
    thread.stop()


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def test_the_served_document_is_the_one_that_is_fuzzed(
    server: Running, session: requests.Session
) -> None:
    assert session.get(f"{server.base_url}/openapi.json", timeout=5).json() == DOCUMENT


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("label", BY_LABEL)
def test_no_request_makes_the_server_fail(
    server: Running, session: requests.Session, label: str, mode: schemathesis.GenerationMode
) -> None:
    operation = BY_LABEL[label]
    negative = mode is schemathesis.GenerationMode.NEGATIVE
    if negative and operation.method == "get" and not list(operation.iter_parameters()):
        pytest.skip("there is nothing to get wrong")
    headers = {"Authorization": f"Bearer {server.key}"}

    @seed(1)
    @settings(
        max_examples=20, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(operation.as_strategy(generation_mode=mode))
    def attempt(case: schemathesis.Case) -> None:
        response = case.call(server.base_url, session=session, headers=headers, timeout=10)
        case.validate_response(response, checks=CHECKS)

    attempt()
