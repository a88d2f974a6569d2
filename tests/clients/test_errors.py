"""Every client turns Sophia's errors into its own exceptions."""

from typing import Any

import pytest

from clients.programs import AI_SDK_NODE, OPENAI_CLIENTS, OPENROUTER_CLIENTS, Program, only
from clients.servers import Upstream

pytestmark = pytest.mark.clients

AUTO = "sophia/auto"
NAMED = "openai/gpt-4o-mini"
REFUSED = {
    "unknown model": (404, {"model": "openai/gpt-4o-minni"}),
    "bad key": (401, {"key": "sk-sph-0000"}),
    "bad parameter": (400, {"settings": {"max_tokens": -1}}),
}
# The pause lets what was said before the end arrive by itself: an answer of which nothing has
# been passed on may still be asked of another model.
BROKEN = {
    "error": {"error_at": 3, "message": "The model fell over.", "chunk_delay": 0.03},
    "cut": {"cut_after": 3, "chunk_delay": 0.03},
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("what", REFUSED)
def test_a_refused_request_raises_what_the_caller_can_mend(
    client: Program, what: str, stream: bool
) -> None:
    status, ask = REFUSED[what]
    error = failure(client.try_to("chat", **{"model": NAMED, "stream": stream, **ask}))
    assert client.client.errors[what] in error["types"]
    assert error["status"] == status


def test_an_unknown_model_is_answered_with_the_nearest_names(client: Program) -> None:
    error = failure(client.try_to("chat", model="openai/gpt-4o-minni"))
    assert NAMED in error["message"]


@only(*OPENAI_CLIENTS)
def test_the_code_of_an_error_is_an_integer(client: Program) -> None:
    assert failure(client.try_to("chat", model="openai/gpt-4o-minni"))["code"] == 404


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("status", "what", "told"), [(429, "busy", 429), (503, "busy", 429), (500, "down", 502)]
)
def test_when_no_model_answers_the_client_hears_why(
    client: Program, upstream: Upstream, status: int, what: str, told: int, stream: bool
) -> None:
    """No capacity is a 429, since some clients repeat a 5xx for an hour without looking up."""
    upstream.script({"status": status, "retry_after": "7"})
    error = failure(client.try_to("chat", model=AUTO, stream=stream))
    assert client.client.errors[what] in error["types"]
    assert error["status"] == told


@pytest.mark.parametrize("how", BROKEN)
def test_an_answer_that_breaks_off_is_no_answer(
    client: Program, upstream: Upstream, how: str
) -> None:
    upstream.script(BROKEN[how])
    seen = client.try_to("chat", model=AUTO, stream=True)
    assert seen["text"]
    if client.client in OPENROUTER_CLIENTS:
        # These two never raise: they leave it to the program to look at each chunk.
        assert isinstance(seen["chunk_error"]["code"], int)
        assert seen["finish"] == "error"
    elif client.client is not AI_SDK_NODE:
        assert client.client.errors["mid-stream"] in failure(seen)["types"]
    else:
        assert seen["part_error"]["message"]


def failure(seen: dict[str, Any]) -> dict[str, Any]:
    """Return the error that was seen; a stream may hold it in a part of its own."""
    error = seen.get("error") or seen.get("part_error")
    assert error, seen
    return error
