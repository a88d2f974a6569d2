"""Learned states as versions: named by their content, with a parent, and a way back.

A snapshot's id is the SHA-256 of everything it says, so an id is also its seal: bytes that were
changed, cut or mixed up do not have it. A history is a list of which snapshot was put into service
when; going back adds a line, nothing is ever rewritten.
"""

import hashlib
from collections.abc import Iterator, Mapping

from msgspec import DecodeError, Struct, ValidationError, json, msgpack

MAGIC = b"sophia snapshot 1\n"
_DIGEST = 32


class BrokenSnapshot(ValueError):
    """These bytes are not the snapshot that was written; load another one, or learn anew."""


class UnknownSnapshot(LookupError):
    """No snapshot of this id is known here; `sophia learn --list` names those that are."""


class Snapshot(Struct, frozen=True, forbid_unknown_fields=True):
    """A policy's learned state, and where it comes from.

    Attributes:
        policy: the name of the policy that can restore `state`.
        state: what its `snapshot()` returned.
        created_ms: when, in milliseconds since 1970.
        parent: the id of the snapshot that it was learned on from; None for a first one.
        window: the decisions it was learned from: from and until, in milliseconds since 1970.
        metrics: figures by name, as they were measured then.
    """

    policy: str
    state: bytes
    created_ms: int
    parent: str | None = None
    window: tuple[int, int] = (0, 0)
    metrics: dict[str, float] = {}


class Stint(Struct, frozen=True):
    """One line of a history: from `at_ms` on, `id` was in service, because of `reason`."""

    id: str
    at_ms: int
    reason: str


History = tuple[Stint, ...]


def identity(snapshot: Snapshot) -> str:
    """Return the snapshot's id: 64 hexadecimal digits."""
    return hashlib.sha256(_body(snapshot)).hexdigest()


def encode(snapshot: Snapshot) -> bytes:
    """Return the snapshot as bytes that carry their own seal; the same for the same content."""
    body = _body(snapshot)
    return MAGIC + hashlib.sha256(body).digest() + body


def decode(blob: bytes, expected: str | None = None) -> Snapshot:
    """Return the snapshot written in `blob`.

    Args:
        blob: what `encode` returned.
        expected: the id that it must have; None to trust the seal inside.

    Raises:
        BrokenSnapshot: the bytes are not whole, not unchanged, or another snapshot's.
    """
    if not blob.startswith(MAGIC):
        raise BrokenSnapshot("this is no snapshot, or one of another version of Sophia")
    seal = blob[len(MAGIC) : len(MAGIC) + _DIGEST]
    body = blob[len(MAGIC) + _DIGEST :]
    digest = hashlib.sha256(body)
    if digest.digest() != seal:
        raise BrokenSnapshot("the snapshot was changed or cut after it was written")
    if expected is not None and digest.hexdigest() != expected:
        raise BrokenSnapshot(f"this is snapshot {digest.hexdigest()[:12]}, not {expected[:12]}")
    try:
        snapshot = msgpack.decode(body, type=Snapshot)
    except (DecodeError, ValidationError) as error:
        raise BrokenSnapshot(f"the snapshot cannot be read: {error}") from error
    if _body(snapshot) != body:
        raise BrokenSnapshot("the snapshot is not written as Sophia writes it")
    return snapshot


def lineage(id: str, known: Mapping[str, Snapshot]) -> Iterator[Snapshot]:
    """Yield a snapshot and what it was learned on from, the youngest first, as far as is known.

    Raises UnknownSnapshot when not even `id` is.
    """
    if id not in known:
        raise UnknownSnapshot(id)
    at: str | None = id
    # A content hash cannot contain itself, so a line of parents has an end.
    while at is not None and at in known:
        yield known[at]
        at = known[at].parent


def current(history: History) -> str | None:
    """Return the id in service, or None before the first."""
    return history[-1].id if history else None


def promote(history: History, id: str, at_ms: int, reason: str) -> History:
    """Return the history with `id` in service from now on; unchanged when it is already."""
    if current(history) == id:
        return history
    return (*history, Stint(id, at_ms, reason))


def rollback(history: History, to: str | None, at_ms: int) -> History:
    """Return the history with `to` in service again, or with what was before the current one.

    Raises UnknownSnapshot when `to` never was in service, or there is nothing to go back to.
    """
    served = [line.id for line in history]
    if to is None:
        to = _before(history)
    if to is None or to not in served:
        raise UnknownSnapshot(to or "there was none before this one")
    return promote(history, to, at_ms, "rolled back")


def encode_history(history: History) -> bytes:
    """Return the history as JSON, for people to read as well."""
    return json.format(json.encode(history), indent=1) + b"\n"


def decode_history(blob: bytes | None) -> History:
    """Return the history written in `blob`; None for a folder that has none yet.

    Raises BrokenSnapshot when it cannot be read.
    """
    try:
        return json.decode(blob, type=History) if blob else ()
    except (DecodeError, ValidationError) as error:
        raise BrokenSnapshot(f"the history of snapshots cannot be read: {error}") from error


def _before(history: History) -> str | None:
    """Return what served before the current one; going back twice leads back twice as far."""
    line: list[str] = []
    for step in history:
        if step.reason == "rolled back" and step.id in line:
            del line[line.index(step.id) + 1 :]
        else:
            line.append(step.id)
    return line[-2] if len(line) > 1 else None


def _body(snapshot: Snapshot) -> bytes:
    return msgpack.encode(snapshot, order="deterministic")
