"""Any body is either parsed or refused as the caller's mistake; nothing else happens."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sophia.core.calls import Endpoint
from sophia.core.errors import BadRequest
from sophia.http.v1 import decode
from sophia.http.wire import Headers, HttpRequest
from sophia.serving.request import Request
from sophia.tenants.keys import Principal

TEXT = st.text(max_size=8)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
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
    st.sampled_from(
        [
            "task_type",
            "complexity",
            "max_latency_ms",
            "cost_sensitive",
            "min_quality",
            "strict",
            "max_cost_usd",
            "quality_bias",
            "models",
            "session_id",
            "annotate",
        ]
    ),
    JSON | st.sampled_from(["coding", 0.5, 100, True]),
    max_size=3,
)
FIELD = st.sampled_from(
    [
        "model",
        "models",
        "stream",
        "max_tokens",
        "max_completion_tokens",
        "n",
        "temperature",
        "top_p",
        "tools",
        "response_format",
        "logprobs",
        "reasoning",
        "reasoning_effort",
        "user",
        "stream_options",
        "session_id",
        "seed",
        "prompt",
        "input",
        "dimensions",
        "provider",
    ]
)
ALIASES = {"usual": "acme/one", "acme/two": "sophia/auto"}
NAME = st.sampled_from([*ALIASES, *ALIASES.values(), "acme/three"])
NAMES = st.fixed_dictionaries({}, optional={"model": NAME, "models": st.lists(NAME, max_size=3)})
BODY = st.builds(
    lambda names, fields, messages, hints: names | fields | {"messages": messages} | hints,
    NAMES,
    st.dictionaries(FIELD, JSON, max_size=3),
    st.lists(MESSAGE, max_size=3) | JSON,
    st.just({}) | HINTS.map(lambda hints: {"sophia": hints}),
)
ENDPOINTS: st.SearchStrategy[Endpoint] = st.sampled_from(
    ["chat/completions", "completions", "embeddings"]
)
PRINCIPAL = Principal(
    key_id="k", name="n", scope="inference", daily_budget_nano=None, per_request_nano=None
)


def parse(endpoint: Endpoint, body: bytes, headers: Headers) -> Request:
    incoming = HttpRequest(
        method=b"POST", path="/", query=b"", headers=headers, fields=dict(headers), body=body
    )
    return decode.parse_request(
        endpoint, incoming, 1, PRINCIPAL, 0.0, lambda name: ALIASES.get(name, name)
    )


def check_parsed_or_refused(endpoint: Endpoint, body: bytes, headers: Headers) -> None:
    try:
        request = parse(endpoint, body, headers)
    except BadRequest as error:
        assert error.message and error.status in (400, 404, 413)
        return
    assert request.model and isinstance(request.stream, bool)
    assert not ALIASES.keys() & {request.model, *request.fallback_models}
    assert request.model not in request.fallback_models
    assert request.prompt.chars >= 0 and request.prompt.utf8_bytes >= 0
    assert len(request.prompt.text) <= decode.MAX_TEXT_CHARS
    assert not {"model", "models", "route", "stream", "sophia"} & set(request.fields)


@settings(max_examples=500)
@given(ENDPOINTS, BODY)
def test_a_body_is_parsed_or_refused(endpoint: Endpoint, body: dict[str, Any]) -> None:
    check_parsed_or_refused(endpoint, json.dumps(body).encode(), [])


@given(ENDPOINTS, JSON)
def test_any_json_is_parsed_or_refused(endpoint: Endpoint, body: Any) -> None:
    check_parsed_or_refused(endpoint, json.dumps(body).encode(), [])


@given(ENDPOINTS, st.binary(max_size=100))
def test_any_bytes_are_parsed_or_refused(endpoint: Endpoint, body: bytes) -> None:
    check_parsed_or_refused(endpoint, body, [])


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "task-type",
                    "complexity",
                    "max-latency-ms",
                    "cost-sensitive",
                    "min-quality",
                    "max-cost-usd",
                    "quality-bias",
                    "models",
                    "session-id",
                    "annotate",
                    "future",
                ]
            ).map(lambda name: f"x-sophia-{name}".encode()),
            st.text(st.characters(max_codepoint=255), max_size=12).map(
                lambda t: t.encode("latin-1")
            )
            | st.sampled_from([b"coding", b"0.5", b"true", b"1e400", b"nan", b"inf", b"-0"]),
        ),
        max_size=4,
    )
)
def test_any_hint_headers_are_parsed_or_refused(headers: Headers) -> None:
    body = b'{"messages":[{"role":"user","content":"hi"}]}'
    check_parsed_or_refused("chat/completions", body, headers)


@given(
    st.dictionaries(TEXT.filter(lambda name: name not in decode._NOT_FORWARDED), JSON, max_size=4)
)
def test_unknown_fields_keep_their_bytes(fields: dict[str, Any]) -> None:
    known = {"messages": [{"role": "user", "content": "hi"}]}
    extra = {f"x_{name}": value for name, value in fields.items()}
    request = parse("chat/completions", json.dumps(known | extra).encode(), [])
    for name, value in extra.items():
        assert bytes(request.fields[name]) == json.dumps(value).encode()  # type: ignore[call-overload]
