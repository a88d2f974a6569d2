"""Answers that people met with real upstreams: each is told right, or refused with its reason.

Rows and D numbers are those of the reports that the tests come from.
"""

import json
from typing import Any

import pytest
from odd_upstreams import (
    BOM,
    OWN,
    STREAMS,
    call,
    calls_of,
    delta,
    events,
    finish_reasons,
    own,
    stream_of,
    whole,
)
from stage import HTML, SSE_HEAD

from gateway import MINI, NEMO, SHORT, SONNET, Gateway, Start, chat
from sophia.sandbox import ScriptStep


@pytest.mark.parametrize("empty", ["", "null", "None"])
async def test_an_empty_finish_reason_ends_nothing(sophia: Gateway, empty: str) -> None:
    """Row 1."""
    parts = [delta(empty, content="One"), delta(empty, content=" two"), delta("stop")]
    head, rest = events(parts[0])[:-14], events(*parts[1:])
    sophia.up.script(MINI, ScriptStep(raw=[SSE_HEAD + head, ("sleep", 5.6), rest, "fin"]))
    answer = await sophia.client.chat(stream=True)
    assert (answer.text, finish_reasons(answer), answer.done) == ("One two", ["stop"], True)


async def test_an_answer_that_goes_on_after_an_early_reason_is_not_cut(sophia: Gateway) -> None:
    """Row 1: another way to say a reason on every chunk."""
    first, second = (
        events(delta("stop", content="One"))[:-14],
        events(delta("stop", content=" two")),
    )
    sophia.up.script(MINI, ScriptStep(raw=[SSE_HEAD + first, ("sleep", 5.6), second, "fin"]))
    answer = await sophia.client.chat(stream=True)
    assert (answer.text, answer.done) == ("One two", True)


@pytest.mark.parametrize("native", ["abort", "insufficient_system_resource", "what_is_this"])
async def test_an_unknown_finish_reason_is_no_clean_end(gateway: Gateway, native: str) -> None:
    """D18: before an answer is given, the next model is asked; after content it is told."""
    gateway.up.script(MINI, ScriptStep(finish_reason=native))
    answer = await gateway.client.chat(models=[MINI, NEMO])
    assert (answer.status, answer.headers["x-sophia-model"]) == (200, NEMO)
    gateway.up.script(MINI, ScriptStep(finish_reason=native))
    answer = await gateway.client.chat(models=[MINI, NEMO], stream=True)
    assert not answer.done and finish_reasons(answer)[-1] == "error"
    assert native in answer.chunks[-1]["error"]["message"]


async def test_the_last_finish_reason_counts_and_a_call_is_no_stop(gateway: Gateway) -> None:
    """Row 17."""
    gateway.up.script(
        MINI,
        stream_of(
            delta("stop", content="Let me look."),
            delta(tool_calls=[call("a", '{"x":1}', index=0)]),
            delta("tool_calls"),
        ),
    )
    answer = await gateway.client.chat(stream=True)
    assert finish_reasons(answer)[-1] == "tool_calls"
    gateway.up.script(MINI, whole({"content": None, "tool_calls": [call("a", "{}")]}, None))
    assert finish_reasons(await gateway.client.chat()) == ["tool_calls"]


PARALLEL = {
    "same-index": [[call("a", '{"x":1}', index=0)], [call("b", '{"x":2}', index=0)]],
    "one-chunk": [[call("a", '{"x":1}', index=0), call("b", '{"x":2}', index=0)]],
    "no-index": [[call("a", '{"x":1}')], [call("b", '{"x":2}')]],
    "in-parts": [
        [call("a", '{"x"', index=0)],
        [call(None, ":1}", index=0)],
        [call("b", '{"x"', index=0)],
        [call(None, ":2}", index=0)],
    ],
    "objects": [[call("a", {"x": 1}, index=0)], [call("b", {"x": 2}, index=1)]],
    "interleaved": [
        [call("a", '{"x"', index=0), call("b", '{"x"', index=1)],
        [call(None, ":2}", index=1), call(None, ":1}", index=0)],
    ],
}


