"""The depth and the repeated fields of JSON bodies, as a plain reader finds them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sophia.core.errors import BadRequest
from sophia.http.v1.json_limits import MAX_DEPTH, check_depth, decode_fields

TEXT = st.text(alphabet='[]{}"\\,:a\n\u00e9')
VALUES = st.recursive(
    st.none() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)


def wrap(value: object, shape: str) -> object:
    """Return `value` inside of one container for each letter."""
    for letter in shape:
        value = [value, '"]'] if letter == "l" else {'}"': 1, "k": value}
    return value


def is_refused(body: bytes) -> bool:
    try:
        check_depth(body)
    except BadRequest:
        return True
    return False


@given(VALUES, st.text("lo", min_size=MAX_DEPTH - 2, max_size=MAX_DEPTH + 2), st.booleans())
@pytest.mark.parametrize("padding", [0, 20_000])
def test_only_what_nests_too_deeply_is_refused(
    padding: int, value: object, shape: str, spread: bool
) -> None:
    """Text that looks like brackets does not count; short and long bodies are read in two ways."""
    inner = [[padding * "x", 1], wrap([value], shape)]
    body = json.dumps(inner, indent=1 if spread else None, ensure_ascii=False).encode()
    depth, most, in_text, escaped = 0, 0, False, False
    for byte in body.decode():
        if in_text:
            in_text = escaped or byte != '"'
            escaped = byte == "\\" and not escaped
        elif byte == '"':
            in_text = True
        elif byte in "[{":
            depth += 1
            most = max(most, depth)
        elif byte in "]}":
            depth -= 1
    if most == MAX_DEPTH + 1:
        # An empty container at that depth may pass.
        return
    assert is_refused(body) == (most > MAX_DEPTH)


@given(st.lists(st.tuples(st.sampled_from(["model", "user", "n", "top_k", "a"]), VALUES)))
def test_a_repeated_field_is_found_in_any_spelling(pairs: list[tuple[str, object]]) -> None:
    """Escapes in names are read before they are compared."""
    names = [name for name, _ in pairs]
    parts = []
    for number, (name, value) in enumerate(pairs):
        key = json.dumps(name) if number % 2 else "".join(f"\\u{ord(one):04x}" for one in name)
        key = key if number % 2 else f'"{key}"'
        parts.append(f"{key}:{json.dumps(value)}")
    body = ("{" + ", ".join(parts) + "}").encode()
    repeated = [name for name in ("model", "user", "n") if names.count(name) > 1]
    if repeated:
        with pytest.raises(BadRequest, match="repeated"):
            decode_fields(body)
    else:
        fields = decode_fields(body)
        last = dict(pairs)
        assert {name: json.loads(bytes(raw)) for name, raw in fields.items()} == last
