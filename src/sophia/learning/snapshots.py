"""Learned states as versions: named by their content, with a parent, and a way back.

A snapshot's id is the SHA-256 of everything it says, so an id is also its seal: bytes that were
changed, cut or mixed up do not have it. A history is a list of which snapshot was put into service
when; going back adds a line, and a line whose snapshot is no longer kept says so.
"""

import hashlib
from collections.abc import Iterator, Mapping

from msgspec import DecodeError, Struct, ValidationError, json, msgpack
from msgspec.structs import replace

MAGIC = b"sophia snapshot 1\n"
_DIGEST = 32
_DAY_MS = 86_400_000
_LEEWAY_MS = 3_600_000
"""A decision may be a little younger than the end of what it rests on."""


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


class Stint(Struct, frozen=True, omit_defaults=True):
    """One line of a history: from `at_ms` on, `id` was in service, because of `reason`.

    Attributes:
        of: the snapshot that was gone back to, whose knowledge this one holds again.
        amends: whether it is no step of its own: it knows what the one before it knew, and more
            models, or another way for keys to learn.
        gone: whether it is no longer kept.
    """

    id: str
    at_ms: int
    reason: str
    of: str | None = None
    amends: bool = False
    gone: bool = False


class Keeping(Struct, frozen=True):
    """How long snapshots are kept.

    Attributes:
        days: for which every decision can be made again.
        steps: to go back, kept however old they are.
    """

    days: float = 30.0
    steps: int = 20


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


def promote(history: History, stint: Stint) -> History:
    """Return the history with `stint` begun; unchanged when its snapshot is in service already."""
    return history if current(history) == stint.id else (*history, stint)


def target(history: History, to: str | None) -> Stint:
    """Return what to go back to: the kept stint whose id begins with `to`, or the step before.

    Steps are undone one by one: after going back, the step before is the one before that.
    Raises UnknownSnapshot when none or several begin so, or nothing was before, or it is not kept.
    """
    wanted = to
    if wanted is None:
        line = _line(history)
        if len(line) < 2:
            raise UnknownSnapshot("there was none before this one")
        wanted = line[-2]
    found = {step.id: step for step in history if step.id.startswith(wanted) and not step.gone}
    if len(found) != 1:
        what = "is no longer kept" if to is None else f"can mean {len(found)} snapshots"
        raise UnknownSnapshot(f"{wanted[:16]!r} {what}")
    return next(iter(found.values()))


def prune(history: History, keeping: Keeping, now_ms: int) -> History:
    """Return the history with those stints marked as gone that are not to be kept.

    Kept are the snapshots that decisions of the last days rest on, the last steps that one can go
    back to, and the last that were in service.
    """
    since = now_ms - keeping.days * _DAY_MS - _LEEWAY_MS
    ends = [*(step.at_ms for step in history[1:]), now_ms]
    kept = {step.id for step, end in zip(history, ends, strict=True) if end >= since}
    kept.update(_line(history)[-keeping.steps :])
    kept.update([step.id for step in history][-keeping.steps :])
    return tuple(
        step if step.gone or step.id in kept else replace(step, gone=True) for step in history
    )


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


def _line(history: History) -> list[str]:
    """Return the steps that led to what is in service; what was gone back behind is not on it."""
    line: list[str] = []
    for step in history:
        origin = step.of or step.id
        if step.of is not None and origin in line:
            del line[line.index(origin) + 1 :]
        elif step.amends and line:
            line[-1] = step.id
        else:
            line.append(origin)
    return line


def _body(snapshot: Snapshot) -> bytes:
    return msgpack.encode(snapshot, order="deterministic")