@pytest.mark.parametrize("name", PARALLEL)
async def test_parallel_calls_stay_apart(gateway: Gateway, name: str) -> None:
    """Rows 2 and 47."""
    chunks = [delta(tool_calls=part) for part in PARALLEL[name]]
    gateway.up.script(MINI, stream_of(*chunks, delta("tool_calls")))
    answer = await gateway.client.chat(stream=True)
    built = calls_of(answer)
    assert [(at, one["id"], json.loads(one["arguments"])) for at, one in sorted(built.items())] == [
        (0, "a", {"x": 1}),
        (1, "b", {"x": 2}),
    ]


async def test_calls_without_id_and_index_stay_apart_and_get_both(gateway: Gateway) -> None:
    """Rows 2 and 47, streamed and whole."""
    named = [{"function": {"name": name, "arguments": {"at": name}}} for name in ("one", "two")]
    gateway.up.script(MINI, stream_of(delta(tool_calls=named), delta("stop")))
    answer = await gateway.client.chat(stream=True)
    built = calls_of(answer)
    assert len({one["id"] for one in built.values()}) == 2 and all(built[0].values())
    assert finish_reasons(answer) == ["tool_calls"]
    gateway.up.script(MINI, whole({"content": None, "tool_calls": named}))
    message = (await gateway.client.chat()).json["choices"][0]["message"]
    assert [one["type"] for one in message["tool_calls"]] == ["function"] * 2
    assert len({one["id"] for one in message["tool_calls"]}) == 2
    assert json.loads(message["tool_calls"][1]["function"]["arguments"]) == {"at": "two"}


async def test_thousands_of_calls_in_one_event_take_no_time(gateway: Gateway) -> None:
    """D12."""
    calls = [call(f"c{number}", "{}", index=number) for number in range(8_000)]
    gateway.up.script(MINI, stream_of(delta(tool_calls=calls), delta("tool_calls")))
    answer = await gateway.client.chat(stream=True)
    assert len(calls_of(answer)) == 8_000


@pytest.mark.parametrize("megabytes", [1.2, 4])
async def test_a_picture_in_one_event_passes(gateway: Gateway, megabytes: float) -> None:
    """Row 3, in slices of any size."""
    url = "data:image/png;base64," + "A" * int(megabytes * 2**20)
    image = {"type": "image_url", "image_url": {"url": url}}
    gateway.up.script(MINI, stream_of(delta(images=[image], content=""), delta("stop")))
    answer = await gateway.client.chat(stream=True)
    assert answer.done
    assert answer.chunks[0]["choices"][0]["delta"]["images"][0]["image_url"]["url"] == url


@STREAMS
@pytest.mark.parametrize(
    ("usage", "nano"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 115}, 1_060_000),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 115,
                "completion_tokens_details": {"reasoning_tokens": 100},
            },
            1_060_000,
        ),
        ({"prompt_tokens": 10.0, "completion_tokens": 5.0, "total_tokens": 15.0}, 60_000),
        ({"input_tokens": 10, "output_tokens": 5}, 60_000),
    ],
)
async def test_usage_in_other_ways_is_billed_in_full(
    start: Start, stream: bool, usage: dict[str, Any], nano: int
) -> None:
    """Row 4: thoughts beside the completion; figures as fractions, in other words."""
    async with own(start) as gateway:
        if stream:
            step = stream_of(delta(content="Yes."), delta("stop"), {"choices": [], "usage": usage})
        else:
            step = whole({"content": "Yes."}, usage=usage)
        gateway.up.script(MINI, step)
        answer = await gateway.client.chat(OWN, stream=stream)
        (outcome,) = await gateway.settled(1)
        assert (outcome.cost_source, outcome.cost_nano) == ("priced", nano)
        told = (answer.chunks[-1] if stream else answer.json)["usage"]
        assert told["total_tokens"] == outcome.prompt_tokens + outcome.completion_tokens


