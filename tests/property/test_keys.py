"""API keys: any change of a single character fails, and only digests are kept."""

import string

from hypothesis import given
from hypothesis import strategies as st

from sophia.core.rows import KeyRow
from sophia.tenants.keys import KeyRing, digest_key, generate_key, parse_key_id

RANDOM = st.binary(min_size=42, max_size=42)
SCOPES = st.sampled_from(["inference", "admin"])
PEPPER = b"p" * 32


def row(token: str, scope: str = "inference", revoked: int | None = None) -> KeyRow:
    data = token.encode()
    return KeyRow(
        id=parse_key_id(data) or "",
        digest=digest_key(data, PEPPER),
        name="n",
        scope=scope,
        daily_budget_nano=1,
        per_request_nano=2,
        created_ms=3,
        revoked_ms=revoked,
    )  # type: ignore[arg-type]


@given(RANDOM, SCOPES)
def test_a_new_key_is_accepted(random: bytes, scope: str) -> None:
    token = generate_key(random, scope)  # type: ignore[arg-type]
    principal = KeyRing(PEPPER, [row(token, scope)]).authenticate(token.encode())
    assert principal is not None and principal.scope == scope
    assert token.startswith("sk-sph-admin-" if scope == "admin" else "sk-sph-")
    assert (principal.daily_budget_nano, principal.per_request_nano) == (1, 2)


@given(RANDOM, SCOPES, st.data())
def test_every_change_of_one_character_fails(
    random: bytes, scope: str, data: st.DataObject
) -> None:
    token = generate_key(random, scope)  # type: ignore[arg-type]
    ring = KeyRing(PEPPER, [row(token, scope)])
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from(string.printable).filter(lambda char: char != token[place]))
    wrong = (token[:place] + other + token[place + 1 :]).encode()
    assert parse_key_id(wrong) is None and ring.authenticate(wrong) is None
    for cut in (token[:place] + token[place + 1 :], token + other, other + token):
        assert ring.authenticate(cut.encode()) is None


@given(st.binary(max_size=80))
def test_any_bytes_are_no_key(token: bytes) -> None:
    assert parse_key_id(token) is None and KeyRing(PEPPER).authenticate(token) is None


@given(RANDOM, RANDOM)
def test_the_digest_depends_on_pepper_and_key(one: bytes, other: bytes) -> None:
    first, second = (
        generate_key(one, "inference").encode(),
        generate_key(other, "inference").encode(),
    )
    assert digest_key(first, PEPPER) != digest_key(first, b"q" * 32)
    assert (digest_key(first, PEPPER) == digest_key(second, PEPPER)) is (first == second)
    assert first not in digest_key(first, PEPPER) and len(digest_key(first, PEPPER)) == 32


@given(RANDOM)
def test_the_same_id_with_another_secret_fails(random: bytes) -> None:
    token = generate_key(random, "inference")
    other = generate_key(random[:10] + bytes((byte + 1) % 256 for byte in random[10:]), "inference")
    ring = KeyRing(PEPPER, [row(token)])
    assert ring.authenticate(other.encode()) is None
    assert parse_key_id(other.encode()) == parse_key_id(token.encode())


def test_a_revoked_key_is_gone() -> None:
    token = generate_key(bytes(42), "inference")
    ring = KeyRing(PEPPER, [row(token)])
    ring.replace([row(token, revoked=5)])
    assert ring.authenticate(token.encode()) is None
