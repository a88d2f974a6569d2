"""Any body is either understood or the caller's mistake; nothing else ever comes of it."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sophia.core.errors import BadRequest
from sophia.http.v1 import decode

TEXT = st.text(max_size=8)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
PART = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url", "input_audio", "file", "other"])},
    optional={"text": TEXT | JSON},
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool"])},
    optional={"content": TEXT | st.lists(PART, max_size=3) | JSON, "tool_calls": JSON},
)
HINTS = st.dictionaries(
    st.sampled_from(["task_type", "complexity", "max_latency_ms", "cost_sensitive", "min_quality",
                     "max_cost_usd", "models", "session_id", "annotate"]),
    JSON | st.sampled_from(["coding", 0.5, 100, True]),
    max_size=3,
)
FIELD = st.sampled_from(
    ["model", "models", "stream", "max_tokens", "max_completion_tokens", "n", "temperature",
     "top_p", "tools", "response_format", "logprobs", "reasoning", "reasoning_effort", "user",
     "stream_options", "session_id", "seed", "prompt", "input", "dimensions", "provider"]
)
BODY = st.builds(
    lambda fields, messages, hints: fields | {"messages": messages} | hints,
    st.dictionaries(FIELD, JSON, max_size=3),
    st.lists(MESSAGE, max_size=3) | JSON,
    st.just({}) | HINTS.map(lambda hints: {"sophia": hints}),
)
READERS = st.sampled_from([decode.chat, decode.completion, decode.embedding])


def understood(read: Any, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    try:
        told = read(body, headers)
    except BadRequest as refused:
        assert refused.message and refused.status in (400, 404, 413)
        return
    assert told.model and isinstance(told.stream, bool)
    assert told.prompt.chars >= 0 and told.prompt.utf8_bytes >= 0
    assert len(told.prompt.text) <= decode.TEXT_CHARS
    assert not {"model", "models", "route", "stream", "sophia"} & set(told.fields)


@settings(max_examples=500)
@given(READERS, BODY)
def test_a_body_is_understood_or_refused(read: Any, body: dict[str, Any]) -> None:
    understood(read, json.dumps(body).encode(), [])


@given(READERS, JSON)
def test_any_json_is_understood_or_refused(read: Any, body: Any) -> None:
    understood(read, json.dumps(body).encode(), [])


@given(READERS, st.binary(max_size=100))
def test_any_bytes_are_understood_or_refused(read: Any, body: bytes) -> None:
    understood(read, body, [])


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["task-type", "complexity", "max-latency-ms", "cost-sensitive",
                             "min-quality", "max-cost-usd", "models", "session-id", "annotate",
                             "future"]).map(lambda name: f"x-sophia-{name}".encode()),
            st.text(st.characters(max_codepoint=255), max_size=12).map(lambda t: t.encode("latin-1"))
            | st.sampled_from([b"coding", b"0.5", b"true", b"1e400", b"nan", b"inf", b"-0"]),
        ),
        max_size=4,
    )
)
def test_any_hint_headers_are_understood_or_refused(headers: list[tuple[bytes, bytes]]) -> None:
    understood(decode.chat, b'{"messages":[{"role":"user","content":"hi"}]}', headers)


@given(st.dictionaries(TEXT.filter(lambda name: name not in decode._NOT_FORWARDED), JSON, max_size=4))
def test_fields_that_nobody_knows_keep_their_bytes(fields: dict[str, Any]) -> None:
    known = {"messages": [{"role": "user", "content": "hi"}]}
    extra = {f"x_{name}": value for name, value in fields.items()}
    told = decode.chat(json.dumps(known | extra).encode(), [])
    for name, value in extra.items():
        assert bytes(told.fields[name]) == json.dumps(value).encode()  # type: ignore[call-overload]