@STREAMS
async def test_a_key_of_ones_own_at_the_provider_is_billed(gateway: Gateway, stream: bool) -> None:
    """Row 18: OpenRouter takes nothing then, and the provider does."""
    own_cost = {"cost": 0, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.0123}}
    gateway.up.script(MINI, ScriptStep(usage=own_cost))
    await gateway.client.chat(stream=stream)
    assert (await gateway.settled(1))[0].cost_nano == 12_300_000


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"error": {"code": 400, "message": "x", "type": "context_length_exceeded"}}),
        (400, {"error": {"message": "This model's maximum context length is 8 tokens."}}),
        (400, {"object": "error", "message": "The prompt is too long: 9 tokens > 8 maximum"}),
    ],
)
@STREAMS
async def test_too_long_a_prompt_is_told_as_that(
    start: Start, stream: bool, status: int, error: dict[str, Any]
) -> None:
    """Row 5: not as an outage, which clients try again."""
    step = ScriptStep(status=status, body=error)
    async with own(start) as gateway:
        for model in (OWN, MINI):
            gateway.up.script("*", step)
            answer = await gateway.client.chat(model, stream=stream)
            assert answer.status == 400
            assert answer.error["metadata"]["error_type"] == "context_length_exceeded"
        gateway.up.script("*", step, times=3)
        assert (await gateway.client.chat("sophia/auto", stream=stream)).status == 400


@pytest.mark.parametrize("status", [404, 405, 413, 410])
async def test_a_refusal_of_the_only_model_keeps_its_status_and_words(
    gateway: Gateway, status: int
) -> None:
    """Row 6."""
    words = "No endpoints found that support tool use."
    gateway.up.script(MINI, ScriptStep(status=status, message=words))
    answer = await gateway.client.chat()
    assert answer.status == status and words in answer.error["message"]
    assert answer.error["metadata"]["fault"] == "caller"


ERROR_BODIES: dict[str, Any] = {
    "vllm": {"object": "error", "message": "temperature must be at least zero", "code": 400},
    "message": {"message": "temperature must be at least zero"},
    "detail": {"detail": "temperature must be at least zero"},
    "fastapi": {"detail": [{"loc": ["body"], "msg": "temperature must be at least zero"}]},
    "list": [{"error": {"code": 400, "message": "temperature must be at least zero"}}],
    "text": "temperature must be at least zero",
    "in-text": {"error": "temperature must be at least zero"},
}


@pytest.mark.parametrize("name", ERROR_BODIES)
async def test_errors_of_other_servers_keep_their_words(gateway: Gateway, name: str) -> None:
    """Row 7."""
    gateway.up.script(MINI, ScriptStep(status=400, body=json.dumps(ERROR_BODIES[name]).strip('"')))
    answer = await gateway.client.chat()
    assert answer.status == 400 and "temperature must be at least zero" in answer.error["message"]


async def test_an_error_object_in_mid_stream_is_told(gateway: Gateway) -> None:
    """Row 7."""
    error = {"object": "error", "message": "the engine died", "code": 500}
    first, rest = events(delta(content="One"))[:-14], events(error)
    gateway.up.script(MINI, ScriptStep(raw=[SSE_HEAD + first, ("sleep", 0.05), rest, "fin"]))
    answer = await gateway.client.chat(stream=True)
    assert not answer.done and "the engine died." in answer.chunks[-1]["error"]["message"]


@pytest.mark.parametrize("falsy", ["", {}, False, 0, []])
@STREAMS
async def test_an_error_field_that_holds_nothing_is_none(
    gateway: Gateway, stream: bool, falsy: object
) -> None:
    gateway.up.script(MINI, ScriptStep(extra={"error": falsy}))
    assert (await gateway.client.chat(stream=stream)).status == 200


@pytest.mark.parametrize(
    ("wait", "told"),
    [("nan", "1"), ("inf", "1"), ("1e999", "1"), ("20.4", "21"), ("-5", "1"), ("soon", "1")],
)
async def test_a_retry_after_that_is_no_wait(gateway: Gateway, wait: str, told: str) -> None:
    """Row 8 and D7."""
    gateway.up.script(MINI, ScriptStep(status=429, retry_after=wait))
    answer = await gateway.client.chat()
    assert (answer.status, answer.headers["retry-after"]) == (429, told)


