"""Header lines of answers: one line each, whatever the value is."""

from hypothesis import given
from hypothesis import strategies as st

from sophia.http.wire import render_header


@given(st.text() | st.text(alphabet="\r\n\0\x0b\x1f\x7f\x85\u2028a: "))
def test_a_value_cannot_add_a_line(value: str) -> None:
    """No control character of a model's or a provider's name reaches the head of an answer."""
    line = render_header(b"x-name", value)
    assert line.startswith(b"x-name: ") and line.endswith(b"\r\n")
    assert all(32 <= byte < 127 for byte in line[:-2])
