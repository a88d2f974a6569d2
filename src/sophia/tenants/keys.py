"""API keys: `sk-sph-<kid>-<secret>-<check>`, kept only as keyed digests.

A secret carries 190 random bits, so a fast keyed hash is enough; the check lets a typo fail
without a look-up. Admin keys start with `sk-sph-admin-` and never work for inference.
"""

import hmac
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

from sophia.core.rows import KeyRow

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_KEY_PATTERN = re.compile(rb"sk-sph-(?:admin-)?([0-9A-Za-z]{10})-([0-9A-Za-z]{32})-([0-9a-f]{8})")
Scope = Literal["inference", "admin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The owner of a request: a key and its limits in nano-dollars, None for the default.

    `explores` allows its requests to try models of uncertain quality.
    """

    key_id: str
    name: str
    scope: Scope
    daily_budget_nano: int | None
    per_request_nano: int | None
    explores: bool = True


def generate_key(random: bytes, scope: Scope) -> str:
    """Return a new key made from 42 random bytes."""
    chars = "".join(_ALPHABET[byte % 62] for byte in random)
    body = f"{'sk-sph-admin' if scope == 'admin' else 'sk-sph'}-{chars[:10]}-{chars[10:]}"
    return f"{body}-{zlib.crc32(body.encode()):08x}"


def parse_key_id(token: bytes) -> str | None:
    """Return the public id in a well-formed key, or None."""
    match = _KEY_PATTERN.fullmatch(token)
    if match is None or int(match[3], 16) != zlib.crc32(token[:-9]):
        return None
    return match[1].decode()


def digest_key(token: bytes, pepper: bytes) -> bytes:
    """Return the keyed digest that is stored instead of the key."""
    return blake2b(token, key=pepper[:64], digest_size=32).digest()


class KeyRing:
    """The valid keys, looked up by public id and compared in constant time."""

    def __init__(self, pepper: bytes, rows: Iterable[KeyRow] = ()) -> None:
        self._pepper = pepper
        self._verified: dict[bytes, Principal] = {}
        self.replace(rows)

    def replace(self, rows: Iterable[KeyRow]) -> None:
        """Replace all keys; revoked ones stop working at once."""
        self._keys = {row.id: row for row in rows if row.revoked_ms is None}
        self._verified.clear()

    def authenticate(self, token: bytes) -> Principal | None:
        """Return the owner of `token`, or None; verified tokens are remembered."""
        principal = self._verified.get(token)
        if principal is not None:
            return principal
        row = self._keys.get(parse_key_id(token) or "")
        computed = digest_key(token, self._pepper)
        if row is None or not hmac.compare_digest(row.digest, computed):
            return None
        self._verified[token] = principal = Principal(
            key_id=row.id,
            name=row.name,
            scope=row.scope,
            daily_budget_nano=row.daily_budget_nano,
            per_request_nano=row.per_request_nano,
            explores=bool(row.explores),
        )
        return principal