@pytest.mark.parametrize("cut", [1, 2, 3, 20])
async def test_a_byte_order_mark_takes_nothing_away(gateway: Gateway, cut: int) -> None:
    """Row 11."""
    data = BOM + events(delta(content="First"), delta("stop", content=" second"))
    raw = [SSE_HEAD + data[:cut], ("sleep", 0.02), data[cut:], "fin"]
    gateway.up.script(MINI, ScriptStep(raw=raw))  # type: ignore[arg-type] # bytes and waits
    answer = await gateway.client.chat(stream=True)
    assert (answer.text, answer.done) == ("First second", True)
    gateway.up.script(MINI, ScriptStep(leading=BOM))
    assert (await gateway.client.chat()).status == 200
    body = BOM + json.dumps(chat()).encode()
    assert (await gateway.client.post("/v1/chat/completions", body)).status == 200


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (["Hi \\ud83d", "\\ude00!"], "Hi 😀!"),
        (["\\ud83d\\ude00"], "😀"),
        (["Zoe \\ud83d"], "Zoe "),
        (["Zoe \\ud83d", " and"], "Zoe \ufffd and"),
        (["\\ude00 Zoe"], "\ufffd Zoe"),
        (["Hi \\ud83d", "", "\\ude00!"], "Hi 😀!"),
    ],
)
async def test_an_emoji_in_two_deltas_arrives(
    gateway: Gateway, parts: list[str], text: str
) -> None:
    """Row 12."""
    plain = json.dumps(delta(content="@"))
    chunks = [plain.replace("@", part) for part in parts]
    gateway.up.script(MINI, stream_of(*chunks, delta("stop")))
    answer = await gateway.client.chat(stream=True)
    assert (answer.text, answer.done) == (text, True)
    body = json.dumps({"choices": [{"message": {"content": "@"}, "finish_reason": "stop"}]})
    gateway.up.script(MINI, ScriptStep(body=body.replace("@", "cut \\ud83d")))
    assert (await gateway.client.chat()).text == "cut \ufffd"


@pytest.mark.parametrize(
    "label", ["Text/Event-Stream", "text/plain", "application/json", "application/octet-stream"]
)
async def test_the_label_of_a_stream_does_not_matter(gateway: Gateway, label: str) -> None:
    """Row 24."""
    body = events(delta(content="Yes"), delta("stop"))
    gateway.up.script(MINI, ScriptStep(body=body, headers={"Content-Type": label}))
    answer = await gateway.client.chat(stream=True)
    assert (answer.text, answer.done) == ("Yes", True)


async def test_a_whole_answer_to_a_request_for_a_stream_is_streamed(gateway: Gateway) -> None:
    """Row 24."""
    gateway.up.script(MINI, whole({"role": "assistant", "content": "Yes"}))
    answer = await gateway.client.chat(stream=True)
    assert (answer.text, answer.done, finish_reasons(answer)) == ("Yes", True, ["stop"])
    gateway.up.script(MINI, ScriptStep(body="<html>busy</html>", headers=HTML))
    assert (await gateway.client.chat(stream=True)).status == 502


async def test_keep_alives_are_believed_while_a_model_thinks(start: Start) -> None:
    """Row 25, with shorter clocks: content comes after three times the deadline."""
    comments = [item for _ in range(12) for item in (b": thinking\n\n", ("sleep", 0.1))]
    raw = [SSE_HEAD, *comments, events(delta(content="Done"), delta("stop")), "fin"]
    async with start(deadlines=SHORT) as gateway:
        gateway.up.script(MINI, ScriptStep(raw=raw))  # type: ignore[arg-type] # bytes and waits
        answer = await gateway.client.chat(stream=True)
        assert (answer.text, answer.done) == ("Done", True)


@STREAMS
async def test_cache_writes_cost_what_the_catalogue_says(gateway: Gateway, stream: bool) -> None:
    """Row 19."""
    usage = {
        "prompt_tokens": 10_000,
        "completion_tokens": 10,
        "cost": None,
        "prompt_tokens_details": {"cache_write_tokens": 10_000},
    }
    gateway.up.script(SONNET, ScriptStep(usage=usage))
    assert (await gateway.client.chat(SONNET, stream=stream)).status == 200
    (outcome,) = await gateway.settled(1)
    # $3.75 for a million tokens that are written to a cache, $15 for a million of the answer.
    assert outcome.estimate_nano == 37_650_000 == outcome.cost_nano


async def test_a_generation_id_of_any_characters_can_be_asked_about(gateway: Gateway) -> None:
    """D13: one odd id must not end the correction of all older bills."""
    upstream = gateway.sophia.connections.by_name["openrouter"]
    for id in ("gen 1 ü#x", "a&id=b", "a\r\nb"):
        assert await upstream.fetch_usage(id) is None
    assert gateway.up.requests[-1].path == "/api/v1/generation"


