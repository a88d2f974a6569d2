"""What came under a system prompt before has a say in what the next request is taken for."""

from typing import Any

import pytest

from feedback_traffic import SOON, replayed, taught
from gateway import Gateway, ServerKind, Start
from sophia.cli import route_output
from sophia.compose.offline import SNAPSHOT_FOLDER
from sophia.config import LearningSettings

SYSTEM = "You write the release notes of a database for its users."


@pytest.fixture
def server() -> ServerKind:
    """What is remembered does not depend on the server."""
    return "native"


def messages(text: str, system: str = SYSTEM) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, {"role": "user", "content": text}]


async def asks(
    gateway: Gateway, times: int, key: str | None = None, first: int = 0
) -> dict[str, Any]:
    """Ask under the prompt, declaring that it is coding; return the last explanation."""
    for number in range(first, first + times):
        answer = await gateway.client.chat(
            "sophia/auto",
            messages=messages(f"Case {number}: note it, please."),
            sophia={"task_type": "coding"},
            key=key,
        )
        assert answer.status == 200
    decision = answer.json["sophia"]["decision_id"]
    told: dict[str, Any] = (await gateway.client.get(f"/v1/decisions/{decision}", key=key)).json
    return told


async def route(gateway: Gateway, key: str | None = None, **more: Any) -> dict[str, Any]:
    """Return how a request under the prompt would be route_output."""
    body = {"model": "sophia/learned", "messages": messages("And this one?"), **more}
    told = (await gateway.client.post("/v1/route", body, key=key)).json["learned"]
    return {"tasks": told["tasks"], "task_source": told["task_source"]}


async def test_the_explanation_tells_what_the_task_was_told_from(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        first = (await asks(gateway, 1))["learned"]["task_source"]
        assert first["declared"] == "coding" and first["system_prompt"] is None
        later = (await asks(gateway, 9, first=1))["learned"]
        by = later["task_source"]
        assert by["declared"] == "coding" and by["system_prompt"]["requests"] == 9
        assert 0.0 < by["system_prompt"]["believed"] < 1.0
        assert by["text"] != later["tasks"]
        plain = await route(gateway, messages=messages("And this one?", ""))
        assert plain["task_source"] == {
            "text": plain["tasks"],
            "declared": None,
            "system_prompt": None,
        }


async def test_the_command_line_says_it_in_words(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    async with start(learning=SOON) as gateway:
        await asks(gateway, 8)
        body = {"model": "sophia/learned", "messages": messages("And this one?")}
        answer = await gateway.client.post("/v1/route", body | {"sophia": {"task_type": "coding"}})
        route_output.print_decision(answer.body)
    told = " ".join(capsys.readouterr().out.split())
    assert "by text" in told and "declared coding" in told
    assert "8 earlier requests under its system prompt" in told


async def test_a_history_moves_what_a_request_is_taken_for_and_asking_does_not(
    start: Start,
) -> None:
    async with start(learning=SOON) as gateway:
        before = await route(gateway)
        await asks(gateway, 60)
        after, again = await route(gateway), await route(gateway)
        assert after == again
        assert after["task_source"]["system_prompt"]["requests"] == 60
        assert after["task_source"]["text"] == before["tasks"] != after["tasks"]


async def test_another_key_s_requests_are_not_remembered_for_this_one(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        stranger = await gateway.new_key()
        await gateway.catch_up()
        before = await route(gateway)
        await asks(gateway, 20, key=stranger)
        assert await route(gateway) == before
        assert (await route(gateway, stranger))["task_source"]["system_prompt"]["requests"] == 20


async def test_a_team_remembers_together(start: Start) -> None:
    async with start(learning=LearningSettings(after=20, share_keys=True)) as gateway:
        other = await gateway.new_key()
        await gateway.catch_up()
        await asks(gateway, 5, key=other)
        assert (await route(gateway))["task_source"]["system_prompt"]["requests"] == 5


async def test_what_is_remembered_outlives_the_process(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        await asks(gateway, 12)
        before = await route(gateway)
    kept = (gateway.folder / SNAPSHOT_FOLDER / "prompts").read_bytes()
    assert SYSTEM.encode() not in kept and b"release notes" not in kept
    async with start(learning=SOON) as gateway:
        after = (await route(gateway))["task_source"]["system_prompt"]
        assert after == before["task_source"]["system_prompt"]


async def test_what_cannot_be_read_begins_anew(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        await asks(gateway, 3)
    (gateway.folder / SNAPSHOT_FOLDER / "prompts").write_bytes(b"broken")
    async with start(learning=SOON) as gateway:
        assert (await route(gateway))["task_source"]["system_prompt"] is None


async def test_decisions_that_a_history_moved_replay_bit_by_bit(start: Start) -> None:
    """Also when the histories are gone: each decision keeps what they said."""
    async with start(learning=SOON) as gateway:
        await taught(gateway, 25, google=0.2, other=0.9)
        told = (await asks(gateway, 15))["learned"]["task_source"]
        assert told["system_prompt"]["requests"] == 14
    (gateway.folder / SNAPSHOT_FOLDER / "prompts").unlink()
    async with start(learning=SOON) as gateway:
        result = await replayed(gateway)
        assert result.identical >= 12 and result.different == ()
