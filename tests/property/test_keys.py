"""API keys: any change of a single character fails, and only digests are kept."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sophia.core.rows import KeyRow
from sophia.tenants.keys import KeyRing, digest, kid, mint

RANDOM = st.binary(min_size=42, max_size=42)
SCOPES = st.sampled_from(["inference", "admin"])
PEPPER = b"p" * 32


def row(token: str, scope: str = "inference", revoked: int | None = None) -> KeyRow:
    data = token.encode()
    return KeyRow(kid(data) or "", digest(data, PEPPER), "n", scope, 1, 2, 3, revoked)  # type: ignore[arg-type]


@given(RANDOM, SCOPES)
def test_a_minted_key_is_found(random: bytes, scope: str) -> None:
    token = mint(random, scope)  # type: ignore[arg-type]
    found = KeyRing(PEPPER, [row(token, scope)]).find(token.encode())
    assert found is not None and found.scope == scope
    assert token.startswith("sk-sph-admin-" if scope == "admin" else "sk-sph-")
    assert (found.daily_budget_nano, found.per_request_nano) == (1, 2)


@given(RANDOM, SCOPES, st.data())
def test_every_change_of_one_character_fails(random: bytes, scope: str, data: st.DataObject) -> None:
    token = mint(random, scope)  # type: ignore[arg-type]
    ring = KeyRing(PEPPER, [row(token, scope)])
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from(string.printable).filter(lambda char: char != token[place]))
    wrong = (token[:place] + other + token[place + 1 :]).encode()
    assert kid(wrong) is None and ring.find(wrong) is None and not ring.knows(wrong)
    for cut in (token[:place] + token[place + 1 :], token + other, other + token):
        assert ring.find(cut.encode()) is None


@given(st.binary(max_size=80))
def test_any_bytes_are_no_key(token: bytes) -> None:
    assert kid(token) is None and KeyRing(PEPPER).find(token) is None


@given(RANDOM, RANDOM)
def test_the_digest_depends_on_pepper_and_key(one: bytes, other: bytes) -> None:
    first, second = mint(one, "inference").encode(), mint(other, "inference").encode()
    assert digest(first, PEPPER) != digest(first, b"q" * 32)
    assert (digest(first, PEPPER) == digest(second, PEPPER)) is (first == second)
    assert first not in digest(first, PEPPER) and len(digest(first, PEPPER)) == 32


@given(RANDOM)
def test_the_same_id_with_another_secret_fails(random: bytes) -> None:
    token = mint(random, "inference")
    other = mint(random[:10] + bytes((byte + 1) % 256 for byte in random[10:]), "inference")
    ring = KeyRing(PEPPER, [row(token)])
    assert ring.find(other.encode()) is None
    assert ring.knows(other.encode())


def test_a_revoked_key_is_gone() -> None:
    token = mint(bytes(42), "inference")
    ring = KeyRing(PEPPER, [row(token)])
    ring.replace([row(token, revoked=5)])
    assert ring.find(token.encode()) is None


def test_too_little_chance_is_refused() -> None:
    with pytest.raises(ValueError, match="42"):
        mint(bytes(41), "inference")
