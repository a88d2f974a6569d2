"""The fast path through a stream gives the bytes of the full one; both satisfy every client."""

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from shapes import check_chunk
from sophia.adapters.upstreams.stream import ChunkReader
from sophia.adapters.upstreams.whole import parse_whole_answer
from sophia.core.calls import Deadlines, UpstreamCall
from sophia.core.failures import UpstreamFailure

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        '"',
        "\\",
        "\\u0041",
        '"content":"',
        "\n",
        "\x00",
        "\x7f",
        "\u2028",
        "é",
        "😀",
        "</",
        "}]}",
        " ",
    ]
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def call(endpoint: Any = "chat/completions") -> UpstreamCall:
    return UpstreamCall(
        request_id="req-1",
        endpoint=endpoint,
        model="acme/model",
        fields={},
        stream=True,
        deadlines=Deadlines(),
    )


class Long(ChunkReader):
    """A reader that never takes the fast path."""

    def read(self, payloads: list[bytes]) -> Any:
        self._template = None
        total = super().read([])
        for payload in payloads:
            self._template = None
            batch = super().read([payload])
            total.chunks += batch.chunks
            total.has_content = total.has_content or batch.has_content
            total.text_bytes += batch.text_bytes
        return total


CHOICE = st.fixed_dictionaries(
    {"index": st.integers(0, 1), "delta": st.fixed_dictionaries({"content": TEXT})},
    optional={"finish_reason": st.none(), "logprobs": st.none()},
)
EXTRAS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.just("gen-1"),
        "created": st.sampled_from([1_700_000_000, 1_700_000_000.5]),
        "model": st.just("acme/model-2"),
        "provider": st.just("Acme"),
        "system_fingerprint": st.sampled_from([None, "fp"]),
        "usage": st.none(),
    },
)
TOOL = st.fixed_dictionaries(
    {"function": st.fixed_dictionaries({"arguments": TEXT})},
    optional={"id": st.sampled_from(["c1", "c2"]), "index": st.integers(0, 2)},
)


