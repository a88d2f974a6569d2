"""The routes beside chat: models and embeddings."""

import pytest

from clients.programs import OPENAI_CLIENTS, OPENROUTER_CLIENTS, Program, only

pytestmark = pytest.mark.clients


@only(*OPENAI_CLIENTS, *OPENROUTER_CLIENTS)
def test_every_model_is_listed_once_with_sophias_own(client: Program) -> None:
    ids = client.get("list")["ids"]
    assert len(ids) == len(set(ids)) > 300
    assert {"sophia/auto", "openai/gpt-4o-mini"} <= set(ids)


@only(*OPENAI_CLIENTS, *OPENROUTER_CLIENTS)
def test_each_input_is_embedded_in_order(client: Program) -> None:
    inputs = ["a router", "a switch", "a hub"]
    seen = client.get("embed", model="vectors/embed-small", inputs=inputs)
    assert seen["indexes"] == [0, 1, 2]
    assert len(set(seen["sizes"])) == 1
    assert seen["sizes"][0] > 1
