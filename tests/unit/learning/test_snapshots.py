"""Snapshots: named by their content, refused when touched, and with a way back."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sophia.adapters.store.snapshots import SnapshotFolder
from sophia.learning.snapshots import (
    MAGIC,
    ActivationHistory,
    BrokenSnapshot,
    Snapshot,
    SnapshotActivation,
    SnapshotRetention,
    UnknownSnapshot,
    activate_snapshot,
    active_snapshot_id,
    compute_snapshot_id,
    decode_history,
    decode_snapshot,
    encode_history,
    encode_snapshot,
    find_rollback_target,
    prune_snapshots,
)

FIRST = Snapshot(
    policy="hierarchical",
    state=b"\x00state",
    created_ms=1_700_000_000_000,
    window=(5, 9),
    metrics={"b": 2.0, "a": 0.1},
)
SECOND = replace(FIRST, state=b"more", parent=compute_snapshot_id(FIRST))
THIRD = replace(SECOND, state=b"most", parent=compute_snapshot_id(SECOND))

snapshots = st.builds(
    Snapshot,
    policy=st.text(max_size=20),
    state=st.binary(max_size=200),
    created_ms=st.integers(0, 2**53),
    parent=st.none() | st.just(compute_snapshot_id(FIRST)),
    window=st.tuples(st.integers(0, 2**53), st.integers(0, 2**53)),
    metrics=st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False), max_size=4),
)


@given(snapshots)
def test_a_snapshot_is_read_as_written(snapshot: Snapshot) -> None:
    assert decode_snapshot(encode_snapshot(snapshot), compute_snapshot_id(snapshot)) == snapshot


@given(snapshots, st.data())
def test_any_changed_bit_is_detected(snapshot: Snapshot, data: st.DataObject) -> None:
    blob = bytearray(encode_snapshot(snapshot))
    place = data.draw(st.integers(0, len(blob) * 8 - 1))
    blob[place // 8] ^= 1 << place % 8
    with pytest.raises(BrokenSnapshot):
        decode_snapshot(bytes(blob))


@given(snapshots, st.data())
def test_any_cut_or_longer_blob_is_detected(snapshot: Snapshot, data: st.DataObject) -> None:
    blob = encode_snapshot(snapshot)
    with pytest.raises(BrokenSnapshot):
        decode_snapshot(blob[: data.draw(st.integers(0, len(blob) - 1))])
    with pytest.raises(BrokenSnapshot):
        decode_snapshot(blob + b"x")


def test_the_id_is_the_content() -> None:
    """The order of metrics does not matter; everything else does."""
    same = replace(FIRST, metrics={"a": 0.1, "b": 2.0})
    assert encode_snapshot(same) == encode_snapshot(FIRST)
    assert len(compute_snapshot_id(FIRST)) == 64
    others = [
        replace(FIRST, policy="x"),
        replace(FIRST, state=b"x"),
        replace(FIRST, created_ms=1),
        replace(FIRST, parent=compute_snapshot_id(FIRST)),
        replace(FIRST, window=(5, 8)),
        replace(FIRST, metrics={"a": 0.1}),
    ]
    assert len({compute_snapshot_id(snapshot) for snapshot in [FIRST, *others]}) == 7


def test_another_snapshot_under_this_id_is_refused() -> None:
    with pytest.raises(BrokenSnapshot, match=compute_snapshot_id(SECOND)[:12]):
        decode_snapshot(encode_snapshot(SECOND), compute_snapshot_id(FIRST))


def test_errors_name_the_problem() -> None:
    with pytest.raises(BrokenSnapshot, match="no snapshot"):
        decode_snapshot(b"PK\x03\x04")
    with pytest.raises(BrokenSnapshot, match="changed or cut"):
        decode_snapshot(encode_snapshot(FIRST)[:-1])
    with pytest.raises(BrokenSnapshot, match="cannot be read"):
        decode_snapshot(sealed(b"\xc1"))
    with pytest.raises(BrokenSnapshot, match="cannot be read"):
        decode_snapshot(sealed(b"\x80"))
    body = encode_snapshot(FIRST)[len(MAGIC) + 32 :]
    with pytest.raises(BrokenSnapshot):
        decode_snapshot(sealed(body + b"\x00"))


def sealed(body: bytes) -> bytes:
    import hashlib

    return MAGIC + hashlib.sha256(body).digest() + body


def activation(id: str, at_ms: int, reason: str = "better", **more: object) -> SnapshotActivation:
    return SnapshotActivation(id=id, at_ms=at_ms, reason=reason, **more)  # type: ignore[arg-type]


def after(history: ActivationHistory, *ids: str) -> ActivationHistory:
    """Return the history after these snapshots were put into service in turn."""
    for id in ids:
        history = activate_snapshot(history, activation(id, len(history)))
    return history


def back(history: ActivationHistory, to: str | None = None) -> ActivationHistory:
    """Return the history after a rollback: with a copy that has an id of its own."""
    goal = find_rollback_target(history, to)
    origin = goal.restores or goal.id
    return activate_snapshot(
        history, activation(f"{len(history)} is {goal.id}", len(history), "back", restores=origin)
    )


def restored(history: ActivationHistory) -> str:
    """Return the snapshot whose state is in service."""
    return history[-1].restores or history[-1].id


def test_a_history_is_added_to_and_goes_back_step_by_step() -> None:
    """Each rollback undoes one more step; a snapshot after a rollback is a step again."""
    history = after((), "a", "b", "c")
    assert active_snapshot_id(()) is None and active_snapshot_id(history) == "c"
    assert after(history, "c") == history
    once = back(history)
    assert once[:3] == history and restored(once) == "b"
    assert restored(back(once)) == "a"
    with pytest.raises(UnknownSnapshot, match="no earlier"):
        back(back(once))
    onwards = after(once, "d")
    assert restored(back(onwards)) == "b"
    assert restored(back(onwards, "c")) == "c"
    assert restored(back(back(onwards, "c"))) == "d"
    assert restored(back(after(back(onwards, "a"), "e"))) == "a"
    copy = active_snapshot_id(once)
    assert copy is not None and restored(back(onwards, copy)) == "b"
    for bad in ("z", ""):
        with pytest.raises(UnknownSnapshot, match="matches"):
            find_rollback_target(onwards, bad)
    for short in (history[:1], ()):
        with pytest.raises(UnknownSnapshot):
            find_rollback_target(short, None)


def test_an_amendment_is_no_step_of_its_own() -> None:
    """A rollback skips entries that only add models."""
    history = activate_snapshot(
        after((), "a", "b"), activation("b and more", 2, "new models", amends_previous=True)
    )
    assert restored(back(history)) == "a"
    gone_back = activate_snapshot(
        back(history), activation("a and more", 4, "new models", amends_previous=True)
    )
    with pytest.raises(UnknownSnapshot, match="no earlier"):
        find_rollback_target(gone_back, None)


def test_a_history_is_written_and_read() -> None:
    history = activate_snapshot(
        after((), "a", "b"),
        activation("c", 7, "x", restores="a", amends_previous=True, expired=True),
    )
    assert decode_history(encode_history(history)) == history
    assert decode_history(None) == ()
    with pytest.raises(BrokenSnapshot, match="history"):
        decode_history(encode_history(history)[:-9])


@given(st.lists(st.sampled_from("abcdef<"), max_size=20))
def test_rollbacks_undo_steps_like_a_stack(moves: list[str]) -> None:
    """A rollback leads to the last step that was not undone, whatever came before."""
    history: ActivationHistory = ()
    line: list[str] = []
    for number, move in enumerate(moves):
        if move != "<":
            history = after(history, f"{move}{number}")
            line.append(f"{move}{number}")
        elif len(line) > 1:
            history = back(history)
            line.pop()
        if line:
            assert restored(history) == line[-1]
    if len(line) <= 1:
        with pytest.raises(UnknownSnapshot):
            find_rollback_target(history, None)


DAY_MS = 86_400_000


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=30),
    st.integers(0, 20),
    st.integers(1, 5),
    st.lists(st.booleans(), max_size=5),
)
def test_no_snapshot_is_dropped_that_may_be_needed(
    ages: list[int], days: int, steps: int, backs: list[bool]
) -> None:
    """Kept are those of the last days, the last in service, and every rollback target."""
    now = 100 * DAY_MS
    history: ActivationHistory = ()
    for number, age in enumerate(sorted(ages, reverse=True)):
        history = activate_snapshot(history, activation(f"s{number}", now - age * DAY_MS))
    for back_now in backs:
        if back_now and len(history) > 1:
            try:
                history = back(history)
            except UnknownSnapshot:
                break
    history = tuple(replace(step, at_ms=now) if step.restores else step for step in history)
    pruned = prune_snapshots(history, SnapshotRetention(days, steps), now)
    assert [step.id for step in pruned] == [step.id for step in history]
    expired = {step.id for step in pruned if step.expired}
    ends = [*(step.at_ms for step in history[1:]), now]
    for step, end in zip(history, ends, strict=True):
        assert step.id not in expired or end < now - days * DAY_MS
    assert not expired & {step.id for step in history[-steps:]}
    undone = history
    for _ in range(steps - 1):
        try:
            goal = find_rollback_target(
                prune_snapshots(undone, SnapshotRetention(days, steps), now), None
            )
        except UnknownSnapshot as error:
            assert "no earlier" in str(error)
            break
        assert goal.id not in expired
        undone = back(undone)
    assert prune_snapshots(pruned, SnapshotRetention(days, steps), now) == pruned


def test_files_are_written_once_and_read_back(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path / "new" / "snapshots")
    assert folder.ids() == []
    assert folder.load(compute_snapshot_id(FIRST)) is None
    folder.save(compute_snapshot_id(FIRST), encode_snapshot(FIRST))
    folder.save(compute_snapshot_id(SECOND), encode_snapshot(SECOND))
    folder.save(compute_snapshot_id(FIRST), encode_snapshot(FIRST))
    assert folder.ids() == sorted([compute_snapshot_id(FIRST), compute_snapshot_id(SECOND)])
    blob = SnapshotFolder(tmp_path / "new" / "snapshots").load(compute_snapshot_id(FIRST))
    assert blob is not None
    assert decode_snapshot(blob, compute_snapshot_id(FIRST)) == FIRST
    folder.remove(compute_snapshot_id(FIRST))
    folder.remove(compute_snapshot_id(FIRST))
    assert folder.ids() == [compute_snapshot_id(SECOND)]


def test_a_broken_file_is_written_anew(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path)
    folder.save(compute_snapshot_id(FIRST), encode_snapshot(FIRST)[:9])
    folder.save(compute_snapshot_id(FIRST), encode_snapshot(FIRST))
    assert folder.load(compute_snapshot_id(FIRST)) == encode_snapshot(FIRST)


def test_the_history_is_replaced_whole(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path)
    assert folder.load_history() is None
    folder.save_history(b"one")
    folder.save_history(b"two")
    assert folder.load_history() == b"two"
    assert [file.name for file in tmp_path.iterdir()] == ["history"]


def test_a_write_that_fails_leaves_the_old_state(tmp_path: Path) -> None:
    """A disk that is full: the old history stands, and no scrap is left behind."""
    folder = SnapshotFolder(tmp_path)
    folder.save_history(b"one")
    with pytest.raises(TypeError):
        folder.save_history("text is no bytes")  # type: ignore[arg-type]
    assert folder.load_history() == b"one"
    assert [file.name for file in tmp_path.iterdir()] == ["history"]


def test_learned_states_are_for_their_owner_alone(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path)
    folder.save(compute_snapshot_id(FIRST), encode_snapshot(FIRST))
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("id", ["", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 65])
def test_an_id_leads_nowhere_else(tmp_path: Path, id: str) -> None:
    folder = SnapshotFolder(tmp_path)
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        folder.load(id)
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        folder.save(id, b"")
    (tmp_path / "stray.snapshot").write_bytes(b"")
    assert folder.ids() == []
