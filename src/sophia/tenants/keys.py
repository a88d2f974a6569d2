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
_SHAPE = re.compile(rb"sk-sph-(?:admin-)?([0-9A-Za-z]{10})-([0-9A-Za-z]{32})-([0-9a-f]{8})")
Scope = Literal["inference", "admin"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: a key and its limits in nano-dollars; None means the configured default.

    `explores` says whether its requests may try out models that only may be better.
    """

    key_id: str
    name: str
    scope: Scope
    daily_budget_nano: int | None
    per_request_nano: int | None
    explores: bool = True


def mint(random: bytes, scope: Scope) -> str:
    """Make a key from 42 random bytes. Raises ValueError when there are fewer."""
    if len(random) < 42:
        raise ValueError("a key needs 42 random bytes")
    chars = "".join(_ALPHABET[byte % 62] for byte in random[:42])
    body = f"{'sk-sph-admin' if scope == 'admin' else 'sk-sph'}-{chars[:10]}-{chars[10:]}"
    return f"{body}-{zlib.crc32(body.encode()):08x}"


def kid(token: bytes) -> str | None:
    """Return the public id inside a well-formed key, or None."""
    match = _SHAPE.fullmatch(token)
    if match is None or int(match[3], 16) != zlib.crc32(token[:-9]):
        return None
    return match[1].decode()


def digest(token: bytes, pepper: bytes) -> bytes:
    """Return what is stored instead of the key."""
    return blake2b(token, key=pepper[:64], digest_size=32).digest()


class KeyRing:
    """The keys in force, looked up by public id and compared in constant time."""

    def __init__(self, pepper: bytes, rows: Iterable[KeyRow] = ()) -> None:
        self._pepper = pepper
        self._keys: dict[str, tuple[bytes, Principal]] = {}
        self._verified: dict[bytes, Principal] = {}
        self.replace(rows)

    def replace(self, rows: Iterable[KeyRow]) -> None:
        """Take `rows` as all there is; revoked keys stop working at once."""
        self._keys = {
            row.id: (
                row.digest,
                Principal(
                    row.id,
                    row.name,
                    row.scope,
                    row.daily_budget_nano,
                    row.per_request_nano,
                    bool(row.explores),
                ),
            )
            for row in rows
            if row.revoked_ms is None
        }
        self._verified.clear()

    def knows(self, token: bytes) -> bool:
        """Say whether the public id of `token` is among the keys."""
        return (kid(token) or "") in self._keys

    def find(self, token: bytes) -> Principal | None:
        """Return who `token` belongs to, or None; whole tokens found good are remembered."""
        principal = self._verified.get(token)
        if principal is not None:
            return principal
        found = self._keys.get(kid(token) or "")
        given = digest(token, self._pepper)
        if found is None or not hmac.compare_digest(found[0], given):
            return None
        self._verified[token] = found[1]
        return found[1]