async def test_an_upstream_cannot_forge_a_line_of_the_log(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    """D14."""
    step = ScriptStep(extra={"model": "x\n2026-01-01 INFO forged"}, malformed_at=2)
    gateway.up.script(MINI, step)
    assert (await gateway.client.chat(stream=True)).status == 200
    assert "malformed event" in caplog.text and "\n2026-01-01 INFO forged" not in caplog.text


async def test_plain_events_after_an_early_reason_are_not_cut(sophia: Gateway) -> None:
    """Row 1: events that look like earlier ones are read by a shorter way."""
    # The shorter way knows compact JSON alone.
    parts = [
        json.dumps(delta(content=text), separators=(",", ":")) for text in ("One", " two", " three")
    ]
    first = events(*parts[:2], delta("stop"), parts[2])[:-14]
    rest = events(delta(content=" four"), delta("stop"))
    sophia.up.script(MINI, ScriptStep(raw=[SSE_HEAD + first, ("sleep", 5.6), rest, "fin"]))
    answer = await sophia.client.chat(stream=True)
    assert (answer.text, answer.done) == ("One two three four", True)


MISLABELLED: dict[str, dict[str, Any]] = {
    "google: key": {
        "error": {
            "code": 400,
            "message": "API key not valid. Please pass a valid API key.",
            "status": "INVALID_ARGUMENT",
            "details": [{"reason": "API_KEY_INVALID"}],
        }
    },
    "xai: key": {
        "code": "Client specified an invalid argument",
        "error": "Incorrect API key provided: sk***st.",
    },
    "anthropic: credit": {
        "error": {
            "type": "invalid_request_error",
            "message": "Your credit balance is too low to access the Anthropic API.",
        }
    },
    "google: region": {
        "error": {
            "code": 400,
            "message": "User location is not supported for the API use.",
            "status": "FAILED_PRECONDITION",
        }
    },
    "llama.cpp: too long": {
        "error": {"code": 400, "message": "too large", "type": "exceed_context_size_error"}
    },
    "together: no model": {
        "error": {
            "message": "Unable to access model x. Please visit https://example.com for the list.",
            "type": "invalid_request_error",
            "code": "model_not_available",
        }
    },
}


@pytest.mark.parametrize("name", MISLABELLED)
@STREAMS
async def test_faults_that_are_not_the_callers_go_to_the_next_model(
    gateway: Gateway, name: str, stream: bool
) -> None:
    """Rows 14, 15, 17, 18 and 20, which these servers report with status 400."""
    gateway.up.script(MINI, ScriptStep(status=400, body=MISLABELLED[name]))
    answer = await gateway.client.chat(models=[MINI, NEMO], stream=stream)
    assert answer.status == 200 and answer.headers["x-sophia-model"] == NEMO


@pytest.mark.parametrize("name", ["google: key", "anthropic: credit"])
async def test_a_refused_account_is_no_refusal_of_the_request(gateway: Gateway, name: str) -> None:
    gateway.up.script(MINI, ScriptStep(status=400, body=MISLABELLED[name]))
    answer = await gateway.client.chat()
    assert answer.status == 502 and "Sophia's own account" in answer.error["message"]


@STREAMS
async def test_a_long_table_is_an_answer(gateway: Gateway, stream: bool) -> None:
    """Commas of its text are no parts of the JSON around it."""
    text = "1,2,3,4\n" * 20_000
    gateway.up.script(
        MINI,
        stream_of(delta(content=text), delta("stop"))
        if stream
        else whole({"role": "assistant", "content": text}),
    )
    answer = await gateway.client.chat(models=[MINI, NEMO], stream=stream)
    assert (answer.headers["x-sophia-model"], answer.text) == (MINI, text)


async def test_a_whole_answer_without_calls_is_read_as_a_stream(gateway: Gateway) -> None:
    gateway.up.script(MINI, whole({"role": "assistant", "content": "Hello", "tool_calls": None}))
    answer = await gateway.client.chat(models=[MINI, NEMO], stream=True)
    assert answer.done and (answer.headers["x-sophia-model"], answer.text) == (MINI, "Hello")