PLAIN = st.text("abc é😀", min_size=1, max_size=4)


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Events of an upstream: the same head, spacing and escaping throughout."""
    extras, common = draw(EXTRAS), draw(st.sampled_from([{}, {"finish_reason": None}]))
    ascii_only, spaced = draw(st.booleans()), draw(st.booleans())
    with_role = draw(st.sampled_from([{}, {"role": "assistant"}, {"role": None}]))
    payloads = []
    for _ in range(draw(st.integers(2, 8))):
        text_part = draw(PLAIN | TEXT)
        choices: list[Any] = [{"index": 0, "delta": {**with_role, "content": text_part}, **common}]
        kind = draw(st.sampled_from(["text"] * 5 + ["tool", "other", "two", "odd"]))
        if kind == "tool":
            choices[0]["delta"] = {"tool_calls": [draw(TOOL)]}
        elif kind == "other":
            choices[0]["index"] = 1
        elif kind == "two":
            choices.append({"index": 1, "delta": {"content": draw(TEXT)}})
        elif kind == "odd":
            choices = [draw(CHOICE)]
        text = json.dumps(
            {**extras, "choices": choices},
            ensure_ascii=ascii_only,
            separators=(", ", ": ") if spaced else (",", ":"),
        )
        payloads.append(text.encode())
    return payloads


@settings(max_examples=400)
@given(streams())
def test_the_fast_path_gives_the_bytes_of_the_full_one(payloads: list[bytes]) -> None:
    short, long = ChunkReader(call(), "Up", 1), Long(call(), "Up", 1)
    for payload in payloads:
        batch, expected = short.read([payload]), long.read([payload])
        assert batch.chunks == expected.chunks
        assert batch.has_content == expected.has_content
        assert batch.text_bytes == expected.text_bytes
        for chunk in batch.chunks:
            check_chunk(json.loads(chunk))


@given(st.text(max_size=8), st.binary(max_size=6))
def test_bytes_that_are_no_text_never_take_the_fast_path(text: str, junk: bytes) -> None:
    """Invalid UTF-8 and raw control characters are no JSON: noise, never sent on."""
    head, tail = b'{"id":"g","choices":[{"index":0,"delta":{"content":"', b'"}}]}'
    reader = ChunkReader(call(), "Up", 1)
    reader.read([head + b"Hello" + tail])
    reader.malformed = -100
    piece = reader.read([head + junk + tail])
    for chunk in piece.chunks:
        check_chunk(json.loads(chunk.decode()))


@settings(max_examples=300)
@given(st.lists(JSON, max_size=3), st.sampled_from(["chat/completions", "completions"]))
@example([5], "chat/completions")
def test_any_json_is_either_in_shape_or_a_failure(values: list[Any], endpoint: str) -> None:
    reader = ChunkReader(call(endpoint), "Up", 1)
    try:
        for value in values:
            for chunk in reader.read([json.dumps(value).encode()]).chunks:
                check_chunk(json.loads(chunk), chat=endpoint == "chat/completions")
    except UpstreamFailure:
        return


NAMES = ("content", "role", "reasoning", "reasoning_details", "tool_calls", "refusal", "function")
ODD_DELTA = st.dictionaries(
    st.sampled_from(NAMES),
    JSON
    | st.lists(
        st.dictionaries(
            st.sampled_from(["index", "id", "type", "function", "text"]), JSON, max_size=4
        ),
        max_size=2,
    ),
    max_size=4,
)
ODD_CHOICE = st.fixed_dictionaries(
    {},
    optional={
        "index": JSON,
        "delta": ODD_DELTA | JSON,
        "message": ODD_DELTA | JSON,
        "text": JSON,
        "finish_reason": JSON | st.sampled_from(["stop", "eos", "error"]),
        "logprobs": JSON,
        "error": JSON,
    },
)
ODD_BODY = st.fixed_dictionaries(
    {"choices": st.lists(ODD_CHOICE, max_size=2) | JSON},
    optional={
        "id": JSON,
        "created": JSON,
        "model": JSON,
        "provider": JSON,
        "error": st.none(),
        "system_fingerprint": JSON,
        "object": JSON,
        "usage": JSON
        | st.dictionaries(
            st.sampled_from(
                [
                    "prompt_tokens",
                    "completion_tokens",
                    "total_tokens",
                    "cost",
                    "prompt_tokens_details",
                    "completion_tokens_details",
                ]
            ),
            JSON,
        ),
    },
)


@settings(max_examples=500)
@given(st.lists(ODD_BODY, max_size=3), st.sampled_from(["chat/completions", "completions"]))
def test_odd_chunks_are_brought_into_shape_or_fail(bodies: list[Any], endpoint: str) -> None:
    """Whatever an upstream sends, no client gets a type that it cannot parse."""
    chat = endpoint == "chat/completions"
    reader = ChunkReader(call(endpoint), "Up", 1)
    try:
        for body in bodies:
            piece = reader.read([json.dumps(body).encode()])
            for chunk in piece.chunks:
                check_chunk(json.loads(chunk), chat=chat)
    except UpstreamFailure:
        return


@settings(max_examples=500)
@given(ODD_BODY, st.sampled_from(["chat/completions", "completions", "embeddings"]))
def test_odd_whole_answers_are_brought_into_shape_or_fail(body: Any, endpoint: str) -> None:
    try:
        piece = parse_whole_answer(json.dumps(body).encode(), call(endpoint), "Up", 1)
    except UpstreamFailure:
        return
    (chunk,) = piece.chunks
    body = json.loads(chunk)
    if endpoint == "embeddings":
        return
    assert body["choices"] and isinstance(body["provider"], str)
    for choice in body["choices"]:
        assert type(choice["index"]) is int
        assert choice["finish_reason"] in {"stop", "length", "tool_calls", "content_filter"}
        if endpoint == "completions":
            assert isinstance(choice["text"], str)
        else:
            assert isinstance(choice["message"]["role"], str)
