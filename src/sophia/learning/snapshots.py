"""Snapshots of the learned state, named by their content, and the history of those in service.

A snapshot's id is the SHA-256 of its content, so that damaged bytes are detected. A history lists
the snapshots in the order in which they were put into service; a rollback adds an entry.
"""

import hashlib

from msgspec import DecodeError, Struct, ValidationError, json, msgpack
from msgspec.structs import replace

MAGIC = b"sophia snapshot 1\n"
_DIGEST_BYTES = 32
_DAY_MS = 86_400_000
# A decision may be a little younger than the activation that replaced its snapshot.
_GRACE_MS = 3_600_000


class BrokenSnapshot(ValueError):
    """The snapshot or history cannot be read; roll back to another snapshot."""


class UnknownSnapshot(LookupError):
    """No such snapshot; `sophia policy history` lists them."""


class SnapshotConflict(Exception):
    """Another snapshot was put into service since this one's parent; nothing was changed."""


class Snapshot(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A policy's learned state, as bytes that the policy can restore, and its origin.

    `parent` is the id of the snapshot that learning went on from, `window` the first and last time
    of the decisions behind it; times are in milliseconds since 1970.
    """

    policy: str
    state: bytes
    created_ms: int
    parent: str | None = None
    window: tuple[int, int] = (0, 0)
    metrics: dict[str, float] = {}


class SnapshotActivation(
    Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename={"restores": "of", "amends_previous": "amends", "expired": "gone"},
):
    """One entry of a history: `id` is in service from `at_ms` on.

    Attributes:
        restores: the earlier snapshot whose state a rollback restored.
        amends_previous: whether it only adds models to the entry before, or changes how keys learn,
            so that a rollback skips it.
        expired: whether the snapshot is no longer kept.
    """

    id: str
    at_ms: int
    reason: str
    restores: str | None = None
    amends_previous: bool = False
    expired: bool = False


class SnapshotRetention(Struct, frozen=True):
    """Retention of snapshots: decisions of the last `days` can be replayed.

    The last `min_snapshots` rollback targets are kept whatever their age.
    """

    days: float = 30.0
    min_snapshots: int = 20


ActivationHistory = tuple[SnapshotActivation, ...]


def compute_snapshot_id(snapshot: Snapshot) -> str:
    """Return the snapshot's id: 64 hexadecimal digits."""
    return hashlib.sha256(_encode_body(snapshot)).hexdigest()


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Return the snapshot as bytes with their digest; equal snapshots give equal bytes."""
    body = _encode_body(snapshot)
    return MAGIC + hashlib.sha256(body).digest() + body


def decode_snapshot(blob: bytes, expected: str | None = None) -> Snapshot:
    """Return the snapshot in `blob`; its id must be `expected` unless that is None.

    Raises BrokenSnapshot when the bytes are damaged, or another snapshot's.
    """
    if not blob.startswith(MAGIC):
        raise BrokenSnapshot("this is no snapshot, or one of another version of Sophia")
    stored = blob[len(MAGIC) : len(MAGIC) + _DIGEST_BYTES]
    body = blob[len(MAGIC) + _DIGEST_BYTES :]
    digest = hashlib.sha256(body)
    if digest.digest() != stored:
        raise BrokenSnapshot("the snapshot was changed or cut after it was written")
    if expected is not None and digest.hexdigest() != expected:
        raise BrokenSnapshot(f"this is snapshot {digest.hexdigest()[:12]}, not {expected[:12]}")
    try:
        snapshot = msgpack.decode(body, type=Snapshot)
    except (DecodeError, ValidationError) as error:
        raise BrokenSnapshot(f"the snapshot cannot be read: {error}") from error
    if _encode_body(snapshot) != body:
        raise BrokenSnapshot("the snapshot is not in the form that Sophia writes")
    return snapshot


def active_snapshot_id(history: ActivationHistory) -> str | None:
    """Return the id in service, or None before the first."""
    return history[-1].id if history else None


def activate_snapshot(
    history: ActivationHistory, activation: SnapshotActivation
) -> ActivationHistory:
    """Return the history with `activation`; unchanged when its snapshot is in service already."""
    return history if active_snapshot_id(history) == activation.id else (*history, activation)


def find_rollback_target(history: ActivationHistory, id_prefix: str | None) -> SnapshotActivation:
    """Return the entry whose id begins with `id_prefix`, or the step before the current one.

    Repeated rollbacks undo one step each.

    Raises UnknownSnapshot when no or several ids match, there is no step before, or the snapshot
    is no longer kept.
    """
    prefix = id_prefix
    if prefix is None:
        lineage = _active_lineage(history)
        if len(lineage) < 2:
            raise UnknownSnapshot("there is no earlier snapshot")
        prefix = lineage[-2]
    matches = {step.id: step for step in history if step.id.startswith(prefix) and not step.expired}
    if len(matches) != 1:
        problem = "is no longer kept" if id_prefix is None else f"matches {len(matches)} snapshots"
        raise UnknownSnapshot(f"{prefix[:16]!r} {problem}")
    return next(iter(matches.values()))


def prune_snapshots(
    history: ActivationHistory, retention: SnapshotRetention, now_ms: int
) -> ActivationHistory:
    """Return the history with the entries marked as expired that need not be kept.

    The snapshots behind the decisions of the last days are kept, and the last rollback targets and
    entries.
    """
    since = now_ms - retention.days * _DAY_MS - _GRACE_MS
    ends = [*(step.at_ms for step in history[1:]), now_ms]
    kept = {step.id for step, end in zip(history, ends, strict=True) if end >= since}
    kept.update(_active_lineage(history)[-retention.min_snapshots :])
    kept.update([step.id for step in history][-retention.min_snapshots :])
    return tuple(
        step if step.expired or step.id in kept else replace(step, expired=True) for step in history
    )


def encode_history(history: ActivationHistory) -> bytes:
    """Return the history as indented JSON."""
    return json.format(json.encode(history), indent=1) + b"\n"


def decode_history(blob: bytes | None) -> ActivationHistory:
    """Return the history in `blob`, empty for None. Raises BrokenSnapshot when it is damaged."""
    try:
        return json.decode(blob, type=ActivationHistory) if blob else ()
    except (DecodeError, ValidationError) as error:
        raise BrokenSnapshot(f"the history of snapshots cannot be read: {error}") from error


def _active_lineage(history: ActivationHistory) -> list[str]:
    """Return the steps that led to the current snapshot, without those that were rolled back."""
    lineage: list[str] = []
    for step in history:
        origin = step.restores or step.id
        if step.restores is not None and origin in lineage:
            del lineage[lineage.index(origin) + 1 :]
        elif step.amends_previous and lineage:
            lineage[-1] = step.id
        else:
            lineage.append(origin)
    return lineage


def _encode_body(snapshot: Snapshot) -> bytes:
    return msgpack.encode(snapshot, order="deterministic")
