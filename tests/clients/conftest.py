"""A running Sophia, its scripted upstream, and one long-lived program for each client library."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from clients import servers
from clients.programs import CLIENTS, Client, Program
from clients.servers import Gateway, Upstream


@pytest.fixture(scope="session")
def running_upstream() -> Iterator[Upstream]:
    """Yield the scripted upstream of the whole run."""
    with servers.upstream() as upstream:
        yield upstream


@pytest.fixture(scope="session")
def gateway(
    running_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """Yield the Sophia of the whole run."""
    with servers.gateway(running_upstream, tmp_path_factory.mktemp("data")) as gateway:
        yield gateway


@pytest.fixture(scope="session")
def start(gateway: Gateway) -> Iterator[Callable[[Client], Program]]:
    """Yield a function that starts a client's program on first use."""
    started: dict[Client, Program] = {}
    with ExitStack() as programs:

        def program(client: Client) -> Program:
            if client not in started:
                new = Program(client, gateway.url, gateway.key)
                started[client] = programs.enter_context(closing(new))
            return started[client]

        yield program


@pytest.fixture
def upstream(running_upstream: Upstream) -> Iterator[Upstream]:
    """Yield the scripted upstream, for one test to script."""
    yield running_upstream
    running_upstream.clear()


@pytest.fixture(params=CLIENTS, ids=[client.name for client in CLIENTS])
def client(request: pytest.FixtureRequest, start: Callable[[Client], Program]) -> Program:
    """Return the program of one client; `@only(...)` narrows the choice."""
    return start(request.param)
