"""Ids grow with time, whatever the clock does, and survive the way through their text."""

from hypothesis import given
from hypothesis import strategies as st

from sophia.core.ids import MAX_ATTEMPTS, IdGenerator, decode_id, encode_id

NUMBERS = st.integers(0, 2**63 - 1)
CLOCKS = st.lists(st.integers(0, 2**44), min_size=1, max_size=30)


@given(CLOCKS)
def test_ids_grow_even_when_the_clock_steps_back(times: list[int]) -> None:
    clock = iter(times)
    ids = IdGenerator(lambda: next(clock))
    made = [ids.next() for _ in times]
    assert made == sorted(set(made)) and all(id & MAX_ATTEMPTS == 0 for id in made)
    assert made[0] >> 18 == times[0]


@given(CLOCKS)
def test_attempts_stay_below_the_next_request(times: list[int]) -> None:
    clock = iter(times)
    ids = IdGenerator(lambda: next(clock))
    made = [ids.next() for _ in times]
    attempts = [id | number for id in made for number in range(MAX_ATTEMPTS + 1)]
    assert attempts == sorted(set(attempts))


@given(NUMBERS, st.sampled_from(["req", "dec"]))
def test_text_and_number_are_one(number: int, prefix: str) -> None:
    text = encode_id(prefix, number)
    assert decode_id(prefix, text) == number
    assert decode_id("other", text) is None


@given(NUMBERS, NUMBERS)
def test_texts_sort_as_numbers_do(one: int, other: int) -> None:
    assert (encode_id("req", one) < encode_id("req", other)) is (one < other)


@given(
    st.text(max_size=24)
    | st.text("0123456789abcdefghjk", min_size=13, max_size=16).map(lambda tail: f"req-{tail}")
)
def test_any_text_is_an_id_or_none(text: str) -> None:
    number = decode_id("req", text)
    assert number is None or encode_id("req", number) == text
